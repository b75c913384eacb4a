"""Measures how fast a file of weights reaches a device, and how fast its checksum is computed.

    python -m gpu_worker.benchmarks.loading --gib 2 --folder FOLDER

Writes a file of random bfloat16 matrices, then reads it with 1 to 8 readers and with safetensors' own reader, each
time from the disk (dropped from the page cache) and from the page cache. The folder may be a network volume.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gpu_worker.benchmarks.cold import forget
from gpu_worker.engine.cold_start import weights_phase
from gpu_worker.models.loading import read_parallel

_MATRIX: Final = (2048, 8192)
_MATRIX_BYTES: Final = 2 * _MATRIX[0] * _MATRIX[1]
_NUM_READERS: Final = (1, 2, 4, 8)


def measure(path: Path, device: torch.device) -> dict[str, dict[str, float]]:
    """Gigabytes per second of each way, from the disk and from the page cache."""
    ways: dict[str, Callable[[], object]] = {
        f"{num} readers": lambda num=num: read_parallel(path, device, num_readers=num)  # type: ignore[misc]
        for num in _NUM_READERS
    }
    ways["safetensors' own"] = lambda: _safetensors(path, device)
    ways["SHA-256"] = lambda: hashlib.sha256(path.read_bytes()).digest()
    return {
        name: {"from the disk": _rate(path, way, forgets=True), "from the page cache": _rate(path, way)}
        for name, way in ways.items()
    }


def _rate(path: Path, way: Callable[[], object], *, forgets: bool = False) -> float:
    if forgets:
        forget(path.parent)
    started_at = time.perf_counter()
    result = way()
    seconds = time.perf_counter() - started_at
    del result
    return path.stat().st_size / seconds / 1e9


def _safetensors(path: Path, device: torch.device) -> list[torch.Tensor]:
    with safe_open(path, "pt", device=str(device)) as file:
        # A copy, for on a CPU its tensors are a view of the file that nobody has read.
        return [file.get_tensor(name).clone() for name in file.keys()]  # noqa: SIM118


def main() -> int:
    """Measures and prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument(
        "--folder", type=Path, help="where to write the file; a temporary folder when missing"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loading-", dir=options.folder) as name:
        path = Path(name) / "weights.safetensors"
        num = max(1, round(options.gib * 2**30 / _MATRIX_BYTES))
        save_file({f"matrix_{i}": torch.randn(_MATRIX).bfloat16() for i in range(num)}, path)
        found = measure(path, torch.device(options.device))
        about = {"what": "loading", "bytes": path.stat().st_size, "device": options.device}
        about["place"] = weights_phase(path.parent).removeprefix("weights from ")
    print("| way | GB/s from the disk | GB/s from the page cache |\n|---|---:|---:|")
    for way, rates in found.items():
        print(f"| {way} | {rates['from the disk']:.2f} | {rates['from the page cache']:.2f} |")
    print(f"\n{json.dumps(about | {'gb_per_second': found})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
