"""Ends the supervisor's children when the supervisor is gone, however it went.

The kernel's own death signal (see `child`) reaches direct children only, and only on Linux; a child that is busy
may also take its time. The guard is a process that reads a pipe from the supervisor: the pipe's end means that the
supervisor is no more, and then the guard stops each child's whole process group, first politely, then by force.

It runs as a script, without Django, so that it starts at once and stays small.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Final

#: Seconds that orphaned children get to stop by themselves.
GRACE_SECONDS: Final = 3.0


class Guard:
    """The supervisor's end of the pipe. Restarts the guard's process when that one was killed."""

    def __init__(self, *, inherited: Iterable[int] = ()) -> None:
        """`inherited` are file descriptors that the guard keeps open until the children are gone: the lock."""
        self._inherited = tuple(inherited)
        self._groups: set[int] = set()
        self._process = self._start()

    def watch(self, group: int) -> None:
        """Promises the end of a process group when the supervisor dies."""
        self._groups.add(group)
        self._tell(f"watch {group}\n")

    def forget(self, group: int) -> None:
        """Takes the promise back: the group has ended."""
        self._groups.discard(group)
        self._tell(f"forget {group}\n")

    def tend(self) -> None:
        """Starts the guard's process again if it died."""
        if self._process.poll() is None:
            return
        self._process = self._start()
        for group in self._groups:
            self._tell(f"watch {group}\n")

    def close(self) -> None:
        """Ends the guard; groups that are still watched end with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            bufsize=0,
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=self._inherited,
        )

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            # Killed a moment ago: the new process hears of every group, this change included.
            self._process.wait()
            self.tend()


def signal_group(group: int, number: int) -> bool:
    """Sends a signal, or 0 for none, to a process group; returns whether anyone was there to get it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # macOS says so of groups that consist of zombies only.
        return False
    return True


def end_groups(groups: Iterable[int], *, grace_seconds: float) -> None:
    """Stops process groups: SIGTERM, and SIGKILL for those that are left after `grace_seconds`."""
    left = {group for group in groups if signal_group(group, signal.SIGTERM)}
    deadline = time.monotonic() + grace_seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {group for group in left if signal_group(group, 0)}
    for group in left:
        signal_group(group, signal.SIGKILL)


def main() -> None:
    """Keeps the list of groups until the pipe ends, then ends what is left of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        word, group = line.split()
        if word == "watch":
            groups.add(int(group))
        else:
            groups.discard(int(group))
    end_groups(groups, grace_seconds=GRACE_SECONDS)


if __name__ == "__main__":
    main()
