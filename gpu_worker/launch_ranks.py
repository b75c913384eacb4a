"""Starts the ranks of a group under torchrun: `python -m gpu_worker.launch_ranks NUM_RANKS PARENT_PID`.

A process of its own, because torchrun imports PyTorch, which the worker's parent does without. It dies with the
parent, and the ranks die with it. The exit status is 137 when a rank was killed, as a shell would say it.
"""

from __future__ import annotations

import signal
import sys
from typing import Final

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from gpu_worker.engine.lifeline import die_with_parent

_KILLED: Final = 128 + signal.SIGKILL


def main(arguments: list[str]) -> int:
    """Runs the ranks until one of them ends; returns the exit status."""
    num_ranks, parent_pid = map(int, arguments)
    die_with_parent(parent_pid)
    options = ["--standalone", f"--nproc-per-node={num_ranks}", "--max-restarts=0", "--local-addr=127.0.0.1"]
    try:
        torchrun([*options, "-m", "gpu_worker.rank"])
    except ChildFailedError as error:
        killed = any(failure.exitcode == -signal.SIGKILL for failure in error.failures.values())
        return _KILLED if killed else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
