"""Fetches one file from an address of a stranger's choice.

The name is looked up once, every address that it has is checked, and the connection goes to a checked one: an answer
that changes between check and use (DNS rebinding) changes nothing. Redirects begin anew, with the same checks, and so
does a request for the rest of a file of which a part is here already. Built on httpcore's network backends, the
maintained place for this: what connects is replaced, HTTP and TLS are not.
"""

from __future__ import annotations

import email.message
import email.utils
import re
import socket
import ssl
import string
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import httpcore

from restorations.links.problems import LinkRefused, Problem

MAX_LINK_CHARACTERS: Final = 4000
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS: Final = 10.0
_PAGES: Final = ("text/html", "application/xhtml")
#: Below this, over so many seconds, a connection is a drip; heads of answers are held to it as well.
_MIN_BYTES_A_SECOND: Final = 8 * 1024
_PACE_SECONDS: Final = 30.0
#: Where in the file the bytes of an answer lie, and how long the file is.
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_LONGEST_VALIDATOR: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What may be called. `look_up` and `pace_seconds` are the system's own but in tests."""

    is_allowed: Callable[[str], bool]
    max_bytes: int
    schemes: tuple[str, ...] = ("https",)
    look_up: Callable[[str, int], list[str]] | None = None
    pace_seconds: float = _PACE_SECONDS
    #: A file that takes longer is not waited for.
    max_seconds: float = 55 * 60


@dataclass(frozen=True, slots=True)
class Held:
    """What is here of a file: its first bytes, how many it has in all, and what the site calls this state of it."""

    num_bytes: int
    announced: int | None
    validator: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """An answer that may be a video: its name, the file's bytes as announced, and those from `start` on.

    With `validator` the rest can be asked for later; it is empty where the site gives nothing to go by.
    """

    file_name: str
    announced: int | None
    chunks: Iterator[bytes]
    start: int = 0
    validator: str = ""


def checked(link: str, rules: Rules) -> SplitResult:
    """Returns a link's parts; raises `LinkRefused` for what is no link to a public site."""
    try:
        parts = urlsplit(link.strip())
        port, host = parts.port, parts.hostname
    except ValueError:
        raise LinkRefused(Problem.NOT_A_LINK) from None
    if parts.scheme and parts.scheme not in rules.schemes:
        raise LinkRefused(Problem.NOT_HTTPS)
    if len(link) > MAX_LINK_CHARACTERS or not host or any(ord(letter) < 33 for letter in link.strip()):
        raise LinkRefused(Problem.NOT_A_LINK)
    if not parts.scheme:
        raise LinkRefused(Problem.NOT_A_LINK)
    # A password in a link would have to be kept; ports of other services are no place for videos.
    if parts.username or parts.password or (port is not None and port != 443 and port < 1024):
        raise LinkRefused(Problem.NOT_A_LINK)
    return parts


@contextmanager
def fetch(link: str, rules: Rules, held: Held | None = None) -> Iterator[Fetched]:
    """Calls a link and gives its answer, whose bytes come as they are read. Raises `LinkRefused`, then and while
    they are read.

    Of a file that is `held` in part only the rest is asked for. `start` says where the answer begins: at 0 again where
    the site has another file there by now, or knows no ranges.
    """
    if held is not None:
        with _called(link, rules, held) as fetched:
            if fetched is not None:
                yield fetched
                return
    with _called(link, rules, None) as fetched:
        if fetched is None:
            raise LinkRefused(Problem.UNREACHABLE)
        yield fetched


@contextmanager
def _called(link: str, rules: Rules, held: Held | None) -> Iterator[Fetched | None]:
    """Gives the answer behind all redirects; None for one that has no place in the file."""
    for _ in range(_MAX_REDIRECTS + 1):
        checked(link, rules)
        pace = _Pace(rules)
        with (
            _problems(),
            httpcore.ConnectionPool(
                ssl_context=ssl.create_default_context(), network_backend=_GuardedBackend(rules, pace)
            ) as pool,
            _request(pool, link, held) as answer,
        ):
            if answer.status not in _REDIRECTS:
                yield _fetched(link, answer, rules, held)
                return
            link = _next(link, answer)
    raise LinkRefused(Problem.REDIRECTS)


def _next(link: str, answer: httpcore.Response) -> str:
    """Returns where a redirect leads. Letters that came as they are go back as the same bytes, as from browsers."""
    location = quote(_head(answer, b"location").encode("latin-1"), safe=string.punctuation)
    try:
        return urljoin(link, location)
    except ValueError:
        raise LinkRefused(Problem.NOT_A_LINK) from None


