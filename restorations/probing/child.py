"""`python -m restorations.probing.child DESCRIPTOR SIZE MAX_SECONDS MEMORY CPU`: probes the file behind a descriptor.

Bytes come from the parent, who answers `(offset, length)` on the descriptor; the verdict goes to standard output as
one JSON document. Everything is imported first: afterwards the process can open nothing any more.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pkgutil
import struct
import sys
from collections import OrderedDict
from typing import Final

import av
import av.logging
from PIL import Image

from restorations.probing import confinement
from restorations.probing.facts import Unrestorable
from restorations.probing.probe import probe

_BLOCK_BYTES: Final = 2**18
#: Blocks asked for at once while a file is read in order.
_MOST_AHEAD: Final = 16
_KEPT_BLOCKS: Final = 64


class ParentFile(io.RawIOBase):
    """A file whose bytes are with the parent; keeps a few blocks, and reads ahead while it is read in order."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next_block = 0
        self._ahead = 1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._size_bytes - self._position if size < 0 else size
        block, start = divmod(self._position, _BLOCK_BYTES)
        piece = self._block(block)[start : start + wanted]
        self._position += len(piece)
        return piece

    def _block(self, number: int) -> bytes:
        if number * _BLOCK_BYTES >= self._size_bytes:
            return b""
        if number not in self._blocks:
            self._fetch(number)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> None:
        # In order: twice as much each time. After a jump: one block.
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next_block else 1
        os.write(self._descriptor, struct.pack(">QI", number * _BLOCK_BYTES, self._ahead * _BLOCK_BYTES))
        (length,) = struct.unpack(">I", self._receive(4))
        content = self._receive(length)
        for offset in range(0, max(length, 1), _BLOCK_BYTES):
            self._blocks[number + offset // _BLOCK_BYTES] = content[offset : offset + _BLOCK_BYTES]
        self._next_block = number + -(-length // _BLOCK_BYTES)
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    def _receive(self, length: int) -> bytes:
        pieces, missing = [], length
        while missing:
            piece = os.read(self._descriptor, missing)
            if not piece:
                raise OSError("the parent has gone")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def _import_all() -> None:
    """Loads what PyAV, Pillow and Python load only when it is needed: files cannot be opened any more then."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Image.init()
    # A picture through everything that a poster goes through.
    picture = av.VideoFrame(16, 16, "yuv420p").to_image(width=8, height=8, threads=1)  # type: ignore[no-untyped-call]
    picture.convert("RGB").rotate(90, expand=True).save(io.BytesIO(), "JPEG", quality=82)
    base64.b64encode(json.dumps({}).encode())


def main(arguments: list[str]) -> None:
    """Confines itself, probes, and says what it found."""
    descriptor, size_bytes = int(arguments[0]), int(arguments[1])
    max_seconds, memory, cpu = float(arguments[2]), int(arguments[3]), int(arguments[4])
    av.logging.set_level(None)
    _import_all()
    confinement.limit(confinement.Limits(memory_bytes=memory, cpu_seconds=cpu))
    is_confined = confinement.allow_computing_only()
    try:
        file = ParentFile(descriptor, size_bytes)
        facts, poster = probe(file, size_bytes=size_bytes, max_seconds=max_seconds)  # type: ignore[arg-type]
        verdict = {"facts": facts.to_json(), "poster": base64.b64encode(poster).decode()}
    except Unrestorable as refusal:
        verdict = {"reason": refusal.reason}
    except MemoryError:
        verdict = {"reason": "too_demanding"}
    said = json.dumps(verdict | {"is_confined": is_confined}).encode()
    while said:
        said = said[os.write(1, said) :]
    # Nothing is cleaned up: a decoder that is broken may hang in its end.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
