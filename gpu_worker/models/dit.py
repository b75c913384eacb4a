"""SeedVR2's diffusion transformer, both sizes (dit.md; SeedVR2, arXiv:2506.05301).

    noisy latent + condition (33 channels) -> 1x2x2 patches -> N blocks of attention and MLP -> velocity

Two streams run side by side, video tokens and the tokens of one fixed prompt. Their only meeting is window
attention: each window of video tokens attends together with the whole prompt.

Shapes: L packed tokens (Lv video, Lt text; u of them on each rank), B samples, C model width, N heads,
D head size, S = 3 for q, k, v. Samples are packed one after the other, there is no batch axis.
Parameter names are the checkpoint's: `blocks.0.attn.proj_qkv.vid.weight`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from gpu_worker.kernels.attention import Backend, attention
from gpu_worker.kernels.norm import rms_norm
from gpu_worker.models.layers import (
    BlockModulation,
    GeluMLP,
    Modulation,
    OutputModulation,
    Rotation,
    SwiGLU,
    TimestepEmbedding,
    rotate_,
)
from gpu_worker.models.plan import Plan, Rope, WindowPlan, make_plan
from gpu_worker.models.windows import Grid
from gpu_worker.parallel.ranks import ALONE, Ranks
from gpu_worker.parallel.sequence import (
    gather_rows,
    heads_to_tokens,
    shard_rows,
    tokens_to_heads,
)

#: Rows that go through an MLP at once. Its hidden layer is four times wider than the stream and would set the
#: memory peak; slices of this size keep the matrix products large and change no value.
MLP_ROWS = 16384


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Every number that tells the published transformers apart (dit.md, section 2)."""

    dim: int
    heads: int
    head_dim: int
    num_layers: int
    mm_layers: int  # leading blocks with weights of their own for video and text; the others share them
    swiglu: bool
    rope: Rope
    rope_dim: int
    out_norm: bool
    last_layer_vid_only: bool
    expand_ratio: int = 4
    norm_eps: float = 1e-5
    txt_in_dim: int = 5120
    vid_in_channels: int = 33
    vid_out_channels: int = 16
    patch_size: Grid = (1, 2, 2)
    window: Grid = (4, 3, 3)
    shifted_layers: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.patch_size[0] != 1:
            raise ValueError(f"patch_size is {self.patch_size}; a patch holds one latent frame")
        if not 0 <= self.mm_layers <= self.num_layers:
            raise ValueError(f"mm_layers is {self.mm_layers} of {self.num_layers} layers")
        if 2 * 3 * (self.rope_dim // 3 // 2) > self.head_dim:
            raise ValueError(f"rope_dim is {self.rope_dim}; heads have {self.head_dim} channels")
        if any(not 0 <= layer < self.num_layers for layer in self.shifted_layers):
            raise ValueError(f"shifted layers {sorted(self.shifted_layers)} of {self.num_layers} layers")

    def is_separate(self, layer: int) -> bool:
        """True when the block has a set of weights for each stream."""
        return layer < self.mm_layers

    def is_video_only(self, layer: int) -> bool:
        """True for the block whose text is neither modulated nor carried on (the 3B's last)."""
        return self.last_layer_vid_only and layer == self.num_layers - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What prompt and timestep contribute: constant at the sampler's single timestep, so computed once.

    `text_LC` is the projected prompt in the model's dtype; `blocks` holds the modulation of video and text in
    each block (text None where it has none); `out` shift and scale before the head, or None.
    """

    text_LC: Tensor
    text_lengths: tuple[int, ...]
    blocks: tuple[tuple[Modulation, Modulation | None], ...]
    out: tuple[Tensor, Tensor] | None


class NaDiT(nn.Module):
    """The transformer: predicts the velocity x_T - x_0 of a noisy latent, given the degraded latent."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.backend = Backend.SDPA_GROUPED
        dim, cell = config.dim, config.patch_size[1] * config.patch_size[2]
        self.vid_in = PatchProjection(config.vid_in_channels * cell, dim)
        self.txt_in = nn.Identity() if config.txt_in_dim == dim else nn.Linear(config.txt_in_dim, dim)
        self.emb_in = TimestepEmbedding(dim, 6 * dim)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        if config.out_norm:
            self.vid_out_norm: nn.Module | None = RMSNorm(dim, config.norm_eps)
            self.vid_out_ada: nn.Module | None = OutputModulation(dim)
        else:
            self.vid_out_norm = self.vid_out_ada = None
        self.vid_out = PatchProjection(dim, config.vid_out_channels * cell)
        self.requires_grad_(False)
        self._plans = functools.lru_cache(maxsize=4)(self._make_plan)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations, which is that of the large matrices."""
        return self.vid_in.proj.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.vid_in.proj.weight.device

    def compile_blocks(self) -> None:
        """Compiles each block on its next call, for one shape; modules stay the same, so weights do too."""
        for block in self.blocks:
            block.compile(dynamic=False, fullgraph=True)

    def condition(self, text_LC: Tensor, text_lengths: Sequence[int], timestep_B: Tensor) -> Condition:
        """Projects the prompt and embeds the timestep.

        Args:
            text_LC: prompt embeddings `[Lt, txt_in_dim]` of all samples, one after the other.
            text_lengths: tokens per sample.
            timestep_B: `[B]` on the 0..1000 scale, one entry per sample.
        """
        if len(text_lengths) != len(timestep_B) or sum(text_lengths) != len(text_LC):
            raise ValueError(
                f"{len(text_LC)} text tokens in lengths {list(text_lengths)}, {len(timestep_B)} timesteps"
            )
        emb_BC23 = self.emb_in(timestep_B.to(self.device)).view(len(timestep_B), -1, 2, 3)
        return Condition(
            text_LC=self.txt_in(text_LC.to(self.device, self.dtype)),
            text_lengths=tuple(text_lengths),
            blocks=tuple(cast(Block, block).modulation(emb_BC23) for block in self.blocks),
            out=None if self.vid_out_ada is None else self.vid_out_ada(emb_BC23),
        )

    def plan(self, shapes: Sequence[Grid], text_lengths: Sequence[int]) -> Plan:
        """Plans latent shapes (t, h, w) before patching; the last few plans are kept."""
        _, rows, columns = self.config.patch_size
        for shape in shapes:
            if min(shape) < 1 or shape[1] % rows or shape[2] % columns:
                raise ValueError(f"latent {tuple(shape)} does not divide into patches of {rows} x {columns}")
        grids = tuple((t, h // rows, w // columns) for t, h, w in shapes)
        return self._plans(grids, tuple(text_lengths), self.device)

    def _make_plan(
        self, grids: tuple[Grid, ...], text_lengths: tuple[int, ...], device: torch.device
    ) -> Plan:
        config = self.config
        return make_plan(
            grids,
            text_lengths,
            counts=config.window,
            rope=config.rope,
            rope_dim=config.rope_dim,
            device=device,
        )

    def forward(
        self, video_LC: Tensor, shapes: Sequence[Grid], condition: Condition, ranks: Ranks = ALONE
    ) -> Tensor:
        """Predicts the velocity of every latent position.

        Args:
            video_LC: `[sum of t*h*w, 33]`, each sample in (t, h, w) order: noisy latent, condition, mask.
            shapes: latent (t, h, w) of each sample; h and w even.
            condition: from `condition()`, with one text per sample.
            ranks: who shares the work; every rank passes the same input and gets the whole output.

        Returns:
            `[sum of t*h*w, 16]` in the order of `video_LC` and the dtype of the model.
        """
        plan = self.plan(shapes, condition.text_lengths)
        patches = [
            patchify(torch.unflatten(clip, 0, tuple(shape)), self.config.patch_size)
            for clip, shape in zip(
                video_LC.split_with_sizes([t * h * w for t, h, w in shapes]), shapes, strict=True
            )
        ]
        patches_LC = torch.cat(patches) if len(patches) > 1 else patches[0]
        num_video = patches_LC.shape[0]
        video_uC = self.vid_in(shard_rows(patches_LC.to(self.dtype), ranks))
        # Blocks write into the streams; the prompt in `condition` serves the next call too.
        text_uC = shard_rows(condition.text_LC, ranks).clone()
        video_sample_u = _shard_ids(plan.video_sample_L, ranks)
        text_sample_u = _shard_ids(plan.text_sample_L, ranks)
        for layer, (block, (of_video, of_text)) in enumerate(zip(self.blocks, condition.blocks, strict=True)):
            windows = plan.of_kind(shifted=layer in self.config.shifted_layers)
            video = Stream(video_uC, of_video, video_sample_u)
            text = Stream(text_uC, of_text, text_sample_u)
            video_uC, text_uC = block(video, text, windows, self.backend, ranks)
        if self.vid_out_norm is not None and condition.out is not None:
            video_uC = self.vid_out_norm(video_uC)
            _modulate_(video_uC, *condition.out, video_sample_u)
        out_LC = gather_rows(self.vid_out(video_uC), num_video, ranks)
        grids = [(t, h // self.config.patch_size[1], w // self.config.patch_size[2]) for t, h, w in shapes]
        clips = [
            unpatchify(tokens, grid, self.config.patch_size)
            for tokens, grid in zip(
                out_LC.split_with_sizes([t * h * w for t, h, w in grids]), grids, strict=True
            )
        ]
        return torch.cat(clips) if len(clips) > 1 else clips[0]


class Stream(NamedTuple):
    """One stream on its way through one block: my tokens, what modulates them, the sample each belongs to."""

    x_uC: Tensor
    modulation: Modulation | None
    sample_u: Tensor | None


class Block(nn.Module):
    """Window attention and MLP, each normalised and modulated before, gated after (dit.md, section 6)."""

    def __init__(self, config: DiTConfig, layer: int) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.streams = ("vid", "txt") if config.is_separate(layer) else ("all",)
        # Nobody reads the text after the last block, so it stops at its keys and values there.
        self.ends_text = layer == config.num_layers - 1
        self.is_video_only = config.is_video_only(layer)
        # A separate block without a modulated text has no text copies of these.
        modulated = self.streams[:1] if self.is_video_only else self.streams
        mlp = SwiGLU if config.swiglu else GeluMLP
        self.attn = WindowAttention(config, self.streams)
        self.mlp = nn.ModuleDict({stream: mlp(config.dim, config.expand_ratio) for stream in modulated})
        self.ada = nn.ModuleDict({stream: BlockModulation(config.dim) for stream in modulated})

    def modulation(self, emb_BC23: Tensor) -> tuple[Modulation, Modulation | None]:
        """The video's and the text's vectors for an embedding `[B, C, 2, 3]`."""
        video: Modulation = self.ada[self.streams[0]](emb_BC23)
        return video, None if self.is_video_only else self.ada[self.streams[-1]](emb_BC23)

    def forward(
        self, video: Stream, text: Stream, windows: WindowPlan, backend: Backend, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        """Runs both streams through the block, in place; returns their tokens `[u, C]`."""
        attended_v, attended_t = self.attn(
            self._attention_input(video), self._attention_input(text), windows, backend, ranks
        )
        self._add(video, self.attn.proj_out[self.streams[0]](attended_v))
        self._add_mlp(video, self.mlp[self.streams[0]])
        if not self.ends_text:
            self._add(text, self.attn.proj_out[self.streams[-1]](attended_t))
            self._add_mlp(text, self.mlp[self.streams[-1]])
        return video.x_uC, text.x_uC

    def _attention_input(self, stream: Stream) -> Tensor:
        normed_uC = rms_norm(stream.x_uC, None, self.eps)
        if stream.modulation is not None:
            _modulate_(normed_uC, stream.modulation.attn_shift, stream.modulation.attn_scale, stream.sample_u)
        return normed_uC

    def _add(self, stream: Stream, attended_uC: Tensor) -> None:
        assert stream.modulation is not None
        stream.x_uC.add_(attended_uC.mul_(_rows(stream.modulation.attn_gate, stream.sample_u)))

    def _add_mlp(self, stream: Stream, mlp: nn.Module) -> None:
        assert stream.modulation is not None
        _, _, _, shift, scale, gate = stream.modulation
        for first in range(0, len(stream.x_uC), MLP_ROWS):
            rows = slice(first, first + MLP_ROWS)
            sample = None if stream.sample_u is None else stream.sample_u[rows]
            hidden = rms_norm(stream.x_uC[rows], None, self.eps)
            _modulate_(hidden, shift, scale, sample)
            stream.x_uC[rows].add_(mlp(hidden).mul_(_rows(gate, sample)))


class WindowAttention(nn.Module):
    """Joint attention of each window's video tokens with the whole prompt (dit.md, section 6.1)."""

    def __init__(self, config: DiTConfig, streams: tuple[str, ...]) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.streams = streams
        self.proj_qkv = nn.ModuleDict({s: nn.Linear(config.dim, 3 * inner, bias=False) for s in streams})
        self.proj_out = nn.ModuleDict({s: nn.Linear(inner, config.dim) for s in streams})
        self.norm_q = nn.ModuleDict({s: RMSNorm(config.head_dim, config.norm_eps) for s in streams})
        self.norm_k = nn.ModuleDict({s: RMSNorm(config.head_dim, config.norm_eps) for s in streams})

    def forward(
        self,
        video_uC: Tensor,
        text_uC: Tensor,
        windows: WindowPlan,
        backend: Backend,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor]:
        """Attends; returns video and text `[u, N*D]` each, before the output projection.

        A text token has one result per window; they are averaged with equal weight.
        """
        of_video, of_text = self.streams[0], self.streams[-1]
        num_video, num_text = len(windows.video_rows_L), sum(length for _, length in windows.texts)
        video_qkv = self._project(video_uC, of_video, num_video, windows.video_rotation, ranks)
        text_qkv = self._project(text_uC, of_text, num_text, windows.text_rotation, ranks)
        packed_SLND = video_uC.new_empty((3, windows.segments.num_tokens, *video_qkv[0].shape[1:]))
        for packed_LND, video_LND, text_LND in zip(packed_SLND, video_qkv, text_qkv, strict=True):
            packed_LND.index_copy_(0, windows.video_rows_L, video_LND)
            packed_LND.index_copy_(0, windows.text_rows_L, text_LND[windows.text_source_L])
        q_LND, k_LND, v_LND = packed_SLND
        out_LND = attention(q_LND, k_LND, v_LND, windows.segments, backend)
        texts = out_LND[windows.text_rows_L].split_with_sizes([count * n for count, n in windows.texts])
        means = [
            torch.unflatten(rows, 0, shape).mean(0) for rows, shape in zip(texts, windows.texts, strict=True)
        ]
        video_uND = heads_to_tokens(out_LND[windows.video_rows_L], ranks)
        text_uND = heads_to_tokens(torch.cat(means), ranks)
        return video_uND.flatten(1), text_uND.flatten(1)

    def _project(
        self, x_uC: Tensor, stream: str, num_tokens: int, rotation: Rotation | None, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        """My tokens `[u, C]` -> normed, rotated q and k, plain v: all tokens, my heads, `[L, n, D]` each."""
        qkv_uSND = torch.unflatten(self.proj_qkv[stream](x_uC), -1, (3, self.heads, -1))
        q_LND, k_LND, v_LND = tokens_to_heads(qkv_uSND, num_tokens, ranks).unbind(1)
        q_LND, k_LND = self.norm_q[stream](q_LND), self.norm_k[stream](k_LND)
        if rotation is not None:
            rotate_(q_LND, rotation)
            rotate_(k_LND, rotation)
        return q_LND, k_LND, v_LND


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned weight (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C]` -> a new tensor of the same shape and dtype."""
        return rms_norm(x, self.weight, self.eps)


class PatchProjection(nn.Module):
    """A linear layer on patches, under the checkpoint's name `proj`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_features, out_features)

    def forward(self, x_LC: Tensor) -> Tensor:
        """`[L, in]` -> `[L, out]`."""
        out: Tensor = self.proj(x_LC)
        return out


def patchify(x_THWC: Tensor, patch: Grid) -> Tensor:
    """Latent `[T, H, W, C]` -> tokens `[T * H/ph * W/pw, ph*pw*C]`, features (row, column, channel)."""
    cells = torch.unflatten(torch.unflatten(x_THWC, 2, (-1, patch[2])), 1, (-1, patch[1]))
    return cells.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(0, 2)


def unpatchify(x_LC: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """Undoes `patchify` for a token grid (T, H, W): tokens -> latent rows `[T * H*ph * W*pw, C]`."""
    cells = torch.unflatten(torch.unflatten(x_LC, 0, grid), -1, (patch[1], patch[2], -1))
    return cells.permute(0, 1, 3, 2, 4, 5).flatten(0, 4)


def _modulate_(x_LC: Tensor, shift_BC: Tensor, scale_BC: Tensor, sample_L: Tensor | None) -> None:
    """x * scale + shift in place: float32 operands, rounded to the dtype of x twice, as the reference is."""
    x_LC.mul_(_rows(scale_BC, sample_L)).add_(_rows(shift_BC, sample_L))


def _rows(vector_BC: Tensor, sample_L: Tensor | None) -> Tensor:
    """Each token's vector; a single sample's broadcasts."""
    return vector_BC if sample_L is None else vector_BC[sample_L]


def _shard_ids(sample_L: Tensor | None, ranks: Ranks) -> Tensor | None:
    return None if sample_L is None else shard_rows(sample_L, ranks)
