"""A part of one shot through the networks, from pictures to restored pictures, in memory that does not grow.

    pictures -> VAE encoder -> latents -> transformer in windows -> blended latents -> VAE decoder -> pictures

The planner decides whether the stages run side by side or one after the other; the values are the same.
The VAE streams: pushing a part through in slices of one latent gives the values of pushing it through at
once. Only the transformer sees windows; where two overlap, their results are blended in latent space.

Pictures beyond the part are its context: they fill the memory of the encoder, share in joint windows
(`windows.py`), fill the memory of the decoder, and are left out of the result.

Shapes: t latents, T frames, h and w latent rows and columns; latents `[t, h, w, 16]` in the scaled space.
Pictures are numpy RGB `[H, W, 3]`, uint8 or uint16, clips float -1..1 `[3, T, H, W]`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import torch
from torch import Tensor

from gpu_worker.contract import MAX_STRENGTH, ColorFix, ErrorCode, WorkerError
from gpu_worker.diffusion.noise import frame_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, sample
from gpu_worker.engine.color import fix_color, quantize
from gpu_worker.engine.phases import Evictable, Parked
from gpu_worker.engine.pictures import Picture, Pixels
from gpu_worker.engine.planner import FRAMES_PER_LATENT, Mode, Tiles, halved, num_latents
from gpu_worker.engine.preprocess import Geometry, exact_geometry, from_network, to_network
from gpu_worker.engine.presets import Networks
from gpu_worker.engine.segments import Part, Role
from gpu_worker.engine.transfers import Transfers
from gpu_worker.engine.windows import Latents, Window, next_window
from gpu_worker.engine.work import Made
from gpu_worker.models.dit import Condition
from gpu_worker.models.tiling import Codec, decoder_layout, encoder_layout, stream_tiled

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

#: Latents that a window keeps back for the next one to fade into.
_KEPT_BACK: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the user chose: the result's size in pixels, the seed, and how much of the model's picture shows.

    `strength` 0 is a plain resize, 100 the pure output of the model with its colors fixed. `is_deep` gives 16
    bits a channel instead of 8.
    """

    width: int
    height: int
    seed: int
    strength: int = MAX_STRENGTH
    color_fix: ColorFix = ColorFix.WAVELET
    is_deep: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise ValueError(f"the size is {self.width}x{self.height}; pictures have a pixel at least")
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise ValueError(f"strength is {self.strength}; accepted are 0 to {MAX_STRENGTH}")