def _request(pool: httpcore.ConnectionPool, link: str, held: Held | None) -> Any:
    url = httpcore.URL(link.strip().encode("ascii", "strict") if link.isascii() else _encoded(link))
    timeout = {"connect": _CONNECT_SECONDS, "read": _PACE_SECONDS, "write": _CONNECT_SECONDS, "pool": 5.0}
    headers: dict[bytes | str, bytes | str] = {
        "User-Agent": "video-import",
        "Accept": "video/*, image/*, application/octet-stream, */*;q=0.1",
        "Accept-Encoding": "identity",
    }
    if held is not None:
        # A site that has another file there by now sends that one whole.
        headers |= {"Range": f"bytes={held.num_bytes}-", "If-Range": held.validator}
    return pool.stream("GET", url, headers=headers, extensions={"timeout": timeout})


def _encoded(link: str) -> bytes:
    """Returns a link with letters of other alphabets as browsers send it."""
    parts = urlsplit(link.strip())
    host = (parts.hostname or "").encode("idna").decode()
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    safe = "/%:=&?~#+!$,;'@()*[]"
    replaced = parts._replace(netloc=netloc, path=quote(parts.path, safe), query=quote(parts.query, safe))
    return replaced.geturl().encode()


def _fetched(link: str, answer: httpcore.Response, rules: Rules, held: Held | None) -> Fetched | None:
    _check_status(answer.status, held)
    if _head(answer, b"content-encoding").lower() not in ("", "identity"):
        raise LinkRefused(Problem.ENCODED)
    if _head(answer, b"content-type").lower().startswith(_PAGES):
        raise LinkRefused(Problem.WEB_PAGE)
    start, validator = 0, _validator(answer)
    length = _head(answer, b"content-length")
    announced = int(length) if length.isdecimal() else None
    if answer.status != 200:
        if held is None or not _is_the_rest(answer, held):
            return None
        start, announced, validator = held.num_bytes, held.announced, held.validator
    if announced == 0:
        raise LinkRefused(Problem.EMPTY)
    if announced is not None and announced > rules.max_bytes:
        raise LinkRefused(Problem.TOO_LARGE)
    return Fetched(
        file_name=_file_name(link, _head(answer, b"content-disposition")),
        announced=announced,
        chunks=_chunks(answer.iter_stream(), rules.max_bytes, start=start, announced=announced),
        start=start,
        validator=validator,
    )


def _check_status(status: int, held: Held | None) -> None:
    """Raises `LinkRefused` unless a file comes, or an answer to the request for the rest of one."""
    if status == 200 or (held is not None and status in (206, 416)):
        return
    if status in (404, 410):
        raise LinkRefused(Problem.NOT_FOUND)
    if 400 <= status < 500 and status not in (408, 425, 429):
        # Storages answer 400, 401 or 403 to a signature whose time is over.
        raise LinkRefused(Problem.FORBIDDEN if held is None else Problem.EXPIRED)
    raise LinkRefused(Problem.UNREACHABLE)


def _is_the_rest(answer: httpcore.Response, held: Held) -> bool:
    """Returns whether an answer goes on where the held bytes end, in the same state of the same file."""
    found = _CONTENT_RANGE.fullmatch(_head(answer, b"content-range"))
    if answer.status != 206 or found is None or int(found[1]) != held.num_bytes:
        return False
    if held.announced is not None and found[3] not in ("*", str(held.announced)):
        return False
    return _validator(answer) in ("", held.validator)


def _validator(answer: httpcore.Response) -> str:
    """Returns what names exactly this state of a file: a strong ETag, or a date that is old enough to be one."""
    etag = _head(answer, b"etag")
    if etag:
        return etag if etag.startswith('"') and len(etag) <= _LONGEST_VALIDATOR else ""
    changed, sent = _head(answer, b"last-modified"), _head(answer, b"date")
    try:
        # A file that changes twice in one second keeps its date.
        age = email.utils.parsedate_to_datetime(sent) - email.utils.parsedate_to_datetime(changed)
    except (ValueError, TypeError):
        return ""
    return changed if age >= timedelta(seconds=1) else ""


