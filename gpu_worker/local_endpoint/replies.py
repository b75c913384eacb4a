"""What both faces share: error bodies, authorization, size limits, injected faults."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gpu_worker.local_endpoint.faults import FaultKind, Faults

logger = logging.getLogger(__name__)

Route = Callable[[Request], Awaitable[Response]]

_TOO_LARGE: Final = "bad request: body: exceeded max body size of {}MiB"


class CutConnection(Protocol):
    """Cuts the connection that a request came on."""

    def __call__(self, request: Request) -> None: ...


def problem(status: int, detail: str, *, retry_after: float | None = None) -> JSONResponse:
    """Returns an error body of the hosted service's shape: `status` is a number here, unlike a job's."""
    title = HTTPStatus(status).phrase
    headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return JSONResponse(
        {"status": status, "title": title, "detail": detail}, status_code=status, headers=headers
    )


async def http_problem(_request: Request, error: Exception) -> Response:
    """Turns an HTTPException (unknown path, wrong verb, our own) into a JSON error body."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail))


def is_authorized(request: Request, key: str) -> bool:
    """Tells whether the request carries the key, with or without "Bearer"."""
    sent = request.headers.get("authorization", "")
    scheme, _, rest = sent.partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else sent
    return hmac.compare_digest(token.encode(), key.encode())


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Returns the body; raises HTTPException 400 as soon as it is larger than `max_bytes`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(400, _TOO_LARGE.format(max_bytes // (1024 * 1024)))
    return bytes(body)


def with_faults(operation: str, route: Route, *, faults: Faults, cut: CutConnection) -> Route:
    """Wraps a route so that the faults that are switched on for `operation` strike it."""

    async def faulty(request: Request) -> Response:
        if fault := faults.strike(FaultKind.SLOW, on=operation):
            await asyncio.sleep(fault.seconds)
        if faults.strike(FaultKind.CUT, on=operation):
            cut(request)
            return Response(status_code=502)
        if fault := faults.strike(FaultKind.HTTP_STATUS, on=operation):
            await _pause_worker(operation)
            return problem(fault.http_status, "injected fault", retry_after=fault.retry_after)
        response = await route(request)
        if faults.strike(FaultKind.REPLY_LOST, on=operation):
            cut(request)
        return response

    return faulty


async def _pause_worker(operation: str) -> None:
    # The SDK repeats a refused job-take at once and without end: the pause keeps it from spinning.
    if operation in {"job-take", "job-take-batch", "job-stop"}:
        await asyncio.sleep(1.0)


async def until_disconnected(request: Request) -> None:
    """Returns when the client has closed its connection. The request's body must have been read."""
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except ClientDisconnect:
        return
