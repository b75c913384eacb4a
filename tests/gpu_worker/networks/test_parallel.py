"""One, two and four ranks give the same numbers: spawned processes, real collectives over gloo."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from gpu_worker.diffusion.noise import chunk_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, sample
from gpu_worker.engine.presets import PRESETS
from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.vae import VideoVAE
from gpu_worker.models.vae_layers import PLAIN, Execution
from gpu_worker.parallel.halo import bands
from gpu_worker.parallel.ranks import ALONE, Ranks, join, leave
from gpu_worker.parallel.sequence import gather_rows, heads_to_tokens, shard_rows, tokens_to_heads

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

#: 105 and 24 tokens: neither divides by 2 or 4. Neither do the texts.
SHAPES = [(3, 10, 14), (2, 6, 8)]
TEXTS = [7, 5]
EXECUTIONS = {"plain": PLAIN, "fast": Execution(), "strips": Execution(max_elements=3000, frames_per_call=1)}


def predict(name: str, ranks: Ranks) -> torch.Tensor:
    """A packed batch of two samples through a tiny transformer."""
    config = PRESETS[name].transformer
    network = random_weights(lambda: NaDiT(config), seed=5, dtype=torch.float32)
    generator = torch.Generator().manual_seed(6)
    video = torch.randn(sum(t * h * w for t, h, w in SHAPES), 33, generator=generator)
    text = torch.randn(sum(TEXTS), config.txt_in_dim, generator=generator)
    condition = network.condition(text, TEXTS, torch.tensor([1000.0, 312.5]))
    return network(video, SHAPES, condition, ranks)


def restore(name: str, ranks: Ranks) -> torch.Tensor:
    """One clip from noise to latent, as the restorer does it."""
    preset = PRESETS[name]
    network = random_weights(lambda: NaDiT(preset.transformer), seed=5, dtype=torch.float32)
    generator = torch.Generator().manual_seed(8)
    shape = (5, 6, 10)
    latent = torch.randn(*shape, 16, generator=generator)
    text = torch.randn(7, preset.transformer.txt_in_dim, generator=generator)
    condition = network.condition(text, [7], torch.tensor([1000.0]))

    def velocity(x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        return network(x.flatten(0, 2), [shape], condition, ranks).unflatten(0, shape)

    condition_input = assemble_condition(latent, None, torch.zeros(1))
    return sample(chunk_noise(666, 3, (*shape, 16)), condition_input, velocity, SamplerConfig())


def autoencode(ranks: Ranks, execution: Execution) -> dict[str, torch.Tensor]:
    """A clip and an image through a tiny VAE; seven rows of latents divide by neither 2 nor 4."""
    vae = random_weights(lambda: VideoVAE(PRESETS["tiny-7b"].vae), seed=7, dtype=torch.float32).prepare()
    vae.execution = execution
    generator = torch.Generator().manual_seed(9)
    x = torch.rand(1, 3, 9, 56, 40, generator=generator) * 2 - 1
    z = torch.randn(1, 16, 3, 7, 5, generator=generator)
    return {
        "clip mean": vae.encode(x, ranks).mean,
        "clip": vae.decode(z, ranks),
        "image mean": vae.encode(x[:, :, :1], ranks).mean,
        "image": vae.decode(z[:, :, :1], ranks),
    }


def run_rank(rank: int, world: int, address: str, results: Path) -> None:
    """One rank of one group: leaves its tensors in `results`; a failed assertion fails the test."""
    ranks = join(rank=rank, world=world, address=address, device=torch.device("cpu"))
    rows = torch.arange(22.0).view(11, 2)
    assert torch.equal(gather_rows(shard_rows(rows, ranks), 11, ranks), rows)
    qkv = torch.arange(11.0 * 3 * 4 * 2).view(11, 3, 4, 2)
    heads = tokens_to_heads(shard_rows(qkv, ranks), 11, ranks)
    mine = slice(rank * 4 // world, (rank + 1) * 4 // world)
    assert torch.equal(heads, qkv[:, :, mine])
    tokens = heads_to_tokens(heads[:, 1].contiguous(), ranks)
    assert torch.equal(tokens, shard_rows(qkv[:, 1], ranks))
    with pytest.raises(ValueError, match=f"3 heads do not divide by {world} ranks"):
        tokens_to_heads(torch.zeros(2, 3, 3, 2), 2, ranks)
    with pytest.raises(ValueError, match=f"1 rows do not go round {world} ranks"):
        bands(1, ranks)
    torch.save(everything(ranks), results / f"{world}-{rank}.pt")
    leave(ranks)


def run_process(process: int, folder: str) -> None:
    """Four processes make one group of four, then two groups of two: a process joins more than once."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        run_rank(process, 4, f"file://{folder}/four", Path(folder))
        pair = Path(folder) / f"pair{process // 2}"
        pair.mkdir(exist_ok=True)
        run_rank(process % 2, 2, f"file://{folder}/two{process // 2}", pair)


def everything(ranks: Ranks) -> dict[str, torch.Tensor]:
    """What must not depend on the ranks, by name."""
    results = {}
    for name in ("tiny-7b", "tiny-3b"):
        results[f"{name} batch"] = predict(name, ranks)
        results[f"{name} restored"] = restore(name, ranks)
    for way, execution in EXECUTIONS.items():
        for name, tensor in autoencode(ranks, execution).items():
            results[f"VAE {way} {name}"] = tensor
    return results


@pytest.mark.filterwarnings("ignore")  # torch.multiprocessing on its way out
def test_two_and_four_ranks_agree_with_one_process(tmp_path: Path) -> None:
    mp.spawn(run_process, args=(str(tmp_path),), nprocs=4)

    alone = everything(ALONE)
    files = sorted(tmp_path.rglob("*-*.pt"))
    assert len(files) == 8
    for path in files:
        shared = torch.load(path, weights_only=True)
        for name, tensor in alone.items():
            error = ((shared[name] - tensor).abs().max() / tensor.abs().max()).item()
            assert error < 1e-5, (path.name, name)


def test_one_rank_is_the_identity() -> None:
    x = torch.randn(5, 3, 4, 2)

    assert join(rank=0, world=1, address="", device=torch.device("cpu")) is ALONE
    for ours in (shard_rows(x, ALONE), gather_rows(x, 5, ALONE), tokens_to_heads(x, 5, ALONE)):
        assert ours is x
    assert heads_to_tokens(x, ALONE) is x
    leave(ALONE)


def test_impossible_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="rank is 2; expected 0 to 1"):
        Ranks(rank=2, world=2)
    with pytest.raises(ValueError, match="2 ranks need a process group"):
        Ranks(rank=0, world=2)