def _chunks(stream: Iterable[bytes], max_bytes: int, *, start: int, announced: int | None) -> Iterator[bytes]:
    num_bytes = start
    with _problems():
        for chunk in stream:
            if not num_bytes and chunk[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                raise LinkRefused(Problem.WEB_PAGE)
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise LinkRefused(Problem.TOO_LARGE)
            yield chunk
    if not num_bytes:
        raise LinkRefused(Problem.EMPTY)
    # A range may end before the file does.
    if announced is not None and num_bytes != announced:
        raise LinkRefused(Problem.BROKEN_OFF)


def _head(answer: httpcore.Response, name: bytes) -> str:
    found = [value for key, value in answer.headers if key.lower() == name]
    return found[0].decode("latin-1").strip() if found else ""


def _file_name(link: str, disposition: str) -> str:
    """Returns the name that the site gives the file, or the end of its link."""
    parts = urlsplit(link)
    named = _told_name(disposition) or unquote(PurePosixPath(parts.path).name)
    name = PurePosixPath(named.replace("\\", "/")).name
    # What nobody sees is no part of a name, and no column of PostgreSQL holds all of it.
    name = "".join(letter for letter in name if letter.isprintable()).strip()
    return (name or f"{parts.hostname}.mp4")[-255:]


def _told_name(disposition: str) -> str | None:
    head = email.message.Message()
    with suppress(UnicodeError):
        # Many sites send UTF-8 as it is.
        disposition = disposition.encode("latin-1").decode()
    head["content-disposition"] = disposition or "inline"
    try:
        return head.get_filename()
    except (TypeError, ValueError):
        # Two forms of one name, or an alphabet that there is not.
        return None


@contextmanager
def _problems() -> Iterator[None]:
    """Raises `LinkRefused` for what the network does. The library's own texts may name the link, which is a secret."""
    try:
        yield
    except httpcore.ConnectError as exc:
        cause = exc.__cause__ or exc.__context__
        untrusted = isinstance(cause, ssl.SSLError) or "CERTIFICATE" in str(exc).upper()
        raise LinkRefused(Problem.UNTRUSTED if untrusted else Problem.UNREACHABLE) from None
    except (httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.UnsupportedProtocol):
        raise LinkRefused(Problem.UNREACHABLE) from None
    except httpcore.ReadTimeout:
        raise LinkRefused(Problem.TOO_SLOW) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        raise LinkRefused(Problem.BROKEN_OFF) from None
    except (UnicodeError, httpcore.LocalProtocolError):
        raise LinkRefused(Problem.NOT_A_LINK) from None


# --- The network ----------------------------------------------------------------------------------------------


class _GuardedBackend(httpcore.SyncBackend):
    """Connects to checked addresses only."""

    def __init__(self, rules: Rules, pace: _Pace) -> None:
        self._rules = rules
        self._pace = pace

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = (self._rules.look_up or look_up)(host, port)
        # One private address among public ones is a trap, not a choice.
        if not all(self._rules.is_allowed(address) for address in addresses):
            raise LinkRefused(Problem.PRIVATE)
        for address in addresses:
            try:
                stream = super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _PacedStream(stream, self._pace)
        raise LinkRefused(Problem.UNREACHABLE)

    def connect_unix_socket(self, *_args: Any, **_kwargs: Any) -> httpcore.NetworkStream:
        raise LinkRefused(Problem.PRIVATE)


def look_up(host: str, port: int) -> list[str]:
    """Returns the addresses of a name. Raises `LinkRefused` for a name without."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise LinkRefused(Problem.UNKNOWN_SITE) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Pace:
    """Holds a connection to a least speed: time-outs of single reads let a byte a minute go on for ever."""

    def __init__(self, rules: Rules) -> None:
        self._seconds = rules.pace_seconds
        self._since = time.monotonic()
        self._deadline = self._since + rules.max_seconds
        self._num_bytes = 0

    def left(self) -> float:
        """Returns the seconds until the next look at the speed."""
        return max(0.01, self._since + self._seconds - time.monotonic())

    def note(self, num_bytes: int) -> None:
        """Counts bytes that came; raises `LinkRefused` when there were too few."""
        self._num_bytes += num_bytes
        now = time.monotonic()
        if now > self._deadline:
            raise LinkRefused(Problem.TOO_SLOW)
        if now < self._since + self._seconds:
            return
        if self._num_bytes < self._seconds * _MIN_BYTES_A_SECOND:
            raise LinkRefused(Problem.TOO_SLOW)
        self._since, self._num_bytes = now, 0


class _PacedStream(httpcore.NetworkStream):
    """A connection whose reads are counted."""

    def __init__(self, stream: httpcore.NetworkStream, pace: _Pace) -> None:
        self._stream = stream
        self._pace = pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            try:
                received = self._stream.read(max_bytes, self._pace.left())
            except httpcore.ReadTimeout:
                # The time was up for a look at the speed: a pause after a quick start is no drip.
                self._pace.note(0)
            else:
                self._pace.note(len(received))
                return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _PacedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._pace)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
