"""Disk space for jobs: one directory for each worker, one inside it for each job, gone when either is.

A worker that was killed cannot clean up. It held a lock on its directory, which the kernel took back; so the
next worker that starts can tell its leftovers from the directory of a worker that lives.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

logger = logging.getLogger(__name__)

_PREFIX: Final = "worker-"
_LOCK: Final = "lock"


class Scratch:
    """This worker's own directory under `root`, which other workers may share."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # One starter at a time: a directory between its creation and its lock looks like a leftover.
        with (root / _LOCK).open("w") as gate:
            fcntl.lockf(gate, fcntl.LOCK_EX)
            _remove_leftovers(root)
            self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            self._lock: IO[str] = (self.directory / _LOCK).open("w")
            # A POSIX lock ends with this very process; a forked heartbeat does not inherit it.
            fcntl.lockf(self._lock, fcntl.LOCK_EX)

    @contextmanager
    def job(self) -> Iterator[Path]:
        """Yields an empty directory for one job and removes it afterwards, whatever happened."""
        directory = Path(tempfile.mkdtemp(prefix="job-", dir=self.directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    def close(self) -> None:
        """Removes this worker's directory."""
        shutil.rmtree(self.directory)
        self._lock.close()


def has_living_worker(root: Path) -> bool:
    """True while a worker of another process has its directory under `root`."""
    return any(not _is_abandoned(directory) for directory in root.glob(f"{_PREFIX}*"))


def _remove_leftovers(root: Path) -> None:
    for directory in root.glob(f"{_PREFIX}*"):
        if _is_abandoned(directory):
            logger.warning("removing what a killed worker left behind: %s", directory.name)
            shutil.rmtree(directory)


def _is_abandoned(directory: Path) -> bool:
    try:
        with (directory / _LOCK).open("r+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
