"""SeedVR2's causal video VAE: 8x8 pixels of 4 frames become 16 numbers (vae_and_pipeline.md, 1 to 6).

Every operator is either per frame (group norm, attention, pointwise convolutions) or a causal filter in
time whose state is a few earlier input frames. So a video may be pushed through in slices, with the same
values as in one piece; the state is a `Stream`, outside the modules, which several videos can share.

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

from gpu_worker.kernels.conv import conv_in_strips, empty_like_format
from gpu_worker.kernels.norm import group_moments, group_norm, normalise_groups
from gpu_worker.models.upsample import (
    MergedUpsampler,
    interleave,
    merge_upsampler,
    to_channels_last,
    write_phase,
)
from gpu_worker.parallel.halo import bands, join_bands, join_moments, take_band, with_neighbours
from gpu_worker.parallel.ranks import ALONE, Ranks

#: Attention scores held at once when PyTorch has no fused kernel for this width: queries go in blocks.
MAX_SCORES = 1 << 28


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
class Execution:
    """How the same values are computed. The default is the fast path; `PLAIN` is the reference for tests."""

    #: One frame that stands at the start of a stream meets three equal frames: 3x3x3 kernels become 3x3.
    fold_images: bool = True
    #: Upsamplers as small convolutions on the low-resolution grid; needs `VideoVAE.prepare()`.
    merge_upsamplers: bool = True
    #: Frames per call in the layers at full frame rate, which set the memory peak; None for all of a slice.
    frames_per_call: int | None = 2
    #: Latents per slice when a whole clip is given.
    latents_per_slice: int | None = 1
    #: Most elements of a convolution's input or output. Kernels index with 32 bits.
    max_elements: int = 2**31 - 1


PLAIN = Execution(fold_images=False, merge_upsamplers=False, frames_per_call=None, latents_per_slice=None)


class Stream:
    """What one video leaves in one direction (encoder or decoder) between two slices.

    `tails` holds, per causal convolution, the input frames that its next call needs. Its size does not
    depend on the length of the video. After the last slice nothing is kept. With several ranks each one
    computes a band of rows, and keeps the tails of its band.
    """

    def __init__(self, execution: Execution, ranks: Ranks = ALONE) -> None:
        self.execution = execution
        self.ranks = ranks
        #: Latent rows of each rank's band of the frame.
        self.bands: tuple[int, ...] = ()
        self.tails: dict[nn.Module, Tensor] = {}
        self.num_frames = 0
        self.ends = False

    @property
    def num_bytes(self) -> int:
        """Memory that the tails hold."""
        return sum(tail.numel() * tail.element_size() for tail in self.tails.values())


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


class CausalConv3d(nn.Conv3d):
    """Convolution over present and past: earlier frames, or copies of the first one (section 3.1).

    There is no padding in time. `zero_end` adds zero rows below and zero columns on the right (section 3.4).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: int = 1,
        zero_end: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding=(0, padding, padding))
        self.zero_end = zero_end
        self.num_kept = kernel[0] - stride[0]

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]  # state comes along
        """`[B, C, T, H, W]` -> `[B, O, T', H', W']`; takes and leaves this layer's tail in the stream."""
        tail = stream.tails.pop(self, None)
        kernel_t = self.kernel_size[0]
        is_single = x.shape[2] == 1 and tail is None
        # Below a band that is not the last one are the next band's rows instead of zeros.
        zero_rows = self.zero_end if stream.ranks.world == 1 else 0
        if is_single and stream.execution.fold_images:
            frame = F.pad(x[:, :, 0], (0, self.zero_end, 0, zero_rows)) if self.zero_end else x[:, :, 0]
            if self.num_kept and not stream.ends:
                kept = empty_like_format((*x.shape[:2], self.num_kept, *frame.shape[-2:]), x)
                stream.tails[self] = kept.copy_(frame[:, :, None])
            return self._convolve(frame, self.weight.sum(2), self.stride[1:], stream)[:, :, None]
        if kernel_t > 1 or self.zero_end:
            x = with_head(x, tail, kernel_t - 1, zero_rows, self.zero_end)
        if self.num_kept and not stream.ends:
            # A copy: a view would keep the whole slice alive.
            stream.tails[self] = x[:, :, -self.num_kept :].clone()
        return self._convolve(x, self.weight, self.stride, stream)

    def _convolve(self, x: Tensor, weight: Tensor, stride: tuple[int, ...], stream: Stream) -> Tensor:
        rows, columns = int(self.padding[1]), int(self.padding[2])
        if stream.ranks.world > 1:
            x = with_neighbours(x, rows, rows + self.zero_end, stream.ranks)
            rows = 0
        return conv_in_strips(
            x,
            weight,
            self.bias,
            stride=stride,
            padding=(rows, columns),
            max_elements=stream.execution.max_elements,
        )


