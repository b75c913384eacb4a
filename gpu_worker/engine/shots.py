"""One shot through the networks, from pictures to restored pictures, in memory that does not grow.

    pictures -> VAE encoder -> latents -> transformer in windows -> blended latents -> VAE decoder -> pictures

The planner decides whether the stages run side by side or one after the other; the values are the same.
The VAE streams: pushing a shot through in slices of one latent gives the values of pushing it through at
once. Only the transformer sees windows; where two overlap, their results are blended in latent space.

Shapes: t latents, T frames, h and w latent rows and columns; latents `[t, h, w, 16]` in the scaled space.
Pictures are numpy uint8 RGB `[H, W, 3]`, clips float -1..1 `[3, T, H, W]`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gpu_worker.contract import ColorFix, ErrorCode, WorkerError
from gpu_worker.diffusion.noise import frame_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, sample
from gpu_worker.engine.color import fix_color, quantize
from gpu_worker.engine.phases import Evictable, Parked
from gpu_worker.engine.pictures import Picture, Pixels
from gpu_worker.engine.planner import FRAMES_PER_LATENT, Mode, Tiles, Window, halved, next_window, overlap_of
from gpu_worker.engine.preprocess import (
    Geometry,
    exact_geometry,
    from_network,
    to_network,
)
from gpu_worker.engine.presets import Networks
from gpu_worker.models.dit import Condition
from gpu_worker.models.tiling import Codec, decoder_layout, encoder_layout, stream_tiled

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the user chose: the result's size in pixels, the seed, and how much of the model's picture shows.

    `strength` 0 is a plain resize, 100 the pure output of the model with its colors fixed.
    """

    width: int
    height: int
    seed: int
    strength: int = 100
    color_fix: ColorFix = ColorFix.WAVELET

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 2 or self.width % 2 or self.height % 2:
            raise ValueError(f"the size is {self.width}x{self.height}; video needs even numbers from 2 on")
        if not 0 <= self.strength <= 100:
            raise ValueError(f"strength is {self.strength}; accepted are 0 to 100")


@dataclass(kw_only=True, slots=True)
class Pace:
    """How shots go through the memory. `length` of the windows, in latents, halves when memory runs out and stays
    so for later shots and jobs.
    """

    length: int
    mode: Mode = Mode.STREAMING
    tiles: Tiles | None = None

    def slow_down(self, error: Exception) -> None:
        """Halves the length. Raises `WorkerError` when it cannot be shorter."""
        shorter = halved(self.length)
        if shorter is None:
            raise WorkerError(ErrorCode.OUT_OF_MEMORY, "not even one latent fits into the memory") from error
        logger.warning("out of memory: windows of %d latents instead of %d", shorter, self.length)
        self.length = shorter


