"""Measures a cold start by phase: from the start of the process until it can take a job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: File systems that lie behind a network, as /proc/mounts names them.
_REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "9p", "virtiofs", "beegfs", "gpfs", "mfs")


@dataclass(kw_only=True, slots=True)
class Phase:
    """One part of the start; `num_bytes` where it moved some."""

    name: str
    seconds: float
    num_bytes: int | None = None


@dataclass(slots=True)
class ColdStart:
    """The phases so far, in order. Names are lower case words; a name that comes again adds up."""

    phases: list[Phase] = field(default_factory=list)

    def imported(self) -> None:
        """Notes the time from the start of the process until now: the interpreter and its imports."""
        self.add("imports", seconds_since_process_start())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what runs inside."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started_at)

    def add(self, name: str, seconds: float, num_bytes: int | None = None) -> None:
        """Notes a phase that was timed elsewhere."""
        for phase in self.phases:
            if phase.name == name:
                phase.seconds += seconds
                if num_bytes is not None:
                    phase.num_bytes = (phase.num_bytes or 0) + num_bytes
                return
        self.phases.append(Phase(name=name, seconds=seconds, num_bytes=num_bytes))

    @property
    def seconds(self) -> float:
        """All phases together."""
        return sum(phase.seconds for phase in self.phases)

    def to_json(self) -> dict[str, float]:
        """Flat figures: `<name>_seconds`, `<name>_bytes`, `<name>_gb_per_second`, `total_seconds`."""
        figures: dict[str, float] = {}
        for phase in self.phases:
            name = phase.name.replace(" ", "_")
            figures[f"{name}_seconds"] = round(phase.seconds, 3)
            if phase.num_bytes is not None:
                figures[f"{name}_bytes"] = phase.num_bytes
                figures[f"{name}_gb_per_second"] = round(phase.num_bytes / max(phase.seconds, 1e-9) / 1e9, 3)
        return figures | {"total_seconds": round(self.seconds, 3)}


def weights_phase(folder: Path, mounts: str | None = None) -> str:
    """How the phase that reads weights is called: by what the folder lies on.

    Args:
        folder: exists.
        mounts: the text of /proc/mounts; read when None.
    """
    if mounts is None:
        table = Path("/proc/mounts")
        mounts = table.read_text() if table.exists() else ""
    place, kind = "", ""
    resolved = folder.resolve()
    for line in mounts.splitlines():
        _device, point, found, *_ = line.split()
        # Mounts cover one another: the longest path, and of equals the last one, counts.
        if resolved.is_relative_to(point) and len(point) >= len(place):
            place, kind = point, found
    is_remote = kind in _REMOTE or kind.startswith("fuse")
    return "weights from network volume" if is_remote else "weights from local disk"


def seconds_since_process_start() -> float:
    """How long this process has existed; where the kernel does not say, how long it has computed."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return time.process_time()
    # The second field is the program's name in brackets and may hold spaces; the start is the 22nd.
    started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