def with_head(
    x: Tensor, tail: Tensor | None, num_head: int, zero_rows: int = 0, zero_columns: int = 0
) -> Tensor:
    """Puts earlier frames before a slice: a tail of the slice before, or copies of the first frame.

    Adds zeros below and on the right, which a tail has already.
    """
    if tail is not None:
        num_head = tail.shape[2]
    batch, channels, frames, height, width = x.shape
    out = empty_like_format((batch, channels, num_head + frames, height + zero_rows, width + zero_columns), x)
    out[..., height:, :] = 0
    out[..., width:] = 0
    out[:, :, num_head:, :height, :width] = x
    if tail is None:
        out[:, :, :num_head, :height, :width] = x[:, :, :1]
    else:
        out[:, :, :num_head] = tail
    return out


class FrameNorm(nn.Module):
    """Group norm of each frame on its own: statistics never mix frames (section 3.2)."""

    def __init__(self, num_groups: int, channels: int, eps: float) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> a new tensor of the same shape, dtype and memory format."""
        frames = fold_time(x)
        if stream.ranks.world == 1:
            normed = group_norm(frames, self.num_groups, self.weight, self.bias, self.eps)
        else:
            moments = group_moments(frames, self.num_groups)
            moments = join_moments(*moments, frames[0].numel() // self.num_groups, stream.ranks)
            normed = normalise_groups(frames, *moments, self.weight, self.bias, self.eps)
        return unfold_time(normed, x.shape[0])


def fold_time(x: Tensor) -> Tensor:
    """`[B, C, T, H, W]` -> `[B*T, C, H, W]`; a view when channels are last in memory."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_time(frames: Tensor, batch: int) -> Tensor:
    """Undoes `fold_time`."""
    return torch.unflatten(frames, 0, (batch, -1)).transpose(1, 2)


class ResnetBlock(nn.Module):
    """Two causal convolutions, each after norm and SiLU, around a shortcut (section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(num_groups, in_channels, eps)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = FrameNorm(num_groups, out_channels, eps)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = (
            CausalConv3d(in_channels, out_channels, (1, 1, 1), padding=0)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, O, T, H, W]`."""
        hidden = self.conv1(F.silu(self.norm1(x, stream), inplace=True), stream)
        hidden = self.conv2(F.silu(self.norm2(hidden, stream), inplace=True), stream)
        out: Tensor = hidden.add_(x if self.conv_shortcut is None else self.conv_shortcut(x, stream))
        return out


