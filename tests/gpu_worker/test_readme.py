"""What the worker's README says of memory is what the planner does."""

import re
from pathlib import Path

import pytest

from gpu_worker.engine.memory import GIBIBYTE
from gpu_worker.engine.planner import Mode, Work, plan

README = (Path(__file__).resolve().parents[2] / "gpu_worker/README.md").read_text()
ROWS = re.findall(r"^\| (seedvr2-\w+) \| (\d+)x(\d+) \| (\w+) \| (\d+) \| ([\d.]+) \|", README, re.MULTILINE)


def test_the_table_covers_both_models_and_four_sizes() -> None:
    assert len(ROWS) == 8


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[2]}p")
def test_the_table_is_the_planners(row: tuple[str, ...]) -> None:
    model, width, height, mode, frames, gib = row
    made = plan(Work(model=model, width=int(width), height=int(height)), 76 * GIBIBYTE)
    assert (made.mode.value, 4 * made.window_length - 3) == (mode, int(frames))
    assert round(made.peak_bytes / GIBIBYTE, 1) == float(gib)


def test_smaller_cards_do_what_is_said_of_them() -> None:
    for size, card in (((1280, 720), 22), ((1920, 1080), 22), ((2560, 1440), 46)):
        made = plan(Work(model="seedvr2-7b", width=size[0], height=size[1]), card * GIBIBYTE)
        assert (made.mode, made.tiles) == (Mode.EVICTING, None)
