"""Says whether a worker lives in this container: the exit status of `python -m gpu_worker.healthcheck`.

A worker holds a lock in its scratch directory from before its first job until it ends, however it ends.
"""

from __future__ import annotations

import os
import sys

from gpu_worker.scratch import has_living_worker
from gpu_worker.settings import SettingsError, WorkerSettings


def main() -> int:
    """Returns 0 while a worker lives, otherwise 1 with a sentence on standard error."""
    try:
        root = WorkerSettings.from_environment(os.environ).scratch_dir
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if has_living_worker(root):
        return 0
    sys.stderr.write(f"no worker lives: nobody holds a lock in {root}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
