"""Copies a fixture file without some of its cases, so that tests stay small. Values are copied bit for bit.

    python -m gpu_worker.tools.select_fixtures SOURCE TARGET --drop CASE [CASE ...]

Tensors named `CASE.*` and the cases' entries in the metadata are left out; nothing else changes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from gpu_worker.tools.fixtures.results import Fixture


def select(source: Path, target: Path, dropped: set[str]) -> None:
    """Writes `target`; raises ValueError when a case to drop does not exist."""
    fixture = Fixture(source)
    cases = fixture.json("cases")
    names = set(cases) if isinstance(cases, dict) else {case["name"] for case in cases}
    if unknown := dropped - names:
        raise ValueError(f"{source.name} has no case {', '.join(sorted(unknown))}; it has {sorted(names)}")
    if isinstance(cases, dict):
        kept: object = {name: case for name, case in cases.items() if name not in dropped}
    else:
        kept = [case for case in cases if case["name"] not in dropped]
    tensors = {n: t for n, t in fixture.tensors.items() if n.partition(".")[0] not in dropped}
    save_file(tensors, target, fixture.metadata | {"cases": json.dumps(kept)})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--drop", nargs="+", required=True, metavar="CASE")
    arguments = parser.parse_args()
    select(arguments.source, arguments.target, set(arguments.drop))


if __name__ == "__main__":
    main()
