"""Quotes: size, price and expected time of a restoration; the same function for page, charge and API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from django.conf import settings

from billing import offers, price_tables
from billing.pricing import Prices, restoration_credits
from gpu_worker.contract import Engine, Frames, Model, Output
from restorations import reuse
from restorations.models import Restoration, Video
from restorations.options import Options, OutputChoice, resolved_output
from restorations.presets import OutputSize, output_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What a person is told before pressing the button, and what is charged then."""

    preset: str
    size: OutputSize
    output: str
    num_frames: int
    credits: int
    expected_seconds: int
    expected_bytes: int
    #: The stored offer that makes the price binding; None until it was made.
    offer_id: UUID | None = None
    #: The previews whose price is taken off already, and how much that is.
    previews: tuple[Restoration, ...] = ()
    preview_credits: int = 0

    @property
    def full_credits(self) -> int:
        """The price without previews."""
        return self.credits + self.preview_credits

    @property
    def price_cents(self) -> int:
        """The price in US cents: one credit is sold for one."""
        return self.credits

    @property
    def expected_range(self) -> tuple[int, int]:
        """Seconds that the restoration takes at best and, most likely, at worst."""
        return self.expected_seconds * 2 // 3, self.expected_seconds * 2

    def get_output_display(self) -> str:
        """The file format in words, as Django names it for a row."""
        return str(OutputChoice(self.output).label)

    @property
    def is_large(self) -> bool:
        """True for a file that a person should know about before it is downloaded."""
        return self.expected_bytes > _LARGE


#: Millions of output pixels a second, and seconds before the first frame (machine, weights).
#: SeedVR2: counted FLOPs at 60 % of an H100, 95 % of linear on four. CPU: two cores, where `make bench` showed 17
#: when they were busy and 48 when not.
_SPEED: Final = {
    (Engine.SEEDVR2, 1): (12.7, 60),
    (Engine.SEEDVR2, 2): (24.1, 60),
    (Engine.SEEDVR2, 4): (48.2, 60),
    (Engine.CPU, 1): (30.0, 4),
    (Engine.CPU, 2): (30.0, 4),
    (Engine.CPU, 4): (30.0, 4),
}
#: The 7B costs 9 % more than the 3B, most of the work being the VAE's.
_MODEL_SPEED: Final = {Model.SEEDVR2_7B: 1.0, Model.SEEDVR2_7B_SHARP: 1.0, Model.SEEDVR2_3B: 1.09}
#: Millions of pixels that one core encodes in a second at 1080p (docs/benchmarks/encoders_cpu_2026-11-24.md).
_ENCODED_A_SECOND: Final = {Output.H264: 27.0, Output.H265: 6.2, Output.PRORES: 8.9, Output.PNG: 15.5}
#: Cores that encode: four for each H100 beside its networks, and here both, which restore as well.
_CORES_A_GPU: Final = 4
_CORES_HERE: Final = 2
#: Millions of pixels of the source that one core decodes and searches for cuts in a second, on the way to a range.
_DECODED_A_SECOND: Final = 100.0
#: Bytes of a result for each of its pixels, between a cartoon and grain; PNG doubles the bits of deep sources.
_BYTES_A_PIXEL: Final = {Output.H264: 0.05, Output.H265: 0.05, Output.PRORES: 0.5, Output.PNG: 1.5}
_DEEP_PNG: Final = 3
_LARGE: Final = 2 * 10**9


def quote(
    video: Video,
    options: Options,
    *,
    frames: Frames | None = None,
    prices: Prices | None = None,
    has_previews: bool = True,
) -> Quote:
    """Returns the quote for one inspected video and its settings, by the price table in force or a given one.

    It is for the whole, less what previews of it have cost, or for a preview's `frames`. Who knows that the video
    has no previews saves looking for them.
    """
    size = output_size(options.preset, width=video.width, height=video.height)
    output = Output(resolved_output(options.output, video))
    model = Model(options.model)
    num_frames = frames[1] - frames[0] if frames else video.num_frames
    pixels = size.width * size.height * num_frames
    price = _price(prices or price_tables.current(), size, num_frames, model=model.value)
    previews = reuse.paid_previews(video, options) if has_previews and not frames else []
    taken_off = credits_taken_off(price, previews)
    reading = video.width * video.height * frames[0] / 1e6 / _DECODED_A_SECOND if frames else 0
    return Quote(
        preset=options.preset,
        size=size,
        output=output.value,
        num_frames=num_frames,
        credits=price - taken_off,
        expected_seconds=round(
            reading + _seconds(Engine(settings.RESTORATION_ENGINE), model, output, size.sp_size, pixels)
        ),
        expected_bytes=round(pixels * _bytes_a_pixel(output, is_deep=video.bit_depth > 8)),
        previews=tuple(previews),
        preview_credits=taken_off,
    )


