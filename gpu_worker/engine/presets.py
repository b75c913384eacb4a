"""The models by name: the published ones, and tiny ones of both kinds for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from gpu_worker.engine.cold_start import ColdStart, weights_phase
from gpu_worker.kernels.attention import Backend, choose_backend
from gpu_worker.models.checkpoint import check_fit, load_weights, random_weights, read_prompt
from gpu_worker.models.dit import DiTConfig, NaDiT
from gpu_worker.models.loading import described, read_parallel
from gpu_worker.models.plan import Rope
from gpu_worker.models.sources import VAE
from gpu_worker.models.vae import VAEConfig, VideoVAE

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A transformer and the VAE that goes with it.

    `weights` names the file `<weights>.safetensors` in the model folder; None means random weights, which
    make shapes and code paths but no pictures.
    """

    name: str
    transformer: DiTConfig
    vae: VAEConfig
    weights: str | None
    num_text_tokens: int = 58


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """Loaded networks on one device, and the prompt `[58, 5120]` that conditions every restoration."""

    transformer: NaDiT
    vae: VideoVAE
    prompt: Tensor


def load_networks(
    preset: Preset,
    folder: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    vae_dtype: torch.dtype | None = None,
    backend: Backend | None = None,
    cold: ColdStart | None = None,
) -> Networks:
    """Loads a preset's networks; the tiny ones are drawn from a fixed seed and need no folder.

    Args:
        preset: from `PRESETS`.
        folder: where `python -m gpu_worker.tools.fetch_models` put the files.
        device: where the networks go.
        dtype: of the transformer's matrices and activations.
        vae_dtype: of the VAE; as `dtype` when None.
        backend: of attention; the fastest that accepts the device and dtype when None.
        cold: hears how long the weights took, and how many bytes they were.

    Raises FileNotFoundError with the command to run when a file is missing, CheckpointError when one does
    not fit.
    """
    vae_dtype = vae_dtype or dtype

    chosen = choose_backend(device, dtype, preset.transformer.head_dim, wanted=backend)

    def transformer() -> NaDiT:
        network = NaDiT(preset.transformer)
        network.backend = chosen
        return network

    def vae() -> VideoVAE:
        return VideoVAE(preset.vae)

    if preset.weights is None:
        generator = torch.Generator().manual_seed(1)
        return Networks(
            transformer=random_weights(transformer, seed=2, dtype=dtype, device=device),
            vae=random_weights(vae, seed=3, dtype=vae_dtype, device=device).prepare(),
            prompt=torch.randn(preset.num_text_tokens, preset.transformer.txt_in_dim, generator=generator).to(
                device, dtype
            ),
        )
    if folder is None:
        raise ValueError(f"{preset.name} has published weights, but no folder was given")
    paths = [folder / f"{name}.safetensors" for name in (preset.weights, VAE, "prompt-positive")]
    if missing := [path.name for path in paths if not path.is_file()]:
        command = f"python -m gpu_worker.tools.fetch_models {preset.weights} --into {folder}"
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; run {command}")
    phase = weights_phase(folder)

    def loaded(build: Callable[[], Network], path: Path, dtype: torch.dtype) -> Network:
        with torch.device("meta"):
            # A file of the wrong network is refused before gigabytes of it are read.
            check_fit(build(), described(path))
        weights, transfer = read_parallel(path, device)
        if cold is not None:
            cold.add(phase, transfer.seconds, transfer.num_bytes)
        return load_weights(build, weights, dtype=dtype, device=device)

    return Networks(
        transformer=loaded(transformer, paths[0], dtype),
        vae=loaded(vae, paths[1], vae_dtype).prepare(),
        prompt=read_prompt(paths[2]).to(device, dtype),
    )


def _odd(num_layers: int) -> frozenset[int]:
    """Windows are shifted in every second block."""
    return frozenset(range(1, num_layers, 2))


_SEVEN: Final = DiTConfig(
    dim=3072,
    heads=24,
    head_dim=128,
    num_layers=36,
    mm_layers=36,
    swiglu=False,
    rope=Rope.PIXEL,
    rope_dim=64,
    out_norm=False,
    last_layer_vid_only=False,
    shifted_layers=_odd(36),
)
_THREE: Final = DiTConfig(
    dim=2560,
    heads=20,
    head_dim=128,
    num_layers=32,
    mm_layers=10,
    swiglu=True,
    rope=Rope.LANGUAGE,
    rope_dim=128,
    out_norm=True,
    last_layer_vid_only=True,
    shifted_layers=_odd(32),
)
# Four heads, so that four ranks can share them; windows small enough that a small picture has several.
_TINY_SEVEN: Final = DiTConfig(
    dim=64,
    heads=4,
    head_dim=16,
    num_layers=3,
    mm_layers=3,
    swiglu=False,
    rope=Rope.PIXEL,
    rope_dim=8,
    out_norm=False,
    last_layer_vid_only=False,
    txt_in_dim=32,
    window=(4, 12, 12),
    shifted_layers=_odd(3),
)
_TINY_THREE: Final = DiTConfig(
    dim=64,
    heads=4,
    head_dim=16,
    num_layers=4,
    mm_layers=2,
    swiglu=True,
    rope=Rope.LANGUAGE,
    rope_dim=16,
    out_norm=True,
    last_layer_vid_only=True,
    txt_in_dim=32,
    window=(4, 12, 12),
    shifted_layers=_odd(4),
)
_TINY_VAE: Final = VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)

PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(name="seedvr2-7b", transformer=_SEVEN, vae=VAEConfig(), weights="seedvr2-7b"),
        Preset(name="seedvr2-7b-sharp", transformer=_SEVEN, vae=VAEConfig(), weights="seedvr2-7b-sharp"),
        Preset(name="seedvr2-3b", transformer=_THREE, vae=VAEConfig(), weights="seedvr2-3b"),
        Preset(name="tiny-7b", transformer=_TINY_SEVEN, vae=_TINY_VAE, weights=None, num_text_tokens=5),
        Preset(name="tiny-3b", transformer=_TINY_THREE, vae=_TINY_VAE, weights=None, num_text_tokens=5),
    )
}
