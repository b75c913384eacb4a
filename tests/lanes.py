"""Runs the tests by lane: `python -m tests.lanes [LANE ...]`; without a name, all of them.

A lane is a set of tests that need the same things. All lanes run, also after a failure; the last lines repeat each
lane's summary, and the exit status is 1 when anything failed or could not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
NETWORKS: Final = Path("tests/gpu_worker/networks")
_SUMMARY: Final = re.compile(r"^=+ .*\b(passed|failed|errors?|deselected|no tests ran)\b.* =+$")
_COLORS: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """Arguments for pytest and variables for its environment; without the path `needs` there is nothing to do."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None


_QUICK: Final = "not (services or journey or torch or gpu or postgres)"
# Their modules import PyTorch as soon as they are collected.
_WITHOUT_NETWORKS: Final = f"--ignore={NETWORKS}"
LANES: Final = (
    # Tests wait as well as work: three share two cores.
    Lane(name="fast", arguments=(_WITHOUT_NETWORKS, "-m", _QUICK, "-n", "3")),
    # A file's tests share the processes that its fixtures start.
    Lane(name="services", arguments=(_WITHOUT_NETWORKS, "-m", "services", "-n", "3", "--dist", "loadfile")),
    Lane(
        name="postgres",
        arguments=(
            *("--postgres", "-m", "both_databases or not (services or journey or torch or gpu)", "-n", "2"),
            # These touch no database.
            *("--ignore=tests/gpu_worker", "--ignore=tests/architecture/test_sources.py"),
            "--ignore=tests/site/test_catalogues.py",
        ),
        # Python's own checks cost a sixth of the time, which the quick lane has not got.
        environment={"PYTHONDEVMODE": "1"},
    ),
    Lane(name="networks", arguments=("-m", "torch", str(NETWORKS)), needs=NETWORKS),
    # Playwright runs an event loop in the thread of the test, which reads the database as well. Each of the two has a
    # product of its own to look at.
    Lane(
        name="journeys",
        arguments=("-m", "journey", "tests/journeys", "-n", "2", "--dist", "loadfile"),
        environment={"DJANGO_ALLOW_ASYNC_UNSAFE": "1"},
    ),
)


def main(names: list[str]) -> int:
    """Runs the named lanes, or all; returns the exit status."""
    known = {lane.name: lane for lane in LANES}
    if unknown := sorted(set(names) - set(known)):
        print(f"unknown lanes: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    results = [run(lane) for lane in LANES if not names or lane.name in names]
    print("\nAll lanes:")
    for _passed, summary in results:
        print(summary)
    return 0 if all(passed for passed, _summary in results) else 1


def run(lane: Lane) -> tuple[bool, str]:
    """Runs one lane; returns whether it passed, and pytest's summary of it."""
    if lane.needs is not None and not (ROOT / lane.needs).exists():
        return True, f"{lane.name}: {lane.needs} is not part of this checkout, so there is nothing to run"
    print(f"\n--- {lane.name} ---", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *lane.arguments],
        cwd=ROOT,
        env={**os.environ, **lane.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    summary = "ended without a summary"
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        if _SUMMARY.match(plain := _COLORS.sub("", line.rstrip())):
            summary = plain
    return process.wait() == 0, f"{lane.name}: {summary}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
