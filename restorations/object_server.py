"""Serves the file-system object store under signed addresses, with ranges, as S3 would.

A plain ASGI application beside Django: bodies of many gigabytes stream to and from the disk here, while Django
would collect them first.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

import anyio.to_thread
from django.core.signing import BadSignature
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from restorations import objects

#: What browsers may show from our own origin; everything else is a download.
_SHOWN: Final = {"video/mp4", "video/webm", "video/quicktime", "image/jpeg"}


def _claim(request: Request, *verbs: str) -> objects.Claim:
    try:
        return objects.Claim.read(request.path_params["token"], *verbs)
    except (BadSignature, IndexError, TypeError):
        raise HTTPException(403, "This address is not valid, or no longer.") from None


async def read_object(request: Request) -> Response:
    """Answers GET and HEAD: 200, or 206 to a range, without which players cannot seek."""
    claim = _claim(request, objects.GET)
    file = objects.path(claim.key)
    if not file.is_file():
        raise HTTPException(404, "This file has been deleted.")
    media_type = mimetypes.guess_type(file.name)[0] or ""
    return FileResponse(
        file,
        media_type=media_type if media_type in _SHOWN else "application/octet-stream",
        filename=claim.download_name or None,
        content_disposition_type="attachment",
        headers={
            "Cache-Control": "private, max-age=3600",
            "X-Content-Type-Options": "nosniff",
            # A file that somebody uploaded never runs as a page of ours.
            "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'; img-src 'self'",
        },
    )


async def write_object(request: Request) -> Response:
    """Answers PUT of a whole object or of one part; the answer's ETag is the MD5 of the bytes, as S3's."""
    claim = _claim(request, objects.PUT, objects.PART)
    staged, etag = await _receive(request, claim.max_bytes)
    try:
        await anyio.to_thread.run_sync(_keep, claim, staged, etag)
    except objects.ObjectMissing:
        raise HTTPException(404, "This upload was cancelled.") from None
    return Response(headers={"ETag": f'"{etag}"'})


def _keep(claim: objects.Claim, staged: Path, etag: str) -> None:
    if claim.verb == objects.PUT:
        objects.commit(claim.key, staged)
        return
    upload_id, _, number = claim.key.partition("/")
    objects.save_part(upload_id, int(number), staged, etag)


async def _receive(request: Request, max_bytes: int) -> tuple[Path, str]:
    """Streams a body to a staged file; a body that is too long or breaks off leaves nothing behind."""
    announced = int(request.headers.get("content-length") or 0)
    if announced > max_bytes:
        raise HTTPException(413, f"At most {max_bytes} bytes fit here.")
    staged = await anyio.to_thread.run_sync(objects.staging_path)
    digest, received = hashlib.md5(usedforsecurity=False), 0
    try:
        with staged.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > max_bytes:
                    raise HTTPException(413, f"At most {max_bytes} bytes fit here.")
                digest.update(chunk)
                file.write(chunk)
        if "content-length" in request.headers and received != announced:
            raise HTTPException(400, f"{announced} bytes were announced, {received} came.")
    except ClientDisconnect:
        staged.unlink()
        raise HTTPException(400, "The connection was cut.") from None
    except BaseException:
        staged.unlink()
        raise
    return staged, digest.hexdigest()


async def dispatch(request: Request) -> Response:
    """Chooses by verb; whether the address permits it, its signature says."""
    if request.method in ("GET", "HEAD"):
        return await read_object(request)
    return await write_object(request)


application = Starlette(
    routes=[Route("/objects/{token}/{name}", dispatch, methods=["GET", "HEAD", "PUT"])],
)