def credits_taken_off(price: int, previews: Iterable[Restoration]) -> int:
    """Returns what comes off the price of the whole: what its previews have cost, never more than the price."""
    return min(price, sum(preview.price_credits - preview.refunded_credits for preview in previews))


def _seconds(engine: Engine, model: Model, output: Output, gpus: int, pixels: int) -> int:
    """Returns the seconds of a job: restoring and encoding run side by side, on one machine's cores in turn."""
    megapixels_a_second, seconds_before = _SPEED[engine, gpus]
    megapixels = pixels / 1e6
    if engine is Engine.CPU:
        # The measured speed has H.264's encoding in it.
        encoding = 1 / _ENCODED_A_SECOND[output] - 1 / _ENCODED_A_SECOND[Output.H264]
        seconds = megapixels * (1 / megapixels_a_second + max(0, encoding) / _CORES_HERE)
    else:
        restoring = megapixels / (megapixels_a_second * _MODEL_SPEED[model])
        seconds = max(restoring, megapixels / (_ENCODED_A_SECOND[output] * _CORES_A_GPU * gpus))
    return round(seconds_before + seconds) + 1


def expected_bytes(restoration: Restoration) -> int:
    """Returns how large an order's result will be, more or less."""
    pixels = restoration.res_w * restoration.res_h * restoration.num_frames
    is_deep = restoration.video.bit_depth > 8
    return round(pixels * _bytes_a_pixel(Output(restoration.output), is_deep=is_deep))


def _bytes_a_pixel(output: Output, *, is_deep: bool) -> float:
    return _BYTES_A_PIXEL[output] * (_DEEP_PNG if output is Output.PNG and is_deep else 1)


def _price(prices: Prices, size: OutputSize, num_frames: int, *, model: str) -> int:
    return restoration_credits(
        prices,
        width=size.width,
        height=size.height,
        num_frames=num_frames,
        model=model,
        gpus=size.sp_size,
    )


def subject(video: Video, options: Options, *, frames: Frames | None = None) -> str:
    """Names what an offer is for: all that its price depends on, before previews are taken off."""
    what = f"preview:{frames[1] - frames[0]}" if frames else "video"
    return f"{what}:{video.pk}:{options.preset}:{options.model}"


def binding_quotes(
    video: Video, options: Options, *, frames: Frames | None = None
) -> tuple[list[Quote], Quote | None]:
    """Returns a quote for each preset with these settings, and one for a preview's `frames`.

    They are stored, so that their prices hold for 15 minutes.
    """
    prices, has_previews = price_tables.current(), reuse.has_previews(video)
    presets = [
        _stored(video, replace(options, preset=preset), prices, has_previews=has_previews)
        for preset in Restoration.Preset.values
    ]
    return presets, _stored(video, options, prices, frames=frames) if frames else None


def binding_quote(video: Video, options: Options) -> Quote:
    """Returns the quote for the whole with these settings, stored like the others."""
    return _stored(video, options, price_tables.current())


def _stored(
    video: Video,
    options: Options,
    prices: Prices,
    *,
    frames: Frames | None = None,
    has_previews: bool = True,
) -> Quote:
    offer = quote(video, options, frames=frames, prices=prices, has_previews=has_previews)
    stored = offers.make(
        workspace=video.workspace,
        subject=subject(video, options, frames=frames),
        credits=offer.full_credits,
        prices=prices,
    )
    return replace(offer, offer_id=stored.pk)


def price_of_result(restoration: Restoration, *, num_frames: int) -> int:
    """Returns what a delivered result costs: its frames by the order's own price table, never above the order.

    What previews had paid is taken off.
    """
    version = offers.version_accepted_by(restoration.reference)
    if version is None or num_frames <= 0:
        return restoration.price_credits
    size = OutputSize(width=restoration.res_w, height=restoration.res_h, sp_size=restoration.sp_size)
    price = _price(price_tables.version(version), size, num_frames, model=restoration.model)
    return min(max(0, price - restoration.preview_credits), restoration.price_credits)


def price_examples() -> list[dict[str, object]]:
    """Returns what one minute of widescreen video at 25 frames per second costs at each preset."""
    examples: list[dict[str, object]] = []
    prices = price_tables.current()
    for preset in Restoration.Preset:
        size = output_size(preset, width=1920, height=1080)
        price = _price(prices, size, 60 * 25, model=Model.SEEDVR2_7B.value)
        examples.append(
            {"preset": preset.value, "label": preset.label, "credits": price, "price_cents": price}
        )
    return examples
