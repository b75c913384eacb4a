"""The one door to attention: packed segments in, packed segments out.

Shapes: L packed tokens of all segments, N heads, D head size. A segment is one attention sequence: each of
its tokens attends to all of its tokens and to nothing else, with scale 1 / sqrt(D) and no mask.

The layout is that of the fast kernels (varlen). Segments of equal length lie next to each other, which lets
PyTorch's own attention take a whole group as one batch, without any padding or copy.
"""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)


class Backend(enum.Enum):
    """What computes attention. All agree with `SDPA_EACH`, the reference, up to rounding."""

    FLASH_HOPPER = "flash-hopper"  # flash-attn 3 (`flash_attn_interface`), Hopper only
    FLASH = "flash"  # flash-attn 2 (`flash_attn`), Ampere and later
    TORCH_VARLEN = "torch-varlen"  # the flash kernel inside PyTorch, where it has a varlen entry
    SDPA_GROUPED = "sdpa-grouped"  # scaled_dot_product_attention, one batch per segment length
    SDPA_EACH = "sdpa-each"  # scaled_dot_product_attention, one call per segment

    @property
    def is_kernel(self) -> bool:
        """True for the CUDA kernels that take 16-bit values and heads of at most 256 channels."""
        return self in (Backend.FLASH_HOPPER, Backend.FLASH, Backend.TORCH_VARLEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """How L packed tokens divide into attention sequences.

    `lengths` per segment; `offsets_S` int32 `[segments + 1]` on the device of the tokens, starting at 0;
    `groups` is (number of segments, their length) for each run of equal lengths.
    """

    lengths: tuple[int, ...]
    offsets_S: Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str) -> Segments:
        """Describes segments of the given lengths; raises ValueError when one is empty."""
        if not lengths or min(lengths) < 1:
            raise ValueError(f"segment lengths are {list(lengths)}; expected at least one, all of 1 or more")
        offsets = [0, *accumulate(lengths)]
        if offsets[-1] >= 2**31:
            raise ValueError(f"{offsets[-1]} packed tokens do not fit the kernels' 32-bit offsets")
        return cls(
            lengths=tuple(lengths),
            offsets_S=torch.tensor(offsets, dtype=torch.int32, device=device),
            groups=tuple((len(list(run)), length) for length, run in groupby(lengths)),
        )

    @property
    def num_tokens(self) -> int:
        """L, the packed tokens of all segments."""
        return sum(self.lengths)


def attention(q_LND: Tensor, k_LND: Tensor, v_LND: Tensor, segments: Segments, backend: Backend) -> Tensor:
    """Attends within each segment.

    Args:
        q_LND, k_LND, v_LND: same shape and dtype; only the last axis must be contiguous. The kernels need
            float16 or bfloat16 on CUDA, the other backends take any floating dtype and device.
        segments: how the L tokens divide; its tensors lie on the device of the tokens.
        backend: from `choose_backend`; nothing is probed here.

    Returns:
        `[L, N, D]`, contiguous, in the dtype of `q_LND`.
    """
    if q_LND.shape[0] != segments.num_tokens:
        raise ValueError(f"{q_LND.shape[0]} tokens for segments of {segments.num_tokens}")
    if backend.is_kernel:
        longest = max(segments.lengths)
        offsets = segments.offsets_S
        returned = _kernel(backend)(q_LND, k_LND, v_LND, offsets, offsets, longest, longest)
        # flash-attn 3 returned (output, log-sum-exp) in its first releases.
        attended: Tensor = returned[0] if isinstance(returned, tuple) else returned
        return attended
    out_LND = torch.empty(q_LND.shape, dtype=q_LND.dtype, device=q_LND.device)
    if backend is Backend.SDPA_GROUPED:
        start = 0
        for count, length in segments.groups:
            rows = slice(start, start + count * length)
            q, k, v = (
                torch.unflatten(x[rows], 0, (count, length)).transpose(1, 2) for x in (q_LND, k_LND, v_LND)
            )
            out_LND[rows] = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
            start = rows.stop
    else:
        for first, last in pairwise([0, *accumulate(segments.lengths)]):
            q, k, v = (x[first:last].transpose(0, 1) for x in (q_LND, k_LND, v_LND))
            out_LND[first:last] = F.scaled_dot_product_attention(q, k, v).transpose(0, 1)
    return out_LND


def choose_backend(
    device: torch.device, dtype: torch.dtype, head_dim: int, *, wanted: Backend | None = None
) -> Backend:
    """Picks the fastest backend that accepts these tensors, once, and logs why.

    `wanted` overrides the choice; ValueError says what it lacks. Call it when a network is put on its device,
    never per forward pass.
    """
    refusals = {backend: _refusal(backend, device, dtype, head_dim) for backend in Backend}
    if wanted is not None:
        if refusals[wanted]:
            raise ValueError(f"attention backend {wanted.value} was asked for, but {refusals[wanted]}")
        logger.info("attention backend=%s reason=asked for", wanted.value)
        return wanted
    chosen = next(backend for backend in Backend if not refusals[backend])
    passed_over = "; ".join(f"{b.value}: {why}" for b, why in refusals.items() if why)
    logger.info("attention backend=%s passed over=%s", chosen.value, passed_over or "none")
    return chosen


def _refusal(backend: Backend, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why a backend cannot serve; empty when it can."""
    if not backend.is_kernel:
        return ""
    if device.type != "cuda":
        return f"it needs CUDA, not {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs 16-bit values, not {dtype}"
    if head_dim > 256 or head_dim % 8:
        return f"it needs heads of at most 256 channels in steps of 8, not {head_dim}"
    capability = torch.cuda.get_device_capability(device)
    if backend is Backend.FLASH_HOPPER and capability[0] != 9:
        return f"it needs compute capability 9.x, not {capability[0]}.{capability[1]}"
    if capability[0] < 8:
        return f"it needs compute capability 8.0, not {capability[0]}.{capability[1]}"
    module = _MODULES[backend]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return "" if found else f"{module} is not installed"


_MODULES = {
    Backend.FLASH_HOPPER: "flash_attn_interface",
    Backend.FLASH: "flash_attn",
    Backend.TORCH_VARLEN: "torch.nn.attention.varlen",
}


@functools.cache
def _kernel(backend: Backend) -> Any:
    """The varlen function of a kernel backend; they share the order of their first seven arguments."""
    module = importlib.import_module(_MODULES[backend])
    name = "varlen_attn" if backend is Backend.TORCH_VARLEN else "flash_attn_varlen_func"
    return getattr(module, name)
