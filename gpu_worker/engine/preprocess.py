"""Frames into the network's shape and back: resize, crop or pad, normalise, fill up in time.

Sizes are (height, width) in pixels. The network takes multiples of 16 on both axes (8 by the VAE, 2 by the
patches) and 4n + 1 frames (vae_and_pipeline.md, section 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.engine.planner import FRAMES_PER_LATENT

#: Both axes of a network frame are multiples of this.
PIXELS_PER_TOKEN = 16

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """How a source frame becomes a network frame: resize, then crop, then fill up below and on the right.

    `output` is what the viewer gets: the cropped size. `black_fill` fills with black, as the community's tool
    does, instead of repeating the border; black pixels enter the network's statistics.
    """

    source: Size
    resized: Size
    top: int
    left: int
    output: Size
    network: Size
    black_fill: bool = False

    def __post_init__(self) -> None:
        if min(*self.source, *self.resized, *self.output) < 1:
            raise ValueError(f"{self.source} resized to {self.resized} leaves {self.output}")


def exact_geometry(source: Size, output: Size) -> Geometry:
    """Delivers exactly the announced size: the frame is filled up to multiples of 16, nothing is cropped."""
    network = tuple(-(-side // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN for side in output)
    return Geometry(
        source=source, resized=output, top=0, left=0, output=output, network=(network[0], network[1])
    )


def area_geometry(source: Size, target: Size) -> Geometry:
    """The reference's rule: the target's area at the source's aspect ratio, cropped to multiples of 16.

    Up to 15 pixels per axis are lost. The square root and the square come in this order in double precision,
    which decides ties; rounding is to even.
    """
    area = math.sqrt(target[0] * target[1]) ** 2
    scale = math.sqrt(area / (source[0] * source[1]))
    resized = (round(source[0] * scale), round(source[1] * scale))
    output = (
        resized[0] - resized[0] % PIXELS_PER_TOKEN,
        resized[1] - resized[1] % PIXELS_PER_TOKEN,
    )
    return Geometry(
        source=source,
        resized=resized,
        top=round((resized[0] - output[0]) / 2),
        left=round((resized[1] - output[1]) / 2),
        output=output,
        network=output,
    )


def side_geometry(source: Size, short_side: int) -> Geometry:
    """The community's rule: the shorter side becomes `short_side`; black fills up to multiples of 16."""
    height, width = source
    if height <= width:
        resized = (short_side, int(short_side * width / height))
    else:
        resized = (int(short_side * height / width), short_side)
    exact = exact_geometry(source, resized)
    return Geometry(
        source=source,
        resized=resized,
        top=0,
        left=0,
        output=resized,
        network=exact.network,
        black_fill=True,
    )


def to_network(frames: Tensor, geometry: Geometry) -> Tensor:
    """RGB `[T, 3, H, W]` -> float32 `[3, T, H', W']`, -1..1, on the device of the frames.

    Frames are uint8, or uint16 for more than 8 bits, each over its whole range.

    Bicubic with antialiasing and half-pixel centres; it overshoots, so it is clamped. Raises ValueError for
    frames of another size than the geometry's source.
    """
    if frames.shape[-2:] != geometry.source:
        raise ValueError(f"frames of {tuple(frames.shape[-2:])}; the geometry is for {geometry.source}")
    x = frames.float() / torch.iinfo(frames.dtype).max
    if geometry.resized != geometry.source:
        # PyTorch's default differs between versions, and without antialiasing even enlarging differs.
        x = functional.interpolate(x, geometry.resized, mode="bicubic", align_corners=False, antialias=True)
    x = x.clamp_(0.0, 1.0)
    x = x[..., geometry.top : geometry.top + geometry.output[0], :]
    x = x[..., geometry.left : geometry.left + geometry.output[1]]
    below, right = (n - o for n, o in zip(geometry.network, geometry.output, strict=True))
    if below or right:
        x = functional.pad(x, (0, right, 0, below), mode="constant" if geometry.black_fill else "replicate")
    return ((x - 0.5) / 0.5).transpose(0, 1)


def from_network(clip: Tensor, geometry: Geometry, num_frames: int) -> Tensor:
    """Undoes filling: `[3, T', H', W']` -> `[T, 3, H, W]` with exactly the announced frames and size."""
    if clip.shape[1] < num_frames or tuple(clip.shape[2:]) != geometry.network:
        raise ValueError(
            f"{clip.shape[1]} frames of {tuple(clip.shape[2:])}; expected at least {num_frames} of "
            f"{geometry.network}"
        )
    return clip[:, :num_frames, : geometry.output[0], : geometry.output[1]].transpose(0, 1)


def padded_length(num_frames: int, sp_size: int = 1) -> int:
    """Frames after filling up: 1 stays 1, others become 4 * sp_size * k + 1 with k >= 1."""
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; at least 1 is needed")
    if num_frames == 1:
        return 1
    step = FRAMES_PER_LATENT * sp_size
    return step * math.ceil((num_frames - 1) / step) + 1


def repeat_last(num_frames: int, sp_size: int = 1) -> list[int]:
    """Source frame of each frame after filling up by repeating the last one (section 10.4)."""
    return [min(index, num_frames - 1) for index in range(padded_length(num_frames, sp_size))]


def mirror_end(num_frames: int) -> list[int]:
    """The community's rule: frames run backwards at the end, then the last one repeats (section 10.4)."""
    last, missing = num_frames - 1, padded_length(num_frames) - num_frames
    frames = list(range(num_frames))
    if missing < num_frames:
        return frames + [last - 1 - index for index in range(missing)]
    return frames + list(range(last, 0, -1)) + [last] * (missing - last)


def mirror_start(num_frames: int, count: int) -> list[int]:
    """The community's rule for `count` frames in front: backwards; what is missing is the last frame."""
    last = num_frames - 1
    front = (
        list(range(count, 0, -1))
        if count < num_frames
        else [last] * (count - last) + list(range(last, 0, -1))
    )
    return front + list(range(num_frames))


def crossfade(num_frames: int) -> Tensor:
    """Weight of the earlier chunk over an overlap, float32: hold, a cosine fall in the middle third, 0."""
    position = torch.linspace(0.0, 1.0, num_frames)
    if num_frames < 3:
        return 1.0 - position
    return 0.5 + 0.5 * torch.cos(math.pi * (3.0 * position - 1.0).clamp(0.0, 1.0))