@dataclass(kw_only=True)
class Shot:
    """One shot on its way. `first_latent` is its place in the whole video, by which its noise is keyed."""

    networks: Networks
    transformer: Evictable
    condition: Condition
    look: Look
    pace: Pace
    first_latent: int
    num_latents: int = 0
    #: Pictures that went in and whose result has not come out yet.
    waiting: deque[Picture] = field(default_factory=deque)

    def restored(self, pictures: Iterator[Picture]) -> Iterator[tuple[Pixels, int]]:
        """Yields each picture of the shot restored, with its moment. All pictures have one size."""
        first = next(pictures)
        geometry = exact_geometry(first.size, (self.look.height, self.look.width))
        encoded = self._encode(first, pictures, geometry)
        streams = self.pace.mode is Mode.STREAMING
        clips = self._decode(self._denoise(encoded)) if streams else self._in_phases(encoded)
        for clip in clips:
            yield from self._finish(clip, geometry)

    def _in_phases(self, encoded: Iterator[Tensor]) -> Iterator[Tensor]:
        """The three stages one after the other: each has the device for itself, the shot waits on the host."""
        evicts = self.pace.mode is Mode.EVICTING
        if evicts:
            self.transformer.evict()
        latents = Parked(encoded)
        self.transformer.restore()
        results = Parked(self._denoise(latents.back()))
        if evicts:
            self.transformer.evict()
        yield from self._decode(results.back())

    def _encode(self, first: Picture, pictures: Iterator[Picture], geometry: Geometry) -> Iterator[Tensor]:
        """Yields the shot's latents one by one, each `[h, w, 16]`."""
        slices = _slices(first, pictures)
        moments = self._encode_tiles(slices, geometry) if self.pace.tiles else self._moments(slices, geometry)
        for moment in moments:
            self.num_latents += 1
            yield self.networks.vae.to_latent(moment.chunk(2, 1)[0])[0]

    def _moments(self, slices: Iterator[list[Picture]], geometry: Geometry) -> Iterator[Tensor]:
        encode = self._encoder()
        for index, slice_ in enumerate(slices):
            self.waiting.extend(slice_)
            yield encode(self._frames(slice_, geometry, starts=index == 0))

    def _encode_tiles(self, slices: Iterator[list[Picture]], geometry: Geometry) -> Iterator[Tensor]:
        """The moments of a shot in tiles; its pictures wait, for every tile sees all of them."""
        assert self.pace.tiles is not None
        kept = list(slices)
        self.waiting.extend(picture for slice_ in kept for picture in slice_)

        def frames() -> Iterator[Tensor]:
            return (self._frames(slice_, geometry, starts=i == 0) for i, slice_ in enumerate(kept))

        layout = encoder_layout(geometry.network, tile=self.pace.tiles.size, overlap=self.pace.tiles.overlap)
        for moments in stream_tiled(self._encoder, frames, layout, dtype=torch.float32):
            yield moments.to(self.networks.prompt.device)

    def _encoder(self) -> Codec:
        """Begins a stream of the VAE's encoder."""
        vae, stream = self.networks.vae, self.networks.vae.stream()
        return lambda frames: vae.encode_slice(frames, stream, ends=False)

    def _decoder(self) -> Codec:
        """Begins a stream of the VAE's decoder."""
        vae, stream = self.networks.vae, self.networks.vae.stream()
        return lambda latent: vae.decode_slice(latent, stream, ends=False)

    def _frames(self, slice_: list[Picture], geometry: Geometry, *, starts: bool) -> Tensor:
        """The frames of one latent, `[1, 3, T, H, W]`: one where the shot starts, then four.

        A last slice that is too short repeats its last frame.
        """
        frames = self._clip(slice_, geometry)
        missing = 0 if starts else FRAMES_PER_LATENT - len(slice_)
        return torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1)], 1)[None]

    def _denoise(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the restored latents `[t, h, w, 16]`, in parts as they are ready."""
        kept: deque[Tensor] = deque()
        blend = Blend()
        done = known = 0
        for latent, ends in _with_last(latents):
            kept.append(latent)
            known += 1
            while window := next_window(done=done, known=known, length=self.pace.length, ends=ends):
                offset = known - len(kept)
                there = list(islice(kept, window.start - offset, window.end - offset))
                try:
                    result = self._window(torch.stack(there), window.start)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    self.pace.slow_down(error)
                    continue
                yield blend.add(result, window)
                done = window.end
                # The shot's last window reaches back by its full length.
                while known - len(kept) < done - self.pace.length:
                    kept.popleft()
        yield blend.rest()

    def _window(self, latents: Tensor, start: int) -> Tensor:
        """Restores the latents of one window, which begins at the shot's latent `start`."""
        shape = tuple(latents.shape[:3])
        noise = frame_noise(self.look.seed, self.first_latent + start, latents.shape)

        def velocity(x: Tensor, _timestep: Tensor) -> Tensor:
            out: Tensor = self.networks.transformer(x.flatten(0, 2), [shape], self.condition)
            return out.reshape(*shape, -1)

        model_input = assemble_condition(latents, None, torch.zeros(1))
        return sample(noise.to(latents.device), model_input, velocity, SamplerConfig())

    def _decode(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the clip of each latent: the first one's has one frame, every other's four."""
        vae, tiles = self.networks.vae, self.pace.tiles
        latents = (vae.from_latent(latent[None]) for part in parts for latent in part)
        if tiles is None:
            decode = self._decoder()
            for latent in latents:
                yield decode(latent)[0]
            return
        kept = list(latents)
        size = (kept[0].shape[-2], kept[0].shape[-1])
        layout = decoder_layout(size, tile=tiles.size, overlap=tiles.overlap)
        # Pixels of a whole shot wait on the host: 16 bits hold more than their last digit.
        dtype = torch.float32 if kept[0].dtype == torch.float32 else torch.float16
        for clip in stream_tiled(self._decoder, lambda: iter(kept), layout, dtype=dtype):
            yield clip[0].to(kept[0].device)

    def _finish(self, clip: Tensor, geometry: Geometry) -> Iterator[tuple[Pixels, int]]:
        """Gives a clip its source's colors and its share in the result."""
        num_frames = min(clip.shape[1], len(self.waiting))
        pictures = [self.waiting.popleft() for _ in range(num_frames)]
        plain = from_network(self._clip(pictures, geometry), geometry, num_frames)
        pure = from_network(clip, geometry, num_frames).float()
        # Both ends of the blend are what can be shown, or half of it would not lie half way.
        fixed = fix_color(pure, plain, self.look.color_fix).clamp(-1.0, 1.0)
        result = quantize(torch.lerp(plain, fixed, self.look.strength / 100))
        pixels = result.permute(0, 2, 3, 1).cpu().numpy()
        for picture, frame in zip(pictures, pixels, strict=True):
            yield frame, picture.ticks

    def _clip(self, pictures: list[Picture], geometry: Geometry) -> Tensor:
        """Pictures at the size of the network, `[3, T, H, W]`, on its device."""
        frames = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        return to_network(frames.to(self.networks.prompt.device).permute(0, 3, 1, 2), geometry)


class Blend:
    """Joins the results of windows: over an overlap the earlier one fades into the later one, linearly."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def add(self, result: Tensor, window: Window) -> Tensor:
        """Takes a window's result; returns the latents that no later window changes, in order.

        The last latents of a window are held back for the next one's overlap. After a change of the window's
        length the new overlap may be shorter than what is held; the rest is finished as it is.
        """
        length = window.end - window.start
        before = self._held if self._held is not None else result[:0]
        overlap = min(len(before), window.fresh - window.start)
        new = result[window.fresh - window.start - overlap :].clone()
        weight = torch.arange(1, overlap + 1, device=new.device)[:, None, None, None] / (overlap + 1)
        new[:overlap] = torch.lerp(before[len(before) - overlap :], new[:overlap], weight)
        joined = torch.cat([before[: len(before) - overlap], new])
        hold = min(overlap_of(length), window.end - window.fresh)
        self._held = joined[len(joined) - hold :]
        return joined[: len(joined) - hold]

    def rest(self) -> Tensor:
        """Returns what was held back, once the shot has ended."""
        if self._held is None:
            raise ValueError("no window was added")
        return self._held


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for what PyTorch raises when a device or the host has no memory left."""
    # The host's allocator raises a bare RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _slices(first: Picture, pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    """The pictures of each latent: one, then four each, and at the end what is left."""
    yield [first]
    while slice_ := list(islice(pictures, FRAMES_PER_LATENT)):
        yield slice_


def _with_last(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Yields each item and whether it is the last one."""
    iterator = iter(items)
    waiting = next(iterator)
    for item in iterator:
        yield waiting, False
        waiting = item
    yield waiting, True
