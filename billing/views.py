"""The workspace's credits: statement, buying, automatic top-up; and Stripe's webhook."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from accounts import scope
from accounts.access import WorkspaceRequest, allowed, workspace_member
from accounts.permissions import Permission
from accounts.rate_limits import rate_limited
from billing import inbox, ledger, packs, purchases, references, statement, stripe_client
from billing.forms import CheckoutForm, StatementForm, TopUpForm
from billing.models import Purchase


@require_safe
@workspace_member
def credit_statement(request: WorkspaceRequest) -> HttpResponse:
    """Shows the balance and the movements that were asked for, newest first."""
    form = StatementForm(request.GET)
    entries = statement.entries(request.workspace, **form.filters)
    page = Paginator(entries, 50).get_page(request.GET.get("page"))
    rows = [(entry, references.address_of(request.workspace, entry.reference)) for entry in page]
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {
        "page": page,
        "rows": rows,
        "form": form,
        "debt": ledger.debt(request.workspace),
        "query": kept.urlencode(),
    }
    return render(request, "billing/credit_statement.html", context)


@require_safe
@workspace_member
def credit_statement_csv(request: WorkspaceRequest) -> HttpResponse:
    """Sends the same movements as a file for spreadsheets."""
    lines = statement.csv_lines(request.workspace, **StatementForm(request.GET).filters)
    name = f"credits-{request.workspace.slug}-{timezone.now():%Y-%m-%d}.csv"
    return HttpResponse(
        lines, content_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


# --- Buying -------------------------------------------------------------------------------------------------


@require_safe
@workspace_member
def credit_buy(request: WorkspaceRequest) -> HttpResponse:
    """Shows what can be bought, or what is missing before anything can."""
    return render(request, "billing/credit_buy.html", _buy_context(request))


def _buy_context(request: WorkspaceRequest, form: TopUpForm | None = None) -> dict[str, object]:
    on_sale = packs.on_sale()
    asked = request.GET.get("missing", "")
    # Python reads no number of thousands of digits.
    missing = int(asked) if asked.isdecimal() and len(asked) < 10 else 0
    return {
        "packs": on_sale,
        "fitting": packs.smallest_covering(on_sale, missing) if missing else None,
        "missing": missing,
        "next": _safe_path(request.GET.get("next", "")),
        "missing_settings": stripe_client.missing_settings(),
        "account": purchases.account_of(request.workspace),
        "form": form or TopUpForm(instance=purchases.account_of(request.workspace)),
        "debt": ledger.debt(request.workspace),
    }


def _safe_path(path: str) -> str:
    """Returns a path of this site, or nothing: who comes back from paying is not sent elsewhere."""
    return path if path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None) else ""


@require_POST
@allowed(Permission.BUY)
@rate_limited("submit")
def credit_checkout(request: WorkspaceRequest) -> HttpResponse:
    """Begins a purchase and sends the browser to Stripe's page for it."""
    form = CheckoutForm(request.POST)
    if not form.is_valid() or not stripe_client.is_configured():
        messages.error(request, _("This cannot be bought at the moment."))
        return redirect("credit-buy", slug=request.workspace.slug)
    try:
        address = purchases.begin_checkout(
            workspace=request.workspace,
            user=request.user,
            pack=form.cleaned_data["pack"],
            return_path=_safe_path(form.cleaned_data["next"]),
        )
    except stripe_client.StripeProblem:
        messages.error(request, _("The payment service does not answer. Please try again in a minute."))
        return redirect("credit-buy", slug=request.workspace.slug)
    return redirect(address)


@require_safe
@workspace_member
def purchase_detail(request: WorkspaceRequest, purchase_id: UUID) -> HttpResponse:
    """Shows a purchase. Who comes from paying goes on to where they were, with the credits on the account."""
    purchase = get_object_or_404(Purchase.objects.for_workspace(request.workspace), pk=purchase_id)
    if purchase.status in Purchase.PENDING:
        _look_at_stripe(request, purchase)
        purchase.refresh_from_db()
        if purchase.status == Purchase.Status.PAID and purchase.return_path:
            messages.success(request, _("%(n)s credits were added.") % {"n": purchase.total_credits})
            return redirect(purchase.return_path)
    is_waiting = purchase.status in Purchase.PENDING
    return render(request, "billing/purchase_detail.html", {"purchase": purchase, "is_waiting": is_waiting})


def _look_at_stripe(request: WorkspaceRequest, purchase: Purchase) -> None:
    """Asks Stripe at once: the webhook may need a moment longer than the browser."""
    if not (stripe_client.is_configured() and purchase.stripe_session_id):
        return
    try:
        purchases.refresh(purchase)
    except stripe_client.StripeProblem:
        messages.info(
            request, _("The payment service does not answer. Your credits arrive as soon as it does.")
        )


@require_POST
@allowed(Permission.BUY)
def credit_portal(request: WorkspaceRequest) -> HttpResponse:
    """Sends the browser to Stripe's pages for cards, tax ids and invoices."""
    back = request.build_absolute_uri(request.workspace.get_absolute_url())
    account = purchases.account_of(request.workspace)
    if not (stripe_client.is_configured() and account.stripe_customer_id):
        messages.info(request, _("Your cards and invoices are there after your first purchase."))
        return redirect("credit-buy", slug=request.workspace.slug)
    try:
        return redirect(stripe_client.portal_url(customer_id=account.stripe_customer_id, return_url=back))
    except stripe_client.StripeProblem:
        messages.error(request, _("The payment service does not answer. Please try again in a minute."))
        return redirect("credit-buy", slug=request.workspace.slug)


@require_POST
@allowed(Permission.BUY)
def top_up_update(request: WorkspaceRequest) -> HttpResponse:
    """Saves automatic top-up and the mark of the low-balance mail."""
    form = TopUpForm(request.POST, instance=purchases.account_of(request.workspace))
    if not form.is_valid():
        return render(request, "billing/credit_buy.html", _buy_context(request, form), status=422)
    purchases.save_top_up(form.save(commit=False), ceiling_cents=form.cleaned_data["ceiling_dollars"] * 100)
    messages.success(request, _("Your settings are saved."))
    return redirect("credit-buy", slug=request.workspace.slug)


# --- Webhook ------------------------------------------------------------------------------------------------


@require_POST
@csrf_exempt
@login_not_required
@scope.sees_everything
def stripe_webhook(request: HttpRequest) -> HttpResponse:
    """Stores what Stripe sends; its signature is its ticket."""
    try:
        inbox.receive(request.body, request.headers.get("Stripe-Signature", ""))
    except stripe_client.BadSignature:
        return HttpResponse(status=400)
    return HttpResponse(status=200)
