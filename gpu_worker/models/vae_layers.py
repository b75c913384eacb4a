"""The VAE's layers, and what they keep between two slices of a video (vae_and_pipeline.md, 3, 6 and 7).

Every operator is either per frame (group norm, attention, pointwise convolutions) or a causal filter in
time whose state is a few earlier input frames. That state is a `Stream`, outside the modules, so several
videos can share them.

Shapes: `[B, C, T, H, W]` everywhere, channels last in memory. With several ranks, H counts the rows of this
rank's band of the frame. Parameter names are the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from gpu_worker.parallel.halo import join_bands, join_moments, with_neighbours
from gpu_worker.parallel.ranks import ALONE, Ranks

#: Attention scores held at once when PyTorch has no fused kernel for this width: queries go in blocks.
MAX_SCORES = 1 << 28


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
            blocks = q.split_with_sizes(steps(height * width, max(1, MAX_SCORES // k.shape[2])), 2)
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


def in_pieces(run: Callable[[Tensor, Stream], Tensor], x: Tensor, stream: Stream) -> Tensor:
    """Runs layers that do not resample time a few frames at a time, exactly (section 13.6)."""
    frames = stream.execution.frames_per_call
    if frames is None or x.shape[2] <= frames:
        return run(x, stream)
    ends, out = stream.ends, []
    pieces = x.split_with_sizes(steps(x.shape[2], frames), 2)
    for index, piece in enumerate(pieces):
        stream.ends = ends and index == len(pieces) - 1
        out.append(run(piece, stream))
    return torch.cat(out, 2)


def steps(total: int, step: int) -> list[int]:
    """`total` in steps, the last one whatever is left."""
    return [min(step, total - first) for first in range(0, total, step)]
