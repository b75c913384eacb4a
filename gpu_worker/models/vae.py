"""SeedVR2's causal video VAE: 8x8 pixels of 4 frames become 16 numbers (vae_and_pipeline.md, 1 to 6).

Every operator is either per frame (group norm, attention, pointwise convolutions) or a causal filter in
time whose state is a few earlier input frames. So a video may be pushed through in slices, with the same
values as in one piece; the state is a `Stream` outside the modules, so that several videos can share these.

Shapes: `[B, C, T, H, W]` everywhere, channels last in memory. T pixel frames and t latents: T = 4(t - 1) + 1;
pixels -1..1. Parameter names are the checkpoint's: `decoder.up_blocks.0.resnets.1.conv2.weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.models.upsample import to_channels_last
from gpu_worker.models.vae_layers import (
    CausalConv3d,
    Downsampler,
    Execution,
    FrameNorm,
    MidBlock,
    ResnetBlock,
    Stream,
    Upsampler,
    in_pieces,
    steps,
)
from gpu_worker.parallel.halo import bands, join_bands, take_band
from gpu_worker.parallel.ranks import ALONE, Ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Sizes of the published VAE, and of smaller ones for tests (section 1)."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    temporal_scale_num: int = 2
    scaling_factor: float = 0.9152

    def __post_init__(self) -> None:
        if not 0 <= self.temporal_scale_num < len(self.block_out_channels):
            raise ValueError(
                f"temporal_scale_num is {self.temporal_scale_num} of {len(self.block_out_channels)} stages"
            )
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(f"{channels} channels do not divide into {self.norm_num_groups} groups")

    @property
    def time_factor(self) -> int:
        """Pixel frames per latent after the first."""
        return int(2**self.temporal_scale_num)

    @property
    def space_factor(self) -> int:
        """Pixels per latent on each axis."""
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterior:
    """The encoder's answer, both `[B, 16, t, h, w]`; the restorer uses the mean (section 5)."""

    mean: Tensor
    logvar: Tensor  # clamped to -30..20

    @classmethod
    def of(cls, moments_BCTHW: Tensor) -> Posterior:
        """Splits the encoder's output: first the means, then the log-variances."""
        mean, logvar = moments_BCTHW.chunk(2, 1)
        return cls(mean=mean, logvar=logvar.clamp(-30.0, 20.0))

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, with standard normal noise of the mean's shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean)


class DownBlock(nn.Module):
    """Resnets, then a downsampler unless it is the last stage."""

    def __init__(self, resnets: list[ResnetBlock], downsampler: Downsampler | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = None if downsampler is None else nn.ModuleList([downsampler])

    def refine(self, x: Tensor, stream: Stream) -> Tensor:
        """The resnets: `[B, C, T, H, W]` -> `[B, O, T, H, W]`."""
        for resnet in self.resnets:
            x = resnet(x, stream)
        return x

    def shrink(self, x: Tensor, stream: Stream) -> Tensor:
        """The downsampler; the identity in the last stage."""
        if self.downsamplers is not None:
            x = self.downsamplers[0](x, stream)
        return x


class UpBlock(nn.Module):
    """Resnets, then an upsampler unless it is the last stage."""

    def __init__(self, resnets: list[ResnetBlock], upsampler: Upsampler | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.upsamplers = None if upsampler is None else nn.ModuleList([upsampler])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> the next stage's input."""
        for resnet in self.resnets:
            x = resnet(x, stream)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, stream)
        return x


class Encoder(nn.Module):
    """Pixels -> moments of the latents (section 4.1)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups, eps = config.block_out_channels, config.norm_num_groups, config.norm_eps
        last = len(widths) - 1
        #: The first stage that halves time; what comes before it takes any number of frames per call.
        self.first_temporal = last - config.temporal_scale_num
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList()
        for stage, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            resnets = [
                ResnetBlock(width if layer else before, width, groups, eps)
                for layer in range(config.layers_per_block)
            ]
            halves_time = stage >= self.first_temporal
            downsampler = Downsampler(width, halves_time=halves_time) if stage < last else None
            self.down_blocks.append(DownBlock(resnets, downsampler))
        self.mid_block = MidBlock(widths[-1], groups, eps)
        self.conv_norm_out = FrameNorm(groups, widths[-1], eps)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Pixels `[B, 3, T, H, W]` -> moments `[B, 32, t, h, w]`."""
        x = in_pieces(self._at_full_rate, x, stream)
        first, *others = cast(list[DownBlock], self.down_blocks[self.first_temporal :])
        x = first.shrink(x, stream)
        for block in others:
            x = block.shrink(block.refine(x, stream), stream)
        x = self.mid_block(x, stream)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x, stream), inplace=True), stream)
        return out

    def _at_full_rate(self, x: Tensor, stream: Stream) -> Tensor:
        """Everything before the first downsampler in time."""
        x = self.conv_in(x, stream)
        *others, last = cast(list[DownBlock], self.down_blocks[: self.first_temporal + 1])
        for block in others:
            x = block.shrink(block.refine(x, stream), stream)
        return last.refine(x, stream)


