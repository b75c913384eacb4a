"""Checks that this build's large convolutions are right: some builds gave wrong values, or took three times the memory.

performance.md, section 5, names them. Wrong values would be in every picture, and nobody would be told.
"""

from __future__ import annotations

import logging
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

#: Channels, frames, rows and columns of a convolution at full size: 720p in the decoder's last block.
_SHAPE: Final = (128, 4, 720, 1280)
_KERNEL: Final = 3
_NUM_SAMPLES: Final = 256
#: Of the largest value. 16-bit results are rounded to 0.4 %; broken builds were wrong by the value itself.
_TOLERANCE: Final = 0.02


class ConvolutionBroken(RuntimeError):
    """Values are wrong; the message has the error and the versions."""


def check_convolution(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int, int] = _SHAPE
) -> float:
    """Convolves random frames and computes some of the results again, one by one, in float32.

    Returns the largest difference relative to the largest value. Raises `ConvolutionBroken`.
    """
    channels, frames, rows, columns = shape
    generator = torch.Generator(device).manual_seed(1)
    x = torch.randn((1, channels, frames, rows, columns), generator=generator, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(
        (channels, channels, *[_KERNEL] * 3), generator=generator, device=device, dtype=dtype
    )
    weight *= (channels * _KERNEL**3) ** -0.5
    out = _convolved(x, weight)[0]
    places = _places((frames - _KERNEL + 1, rows - _KERNEL + 1, columns - _KERNEL + 1), device)
    error = _error(x[0], weight, out, places)
    if not error < _TOLERANCE:
        raise ConvolutionBroken(
            f"convolutions of this build are wrong by {error:.1%} (at most {_TOLERANCE:.0%} is rounding): "
            f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
        )
    return error


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution without padding; says when it took more memory than its own result."""
    if not x.is_cuda:
        return F.conv3d(x, weight)
    before = torch.cuda.memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    out = F.conv3d(x, weight)
    extra = torch.cuda.max_memory_allocated(x.device) - before - out.numel() * out.element_size()
    if extra > out.numel() * out.element_size():
        logger.warning("a convolution takes %d bytes beside its result: plans count on less", extra)
    return out


def _places(limits: tuple[int, int, int], device: torch.device) -> Tensor:
    """Where to compute again, `[N, 3]`: anywhere, and the last place, where indices are the largest."""
    generator = torch.Generator().manual_seed(2)
    drawn = [torch.randint(limit, (_NUM_SAMPLES,), generator=generator) for limit in limits]
    last = torch.tensor([limit - 1 for limit in limits])
    return torch.cat([torch.stack(drawn, 1), last[None]]).to(device)


def _error(x: Tensor, weight: Tensor, out: Tensor, places: Tensor) -> float:
    """`[C, T, H, W]` and the result without padding: the largest difference over the largest value."""
    steps = torch.arange(_KERNEL, device=x.device)
    t, h, w = (places[:, axis, None] + steps for axis in range(3))
    # [C, N, 3, 3, 3]: what each place sees.
    seen = x[:, t[:, :, None, None], h[:, None, :, None], w[:, None, None, :]]
    expected = seen.float().transpose(0, 1).flatten(1) @ weight.float().flatten(1).T
    found = out[:, places[:, 0], places[:, 1], places[:, 2]].float().T
    return ((found - expected).abs().max() / expected.abs().max()).item()
