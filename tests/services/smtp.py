"""A mail server that keeps what it gets."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.services.processes import free_port, wait_until


class Mailbox:
    """Everything that was delivered, oldest first; `port` is where to deliver, `unknown` whom nothing reaches."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mails: list[EmailMessage] = []
        self.unknown: set[str] = set()

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Takes one recipient, or refuses it; aiosmtpd calls it."""
        if address in self.unknown:
            return "550 There is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Takes one mail; aiosmtpd calls it."""
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def mail_to(self, address: str, *, about: str = "", seconds: float = 20) -> EmailMessage:
        """Returns the newest mail to an address whose subject contains `about`; waits for it."""
        found = lambda: [m for m in self.mails if address in m["To"] and about in m["Subject"]]  # noqa: E731
        wait_until(
            found,
            seconds=seconds,
            otherwise=lambda: AssertionError(f"no mail to {address} about {about!r} in {seconds} s"),
        )
        return found()[-1]


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Runs the mail server."""
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def link_in(mail: EmailMessage) -> str:
    """Returns the first link in a mail's text."""
    body = mail.get_body(preferencelist=("plain", "html"))
    assert body is not None
    link = re.search(r"https?://[^\s<>\"']+", body.get_content())
    assert link is not None, body.get_content()
    return link.group()


def code_in(mail: EmailMessage) -> str:
    """Returns the code that a mail's subject begins with."""
    return str(mail["Subject"]).partition(" ")[0]
