"""Plans a restoration from memory: how stages share a GPU, how much the transformer sees at once, tiles.

Times are in latent frames: the first frame of a shot is one latent, each further four frames are one more.
The VAE streams exactly; only the transformer works in windows, whose length is planned here. `windows.py` says
where they lie, `memory.py` has the bytes.

What is tried, in this order; the first that fits is the plan:

    streaming    all stages side by side, windows of 16 latents or more
    phased       one stage after the other, each over a whole segment; latents wait on the host
    evicting     phased, and the transformer's weights wait on the host while the VAE works
    shared rows  the same three with 2, then 4 GPUs that share the rows of each frame (when allowed)
    tiles        evicting, with the VAE in tiles: the only step that changes the picture, so it comes last
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpu_worker.contract import SegmentPlan
from gpu_worker.engine.memory import UNFUSED, WEIGHTS, Footprint, Kernels

#: Longer windows gain nothing: the networks look at most 30 latents far (performance.md, 1.3).
MAX_LENGTH: Final = 32
#: Shorter windows are worth the wait for phases, which take turns instead of memory.
_SHORTEST_STREAMING: Final = 16
#: Windows of a multiple of this divide into equal parts in time.
_EVEN_LENGTH: Final = 4
_MAX_OVERLAP: Final = 2
#: The first frame of a shot is one latent, each further four are one more.
FRAMES_PER_LATENT: Final = 4

#: Frames per call in the layers at full frame rate: more are faster while convolutions stay below the limit.
_FRAMES_PER_CALL: Final = (4, 2, 1)
#: Kernels index with 32 bits; the widest layer at full size has 256 channels and sees two frames more.
_MAX_ELEMENTS: Final = 2**31
_FULL_SIZE_CHANNELS: Final = 256
_KEPT_FRAMES: Final = 2

#: Tiles in pixels: multiples of the VAE's and the transformer's cells, none so small that nothing is left of it.
_TILE_STEP: Final = 64
_SMALLEST_TILE: Final = 256
_TILE_PER_OVERLAP: Final = 8

#: Frames up to this size take one GPU; larger ones take what there is, up to four.
_ONE_GPU_PIXELS: Final = 1280 * 720
_GROUPS: Final = (4, 2, 1)


class DoesNotFit(ValueError):
    """Not even tiles and a window of one latent fit into the memory; the message has both numbers."""


class Mode(enum.StrEnum):
    """How the stages share the memory of a GPU."""

    STREAMING = "streaming"
    PHASED = "phased"
    EVICTING = "evicting"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be planned: the result's size in pixels, its frames (None when unknown), and who does it.

    `num_gpus` is what the worker has; `num_segments` is how many parts can be restored side by side.
    """

    model: str
    width: int
    height: int
    num_frames: int | None = None
    num_gpus: int = 1
    num_segments: int | None = None

    def __post_init__(self) -> None:
        if self.model not in WEIGHTS:
            raise ValueError(f"model is {self.model!r}; planned are {', '.join(WEIGHTS)}")
        for name in ("width", "height", "num_gpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("num_frames", "num_segments"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Square tiles of the VAE and what neighbours share, in pixels."""

    size: int
    overlap: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How to restore. Only tiles change the picture; the rest decides speed and memory.

    `num_sharing` GPUs share each frame's rows; `sp_size` GPUs serve the job, each with segments of its own
    (or in groups that share). `peak_bytes` is what the model of `memory.py` expects on each GPU, weights
    included.
    """

    mode: Mode
    window_length: int
    frames_per_call: int
    peak_bytes: int
    sp_size: int
    num_sharing: int = 1
    tiles: Tiles | None = None

    @property
    def overlap(self) -> int:
        """Latents that neighbouring windows share."""
        return overlap_of(self.window_length)

    @property
    def in_the_picture(self) -> SegmentPlan:
        """What of it shows."""
        return SegmentPlan(
            window_length=self.window_length, tile_size=0 if self.tiles is None else self.tiles.size
        )


def num_latents(num_frames: int) -> int:
    """Latents of a shot: one for its first frame, one for each further four or part of four."""
    return 1 + -(-(num_frames - 1) // FRAMES_PER_LATENT)


def overlap_of(length: int) -> int:
    """Latents that a window of this length shares with the one before it."""
    return min(_MAX_OVERLAP, length // 2)


def plan(work: Work, free_bytes: int, *, may_share: bool = False, kernels: Kernels = UNFUSED) -> Plan:
    """Returns the first plan, in the order of this module, that fits into `free_bytes` on each GPU.

    Windows are never longer than the video or `MAX_LENGTH`; longer ones than 4 are multiples of 4 unless they
    hold the whole video. Raises `DoesNotFit`.

    Args:
        work: what is to be restored.
        free_bytes: of memory on each GPU, with nothing loaded yet.
        may_share: whether the GPUs may share the rows of each frame.
        kernels: what the transformer's kernels need.
    """
    longest = MAX_LENGTH if work.num_frames is None else min(MAX_LENGTH, num_latents(work.num_frames))
    groups = [size for size in reversed(_GROUPS) if size == 1 or (may_share and size <= work.num_gpus)]
    for num_sharing in groups:
        footprint = _footprint(work, num_sharing, kernels)
        for mode in Mode:
            shortest = min(longest, _SHORTEST_STREAMING) if mode is Mode.STREAMING else 1
            for length in _lengths(longest, shortest):
                if made := _whole(work, footprint, mode, length, free_bytes):
                    return made
    return _tiled(work, free_bytes, longest, kernels)


def plan_like(work: Work, free_bytes: int, wanted: SegmentPlan, *, kernels: Kernels = UNFUSED) -> Plan | None:
    """Returns the first plan with the same windows and tiles as another worker's; None when none fits."""
    footprint = _footprint(work, 1, kernels)
    if wanted.tile_size:
        return _in_tiles(work, footprint, wanted.tile_size, wanted.window_length, free_bytes)
    plans = (_whole(work, footprint, mode, wanted.window_length, free_bytes) for mode in Mode)
    return next((made for made in plans if made is not None), None)


def _whole(work: Work, footprint: Footprint, mode: Mode, length: int, free_bytes: int) -> Plan | None:
    """The plan with the most frames per call that fits."""
    for frames in _frames_per_call(footprint.pixels):
        needed = memory_needed(footprint, mode, length, frames)
        if needed <= free_bytes:
            return Plan(
                mode=mode,
                window_length=length,
                frames_per_call=frames,
                peak_bytes=needed,
                sp_size=max(recommended_gpus(work), footprint.num_sharing),
                num_sharing=footprint.num_sharing,
            )
    return None


def _tiled(work: Work, free_bytes: int, longest: int, kernels: Kernels) -> Plan:
    """The largest tile that fits; the transformer still sees whole frames."""
    footprint = _footprint(work, 1, kernels)
    largest = max(work.width, work.height) // _TILE_STEP * _TILE_STEP
    for size in range(largest, _SMALLEST_TILE - 1, -_TILE_STEP):
        for length in _lengths(longest, 1):
            if made := _in_tiles(work, footprint, size, length, free_bytes):
                return made
    least = memory_needed(footprint, Mode.EVICTING, 1, 1)
    raise DoesNotFit(
        f"{work.width}x{work.height} with {work.model} on {work.num_gpus} GPUs needs {least} bytes on each "
        f"without tiles, and tiles do not help enough; {free_bytes} are free"
    )


def _in_tiles(work: Work, footprint: Footprint, size: int, length: int, free_bytes: int) -> Plan | None:
    tile = Footprint(
        model=work.model,
        width=min(size, work.width),
        height=min(size, work.height),
        kernels=footprint.kernels,
    )
    # Whole frames go in and out; caches and work are those of a tile.
    coding = max(_encoding(tile, 1), _decoding(tile, 1)) + footprint.weights.vae + footprint.in_and_out
    needed = max(coding, _denoising(footprint, length))
    if needed > free_bytes:
        return None
    return Plan(
        mode=Mode.EVICTING,
        window_length=length,
        frames_per_call=1,
        peak_bytes=needed,
        sp_size=recommended_gpus(work),
        tiles=Tiles(size=size, overlap=size // _TILE_PER_OVERLAP // 8 * 8),
    )


def memory_needed(footprint: Footprint, mode: Mode, length: int, frames_per_call: int) -> int:
    """Bytes on each GPU for windows of `length` latents."""
    encoding, decoding = _encoding(footprint, frames_per_call), _decoding(footprint, frames_per_call)
    weights, fixed = sum(footprint.weights), footprint.in_and_out
    if mode is Mode.STREAMING:
        work = (
            footprint.encode_work(frames_per_call),
            footprint.decode_work(frames_per_call),
            footprint.transformer_work(length),
        )
        return weights + fixed + footprint.encoder_caches + footprint.decoder_caches + max(work)
    staying = footprint.weights.vae if mode is Mode.EVICTING else weights
    return max(max(encoding, decoding) + staying + fixed, _denoising(footprint, length))


def _footprint(work: Work, num_sharing: int, kernels: Kernels) -> Footprint:
    return Footprint(
        model=work.model, width=work.width, height=work.height, num_sharing=num_sharing, kernels=kernels
    )


def _encoding(footprint: Footprint, frames_per_call: int) -> int:
    return footprint.encoder_caches + footprint.encode_work(frames_per_call)


def _decoding(footprint: Footprint, frames_per_call: int) -> int:
    return footprint.decoder_caches + footprint.decode_work(frames_per_call)


def _denoising(footprint: Footprint, length: int) -> int:
    """The transformer's phase; the VAE's weights are small and stay."""
    return sum(footprint.weights) + footprint.in_and_out + footprint.transformer_work(length)


def _lengths(longest: int, shortest: int) -> Iterator[int]:
    """Windows worth trying, the longest first."""
    for length in range(longest, shortest - 1, -1):
        if length <= _EVEN_LENGTH or length % _EVEN_LENGTH == 0 or length == longest:
            yield length


def _frames_per_call(pixels: int) -> Iterator[int]:
    """Frames per call whose convolutions stay whole; a single frame may be cut into strips."""
    for frames in _FRAMES_PER_CALL:
        if frames == 1 or _FULL_SIZE_CHANNELS * (frames + _KEPT_FRAMES) * pixels < _MAX_ELEMENTS:
            yield frames


def recommended_gpus(work: Work) -> int:
    """GPUs that one job should take: one up to 720p, above that 4, 2 or 1, whatever there is to do and to use.

    Segments need no exchange between GPUs, so more GPUs cost nothing but idle time at the end.
    """
    if work.width * work.height <= _ONE_GPU_PIXELS:
        return 1
    useful = work.num_gpus if work.num_segments is None else min(work.num_gpus, work.num_segments)
    return next(size for size in _GROUPS if size <= useful)


def halved(length: int) -> int | None:
    """The next shorter window after one that did not fit; None when there is no shorter one."""
    return length // 2 or None
