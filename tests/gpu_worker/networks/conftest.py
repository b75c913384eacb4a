"""What the tests of the networks share: one thread, no gradients, a loud word about a missing GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the networks need PyTorch")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _quiet_torch() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("NOT TESTED HERE: needs a CUDA device, this machine has none")


@pytest.fixture
def golden() -> Path:
    """The folder of numeric fixtures."""
    return GOLDEN


@pytest.fixture
def generator() -> "torch.Generator":
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(2026)
