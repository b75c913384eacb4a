"""What a person sees of the product at work: a line for each mail, and warnings and errors of the logs."""

from __future__ import annotations

import email
import email.policy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ALARM: Final = re.compile(r"\b(WARN|WARNING|ERROR|CRITICAL)\b|^Traceback ")
_LINK: Final = re.compile(r"https?://[^\s<>\"']+")
#: A part that fails in a loop fills its log; the terminal shows this much of each look at it.
_MANY_LINES: Final = 5


def say(line: str) -> None:
    """Prints one line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class LogWatch:
    """Follows one part's log and finds the lines that a person should see."""

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._position = 0

    def news(self) -> Iterator[str]:
        """Yields the warnings and errors since the last call, a few of them."""
        alarms = [line for line in self._new_lines() if _ALARM.search(line)]
        for line in alarms[:_MANY_LINES]:
            yield f"{self._name}: {line}"
        if len(alarms) > _MANY_LINES:
            yield f"{self._name}: {len(alarms) - _MANY_LINES} more in {self._log}"

    def _new_lines(self) -> list[str]:
        if not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(self._position)
            fresh = log.read()
        # A line that is still being written waits for the next look.
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole.decode(errors="replace").splitlines()


class MailWatch:
    """Finds mails that the site wrote into a folder since the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = set(self._files())

    def news(self) -> Iterator[str]:
        """Yields one line for each new mail: to whom, what about, and its link."""
        for path in self._files():
            if path not in self._seen:
                self._seen.add(path)
                yield describe_mail(path.read_bytes())

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.eml"))


def describe_mail(content: bytes) -> str:
    """Returns a mail in one line, such as `Mail to ada@example.com: Confirm your address -> http://...`."""
    mail = email.message_from_bytes(content, policy=email.policy.default)
    body = mail.get_body(preferencelist=("plain", "html"))
    link = _LINK.search(body.get_content()) if body else None
    return f"Mail to {mail['To']}: {mail['Subject']}" + (f" -> {link.group()}" if link else "")


def rotate(log: Path) -> None:
    """Keeps the last run's log beside a new, empty one."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
