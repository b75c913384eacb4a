"""What runs on this machine, read from /proc: tests prove with it that nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    command: str


def running() -> list[Process]:
    """Returns the processes that are alive; those that only wait to be buried do not count."""
    return [
        process for folder in Path("/proc").iterdir() if folder.name.isdigit() and (process := _read(folder))
    ]


def descendants(pid: int) -> list[Process]:
    """Returns the children of a process, their children, and so on."""
    table = running()
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [process for process in table if process.parent in parents]
        found += children
        parents = {process.pid for process in children}
    return found


def still_running(processes: list[Process]) -> list[Process]:
    """Returns those that are alive now, and still the same program."""
    now = {(process.pid, process.command) for process in running()}
    return [process for process in processes if (process.pid, process.command) in now]


def _read(folder: Path) -> Process | None:
    try:
        # The name in parentheses may hold anything; what follows it is in columns.
        state, parent, *_rest = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while we looked
    return None if state == "Z" else Process(int(folder.name), int(parent), command)
