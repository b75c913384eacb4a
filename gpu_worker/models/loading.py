"""Reads a `.safetensors` file straight to a device: several readers, pinned staging, no second copy on the host.

    file --reader thread--> pinned slot --copy on the reader's stream--> tensors on the device

Each reader takes the file's next piece, fills one of its two slots, and starts the copy to the device; while
that copy runs, it fills the other slot. Disks, network volumes and the bus are busy at the same time.
"""

from __future__ import annotations

import json
import math
import os
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from gpu_worker.models.checkpoint import CheckpointError

#: Network volumes answer slowly but in parallel; a local disk is busy with fewer.
NUM_READERS: Final = 8
#: One piece of the file; a power of two, which is what pinned memory comes in.
PIECE_BYTES: Final = 1 << 25
_SLOTS_PER_READER: Final = 2
#: More than any header of a network has; a broken file must not ask for gigabytes.
_MAX_HEADER_BYTES: Final = 1 << 26
_DTYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """What reading a file took."""

    num_bytes: int
    seconds: float

    @property
    def gb_per_second(self) -> float:
        """Decimal gigabytes per second."""
        return self.num_bytes / max(self.seconds, 1e-9) / 1e9


class _Entry(NamedTuple):
    """A tensor in the file: absolute offsets of its bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def described(path: Path) -> dict[str, Tensor]:
    """The file's tensors on the meta device, for a check before gigabytes are read. Raises CheckpointError."""
    return {
        entry.name: torch.empty(entry.shape, dtype=entry.dtype, device="meta") for entry in _entries(path)
    }


def read_parallel(
    path: Path,
    device: torch.device,
    *,
    num_readers: int = NUM_READERS,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[dict[str, Tensor], Transfer]:
    """Reads all tensors of a file to `device`; raises CheckpointError for a file that is not whole."""
    started_at = time.perf_counter()
    entries = _entries(path)
    tensors = {entry.name: torch.empty(entry.shape, dtype=entry.dtype, device=device) for entry in entries}
    targets = [(entry.start, entry.end, _bytes_of(tensors[entry.name])) for entry in entries]
    end = max((entry.end for entry in entries), default=0)
    pieces = _Pieces(targets, piece_bytes)
    if device.type == "cuda":
        # The readers' streams must not overtake what still uses memory that the tensors got.
        torch.cuda.synchronize(device)
    with path.open("rb") as file, ThreadPoolExecutor(num_readers, "weights") as pool:
        jobs = [pool.submit(_read_pieces, file.fileno(), pieces, device) for _ in range(num_readers)]
        for job in jobs:
            job.result()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return tensors, Transfer(num_bytes=end, seconds=time.perf_counter() - started_at)


class _Pieces:
    """Hands out consecutive parts of the file, each to one reader, with the tensors that they belong to."""

    def __init__(self, targets: list[tuple[int, int, Tensor]], piece_bytes: int) -> None:
        self.num_bytes = piece_bytes
        self._pieces = self._cut(sorted(targets, key=lambda target: target[0]), piece_bytes)
        self._lock = threading.Lock()

    def next(self) -> tuple[int, list[Tensor]] | None:
        """The file offset of the next piece and, in the file's order, where its bytes go; None at the end."""
        with self._lock:
            return next(self._pieces, None)

    @staticmethod
    def _cut(targets: list[tuple[int, int, Tensor]], piece_bytes: int) -> Iterator[tuple[int, list[Tensor]]]:
        first, filled = 0, 0
        parts: list[Tensor] = []
        for start, end, target in targets:
            # Bytes between two tensors belong to nobody: another piece begins behind them.
            if parts and first + filled != start:
                yield first, parts
                parts, filled = [], 0
            while start < end:
                if not parts:
                    first, filled = start, 0
                count = min(end - start, piece_bytes - filled)
                offset = len(target) - (end - start)
                parts.append(target[offset : offset + count])
                filled, start = filled + count, start + count
                if filled == piece_bytes:
                    yield first, parts
                    parts, filled = [], 0
        if parts:
            yield first, parts


@torch.inference_mode()
def _read_pieces(descriptor: int, pieces: _Pieces, device: torch.device) -> None:
    """One reader: fills its slots in turn and copies them to the device, until no piece is left.

    Inference mode belongs to a thread, and tensors that were made in it take no copy outside.
    """
    is_cuda = device.type == "cuda"
    stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
    slots = [
        torch.empty(pieces.num_bytes, dtype=torch.uint8, pin_memory=is_cuda) for _ in range(_SLOTS_PER_READER)
    ]
    copied: list[torch.cuda.Event | None] = [None] * _SLOTS_PER_READER
    turn = 0
    with torch.cuda.stream(stream) if stream else nullcontext():
        while piece := pieces.next():
            offset, parts = piece
            slot, event = slots[turn], copied[turn]
            if event is not None:
                event.synchronize()
            count = sum(len(part) for part in parts)
            _read_exactly(descriptor, slot.numpy()[:count].data, offset)
            filled = 0
            for part in parts:
                part.copy_(slot[filled : filled + len(part)], non_blocking=True)
                filled += len(part)
            if stream:
                copied[turn] = stream.record_event()
            turn = (turn + 1) % _SLOTS_PER_READER
    if stream:
        # The slots are freed with this frame.
        stream.synchronize()


def _read_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    while len(buffer):
        count = os.preadv(descriptor, [buffer], offset)
        if count == 0:
            raise CheckpointError(f"the file ended at byte {offset} while it was read")
        buffer, offset = buffer[count:], offset + count


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _entries(path: Path) -> list[_Entry]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise CheckpointError(f"{path.name} is cut off or not a .safetensors file")
        try:
            header = json.loads(file.read(length))
            entries = [
                _entry(name, described, 8 + length)
                for name, described in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path.name} has a header that cannot be read: {error}") from error
    if (end := max((entry.end for entry in entries), default=8 + length)) != size:
        raise CheckpointError(f"{path.name} has {size} bytes, but its header describes {end}")
    return entries


def _entry(name: str, described: dict[str, Any], base: int) -> _Entry:
    dtype, shape = _DTYPES.get(described["dtype"]), tuple(described["shape"])
    if dtype is None:
        raise ValueError(f"{name} is {described['dtype']}; expected {', '.join(_DTYPES)}")
    start, end = described["data_offsets"]
    if start < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} of shape {shape} does not have {end - start} bytes")
    return _Entry(name, dtype, shape, base + start, base + end)
