"""Starts a worker: `python -m gpu_worker`. RunPod, or whoever plays it, sets the `RUNPOD_*` variables."""

from __future__ import annotations

import logging
import os
import sys


def main() -> int:
    """Serves jobs until told to stop; returns 2 when a setting cannot be used."""
    # The SDK takes a second to import and sets up logging: only a worker that runs pays for that.
    from gpu_worker.handler import make_handler
    from gpu_worker.runpod_loop import progress_sender, serve
    from gpu_worker.scratch import Scratch
    from gpu_worker.settings import SettingsError, WorkerSettings

    # httpx and aiohttp log whole addresses, and ours are presigned.
    for name in ("httpx", "httpcore", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        settings = WorkerSettings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return 2
    scratch = Scratch(settings.scratch_dir)
    try:
        serve(make_handler(settings, scratch=scratch, send_progress=progress_sender))
    finally:
        scratch.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
