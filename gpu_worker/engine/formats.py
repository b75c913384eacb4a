"""What a result is written as: container, encoder and pixel format of each kind of output.

Every segment of a result has the same format, or the segments could not be joined without encoding anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import av

from gpu_worker.contract import MIN_WIDTH_OF_H265, ErrorCode, Output, WorkerError
from gpu_worker.engine.colors import FULL_RANGE, LIMITED_RANGE, RGB, Colors, Hdr
from gpu_worker.engine.video import VideoSource

#: Encoders split their work into so many threads on every machine: the split is visible in the bits, and a
#: result must not depend on who made it.
_THREADS: Final = 6
#: A player that jumps into the middle decodes at most so much.
_KEYFRAME_SECONDS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """How ffmpeg is asked for one kind of output. `reordering` is by how many frames B frames come early."""

    codec: str
    pixel_format: str
    container: str
    suffix: str
    media_type: str
    reordering: int
    codec_tag: str | None = None


_ENCODERS: Final = {
    Output.H264: Encoder(
        codec="libx264",
        pixel_format="yuv420p",
        container="mp4",
        suffix=".mp4",
        media_type="video/mp4",
        reordering=2,
    ),
    # Apple's players want the parameter sets in front only, which is what hvc1 promises.
    Output.H265: Encoder(
        codec="libx265",
        pixel_format="yuv420p10le",
        container="mp4",
        suffix=".mp4",
        media_type="video/mp4",
        reordering=2,
        codec_tag="hvc1",
    ),
    Output.PRORES: Encoder(
        codec="prores_ks",
        pixel_format="yuv422p10le",
        container="mov",
        suffix=".mov",
        media_type="video/quicktime",
        reordering=0,
    ),
    Output.PNG: Encoder(
        codec="png",
        pixel_format="rgb24",
        container="zip",
        suffix=".zip",
        media_type="application/zip",
        reordering=0,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFormat:
    """What every segment of one result looks like; made from the source and the user's choice alone.

    `time_base` is the unit of `ticks` in seconds, `rate` the mean of frames a second, `frame_ticks` how long a
    frame lasts where the source does not say, `last_frame_ticks` how long the source's last one lasts. `is_deep` is
    True where the source has more than 8 bits.
    """

    output: Output
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    frame_ticks: int
    last_frame_ticks: int
    colors: Colors
    hdr: Hdr
    is_deep: bool
    has_alpha: bool
    is_image: bool

    @classmethod
    def of(cls, source: VideoSource, output: Output, *, width: int, height: int) -> ResultFormat:
        """Returns the format of a source's result. Raises `INVALID_REQUEST` when the output cannot carry it."""
        if output is Output.H264 and source.colors.is_hdr:
            raise WorkerError(
                ErrorCode.INVALID_REQUEST, "8 bits are too few for HDR; accepted are h265, prores and png"
            )
        if output is not Output.PNG and (width % 2 or height % 2):
            raise WorkerError(ErrorCode.INVALID_REQUEST, f"{width}x{height} is odd; only png holds that")
        if output is Output.H265 and width < MIN_WIDTH_OF_H265:
            raise WorkerError(
                ErrorCode.INVALID_REQUEST,
                f"h265 takes {MIN_WIDTH_OF_H265} pixels and more in a row, {width} were asked for; accepted are "
                "h264, prores and png",
            )
        colors = source.colors
        if output is Output.PRORES:
            # Editors read ProRes as 16..235, whatever its header says.
            colors = replace(colors, color_range=LIMITED_RANGE)
        return cls(
            output=output,
            width=width,
            height=height,
            time_base=source.timeline.time_base,
            rate=source.timeline.mean_rate,
            frame_ticks=source.timeline.frame_ticks,
            last_frame_ticks=source.timeline.last_frame_ticks,
            colors=colors,
            hdr=source.hdr,
            is_deep=source.is_deep,
            has_alpha=source.has_alpha and output is Output.PNG,
            is_image=source.is_image,
        )

    @property
    def encoder(self) -> Encoder:
        """Container and encoder."""
        return _ENCODERS[self.output]

    @property
    def pixel_format(self) -> str:
        """The encoder's pixel format, by ffmpeg's name."""
        if self.output is not Output.PNG:
            return self.encoder.pixel_format
        channels = "rgba" if self.has_alpha else "rgb"
        bits = {("rgb", False): "24", ("rgb", True): "48be", ("rgba", False): "", ("rgba", True): "64be"}
        return channels + bits[channels, self.is_deep]

    @property
    def written_colors(self) -> Colors:
        """What the numbers in the file mean; `colors` is what the YUV frames of the way there mean."""
        if self.output is Output.PNG:
            return replace(self.colors, matrix=RGB, color_range=FULL_RANGE)
        return self.colors

    @property
    def wants_deep(self) -> bool:
        """True where 16-bit pictures come out better than 8-bit ones."""
        return self.output in (Output.H265, Output.PRORES) or (self.output is Output.PNG and self.is_deep)

    @property
    def segment_suffix(self) -> str:
        """How the name of a segment's file ends."""
        return self.encoder.suffix

    @property
    def result_suffix(self) -> str:
        """How the name of the joined file ends."""
        return ".png" if self._is_single_png else self.encoder.suffix

    @property
    def media_type(self) -> str:
        """The joined file's MIME type."""
        return "image/png" if self._is_single_png else self.encoder.media_type

    @property
    def _is_single_png(self) -> bool:
        return self.is_image and self.output is Output.PNG

    def options(self) -> dict[str, str]:
        """The encoder's own options."""
        group = str(max(1, round(self.rate * _KEYFRAME_SECONDS)))
        if self.output is Output.H264:
            return {**_H264, "g": group, "threads": str(_THREADS)}
        if self.output is Output.H265:
            return {**_H265, "g": group, "x265-params": ":".join([*_X265, *self.hdr.x265_parameters()])}
        return dict(_PRORES if self.output is Output.PRORES else _PNG)


# The encoder must not take what the restoration gave. Measured against the lossless picture, 720p, half of it
# with added grain: x264 faster at 14 VMAF 99.4, worst frame 42.1 dB; veryfast at 17 97.5 and 39.4; x265 fast at
# 14 99.1 and 40.7; fast at 16 98.4 and 39.3. Slower presets gain 0.1 at the same value (docs/worker.md).
_H264: Final = {"preset": "faster", "crf": "14"}
_H265: Final = {"preset": "fast", "crf": "14"}
_X265: Final = (
    "log-level=error",
    # A segment must be decodable by itself.
    "open-gop=0",
    # Without a pool of threads x265 writes other parameter sets, as it would on a machine with one core.
    f"pools={_THREADS}",
    "wpp=1",
    "frame-threads=3",
)
_PRORES: Final = {"profile": "hq", "vendor": "apl0", "threads": str(_THREADS)}
_PNG: Final = {"compression_level": "3", "pred": "mixed", "threads": str(_THREADS)}


def encoder_fingerprint(output: Output) -> str:
    """Returns a short text that changes with the encoder or its settings: only equal segments can be joined."""
    settings = {Output.H264: _H264, Output.H265: [_H265, _X265], Output.PRORES: _PRORES, Output.PNG: _PNG}
    described = [av.__version__, av.library_versions, settings[output], _KEYFRAME_SECONDS, _THREADS]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
