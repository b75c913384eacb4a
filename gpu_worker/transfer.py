"""Fetches a job's source and sends its result over presigned addresses, a chunk at a time.

Addresses are secrets: neither log lines nor errors name them, and httpx's own messages, which do, are left
out.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import random
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import httpx

from gpu_worker.contract import ErrorCode, ResultParts, WorkerError
from gpu_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 10.0
_MAX_PAUSE_SECONDS: Final = 30.0
#: S3 answers 403 for what is not there to those who may not list.
_ABSENT: Final = frozenset({403, 404})
#: Answers that another try may change.
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TransientError(Exception):
    """A try failed in a way that another try may not; the message names no address."""


class Transfers:
    """Downloads and uploads of one worker over one pool of connections."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        timeout = httpx.Timeout(settings.transfer_timeout_seconds, connect=_CONNECT_SECONDS)
        self._http = httpx.AsyncClient(timeout=timeout, follow_redirects=False)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def download(self, url: str, path: Path, *, num_bytes: int, sha256: str | None = None) -> str:
        """Fetches exactly `num_bytes` into `path`, going on where a connection broke; returns the SHA-256.

        Raises `SOURCE_TOO_LARGE`, `SOURCE_UNREACHABLE`, `SOURCE_CHANGED` (another size or checksum),
        `OUT_OF_DISK`.
        """
        limit = self._settings.max_source_bytes
        if num_bytes > limit:
            raise WorkerError(ErrorCode.SOURCE_TOO_LARGE, f"{num_bytes} bytes; this worker takes {limit}")
        if (free_bytes := shutil.disk_usage(path.parent).free) < num_bytes:
            raise WorkerError(ErrorCode.OUT_OF_DISK, f"{num_bytes} bytes to fetch, {free_bytes} are free")
        with _disk_errors():
            download = _Download(self._http, url, path, num_bytes)
            await self._repeat(download.go_on, ErrorCode.SOURCE_UNREACHABLE)
            found = await asyncio.to_thread(sha256_of, path)
        if sha256 is not None and found != sha256:
            raise WorkerError(ErrorCode.SOURCE_CHANGED, f"sha256 is {found}; expected {sha256}")
        return found

    async def fetch_document(self, url: str, *, max_bytes: int) -> bytes | None:
        """Fetches a small object; None when there is none. Raises `SOURCE_UNREACHABLE`."""
        content = bytearray()
        is_there = True

        async def fetch() -> None:
            nonlocal is_there
            content.clear()
            with _network_errors():
                async with self._http.stream("GET", url) as reply:
                    is_there = reply.status_code not in _ABSENT
                    if is_there and not reply.is_success:
                        raise _refusal(reply.status_code, ErrorCode.SOURCE_UNREACHABLE)
                    async for chunk in reply.aiter_bytes():
                        content.extend(chunk)
                        if len(content) > max_bytes:
                            raise WorkerError(
                                ErrorCode.SOURCE_UNREACHABLE, f"it has more than {max_bytes} bytes"
                            )

        await self._repeat(fetch, ErrorCode.SOURCE_UNREACHABLE)
        return bytes(content) if is_there else None

    async def upload_file(self, url: str, path: Path, *, content_type: str) -> None:
        """Puts a file at a presigned address. Raises `UPLOAD_FAILED`."""
        num_bytes = path.stat().st_size  # noqa: ASYNC240 - one call, on a local disk
        headers = {"Content-Length": str(num_bytes), "Content-Type": content_type}
        await self._repeat(lambda: self._put(url, _chunks(path), headers), ErrorCode.UPLOAD_FAILED)

    async def upload_bytes(self, url: str, content: bytes, *, content_type: str) -> None:
        """Puts a small document at a presigned address. Raises `UPLOAD_FAILED`."""
        headers = {"Content-Type": content_type}
        await self._repeat(lambda: self._put(url, content, headers), ErrorCode.UPLOAD_FAILED)

    async def upload_parts(self, parts: ResultParts, path: Path) -> None:
        """Puts a file in parts and completes it, as S3 wants it. Raises `UPLOAD_FAILED`."""
        num_bytes = path.stat().st_size  # noqa: ASYNC240 - one call, on a local disk
        num_parts = -(-num_bytes // parts.part_bytes)
        if num_parts > len(parts.put):
            raise WorkerError(
                ErrorCode.UPLOAD_FAILED,
                f"{num_bytes} bytes need {num_parts} parts; there are {len(parts.put)}",
            )
        etags = [
            await self._upload_part(url, path, range(start, min(start + parts.part_bytes, num_bytes)))
            for url, start in zip(parts.put, range(0, num_bytes, parts.part_bytes), strict=False)
        ]
        body = _list_of_parts(etags)
        await self._repeat(lambda: self._complete(parts.complete, body), ErrorCode.UPLOAD_FAILED)

    async def _upload_part(self, url: str, path: Path, span: range) -> str:
        etag = ""

        async def put() -> None:
            nonlocal etag
            headers = {"Content-Length": str(len(span))}
            etag = (await self._put(url, _chunks(path, span), headers)).headers.get("etag", "")
            if not etag:
                raise WorkerError(ErrorCode.UPLOAD_FAILED, "the storage gave a part no ETag")

        await self._repeat(put, ErrorCode.UPLOAD_FAILED)
        return etag

    async def _complete(self, url: str, body: bytes) -> None:
        with _network_errors():
            reply = await self._http.post(url, content=body, headers={"Content-Type": "application/xml"})
        if not reply.is_success:
            raise _refusal(reply.status_code, ErrorCode.UPLOAD_FAILED)
        # S3 begins to answer before it has joined the parts: success can hold an error.
        if b"<Error>" in reply.content:
            raise _TransientError("the storage could not join the parts")

    async def _put(
        self, url: str, content: bytes | AsyncIterator[bytes], headers: dict[str, str]
    ) -> httpx.Response:
        with _network_errors():
            reply = await self._http.put(url, content=content, headers=headers)
        if not reply.is_success:
            raise _refusal(reply.status_code, ErrorCode.UPLOAD_FAILED)
        return reply

    async def _repeat(self, attempt: Callable[[], Awaitable[object]], code: ErrorCode) -> None:
        """Tries until it works, with growing pauses; raises `code` after the last try."""
        tries = self._settings.transfer_tries
        for number in range(1, tries + 1):
            try:
                await attempt()
            except _TransientError as error:
                logger.warning("transfer: try %d of %d failed: %s", number, tries, error)
                if number == tries:
                    raise WorkerError(code, f"{error}, after {tries} tries") from None
                await asyncio.sleep(self._pause_seconds(number))
            else:
                return

    def _pause_seconds(self, number: int) -> float:
        pause = min(self._settings.transfer_pause_seconds * 2.0 ** (number - 1), _MAX_PAUSE_SECONDS)
        # Workers that failed together do not come back together.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class _Download:
    """One file on its way. Each try asks for what is still missing."""

    def __init__(self, http: httpx.AsyncClient, url: str, path: Path, num_bytes: int) -> None:
        self._http = http
        self._url = url
        self._path = path
        self._num_bytes = num_bytes
        self._etag: str | None = None
        self._path.write_bytes(b"")

    async def go_on(self) -> None:
        """Fetches the rest of the file. Raises `_TransientError` or `WorkerError`."""
        num_there = self._path.stat().st_size
        if num_there == self._num_bytes:
            # The connection broke behind the last byte.
            return
        headers = {"Accept-Encoding": "identity"}
        if num_there:
            headers["Range"] = f"bytes={num_there}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        with _network_errors():
            async with self._http.stream("GET", self._url, headers=headers) as reply:
                await self._receive(reply, self._start(reply, num_there))
        if (found := self._path.stat().st_size) != self._num_bytes:
            raise _TransientError(f"the connection ended after {found} of {self._num_bytes} bytes")

    def _start(self, reply: httpx.Response, num_there: int) -> int:
        """Checks the answer's head and returns where its first byte belongs."""
        if reply.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise WorkerError(ErrorCode.SOURCE_CHANGED, f"it ends before byte {num_there}")
        if not reply.is_success:
            raise _refusal(reply.status_code, ErrorCode.SOURCE_UNREACHABLE)
        etag = reply.headers.get("etag", "")
        # A weak tag does not promise the same bytes.
        self._etag = etag if etag and not etag.startswith("W/") else None
        if reply.status_code != httpx.codes.PARTIAL_CONTENT:
            self._check_size(reply.headers.get("content-length"))
            return 0
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("content-range", ""))
        if span is None or int(span[1]) != num_there:
            raise _TransientError("the answer is not the range that was asked for")
        self._check_size(None if span[2] == "*" else span[2])
        return num_there

    def _check_size(self, announced: str | None) -> None:
        if announced is not None and announced.isdecimal() and int(announced) != self._num_bytes:
            raise WorkerError(
                ErrorCode.SOURCE_CHANGED, f"it has {announced} bytes; the request says {self._num_bytes}"
            )

    async def _receive(self, reply: httpx.Response, start: int) -> None:
        with self._path.open("r+b") as file:
            file.seek(start)
            file.truncate()
            # As they come: httpx would lose what it gathers for larger chunks when the connection breaks.
            async for chunk in reply.aiter_raw():
                if file.tell() + len(chunk) > self._num_bytes:
                    raise WorkerError(
                        ErrorCode.SOURCE_CHANGED, f"it is longer than the request's {self._num_bytes} bytes"
                    )
                file.write(chunk)


def sha256_of(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _chunks(path: Path, span: range | None = None) -> AsyncIterator[bytes]:
    """Yields a file's bytes, or those at the places of `span`."""
    with path.open("rb") as file:
        left = path.stat().st_size if span is None else len(span)  # noqa: ASYNC240 - one call, on a local disk
        file.seek(span.start if span is not None else 0)
        while left and (chunk := await asyncio.to_thread(file.read, min(_CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def _list_of_parts(etags: list[str]) -> bytes:
    """Returns the parts as S3 wants them named."""
    root = ElementTree.Element("CompleteMultipartUpload")
    for number, etag in enumerate(etags, start=1):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = etag
    return ElementTree.tostring(root)


def _refusal(status: int, code: ErrorCode) -> Exception:
    text = f"the storage answered {status}"
    return _TransientError(text) if status in _TRANSIENT else WorkerError(code, text)


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    # httpx lets those of a broken record through.
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        # The text of these errors can hold the address.
        raise _TransientError(type(error).__name__) from None


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkerError(ErrorCode.OUT_OF_DISK, "no space for the source") from error
        raise
