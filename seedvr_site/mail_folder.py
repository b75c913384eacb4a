"""Mail on a machine without a mail server: each message becomes a file that mail programs open."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    """Writes each message to `<MAIL_DIR>/<moment>-<id>.eml`; names sort by time."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Writes the messages; returns how many."""
        folder = Path(settings.MAIL_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
            unfinished = folder / f"{name}.part"
            unfinished.write_bytes(message.message().as_bytes())
            # Whoever lists the folder sees whole messages only.
            unfinished.replace(folder / f"{name}.eml")
        return len(email_messages)
