"""The sampler and its noise: one step is noise minus velocity, and noise depends on its key alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.diffusion.noise import chunk_noise, frame_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, condition_timestep, sample
from gpu_worker.diffusion.schedule import noise_share, sampling_timesteps, shift_timestep, signal_share

pytestmark = pytest.mark.torch

SHAPE = (3, 4, 6, 16)


def test_one_step_is_noise_minus_velocity(generator: torch.Generator) -> None:
    noise, latent, velocity = torch.randn(3, *SHAPE, generator=generator)
    condition = assemble_condition(latent, None, torch.zeros(1))
    seen = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x, t))
        return velocity

    restored = sample(noise, condition, predict, SamplerConfig())

    assert torch.equal(restored, noise - velocity)
    assert len(seen) == 1
    assert seen[0][1].tolist() == [1000.0]
    assert torch.equal(seen[0][0], torch.cat([noise, latent, torch.ones(*SHAPE[:3], 1)], -1))


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_exact_velocity_restores_exactly_in_any_number_of_steps(
    num_steps: int, generator: torch.Generator
) -> None:
    noise, picture = torch.randn(2, *SHAPE, generator=generator)
    condition = assemble_condition(picture, None, torch.zeros(1))

    restored = sample(noise, condition, lambda _x, _t: noise - picture, SamplerConfig(num_steps=num_steps))

    assert (restored - picture).abs().max().item() < 1e-5


def test_guidance_needs_a_negative_prompt() -> None:
    zeros = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="there is no negative prompt"):
        sample(zeros, zeros, lambda x, _t: x, SamplerConfig(cfg_scale=2.0))


def test_condition_needs_noise_when_it_is_noised() -> None:
    timestep = condition_timestep((3, 4, 6), 0.1)

    assert 0.0 < timestep.item() < 1000.0
    assert condition_timestep((3, 4, 6), 0.0).item() == 0.0
    with pytest.raises(ValueError, match="no noise was given"):
        assemble_condition(torch.zeros(SHAPE), None, timestep)


@given(num_steps=st.integers(1, 300))
def test_timesteps_fall_from_the_top_and_are_as_many_as_asked(num_steps: int) -> None:
    timesteps = sampling_timesteps(num_steps)

    assert len(timesteps) == num_steps
    assert timesteps[0] == 1000.0
    assert bool((timesteps.diff() < 0).all())
    assert timesteps[-1] == pytest.approx(1000.0 / num_steps, rel=1e-3)


@given(t=st.floats(0.0, 1000.0, width=32))
def test_shares_sum_to_one_and_the_shift_keeps_its_ends(t: float) -> None:
    timestep = torch.tensor([t])

    assert (signal_share(timestep) + noise_share(timestep)).item() == pytest.approx(1.0, abs=1e-6)
    assert 0.0 <= shift_timestep(timestep, (26, 90, 160)).item() <= 1000.0 + 1e-3
    ends = shift_timestep(torch.tensor([0.0, 1000.0]), (1, 90, 160))
    assert ends.tolist() == pytest.approx([0.0, 1000.0], rel=1e-6)


def test_noise_depends_on_its_key_and_nothing_else() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()

    first = chunk_noise(666, 2, SHAPE)

    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(chunk_noise(666, 2, SHAPE), first)
    for other in (
        chunk_noise(666, 3, SHAPE),
        chunk_noise(667, 2, SHAPE),
        chunk_noise(2, 666, SHAPE),
        chunk_noise(666, 2, SHAPE, purpose="condition"),
    ):
        assert not torch.equal(other, first)
        assert abs(torch.corrcoef(torch.stack([other.flatten(), first.flatten()]))[0, 1]) < 0.1


def test_noise_is_standard_normal() -> None:
    noise = chunk_noise(1, 0, (8, 32, 32, 16))

    assert noise.dtype is torch.float32
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1.0) < 0.01


def test_overlapping_chunks_share_their_frames() -> None:
    whole = frame_noise(666, 0, (6, 2, 3, 16))

    assert torch.equal(frame_noise(666, 4, (2, 2, 3, 16)), whole[4:])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_steps": 0}, "num_steps is 0"), ({"cond_noise_scale": 1.5}, "cond_noise_scale is 1.5")],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**settings)
