"""Checks the files of weights against the checksums beside them, without PyTorch: the fitness check's part.

`fetch_models` writes `NAME.sha256` beside each `NAME.safetensors`. Hashing 17 GB takes longer than loading
them, so what was found right is noted in a stamp: a file is hashed again unless the stamp has its size, its
time of change in whole seconds (all that image layers keep) and its expected checksum. A file that was cut off,
replaced or written anew never passes by its stamp; only decay of the medium under an unchanged file would.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gpu_worker.models.sources import VAE

logger = logging.getLogger(__name__)

STAMP: Final = ".verified.json"
_BLOCK_BYTES: Final = 1 << 24
_PROMPT: Final = "prompt-positive"


class WeightsBroken(RuntimeError):
    """Weights are missing or not what they should be; the message says which, and what to do."""


def files_of(model: str) -> tuple[str, ...]:
    """The names, without endings, of the files that a published model needs."""
    return model, VAE, _PROMPT


def verify_folder(folder: Path, names: Sequence[str], *, stamp: Path | None = None) -> list[str]:
    """Compares every file with its checksum, several at a time; returns the names that had to be hashed.

    Args:
        folder: holds the files.
        names: without endings, from `files_of`.
        stamp: where to note what was right; `.verified.json` in the folder when None. A place that cannot be
            written is no error: everything is hashed again next time.

    Raises WeightsBroken, which lists every file that is missing or wrong.
    """
    stamp = stamp or folder / STAMP
    known = _read_stamp(stamp)
    problems: list[str] = []
    to_hash: dict[str, str] = {}
    for name in names:
        weights, checksum = folder / f"{name}.safetensors", folder / f"{name}.sha256"
        missing = [path.name for path in (weights, checksum) if not path.is_file()]
        if missing:
            problems.append(f"{' and '.join(missing)} missing")
        elif known.get(name) != _signature(weights, expected := checksum.read_text().split()[0]):
            to_hash[name] = expected
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _sha256(folder / f"{name}.safetensors"), to_hash)
        for (name, expected), digest in zip(to_hash.items(), found, strict=True):
            if digest == expected:
                known[name] = _signature(folder / f"{name}.safetensors", expected)
            else:
                problems.append(f"{name}.safetensors has SHA-256 {digest}, expected {expected}")
    if problems:
        models = [name for name in names if name not in (VAE, _PROMPT)]
        raise WeightsBroken(
            f"the weights in {folder} cannot be used: {'; '.join(problems)}. Delete what is wrong and run "
            f"python -m gpu_worker.tools.fetch_models --into {folder} {' '.join(models)}"
        )
    if to_hash:
        _write_stamp(stamp, known)
    return list(to_hash)


def _signature(path: Path, expected: str) -> list[int | str]:
    status = path.stat()
    return [status.st_size, int(status.st_mtime), expected]


def _sha256(path: Path) -> str:
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def _read_stamp(stamp: Path) -> dict[str, list[int | str]]:
    try:
        content = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_stamp(stamp: Path, known: dict[str, list[int | str]]) -> None:
    partial = stamp.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(known))
        partial.replace(stamp)
    except OSError as error:
        logger.info("checksums are not remembered: %s cannot be written: %s", stamp, error.strerror)
