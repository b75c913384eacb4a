"""How many CPU cores encoding a result needs, so that the GPUs never wait for it."""

from __future__ import annotations

import math
from typing import Final

from gpu_worker.contract import Output

#: What one frame's encoding, conversion included, takes of a core for each 10^6 pixels: measured on grain, which is
#: what encoders work for (docs/benchmarks/encoders_cpu_2026-11-24.md).
CORE_SECONDS_PER_MEGAPIXEL: Final = {
    Output.H264: 0.04,
    Output.H265: 0.29,
    Output.PRORES: 0.12,
    Output.PNG: 0.07,
}


def encoder_cores(output: Output, width: int, height: int, frames_per_second: float) -> int:
    """CPU cores that an encoder needs to keep up with so many frames per second; at least 1."""
    seconds_per_frame = CORE_SECONDS_PER_MEGAPIXEL[output] * width * height / 1e6
    return max(1, math.ceil(seconds_per_frame * frames_per_second))
