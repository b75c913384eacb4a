"""Serves the file-system object store under signed addresses, with ranges, as S3 would.

A plain ASGI application beside Django: bodies of many gigabytes stream to and from the disk here, while Django
would collect them first.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio.to_thread
from django.core.signing import BadSignature
from django.utils.http import content_disposition_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from restorations import objects
from restorations.stores import files
from restorations.stores.media_types import media_type_of

logger = logging.getLogger(__name__)

#: A list of ten thousand parts fits.
_MAX_DOCUMENT_BYTES: Final = 2**21
_NAMED_PART: Final = re.compile(
    rb"<Part>\s*<PartNumber>(\d{1,5})</PartNumber>\s*<ETag>(?:\"|&quot;)?([0-9a-f]{32})(?:\"|&quot;)?</ETag>"
)


def _claim(request: Request, *verbs: str) -> files.Claim:
    try:
        return files.Claim.read(request.path_params["token"], *verbs)
    except (BadSignature, ValueError, TypeError):
        raise HTTPException(403, "This address is not valid, or no longer.") from None


async def read_object(request: Request) -> Response:
    """Answers GET and HEAD: 200, or 206 to a range, without which players cannot seek."""
    claim = _claim(request, files.GET)
    file = objects.file_store().path(claim.key)
    if not file.is_file():
        raise HTTPException(404, "This file has been deleted.")
    return FileResponse(
        file,
        media_type=media_type_of(claim.key),
        headers={
            # Attachments play in <video> all the same.
            "Content-Disposition": content_disposition_header(True, claim.download_name) or "attachment",
            "Cache-Control": "private, max-age=3600",
            "X-Content-Type-Options": "nosniff",
            # A file that somebody uploaded never runs as a page of ours.
            "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'; img-src 'self'",
        },
    )


async def write_object(request: Request) -> Response:
    """Answers PUT of a whole object or of one part; the answer's ETag is the MD5 of the bytes, as S3's."""
    claim = _claim(request, files.PUT, files.PART)
    with _room(claim):
        staged, etag = await _receive(request, claim)
        try:
            await anyio.to_thread.run_sync(_keep, claim, staged, etag)
        except objects.ObjectMissing:
            raise HTTPException(404, "This upload was cancelled.") from None
        except objects.PartsMismatch:
            raise HTTPException(413, "This part is larger than the parts of this upload.") from None
    return Response(headers={"ETag": f'"{etag}"'})


@contextmanager
def _room(claim: files.Claim) -> Iterator[None]:
    """Answers 507 when the disk is full."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.exception("storage is full key=%s", claim.key)
        raise HTTPException(507, "There is no room left here. Please try again later.") from None


def _keep(claim: files.Claim, staged: Path, etag: str) -> None:
    if claim.verb == files.PUT:
        objects.save_file(claim.key, staged)
    else:
        objects.file_store().save_part(claim.upload_id, claim.number, staged, etag)


async def join_parts(request: Request) -> Response:
    """Answers POST of S3's `CompleteMultipartUpload` document: the parts that it names become the object."""
    claim = _claim(request, files.JOIN)
    if int(request.headers.get("content-length") or 0) > _MAX_DOCUMENT_BYTES:
        raise HTTPException(413, "This list of parts is too long.")
    named = [(int(number), etag.decode()) for number, etag in _NAMED_PART.findall(await request.body())]
    try:
        await anyio.to_thread.run_sync(_join, claim, named)
    except objects.PartsMismatch:
        raise HTTPException(400, "These are not the parts that arrived.") from None
    return Response("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>", media_type="text/xml")


def _join(claim: files.Claim, named: list[tuple[int, str]]) -> None:
    objects.complete_multipart(claim.key, claim.upload_id, parts=named)


async def _receive(request: Request, claim: files.Claim) -> tuple[Path, str]:
    """Streams a body to a staged file; one that is not what was signed, or breaks off, leaves nothing behind."""
    most = claim.max_bytes if claim.verb == files.PUT else claim.num_bytes
    announced = int(request.headers.get("content-length") or 0)
    if most is not None and announced > most:
        raise HTTPException(413, f"At most {most} bytes fit here.")
    staged = await anyio.to_thread.run_sync(objects.file_store().staging_path)
    tag, checksum, received = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with staged.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if most is not None and received > most:
                    raise HTTPException(413, f"At most {most} bytes fit here.")
                tag.update(chunk)
                if claim.sha256:
                    checksum.update(chunk)
                file.write(chunk)
        if "content-length" in request.headers and received != announced:
            raise HTTPException(400, f"{announced} bytes were announced, {received} came.")
        if claim.num_bytes is not None and received != claim.num_bytes:
            raise HTTPException(400, f"{claim.num_bytes} bytes belong here, {received} came.")
        if claim.sha256 and base64.b64encode(checksum.digest()).decode() != claim.sha256:
            raise HTTPException(400, "These bytes are not the ones whose checksum was signed.")
    except ClientDisconnect:
        staged.unlink()
        raise HTTPException(400, "The connection was cut.") from None
    except BaseException:
        staged.unlink()
        raise
    return staged, tag.hexdigest()


async def dispatch(request: Request) -> Response:
    """Chooses by verb; whether the address permits it, its signature says."""
    if request.method in ("GET", "HEAD"):
        return await read_object(request)
    if request.method == "POST":
        return await join_parts(request)
    return await write_object(request)


application = Starlette(
    routes=[Route("/objects/{token}/{name}", dispatch, methods=["GET", "HEAD", "PUT", "POST"])],
)
