"""The twin's addresses: Stripe's API, and the page on which people pay."""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any
from urllib.parse import parse_qsl

import stripe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from stripe import params as p
from stripe.params.billing_portal import SessionCreateParams as PortalParams
from stripe.params.checkout import SessionCreateParams, SessionRetrieveParams

from tests.stripe_twin.books import Books, Refused, Thing
from tests.stripe_twin.shapes import NotInTheApi, check_request, decoded, honest

Act = Callable[[Books, dict[str, Any], dict[str, str]], Thing]


def application(books: Books, *, key: str) -> Starlette:
    """Returns the twin as an ASGI application that asks for this API key."""
    routes = [_route(books, key, method, path, shape, act) for method, path, shape, act in ADDRESSES]
    pages = [
        Route("/pay/{id}", _page(books, _show_payment), methods=["GET"]),
        Route("/pay/{id}", _page(books, _take_payment), methods=["POST"]),
        Route("/portal/{id}", _page(books, _show_portal)),
        Route("/receipts/{id}", _page(books, _show_receipt)),
        Route("/invoices/{id}", _page(books, _show_receipt)),
    ]
    return Starlette(routes=[*routes, *pages])


def _route(books: Books, key: str, method: str, path: str, shape: type, act: Act) -> Route:
    kept = books.answers

    async def endpoint(request: Request) -> Response:
        sent = decoded(await _pairs(request))
        idempotency_key = request.headers.get("idempotency-key", "") if method == "POST" else ""
        if idempotency_key in kept and idempotency_key:
            first, response = kept[idempotency_key]
            if first != sent:
                return _error(400, "idempotency_error", "Keys can only be used with the same parameters.")
            return response
        if request.headers.get("authorization") != f"Bearer {key}":
            return _error(401, "invalid_request_error", "Invalid API Key provided.")
        try:
            check_request(sent, shape)
            answer: Response = JSONResponse(act(books, sent, dict(request.path_params)))
        except NotInTheApi as exc:
            return _error(400, "invalid_request_error", str(exc))
        except Refused as exc:
            answer = JSONResponse(exc.body, status_code=exc.status)
        if idempotency_key:
            kept[idempotency_key] = (sent, answer)
        return answer

    return Route(path, endpoint, methods=[method])


async def _pairs(request: Request) -> list[tuple[str, str]]:
    body = (await request.body()).decode() if request.method == "POST" else request.url.query
    return parse_qsl(body, keep_blank_values=True)


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse(Refused(status, kind, message).body, status_code=status)


# --- The API ------------------------------------------------------------------------------------------------


