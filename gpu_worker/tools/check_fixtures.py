"""Checks numeric fixtures against our networks and prints the largest relative error of each tensor.

    python -m gpu_worker.tools.check_fixtures FILE...

A file says itself what it is (its metadata), so any file of these formats can be checked, whatever its sizes,
seeds and configuration. Exits 1 when a tensor is above its limit, 2 when a file is of no known format.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from gpu_worker.tools.fixtures.dit import (
    check_dit,
    check_sampler,
    check_timestep_table,
    check_windows_table,
)
from gpu_worker.tools.fixtures.pipeline import (
    check_color,
    check_frames,
    check_glue,
    check_preprocess,
    check_tiling,
)
from gpu_worker.tools.fixtures.results import Fixture, Result
from gpu_worker.tools.fixtures.vae import check_shapes, check_trace, check_units, check_vae

_BY_KIND: Final[dict[str, Callable[[Fixture], list[Result]]]] = {
    "seedvr2-dit-golden-v1": check_dit,
    "seedvr2-dit-sampler-golden-v1": check_sampler,
    "vae": check_vae,
    "vae_trace": check_trace,
    "vae_units": check_units,
    "vae_full_state_dict_shapes": check_shapes,
    "pipeline_preprocess": check_preprocess,
    "pipeline_frames": check_frames,
    "pipeline_color": check_color,
    "pipeline_glue": check_glue,
    "pipeline_tiling": check_tiling,
}
_BY_TABLE: Final[dict[str, Callable[[Path], list[Result]]]] = {
    "seedvr2-dit-windows-v1": check_windows_table,
    "seedvr2-timestep-transform-v1": check_timestep_table,
}


class UnknownFixtureError(ValueError):
    """The file is of no format that this program knows."""


def check(path: Path) -> list[Result]:
    """Compares every tensor of a fixture; raises UnknownFixtureError for other files."""
    with torch.inference_mode():
        if path.suffix == ".json":
            format_name = json.loads(path.read_text()).get("format", "")
            if format_name in _BY_TABLE:
                return _BY_TABLE[format_name](path)
        elif path.suffix == ".safetensors":
            fixture = Fixture(path)
            format_name = fixture.metadata.get("kind") or fixture.metadata.get("format", "")
            if format_name in _BY_KIND:
                return _BY_KIND[format_name](fixture)
        else:
            format_name = path.suffix
    known = ", ".join([*_BY_KIND, *_BY_TABLE])
    raise UnknownFixtureError(f"{path.name} is {format_name or 'nameless'!r}; known are {known}")


def main() -> int:
    """Checks the files of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    failures = checked = 0
    for path in arguments.files:
        try:
            results = check(path)
        except UnknownFixtureError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        sys.stdout.write(f"{path.name}\n")
        for result in results:
            verdict = "ok  " if result.passed else "FAIL"
            sys.stdout.write(f"  {verdict} {result.error:9.2e} (limit {result.limit:.0e})  {result.name}\n")
        failures += sum(not result.passed for result in results)
        checked += len(results)
    sys.stdout.write(f"{checked} tensors in {len(arguments.files)} files, {failures} above their limit\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
