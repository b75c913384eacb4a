"""Weights into modules: built on the meta device, every key accounted for, one table of renames.

A network is never initialised: `meta` tensors take no memory and no time, and `assign=True` puts the loaded
tensors in their place. Rotary frequencies are recomputed in float32, never read: in float16 they are wrong by
a tenth of a radian (dit.md, section 11).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

#: Buffers of the published transformer that are a formula.
IGNORED: Final = re.compile(r"blocks\.\d+\.attn\.rope\.rope\.freqs")
#: The only renames: names that older files give the VAE's attention (vae_and_pipeline.md, section 2.2).
RENAMES: Final = (
    (re.compile(r"(\.attentions\.\d+\.)query\."), r"\1to_q."),
    (re.compile(r"(\.attentions\.\d+\.)key\."), r"\1to_k."),
    (re.compile(r"(\.attentions\.\d+\.)value\."), r"\1to_v."),
    (re.compile(r"(\.attentions\.\d+\.)proj_attn\."), r"\1to_out.0."),
)
#: Small vectors that stay float32 beside 16-bit matrices, as the reference keeps them (dit.md, section 12.1).
KEPT_FLOAT32: Final = re.compile(r"(^|\.)(ada|vid_out_ada|vid_out_norm|norm_q|norm_k)\.")


class CheckpointError(ValueError):
    """A checkpoint does not fit: wrong checksum, missing, unexpected or misshapen keys, all listed."""


def canonical(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a published state dict: renames historical keys, drops rotary buffers.

    Raises CheckpointError when two keys become one.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if IGNORED.fullmatch(name):
            continue
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        if re.search(r"\.attentions\.\d+\.to_\w+(\.0)?\.weight$", name) and tensor.ndim == 4:
            tensor = tensor.flatten(1)  # a 1x1 convolution is a matrix
        if name in result:
            raise CheckpointError(f"two keys of the checkpoint mean {name}")
        result[name] = tensor
    return result


def target_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a parameter is kept when matrices are `dtype`."""
    return torch.float32 if KEPT_FLOAT32.search(name) else dtype


def load_weights(
    build: Callable[[], Network],
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Network:
    """Builds a network on the meta device and gives it its weights, strictly.

    Args:
        build: makes the network; called under `torch.device("meta")`.
        weights: a published state dict, with its own names; any floating dtype.
        dtype: of matrices and convolutions; vectors that the reference keeps in float32 stay so.
        device: where the weights end up.

    Raises CheckpointError, which lists every missing, unexpected and misshapen key.
    """
    with torch.device("meta"):
        network = build()
    placed = {
        name: tensor.to(device=device, dtype=target_dtype(name, dtype))
        for name, tensor in check_fit(network, weights).items()
    }
    network.load_state_dict(placed, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def check_fit(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under the network's names; raises CheckpointError unless every key fits."""
    found = canonical(weights)
    ours = {name: parameter.shape for name, parameter in network.named_parameters()}
    theirs = {name: tensor.shape for name, tensor in found.items()}
    problems = []
    for title, names in (
        ("missing", sorted(ours.keys() - theirs.keys())),
        ("unexpected", sorted(theirs.keys() - ours.keys())),
    ):
        if names:
            problems.append(f"{len(names)} {title}: {', '.join(names)}")
    misshapen = [
        f"{name} is {tuple(theirs[name])}, expected {tuple(ours[name])}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {', '.join(misshapen)}")
    if problems:
        raise CheckpointError("the checkpoint does not fit the network; " + "; ".join(problems))
    return found


def read_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Reads `.safetensors`, or a `.pth` of plain tensors (weights only: nothing in it is executed).

    `.safetensors` go straight to `device`, without a second copy in host memory. Tensors of a `.pth` stay on
    disk until they are used.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, "pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}; expected tensors by name")
    return dict(loaded)


def sha256_of(path: Path, on_bytes: Callable[[int], None] = lambda _count: None) -> str:
    """The file's SHA-256 in hexadecimal; `on_bytes` is told how many bytes each step read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 24), b""):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def verify_sha256(path: Path, expected: str) -> None:
    """Raises CheckpointError unless the file has the expected SHA-256."""
    if (found := sha256_of(path)) != expected:
        raise CheckpointError(
            f"{path.name} has SHA-256 {found}; expected {expected}. Delete it and fetch again"
        )


def read_prompt(path: Path) -> Tensor:
    """Reads a converted prompt embedding, `[tokens, 5120]`; raises CheckpointError for anything else."""
    weights = read_weights(path)
    if list(weights) != ["prompt"] or weights["prompt"].ndim != 2:
        raise CheckpointError(f"{path.name} holds {sorted(weights)}; expected one matrix named prompt")
    return weights["prompt"]


def random_weights(
    build: Callable[[], Network], *, seed: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Network:
    """Builds a network with random weights that keep activations in range: for tests and measurements.

    Matrices and kernels are normal with deviation 1 / sqrt(fan in); gains lie around 1, other vectors
    around 0. The draw is float32 on the device, so a full-size network takes seconds on a GPU.
    """
    with torch.device("meta"):
        network = build()
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, device=device)
        if parameter.ndim > 1:
            drawn *= parameter[0].numel() ** -0.5
        else:
            is_gain = name.endswith(("scale", "gate")) or ("norm" in name and name.endswith("weight"))
            drawn = drawn.mul_(0.1).add_(1.0 if is_gain else 0.0)
        weights[name] = drawn.to(target_dtype(name, dtype))
    network.load_state_dict(weights, strict=True, assign=True)
    return network.requires_grad_(False).eval()