def _create_customer(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    return books.add(
        stripe.Customer, "cus", invoice_settings={"default_payment_method": None}, **{"metadata": {}, **sent}
    )


def _create_product(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    return books.add(stripe.Product, "prod", **{"metadata": {}, **sent, "active": _flag(sent["active"])})


def _create_price(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    books.get(sent["product"])
    values = {"metadata": {}, "active": True, "type": "one_time", **sent}
    return books.add(stripe.Price, "price", **{**values, "unit_amount": int(sent["unit_amount"])})


def _update(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    thing = books.get(path["id"])
    thing.update({name: _flag(value) if name == "active" else value for name, value in sent.items()})
    return thing


def _flag(value: str) -> bool:
    return value.lower() == "true"


def _retrieve(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    return _expanded(books, books.get(path["id"]), sent.get("expand", []))


def _expanded(books: Books, thing: Thing, fields: list[str]) -> Thing:
    copy = deepcopy(thing)
    for field in fields:
        if copy.get(field):
            copy[field] = deepcopy(books.get(copy[field]))
    return copy


def _list(books: Books, things: list[Thing], sent: dict[str, Any], path: str) -> Thing:
    if after := sent.get("starting_after"):
        ids = [thing["id"] for thing in things]
        things = things[ids.index(after) + 1 :]
    limit = int(sent.get("limit", 10))
    fields = [field.removeprefix("data.") for field in sent.get("expand", [])]
    page = [_expanded(books, thing, fields) for thing in things[:limit]]
    return {"object": "list", "url": path, "has_more": len(things) > limit, "data": page}


def _list_cards(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    cards = [card for card in books.all("payment_method") if card["customer"] == path["id"]]
    return _list(books, cards, sent, f"/v1/customers/{path['id']}/payment_methods")


def _list_payments(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    since = int(sent.get("created", {}).get("gte", 0))
    payments = [payment for payment in books.all("payment_intent") if payment["created"] >= since]
    return _list(books, payments, sent, "/v1/payment_intents")


def _list_disputes(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    disputes = [d for d in books.all("dispute") if d["payment_intent"] == sent["payment_intent"]]
    return _list(books, disputes, sent, "/v1/disputes")


def _create_session(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    [item] = sent["line_items"]
    price = books.get(item["price"])
    if not price["active"]:
        raise Refused(400, "invalid_request_error", "The price specified is inactive.")
    books.get(sent["customer"])
    if "tax_id_collection" in sent and sent.get("customer_update", {}).get("name") != "auto":
        raise Refused(
            400, "invalid_request_error", "Tax ID collection requires customer_update[name] = auto."
        )
    session = books.add(
        stripe.checkout.Session,
        "cs_test",
        amount_total=price["unit_amount"] * int(item["quantity"]),
        cancel_url=sent["cancel_url"],
        client_reference_id=sent["client_reference_id"],
        currency=price["currency"],
        customer=sent["customer"],
        invoice=None,
        metadata=sent["metadata"],
        mode=sent["mode"],
        payment_intent=None,
        payment_status="unpaid",
        status="open",
        success_url=sent["success_url"],
        url="",
    )
    session["url"] = f"{books.url}/pay/{session['id']}"
    return session


def _create_payment(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    number = books.cards[books.get(sent["payment_method"])["id"]]
    payment = books.payment(
        amount=int(sent["amount"]),
        currency=sent["currency"],
        customer=sent["customer"],
        metadata=sent["metadata"],
    )
    payment["payment_method"] = sent["payment_method"]
    books.charge(payment, number)
    return _expanded(books, payment, sent.get("expand", []))


def _create_portal(books: Books, sent: dict[str, Any], path: dict[str, str]) -> Thing:
    session = books.add(
        stripe.billing_portal.Session,
        "bps",
        customer=books.get(sent["customer"])["id"],
        return_url=sent["return_url"],
        url="",
    )
    session["url"] = f"{books.url}/portal/{session['id']}"
    return honest(stripe.billing_portal.Session, session)


ADDRESSES: list[tuple[str, str, type, Act]] = [
    ("POST", "/v1/customers", p.CustomerCreateParams, _create_customer),
    ("GET", "/v1/customers/{id}", p.CustomerRetrieveParams, _retrieve),
    ("GET", "/v1/customers/{id}/payment_methods", p.CustomerPaymentMethodListParams, _list_cards),
    ("POST", "/v1/products", p.ProductCreateParams, _create_product),
    ("POST", "/v1/products/{id}", p.ProductUpdateParams, _update),
    ("POST", "/v1/prices", p.PriceCreateParams, _create_price),
    ("POST", "/v1/prices/{id}", p.PriceUpdateParams, _update),
    ("POST", "/v1/checkout/sessions", SessionCreateParams, _create_session),
    ("GET", "/v1/checkout/sessions/{id}", SessionRetrieveParams, _retrieve),
    ("POST", "/v1/payment_intents", p.PaymentIntentCreateParams, _create_payment),
    ("GET", "/v1/payment_intents", p.PaymentIntentListParams, _list_payments),
    ("GET", "/v1/payment_intents/{id}", p.PaymentIntentRetrieveParams, _retrieve),
    ("GET", "/v1/disputes", p.DisputeListParams, _list_disputes),
    ("POST", "/v1/billing_portal/sessions", PortalParams, _create_portal),
]


# --- Pages --------------------------------------------------------------------------------------------------


def _page(
    books: Books, show: Callable[[Books, Thing, dict[str, str]], Response]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        sent = dict(await _pairs(request)) if request.method == "POST" else {}
        return show(books, books.get(request.path_params["id"]), sent)

    return endpoint


def _document(title: str, body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<link rel=icon href=data:,><main><h1>{title}</h1>{body}</main>",
        status_code=status,
    )


def _show_payment(books: Books, session: Thing, sent: dict[str, str], problem: str = "") -> Response:
    body = (
        f"<p role=alert>{html.escape(problem)}</p><p>{session['amount_total']} {session['currency']}</p>"
        "<form method=post><label>Card <input name=card></label> <button>Pay</button></form>"
        f"<a href='{html.escape(session['cancel_url'])}'>Back</a>"
    )
    return _document("Pay", body)


def _take_payment(books: Books, session: Thing, sent: dict[str, str]) -> Response:
    outcome = books.pay_checkout(session, sent["card"].replace(" ", ""))
    if outcome == "declined":
        return _show_payment(books, session, sent, "Your card was declined.")
    return RedirectResponse(session["success_url"], status_code=303)


def _show_portal(books: Books, session: Thing, sent: dict[str, str]) -> Response:
    return _document("Your cards and invoices", f"<a href='{html.escape(session['return_url'])}'>Return</a>")


def _show_receipt(books: Books, thing: Thing, sent: dict[str, str]) -> Response:
    return _document("Receipt", f"<pre>{html.escape(json.dumps(thing))}</pre>")
