"""The media type under which an object is sent, by the end of its key."""

from __future__ import annotations

import mimetypes
from typing import Final

#: What browsers may show in a page; everything else is sent as bytes without a meaning.
_SHOWN: Final = frozenset(
    {"video/mp4", "video/webm", "video/quicktime", "image/jpeg", "image/png", "image/webp"}
)


def media_type_of(key: str) -> str:
    """Returns a type that browsers show, or the one of plain bytes: an uploaded file is never a page of ours."""
    guessed = mimetypes.guess_type(key)[0] or ""
    return guessed if guessed in _SHOWN else "application/octet-stream"