@dataclass(kw_only=True, slots=True)
class Pace:
    """How parts go through the memory. `length` of the windows, in latents, halves when memory runs out and stays
    so for later parts; `on_slower` hears of it.
    """

    length: int
    mode: Mode = Mode.STREAMING
    tiles: Tiles | None = None
    on_slower: Callable[[int], None] = lambda _length: None

    def slow_down(self) -> None:
        """Halves the length. Raises `WorkerError` when it cannot be shorter."""
        shorter = halved(self.length)
        if shorter is None:
            raise WorkerError(ErrorCode.OUT_OF_MEMORY, "not even one latent fits into the memory")
        logger.warning("out of memory: windows of %d latents instead of %d", shorter, self.length)
        self.length = shorter
        self.on_slower(shorter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What every part of one job goes through."""

    networks: Networks
    transformer: Evictable
    condition: Condition
    transfers: Transfers
    look: Look
    pace: Pace

    @classmethod
    @torch.inference_mode()
    def of(
        cls, networks: Networks, transformer: Evictable, transfers: Transfers, look: Look, pace: Pace
    ) -> Tools:
        """Prepares what the transformer is told in every window."""
        # The released sampler's one step starts from pure noise, at 1000.
        timestep = torch.tensor([1000.0])
        condition = networks.transformer.condition(networks.prompt, [len(networks.prompt)], timestep)
        return cls(
            networks=networks,
            transformer=transformer,
            condition=condition,
            transfers=transfers,
            look=look,
            pace=pace,
        )


class Shot:
    """A part of one shot on its way; `check` is called whenever work was done."""

    def __init__(self, tools: Tools, part: Part[Picture], *, check: Callable[[], None]) -> None:
        self._tools = tools
        self._networks, self._look, self._pace = tools.networks, tools.look, tools.pace
        self._part = part
        self._check = check
        self._own_start = num_latents(part.num_before) if part.num_before else 0
        self._own_end: int | None = None
        #: Latents of context that the decoder gets in front of the part's own.
        self._num_lead = 0
        #: Own pictures that went in and whose result has not come out yet.
        self._waiting: deque[Picture] = deque()

    def restored(self) -> Iterator[Made]:
        """Yields the part's own pictures restored. All pictures of a part have one size."""
        slices = _slices(self._part)
        first, role = next(slices)
        geometry = exact_geometry(first[0].size, (self._look.height, self._look.width))
        whole = _joined((first, role), slices)
        if self._look.strength == 0:
            # The networks' share of the picture is nothing.
            yield from self._resized(whole, geometry)
            return
        encoded = self._encode(whole, geometry)
        streams = self._pace.mode is Mode.STREAMING
        clips = self._decode(self._denoise(encoded)) if streams else self._in_phases(encoded)
        for clip in clips:
            yield from self._finish(clip, geometry)
            self._check()

    def _resized(self, slices: Iterable[tuple[list[Picture], Role]], geometry: Geometry) -> Iterator[Made]:
        for pictures, role in slices:
            if role is Role.OWN:
                plain = from_network(self._clip(pictures, geometry), geometry, len(pictures))
                yield from self._made(plain, pictures)
                self._check()

    def _in_phases(self, encoded: Iterator[Tensor]) -> Iterator[Tensor]:
        """The three stages one after the other: each has the device for itself, the part waits on the host."""
        transformer, evicts = self._tools.transformer, self._pace.mode is Mode.EVICTING
        if evicts:
            transformer.evict()
        latents = Parked(encoded)
        transformer.restore()
        results = Parked(self._denoise(latents.back()))
        if evicts:
            transformer.evict()
        yield from self._decode(results.back())

    def _encode(self, slices: Iterator[tuple[list[Picture], Role]], geometry: Geometry) -> Iterator[Tensor]:
        """Yields the latents one by one, each `[h, w, 16]`, context included."""
        noted = self._noted(slices)
        moments = self._encode_tiles(noted, geometry) if self._pace.tiles else self._moments(noted, geometry)
        for moment in moments:
            yield self._networks.vae.to_latent(moment.chunk(2, 1)[0])[0]
            self._check()

    def _noted(self, slices: Iterator[tuple[list[Picture], Role]]) -> Iterator[list[Picture]]:
        """The pictures of each latent; notes which are the part's own, and where these end."""
        for index, (pictures, role) in enumerate(slices):
            if role is Role.OWN:
                self._waiting.extend(pictures)
            elif role is Role.AFTER and self._own_end is None:
                self._own_end = index
            yield pictures

    def _moments(self, slices: Iterator[list[Picture]], geometry: Geometry) -> Iterator[Tensor]:
        vae, stream = self._networks.vae, self._networks.vae.stream()
        for index, (pictures, ends) in enumerate(_with_last(slices)):
            yield vae.encode_slice(self._frames(pictures, geometry, starts=index == 0), stream, ends=ends)

    def _encode_tiles(self, slices: Iterator[list[Picture]], geometry: Geometry) -> Iterator[Tensor]:
        """The moments in tiles; all pictures wait, for every tile sees all of them."""
        assert self._pace.tiles is not None
        kept = list(slices)

        def frames() -> Iterator[Tensor]:
            return (self._frames(pictures, geometry, starts=i == 0) for i, pictures in enumerate(kept))

        def encoder() -> Codec:
            vae, stream = self._networks.vae, self._networks.vae.stream()
            return lambda frames: vae.encode_slice(frames, stream, ends=False)

        layout = encoder_layout(
            geometry.network, tile=self._pace.tiles.size, overlap=self._pace.tiles.overlap
        )
        for moments in stream_tiled(encoder, frames, layout, dtype=torch.float32):
            yield moments.to(self._networks.prompt.device)

    def _frames(self, pictures: list[Picture], geometry: Geometry, *, starts: bool) -> Tensor:
        """The frames of one latent, `[1, 3, T, H, W]`: one where the part starts, then four.

        A last slice that is too short repeats its last frame.
        """
        frames = self._clip(pictures, geometry)
        missing = 0 if starts else FRAMES_PER_LATENT - len(pictures)
        return torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1)], 1)[None]

    def _denoise(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the restored latents `[t, h, w, 16]`, in portions as they are ready.

        They begin `_num_lead` latents before the part's own.
        """
        kept: deque[Tensor] = deque()
        blend = Blend()
        done: int | None = None
        for known, (latent, ends) in enumerate(_with_last(latents), start=1):
            kept.append(latent)
            while window := self._next_window(done, known, ends=ends):
                offset = known - len(kept)
                there = list(islice(kept, window.start - offset, window.end - offset))
                result = self._window(torch.stack(there), window.start)
                if result is None:
                    free(latent.device)
                    self._pace.slow_down()
                    continue
                if done is None:
                    self._num_lead = self._own_start - window.fresh
                yield blend.add(result, window)
                done = window.until
                # A later window reaches back by its full length.
                while known - len(kept) < done - self._pace.length:
                    kept.popleft()
                self._check()
        yield blend.rest()

    def _next_window(self, done: int | None, known: int, *, ends: bool) -> Window | None:
        # The encoder may be further than what is asked for here.
        is_behind = self._own_end is not None and self._own_end < known
        latents = Latents(
            known=known,
            own_start=self._own_start,
            own_end=self._own_end if is_behind else None,
            ends=ends,
        )
        return next_window(latents, done=done, length=self._pace.length) if known > self._own_start else None

    def _window(self, latents: Tensor, start: int) -> Tensor | None:
        """Restores the latents of one window, which begins at the part's latent `start`; None without memory.

        Nothing of a failed attempt is held once this returns: neither tensors nor the error with its frames.
        """
        shape = tuple(latents.shape[:3])
        noise = frame_noise(self._look.seed, self._part.first_latent + start, latents.shape)

        def velocity(x: Tensor, _timestep: Tensor) -> Tensor:
            out: Tensor = self._networks.transformer(x.flatten(0, 2), [shape], self._tools.condition)
            return out.reshape(*shape, -1)

        model_input = assemble_condition(latents, None, torch.zeros(1))
        try:
            return sample(
                self._tools.transfers.to_device([noise.numpy()])[0], model_input, velocity, SamplerConfig()
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _decode(self, portions: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the clip of each of the part's own latents: a shot's first one has one frame, all others four."""
        decoded = self._decode_tiles(portions) if self._pace.tiles else self._clips(portions)
        for index, clip in enumerate(decoded):
            if index >= self._num_lead:
                yield clip

    def _clips(self, portions: Iterable[Tensor]) -> Iterator[Tensor]:
        vae, stream = self._networks.vae, self._networks.vae.stream()
        for latent, ends in _with_last(latent for portion in portions for latent in portion):
            yield vae.decode_slice(vae.from_latent(latent[None]), stream, ends=ends)[0]
            self._check()

    def _decode_tiles(self, portions: Iterable[Tensor]) -> Iterator[Tensor]:
        assert self._pace.tiles is not None
        vae = self._networks.vae
        kept = [vae.from_latent(latent[None]) for portion in portions for latent in portion]

        def decoder() -> Codec:
            stream = vae.stream()
            return lambda latent: vae.decode_slice(latent, stream, ends=False)

        size = (kept[0].shape[-2], kept[0].shape[-1])
        layout = decoder_layout(size, tile=self._pace.tiles.size, overlap=self._pace.tiles.overlap)
        # Pixels of a whole part wait on the host: 16 bits hold more than their last digit.
        dtype = torch.float32 if kept[0].dtype == torch.float32 else torch.float16
        for clip in stream_tiled(decoder, lambda: iter(kept), layout, dtype=dtype):
            yield clip[0].to(kept[0].device)

    def _finish(self, clip: Tensor, geometry: Geometry) -> Iterator[Made]:
        """Gives a clip its source's colors and its share in the result."""
        num_frames = min(clip.shape[1], len(self._waiting))
        pictures = [self._waiting.popleft() for _ in range(num_frames)]
        plain = from_network(self._clip(pictures, geometry), geometry, num_frames)
        pure = from_network(clip, geometry, num_frames).float()
        # Both ends of the blend are what can be shown, or half of it would not lie half way.
        fixed = fix_color(pure, plain, self._look.color_fix).clamp(-1.0, 1.0)
        yield from self._made(torch.lerp(plain, fixed, self._look.strength / MAX_STRENGTH), pictures)

    def _made(self, frames: Tensor, pictures: list[Picture]) -> Iterator[Made]:
        """Sends frames `[T, 3, H, W]` on their way to the encoder."""
        pixels = quantize(frames, is_deep=self._look.is_deep).permute(0, 2, 3, 1)
        arrived = self._tools.transfers.to_host(pixels)
        for index, picture in enumerate(pictures):
            yield Made(partial(_frame, arrived, index), picture.ticks, picture.alpha)

    def _clip(self, pictures: list[Picture], geometry: Geometry) -> Tensor:
        """Pictures at the size of the network, `[3, T, H, W]`, on its device."""
        frames = self._tools.transfers.to_device([picture.pixels for picture in pictures])
        return to_network(frames.permute(0, 3, 1, 2), geometry)


class Blend:
    """Joins the results of windows: over what they share the earlier one fades into the later one, linearly."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def add(self, result: Tensor, window: Window) -> Tensor:
        """Takes a window's result; returns the latents that no later window changes, in order.

        The last latents are held back, because the next window may share them.
        """
        before = self._held if self._held is not None else result[:0]
        fade = min(len(before), window.fade)
        new = result[window.fresh - window.start - fade : window.until - window.start].clone()
        weight = torch.arange(1, fade + 1, device=new.device)[:, None, None, None] / (fade + 1)
        new[:fade] = torch.lerp(before[len(before) - fade :], new[:fade], weight)
        joined = torch.cat([before[: len(before) - fade], new])
        hold = min(_KEPT_BACK, window.until - window.fresh)
        self._held = joined[len(joined) - hold :]
        return joined[: len(joined) - hold]

    def rest(self) -> Tensor:
        """Returns what was held back, once the part has ended."""
        if self._held is None:
            raise ValueError("no window was added")
        return self._held


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for what PyTorch raises when a device or the host has no memory left."""
    # The host's allocator raises a bare RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free(device: torch.device) -> None:
    """Gives back what a failed attempt left in the allocator's cache, in pieces of other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _frame(clip: Callable[[], Pixels], index: int) -> Pixels:
    frame: Pixels = clip()[index]
    return frame


def _slices(part: Part[Picture]) -> Iterator[tuple[list[Picture], Role]]:
    """The pictures of each latent: one, then four each, and at the end what is left.

    Borders of parts are borders of latents, so all pictures of a slice have one role.
    """
    size, slice_, its_role = 1, list[Picture](), Role.OWN
    for picture, its_role in part.frames():
        slice_.append(picture)
        if len(slice_) == size:
            yield slice_, its_role
            size, slice_ = FRAMES_PER_LATENT, []
    if slice_:
        yield slice_, its_role


def _joined(first: Item, others: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from others


def _with_last(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Yields each item and whether it is the last one."""
    iterator = iter(items)
    waiting = next(iterator)
    for item in iterator:
        yield waiting, False
        waiting = item
    yield waiting, True