class FrameAttention(nn.Module):
    """One head of full width over all positions of a frame; frames do not see each other (section 3.6)."""

    def __init__(self, channels: int, num_groups: int, eps: float) -> None:
        super().__init__()
        self.group_norm = FrameNorm(num_groups, channels, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> the same shape. Queries go in blocks, so memory is linear in the frame."""
        height, width = x.shape[-2:]
        # Channels last, so that folding time is a view that can be written through.
        out = torch.empty_like(x, memory_format=torch.channels_last_3d)
        for residual, written, normed in zip(
            fold_time(x), fold_time(out), fold_time(self.group_norm(x, stream)), strict=True
        ):
            tokens = normed.flatten(1).T
            q, k, v = (proj(tokens)[None, None] for proj in (self.to_q, self.to_k, self.to_v))
            if stream.ranks.world > 1:
                sizes = [rows * width for rows in stream.bands]
                k, v = join_bands(torch.cat([k, v], -1), sizes, 2, stream.ranks).chunk(2, -1)
            blocks = q.split_with_sizes(_sizes(height * width, max(1, MAX_SCORES // k.shape[2])), 2)
            attended = torch.cat([F.scaled_dot_product_attention(block, k, v) for block in blocks], 2)
            projected = torch.unflatten(self.to_out[0](attended[0, 0]).T, 1, (height, width))
            written.copy_(projected.add_(residual))
        return out


class MidBlock(nn.Module):
    """Resnet, attention, resnet at the latent resolution (section 3.7)."""

    def __init__(self, channels: int, num_groups: int, eps: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, num_groups, eps) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels, num_groups, eps)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> the same shape."""
        x = self.resnets[0](x, stream)
        x = self.attentions[0](x, stream)
        out: Tensor = self.resnets[1](x, stream)
        return out


class Downsampler(nn.Module):
    """Halves rows and columns, and frames where `halves_time`; zeros right and below only (section 3.4)."""

    def __init__(self, channels: int, *, halves_time: bool) -> None:
        super().__init__()
        steps = 2 if halves_time else 1
        self.conv = CausalConv3d(
            channels, channels, (2 * steps - 1, 3, 3), (steps, 2, 2), padding=0, zero_end=1
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, C, T', H // 2, W // 2]`."""
        out: Tensor = self.conv(x, stream)
        return out


class Upsampler(nn.Module):
    """Doubles rows and columns, and frames where `doubles_time`, by learned sub-pixels (section 3.5).

    The very first frame of a video stays one frame: of its two phases in time the second is dropped.
    """

    def __init__(self, channels: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.ratio = 2 if doubles_time else 1
        self.upscale_conv = CausalConv3d(channels, 4 * self.ratio * channels, (1, 1, 1), padding=0)
        self.conv = CausalConv3d(channels, channels)
        for name in MergedUpsampler._fields:
            self.register_buffer(f"merged_{name}", None, persistent=False)

    def merge(self) -> None:
        """Computes the merged weights from the loaded ones; call again after they change."""
        assert self.upscale_conv.bias is not None
        assert self.conv.bias is not None
        merged = merge_upsampler(
            self.upscale_conv.weight, self.upscale_conv.bias, self.conv.weight, self.conv.bias, self.ratio
        )
        # Each phase's kernel with channels last in memory, like every other kernel.
        weight = merged.weight.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4)
        for name, part in zip(MergedUpsampler._fields, merged._replace(weight=weight), strict=True):
            setattr(self, f"merged_{name}", part)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, C, rT, 2H, 2W]`, one frame less when r = 2 and the video begins."""
        if not stream.execution.merge_upsamplers:
            return self._plain(x, stream)
        if self.ratio == 1 or self in stream.tails:
            return self._merged(x, stream)
        return self._beginning(x, stream)

    def _plain(self, x: Tensor, stream: Stream) -> Tensor:
        expanded = interleave(self.upscale_conv(x, stream), self.ratio)
        if self.ratio == 2 and self.conv not in stream.tails:
            expanded = torch.cat([expanded[:, :, :1], expanded[:, :, 2:]], 2)
        out: Tensor = self.conv(to_channels_last(expanded), stream)
        return out

    def _beginning(self, x: Tensor, stream: Stream) -> Tensor:
        """Plain for the first two frames, which the dropped phase reaches; merged from there on."""
        num_plain = 1 if self.conv in stream.tails else 2
        start, rest = x[:, :, :num_plain], x[:, :, num_plain:]
        if start.shape[2] < num_plain:
            return self._plain(start, stream)
        ends, stream.ends = stream.ends, True
        out = self._plain(start, stream)  # leaves no tail of its own: the merged path keeps another
        stream.ends = ends
        if rest.shape[2] or not ends:
            stream.tails[self] = start[:, :, -1:].clone()
        return torch.cat([out, self._merged(rest, stream)], 2) if rest.shape[2] else out

    def _merged(self, x: Tensor, stream: Stream) -> Tensor:
        if self.merged_weight is None:
            raise RuntimeError("merged upsamplers need VideoVAE.prepare() after the weights are loaded")
        merged = MergedUpsampler(*(getattr(self, f"merged_{name}") for name in MergedUpsampler._fields))
        num_head = merged.weight.shape[-3] - 1
        tail = stream.tails.pop(self, None)
        is_single = x.shape[2] == 1 and tail is None and stream.execution.fold_images
        extended = x if is_single else with_head(x, tail, num_head)
        if not stream.ends:
            kept = extended[:, :, -num_head:]
            stream.tails[self] = kept.expand(-1, -1, num_head, -1, -1).clone()
        batch, channels, frames, height, width = x.shape
        out = empty_like_format((batch, channels, frames * self.ratio, 2 * height, 2 * width), x)
        ranks = stream.ranks
        extended = with_neighbours(extended, 1, 1, ranks)
        at_border = (ranks.rank == 0, ranks.rank == ranks.world - 1)
        for phase in range(4):
            weight = merged.weight[phase]
            y = conv_in_strips(
                extended[:, :, 0] if is_single else extended,
                weight.sum(2) if is_single else weight,
                merged.bias[phase],
                stride=(1, 1, 1)[int(is_single) :],
                padding=(1 if ranks.world == 1 else 0, 1),
                max_elements=stream.execution.max_elements,
            )
            write_phase(out, y[:, :, None] if is_single else y, merged, phase, self.ratio, at_border)
        return out


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
        return [min(num_frames, step + 1), *_sizes(max(0, num_frames - step - 1), step)]

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


def in_pieces(run: Callable[[Tensor, Stream], Tensor], x: Tensor, stream: Stream) -> Tensor:
    """Runs layers that do not resample time a few frames at a time, exactly (section 13.6)."""
    frames = stream.execution.frames_per_call
    if frames is None or x.shape[2] <= frames:
        return run(x, stream)
    ends, out = stream.ends, []
    pieces = x.split_with_sizes(_sizes(x.shape[2], frames), 2)
    for index, piece in enumerate(pieces):
        stream.ends = ends and index == len(pieces) - 1
        out.append(run(piece, stream))
    return torch.cat(out, 2)


def _sizes(total: int, step: int) -> list[int]:
    """`total` in steps, the last one whatever is left."""
    return [min(step, total - first) for first in range(0, total, step)]
