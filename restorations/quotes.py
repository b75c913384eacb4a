"""Quotes: size, price and expected time of a restoration; the same function for page, charge and API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings

from billing.pricing import restoration_credits
from gpu_worker.contract import Engine
from restorations.models import Restoration, Video
from restorations.presets import OutputSize, output_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What a person is told before pressing the button, and what is charged then."""

    preset: str
    size: OutputSize
    num_frames: int
    credits: int
    expected_seconds: int

    @property
    def price_cents(self) -> int:
        """The price in US cents: one credit is sold for one."""
        return self.credits

    @property
    def expected_range(self) -> tuple[int, int]:
        """Seconds that the restoration takes at best and, most likely, at worst."""
        return self.expected_seconds * 2 // 3, self.expected_seconds * 2


#: Millions of output pixels a second, and seconds before the first frame (machine, weights).
#: SeedVR2: counted FLOPs at 60 % of an H100, 95 % of linear on four. CPU: two cores, measured by `make bench`.
_SPEED: Final = {
    (Engine.SEEDVR2, 1): (12.7, 60),
    (Engine.SEEDVR2, 2): (24.1, 60),
    (Engine.SEEDVR2, 4): (48.2, 60),
    (Engine.CPU, 1): (16.0, 4),
    (Engine.CPU, 2): (16.0, 4),
    (Engine.CPU, 4): (16.0, 4),
}


def quote(video: Video, preset: str) -> Quote:
    """Returns the quote for one inspected video and one preset."""
    size = output_size(preset, width=video.width, height=video.height)
    megapixels_a_second, seconds_before = _SPEED[Engine(settings.RESTORATION_ENGINE), size.sp_size]
    megapixels = size.width * size.height * video.num_frames / 1e6
    return Quote(
        preset=preset,
        size=size,
        num_frames=video.num_frames,
        credits=restoration_credits(width=size.width, height=size.height, num_frames=video.num_frames),
        expected_seconds=round(seconds_before + megapixels / megapixels_a_second) + 1,
    )


def price_examples() -> list[dict[str, object]]:
    """Returns what one minute of widescreen video at 25 frames per second costs at each preset."""
    examples: list[dict[str, object]] = []
    for preset in Restoration.Preset:
        size = output_size(preset, width=1920, height=1080)
        price = restoration_credits(width=size.width, height=size.height, num_frames=60 * 25)
        examples.append(
            {"preset": preset.value, "label": preset.label, "credits": price, "price_cents": price}
        )
    return examples
