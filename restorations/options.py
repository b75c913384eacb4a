"""What a person chooses for a restoration: the choices with their words, and what they mean for one video."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from gpu_worker.contract import MAX_STRENGTH, MIN_WIDTH_OF_H265, ColorFix, Engine, Model, Output
from restorations.presets import Preset, output_size

if TYPE_CHECKING:
    from restorations.models import Restoration, SavedSettings, Video

#: Lets the source decide: never below its quality.
AUTOMATIC: Final = "auto"
#: Settings that the CPU preview engine takes and does not use; the pages say so.
UNUSED_BY: Final[dict[Engine, frozenset[str]]] = {
    Engine.CPU: frozenset({"model", "strength", "color_fix", "seed"}),
    Engine.SEEDVR2: frozenset(),
}


class ModelChoice(models.TextChoices):
    """The networks on offer."""

    SEEDVR2_7B = Model.SEEDVR2_7B.value, _("SeedVR2 7B")
    SEEDVR2_7B_SHARP = Model.SEEDVR2_7B_SHARP.value, _("SeedVR2 7B sharp")
    SEEDVR2_3B = Model.SEEDVR2_3B.value, _("SeedVR2 3B")


class ColorFixChoice(models.TextChoices):
    """How the result's colours follow the source's."""

    WAVELET = ColorFix.WAVELET.value, _("Keep the original's colours")
    LAB = ColorFix.LAB.value, _("Match colours closely")
    ADAIN = ColorFix.ADAIN.value, _("Match the overall tone")
    NONE = ColorFix.NONE.value, _("Leave the model's colours")


class OutputChoice(models.TextChoices):
    """What a result can be written as."""

    H264 = Output.H264.value, _("MP4, H.264")
    H265 = Output.H265.value, _("MP4, H.265 10-bit")
    PRORES = Output.PRORES.value, _("MOV, ProRes 422 HQ")
    PNG = Output.PNG.value, _("PNG pictures")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The settings of one restoration; each but the resolution has a recommended value.

    `strength` is 0 (a plain resize) to 100 (the model alone). `output` is an `Output` or `AUTOMATIC`. Without a
    seed a random one is drawn.
    """

    preset: str
    model: str = Model.SEEDVR2_7B.value
    strength: int = MAX_STRENGTH
    color_fix: str = ColorFix.WAVELET.value
    output: str = AUTOMATIC
    seed: int | None = None

    @classmethod
    def of(cls, row: Restoration | SavedSettings) -> Options:
        """Returns the settings that a restoration ran with, or that were saved."""
        return cls(
            preset=row.preset,
            model=row.model,
            strength=row.strength,
            color_fix=row.color_fix,
            output=row.output,
            seed=getattr(row, "seed", None),
        )

    def to_form(self) -> dict[str, Any]:
        """Returns the values as a form sends them."""
        return {name: "" if value is None else value for name, value in asdict(self).items()}


def to_run_again(restoration: Restoration) -> Options:
    """Returns the settings of a restoration to start another from: with its seed, so that they can be compared."""
    options = Options.of(restoration)
    if options.output == resolved_output(AUTOMATIC, restoration.video):
        return replace(options, output=AUTOMATIC)
    return options


def outputs_for(video: Video) -> list[str]:
    """Returns what a video's result can be written as without losing what makes it: no 8 bits for HDR."""
    if video.is_image:
        return [Output.PNG.value]
    left_out = {Output.H264} if video.is_hdr else set()
    if is_too_narrow_for_h265(video):
        left_out |= {Output.H265}
    return [output.value for output in Output if output not in left_out]


def is_too_narrow_for_h265(video: Video) -> bool:
    """Returns whether the encoder of H.265 cannot be trusted with a result of this shape, at the least resolution."""
    if not video.width:
        return False
    return output_size(Preset.P720, width=video.width, height=video.height).width < MIN_WIDTH_OF_H265


def resolved_output(choice: str, video: Video) -> str:
    """Returns the output of an order: what was chosen, or what holds everything that the source has."""
    if choice != AUTOMATIC:
        return choice
    if video.is_image:
        return Output.PNG.value
    if not video.is_hdr and video.bit_depth <= 8:
        return Output.H264.value
    return Output.PRORES.value if is_too_narrow_for_h265(video) else Output.H265.value


def result_suffix(output: str, *, is_image: bool) -> str:
    """Returns how a result's file name ends."""
    if output == Output.PNG:
        return ".png" if is_image else ".zip"
    return ".mov" if output == Output.PRORES else ".mp4"


def is_played_by_browsers(output: str) -> bool:
    """Returns whether every browser shows such a result of a video as it is; the others get a proxy."""
    return output == Output.H264
