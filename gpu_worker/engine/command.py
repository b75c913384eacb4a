"""`python -m gpu_worker restore IN OUT ...`: the SeedVR2 engine on one file, for people."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final, TextIO

from gpu_worker.contract import WorkerError
from gpu_worker.engine.seedvr2 import add_options, restore_file
from gpu_worker.engine.video import VideoSource

_BAR_WIDTH: Final = 30
#: A terminal is drawn anew at most so often.
_DRAW_SECONDS: Final = 0.1


def restore(arguments: list[str]) -> int:
    """Restores a file with a progress bar on standard error; returns 0 when it succeeded."""
    parser = argparse.ArgumentParser(prog="python -m gpu_worker restore", description=__doc__)
    add_options(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    started_at = time.monotonic()
    try:
        bar = ProgressBar(_num_frames(options.source), sys.stderr)
        measured = restore_file(options, bar.show).measured
    except WorkerError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    bar.finish(measured.num_frames)
    seconds = time.monotonic() - started_at
    size = f"{measured.width}x{measured.height}"
    print(f"{options.result}: {measured.num_frames} frames of {size} in {seconds:.1f} s")
    return 0


class ProgressBar:
    """One line of a terminal that fills up; `num_frames` is 0 when the file does not say how many it has."""

    def __init__(self, num_frames: int, terminal: TextIO) -> None:
        self._num_frames = num_frames
        self._terminal = terminal
        self._drawn_at = 0.0

    def show(self, num_done: int) -> None:
        """Draws the bar, unless it was drawn just now."""
        now = time.monotonic()
        if now - self._drawn_at >= _DRAW_SECONDS:
            self._drawn_at = now
            self._draw(num_done)

    def finish(self, num_done: int) -> None:
        """Draws the bar for the last time."""
        self._draw(num_done)
        self._terminal.write("\n")

    def _draw(self, num_done: int) -> None:
        share = min(1.0, num_done / self._num_frames) if self._num_frames else 0.0
        bar = ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, ".")
        self._terminal.write(f"\r[{bar}] {num_done}/{self._num_frames or '?'} frames")
        self._terminal.flush()


def _num_frames(source: Path) -> int:
    with closing(VideoSource(source)) as video:
        return video.num_frames
