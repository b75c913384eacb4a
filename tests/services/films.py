"""A site on the internet that has films: HTTPS with a certificate of the tests' own, ranges, and a bad line on demand.

Ranges and validators are Starlette's: what asks for the rest of a file is not judged by what it was written with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tests.certificates import certificate_for_loopback
from tests.services.processes import free_port
from tests.services.web import served

#: What the product needs to be told to call this machine: its settings, and whose certificates to believe.
SETTINGS: Final = "tests.services.importing_settings"


@dataclass(slots=True)
class Call:
    """One request: which bytes were asked for, and how many were sent."""

    path: str
    range: str
    if_range: str
    num_bytes_sent: int = 0


@dataclass(slots=True)
class Films:
    """The site: what it has, who called, and what goes wrong with the next answers."""

    folder: Path
    url: str
    authority: Path
    calls: list[Call] = field(default_factory=list)
    #: After so many bytes the line breaks, or is silent until `go_on`.
    breaks_after: int | None = None
    waits_after: int | None = None
    knows_ranges: bool = True
    #: Signatures of links have run out.
    has_expired: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Lets a product import from here."""
        return {"DJANGO_SETTINGS_MODULE": SETTINGS, "SSL_CERT_FILE": str(self.authority)}

    def publish(self, name: str, content: bytes) -> str:
        """Puts a film there, in place of one of this name, and returns its link."""
        (self.folder / name).write_bytes(content)
        return f"{self.url}/{quote(name)}?signature=secret"

    def go_on(self) -> None:
        """Ends all trouble."""
        self.breaks_after = self.waits_after = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        asked = request.headers
        call = Call(scope["path"], asked.get("range", ""), asked.get("if-range", ""))
        self.calls.append(call)
        if not self.knows_ranges:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]

        async def send_over_the_line(message: Message) -> None:
            if body := message.get("body"):
                await self._over_the_line(call, len(body))
                call.num_bytes_sent += len(body)
            await send(message)

        file = self.folder / Path(scope["path"]).name
        answer = FileResponse(file) if file.is_file() else Response(status_code=404)
        if self.has_expired:
            answer = Response("<Error><Code>AccessDenied</Code></Error>", status_code=403)
        await answer(scope, receive, send_over_the_line)

    async def _over_the_line(self, call: Call, num_bytes: int) -> None:
        if self.breaks_after is not None and call.num_bytes_sent + num_bytes > self.breaks_after:
            raise ConnectionResetError("the line is broken")
        # The test that ends the wait runs in another thread.
        while self.waits_after is not None and call.num_bytes_sent + num_bytes > self.waits_after:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextmanager
def films(folder: Path) -> Iterator[Films]:
    """Runs the site until the block ends."""
    content = folder / "films"
    content.mkdir()
    authority, chain = certificate_for_loopback(folder, name="localhost")
    port = free_port()
    site = Films(content, f"https://localhost:{port}", authority)
    with served(site, port=port, log_level="critical", ssl_certfile=chain, timeout_graceful_shutdown=1):
        try:
            yield site
        finally:
            site.go_on()
