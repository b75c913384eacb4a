"""Starts a worker: `python -m gpu_worker`. RunPod, or whoever plays it, sets the `RUNPOD_*` variables.

`python -m gpu_worker restore IN OUT --model MODEL --res-w W --res-h H` restores one file without RunPod.
"""

from __future__ import annotations

import logging
import os
import sys


def main(arguments: list[str]) -> int:
    """Serves jobs, or restores one file when the first argument is `restore`."""
    if not arguments:
        return serve_jobs()
    if arguments[0] == "restore":
        # PyTorch is for those who restore: a worker's parent runs without it.
        from gpu_worker.restore_command import restore

        return restore(arguments[1:])
    sys.stderr.write(
        f"gpu_worker: unknown command {arguments[0]!r}; expected restore, or nothing to serve jobs\n"
    )
    return 2


def serve_jobs() -> int:
    """Serves jobs until told to stop; returns 2 when a setting cannot be used, 1 when no engine starts."""
    # The SDK takes a second to import and sets up logging: only a worker that runs pays for that.
    from gpu_worker.fitness import checks
    from gpu_worker.handler import make_handler
    from gpu_worker.rank_group import GroupFailed
    from gpu_worker.runpod_loop import progress_sender, serve
    from gpu_worker.scratch import Scratch
    from gpu_worker.settings import SettingsError, WorkerSettings
    from gpu_worker.supervisor import Supervisor, patience_of, rank_command

    # httpx and aiohttp log whole addresses, and ours are presigned.
    for name in ("httpx", "httpcore", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        settings = WorkerSettings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return 2
    scratch = Scratch(settings.scratch_dir)
    supervisor = Supervisor(rank_command(settings), patience_of(settings))
    handler = make_handler(settings, scratch=scratch, supervisor=supervisor, send_progress=progress_sender)
    try:
        serve(handler, supervisor=supervisor, checks=checks(settings))
    except GroupFailed as error:
        sys.stderr.write(f"gpu_worker: the ranks cannot be started: {error}\n")
        return 1
    finally:
        supervisor.kill()
        scratch.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