class Decoder(nn.Module):
    """Latents -> pixels (section 4.2). Values may leave -1..1."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups, eps = config.block_out_channels[::-1], config.norm_num_groups, config.norm_eps
        last = len(widths) - 1
        #: Stages that double time; what comes after them takes any number of frames per call.
        self.num_temporal = config.temporal_scale_num
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, eps)
        self.up_blocks = nn.ModuleList()
        for stage, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            resnets = [
                ResnetBlock(width if layer else before, width, groups, eps)
                for layer in range(config.layers_per_block + 1)
            ]
            doubles_time = stage < self.num_temporal
            upsampler = Upsampler(width, doubles_time=doubles_time) if stage < last else None
            self.up_blocks.append(UpBlock(resnets, upsampler))
        self.conv_norm_out = FrameNorm(groups, widths[-1], eps)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z: Tensor, stream: Stream) -> Tensor:
        """Latents `[B, 16, t, h, w]` -> pixels `[B, 3, T, H, W]`."""
        x = self.mid_block(self.conv_in(z, stream), stream)
        for block in self.up_blocks[: self.num_temporal]:
            x = block(x, stream)
        return in_pieces(self._at_full_rate, x, stream)

    def _at_full_rate(self, x: Tensor, stream: Stream) -> Tensor:
        """Everything after the last upsampler in time."""
        for block in self.up_blocks[self.num_temporal :]:
            x = block(x, stream)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x, stream), inplace=True), stream)
        return out


class VideoVAE(nn.Module):
    """Encoder and decoder, for whole clips and for slices of endless ones."""

    def __init__(self, config: VAEConfig, execution: Execution | None = None) -> None:
        super().__init__()
        self.config = config
        self.execution = execution or Execution()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.requires_grad_(False)

    def prepare(self) -> VideoVAE:
        """Lays weights out with channels last and merges the upsamplers; call once the weights are loaded."""
        for module in self.modules():
            if isinstance(module, Upsampler):
                module.merge()
            elif isinstance(module, CausalConv3d):
                module.weight.data = to_channels_last(module.weight.data)
        return self

    def stream(self, ranks: Ranks = ALONE) -> Stream:
        """The state of a new video, for one direction; several ranks share the rows of every frame."""
        return Stream(self.execution, ranks)

    def encode_slice(self, x: Tensor, stream: Stream, *, ends: bool) -> Tensor:
        """Encodes the next frames of a video: `[B, 3, T, H, W]`, -1..1 -> moments `[B, 32, t, h, w]`.

        The first slice has 1 + 4m frames, later ones a multiple of 4; `ends` says that none follows, and
        frees the state. Raises ValueError for other lengths and for sizes that 8 does not divide.
        """
        time, space = self.config.time_factor, self.config.space_factor
        surplus = x.shape[2] - (0 if stream.num_frames else 1)
        if surplus < 0 or surplus % time or x.shape[2] == 0:
            kind = f"a multiple of {time}" if stream.num_frames else f"1 more than a multiple of {time}"
            raise ValueError(f"a slice of {x.shape[2]} frames; expected {kind}")
        if x.shape[3] % space or x.shape[4] % space:
            raise ValueError(f"frames of {x.shape[4]}x{x.shape[3]}; expected multiples of {space}")
        return self._run(self.encoder, x, stream, ends, x.shape[3] // space, space, 1)

    def decode_slice(self, z: Tensor, stream: Stream, *, ends: bool) -> Tensor:
        """Decodes the next latents of a video: `[B, 16, t, h, w]`, unscaled -> pixels `[B, 3, T, 8h, 8w]`.

        The video's first latent gives one frame, every other four. `ends` says that no slice follows.
        """
        return self._run(self.decoder, z, stream, ends, z.shape[3], 1, self.config.space_factor)

    def _run(
        self, half: nn.Module, x: Tensor, stream: Stream, ends: bool, rows: int, scale_in: int, scale_out: int
    ) -> Tensor:
        """Runs one half on this rank's band of `rows` latent rows; every rank gets the whole result."""
        stream.ends = ends
        stream.num_frames += x.shape[2]
        stream.bands = bands(rows, stream.ranks)
        weight = self.decoder.conv_in.weight
        x = take_band(x, stream.bands, scale_in, stream.ranks).to(weight.device, weight.dtype)
        out: Tensor = half(to_channels_last(x), stream)
        return join_bands(out, [band * scale_out for band in stream.bands], -2, stream.ranks)

    def encode(self, x: Tensor, ranks: Ranks = ALONE) -> Posterior:
        """Encodes a whole clip of 4n + 1 frames, in slices: `[B, 3, T, H, W]`, -1..1 -> posterior."""
        sizes = self._slices(x.shape[2], self.config.time_factor)
        return Posterior.of(self._sliced(self.encode_slice, x, sizes, ranks))

    def decode(self, z: Tensor, ranks: Ranks = ALONE) -> Tensor:
        """Decodes a whole clip in slices: unscaled latents `[B, 16, t, h, w]` -> `[B, 3, 4t - 3, 8h, 8w]`."""
        return self._sliced(self.decode_slice, z, self._slices(z.shape[2], 1), ranks)

    def _slices(self, num_frames: int, per_latent: int) -> list[int]:
        if self.execution.latents_per_slice is None:
            return [num_frames]
        step = self.execution.latents_per_slice * per_latent
        # The first slice takes one frame more: the one that stands alone.
        return [min(num_frames, step + 1), *steps(max(0, num_frames - step - 1), step)]

    def _sliced(self, push: Callable[..., Tensor], x: Tensor, sizes: list[int], ranks: Ranks) -> Tensor:
        stream, parts = self.stream(ranks), x.split_with_sizes(sizes, 2)
        out = [push(part, stream, ends=index == len(parts) - 1) for index, part in enumerate(parts)]
        return torch.cat(out, 2) if len(out) > 1 else out[0]

    def to_latent(self, z: Tensor) -> Tensor:
        """One clip's latents `[1, 16, t, h, w]` -> the transformer's `[t, h, w, 16]`, scaled by 0.9152."""
        return (z[0] * self.config.scaling_factor).permute(1, 2, 3, 0)

    def from_latent(self, latent_THWC: Tensor) -> Tensor:
        """Undoes `to_latent`."""
        return (latent_THWC / self.config.scaling_factor).permute(3, 0, 1, 2)[None]
