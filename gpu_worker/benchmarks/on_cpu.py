"""What the measurements of the CPU's work share: their command line and their report."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import av


@dataclass(frozen=True, kw_only=True, slots=True)
class Programme:
    """What one run measures: `sizes` in pixels, frames of each, and how often."""

    sizes: list[tuple[int, int]]
    num_frames: int
    repeats: int


def programme(documentation: str | None, *, sizes: list[tuple[int, int]], num_frames: int) -> Programme:
    """Returns what the command line asks for; `sizes` and `num_frames` where it does not say."""
    parser = argparse.ArgumentParser(description=(documentation or "").partition("\n")[0])
    parser.add_argument("--size", action="append", type=size_of, metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=num_frames)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    return Programme(sizes=arguments.size or sizes, num_frames=arguments.frames, repeats=arguments.repeats)


def size_of(text: str) -> tuple[int, int]:
    """Reads `WIDTHxHEIGHT`; raises ValueError for anything else."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def report(what: str, table: Iterable[str], costs: Sequence[Any], *, num_frames: int, repeats: int) -> str:
    """Returns a Markdown table's lines, then one JSON line with the costs, which are dataclasses."""
    about = {
        "what": what,
        "frames": num_frames,
        "repeats": repeats,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "av": av.__version__,
    }
    return "\n".join([*table, "", json.dumps(about | {"costs": [asdict(cost) for cost in costs]})]) + "\n"
