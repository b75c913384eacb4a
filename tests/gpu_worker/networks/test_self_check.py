"""The self-check of convolutions passes a right one and notices a wrong one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_worker.kernels.self_check import ConvolutionBroken, check_convolution

pytestmark = pytest.mark.torch
SHAPE = (8, 4, 20, 24)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_this_build_convolves_rightly(dtype: torch.dtype, limit: float) -> None:
    assert 0 <= check_convolution(torch.device("cpu"), dtype, SHAPE) < limit


class WrongAtTheEnd(TorchDispatchMode):
    """A build whose convolutions forget the last results, as those did whose indices overflowed."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if "conv" in str(func):
            out[:, :, -1, -1, -1] = 0
        return out


def test_a_build_that_convolves_wrongly_is_refused() -> None:
    with WrongAtTheEnd(), pytest.raises(ConvolutionBroken, match="convolutions of this build are wrong"):
        check_convolution(torch.device("cpu"), torch.float32, SHAPE)


@pytest.mark.gpu
def test_the_gpus_convolutions_are_right() -> None:
    assert check_convolution(torch.device("cuda"), torch.bfloat16) < 0.02
