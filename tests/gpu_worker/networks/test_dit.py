"""The transformer: backends agree, samples are independent, constants are constant, 16 bits stay near."""

import logging
import math

import pytest
import torch

from gpu_worker.engine.presets import PRESETS
from gpu_worker.kernels.attention import Backend, Segments, attention, choose_backend
from gpu_worker.kernels.norm import rms_norm
from gpu_worker.models import dit
from gpu_worker.models.checkpoint import load_weights, random_weights
from gpu_worker.models.dit import DiTConfig, NaDiT, patchify, unpatchify
from gpu_worker.models.layers import Rotation, rotate_
from gpu_worker.models.plan import Rope

pytestmark = pytest.mark.torch

TINY = ["tiny-7b", "tiny-3b"]
SHAPES = [(3, 10, 14), (1, 30, 26), (5, 6, 8)]


def transformer(name: str, dtype: torch.dtype = torch.float32) -> NaDiT:
    return random_weights(lambda: NaDiT(PRESETS[name].transformer), seed=11, dtype=dtype)


def inputs(
    network: NaDiT, shapes: list[tuple[int, int, int]]
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    generator = torch.Generator().manual_seed(12)
    lengths = [5 + i for i in range(len(shapes))]
    video = torch.randn(sum(math.prod(shape) for shape in shapes), 33, generator=generator)
    text = torch.randn(sum(lengths), network.config.txt_in_dim, generator=generator)
    return video, text, lengths


def predict(network: NaDiT, shapes: list[tuple[int, int, int]]) -> torch.Tensor:
    video, text, lengths = inputs(network, shapes)
    timesteps = torch.tensor([1000.0 - 100 * i for i in range(len(shapes))])
    return network(video, shapes, network.condition(text, lengths, timesteps))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.float() - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("name", TINY)
def test_every_backend_gives_the_reference(name: str) -> None:
    network = transformer(name)
    network.backend = Backend.SDPA_EACH
    reference = predict(network, SHAPES)

    network.backend = Backend.SDPA_GROUPED

    assert relative_error(predict(network, SHAPES), reference) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [b for b in Backend if b.is_kernel], ids=lambda b: b.value)
def test_every_kernel_gives_the_reference(backend: Backend, generator: torch.Generator) -> None:
    device = torch.device("cuda")
    try:
        choose_backend(device, torch.bfloat16, 128, wanted=backend)
    except ValueError as error:
        pytest.skip(f"NOT TESTED HERE: {error}")
    segments = Segments.of([463, 463, 405, 58, 1], device)
    q, k, v = torch.randn(3, segments.num_tokens, 4, 128, generator=generator).to(device, torch.bfloat16)

    reference = attention(q.float(), k.float(), v.float(), segments, Backend.SDPA_EACH)

    assert relative_error(attention(q, k, v, segments, backend), reference) < 2e-2


@pytest.mark.parametrize("name", TINY)
def test_batch_of_different_shapes_equals_one_by_one(name: str) -> None:
    network = transformer(name)
    video, text, lengths = inputs(network, SHAPES)
    together = predict(network, SHAPES)

    clips = video.split([math.prod(shape) for shape in SHAPES])
    outputs = together.split([math.prod(shape) for shape in SHAPES])
    for i, (clip, prompt) in enumerate(zip(clips, text.split(lengths), strict=True)):
        condition = network.condition(prompt, lengths[i : i + 1], torch.tensor([1000.0 - 100 * i]))
        assert relative_error(network(clip, SHAPES[i : i + 1], condition), outputs[i]) < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_stays_near_float32(name: str) -> None:
    network = transformer(name)
    half = load_weights(lambda: NaDiT(network.config), network.state_dict(), dtype=torch.bfloat16)

    exact, rounded = predict(network, SHAPES), predict(half, SHAPES)

    assert rounded.dtype is torch.bfloat16
    # The reference's own distance under bfloat16 is 0.8 and 1.5 per cent.
    assert ((rounded.float() - exact).norm() / exact.norm()).item() < 2e-2


@pytest.mark.parametrize("name", TINY)
def test_mlp_in_slices_of_rows_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = transformer(name)
    whole = predict(network, SHAPES)

    monkeypatch.setattr(dit, "MLP_ROWS", 37)

    assert relative_error(predict(network, SHAPES), whole) < 1e-6


def test_condition_serves_many_calls_and_is_not_written_to() -> None:
    network = transformer("tiny-3b")
    video, text, lengths = inputs(network, SHAPES[:1])
    condition = network.condition(text, lengths, torch.tensor([1000.0]))
    before = condition.text_LC.clone()

    first = network(video, SHAPES[:1], condition)
    second = network(video, SHAPES[:1], condition)

    assert torch.equal(first, second)
    assert torch.equal(condition.text_LC, before)


def test_plan_is_made_once_per_shape() -> None:
    network = transformer("tiny-7b")

    assert network.plan([(3, 10, 14)], [5]) is network.plan([(3, 10, 14)], [5])
    assert network.plan([(3, 10, 14)], [5]) is not network.plan([(3, 10, 14)], [6])


def test_timestep_embedding_stays_out_of_the_forward_pass() -> None:
    network = transformer("tiny-7b")
    video, text, lengths = inputs(network, SHAPES[:1])
    condition = network.condition(text, lengths, torch.tensor([1000.0]))
    calls = []
    for module in (network.emb_in, network.txt_in):
        module.register_forward_hook(lambda *_: calls.append(1))

    network(video, SHAPES[:1], condition)

    assert calls == []


def test_frames_of_a_short_clip_meet_in_the_text_alone() -> None:
    """Up to four latent frames a window holds one of them (dit.md, section 7)."""
    network = transformer("tiny-7b")
    video, text, lengths = inputs(network, [(3, 6, 8)])
    condition = network.condition(text, lengths, torch.tensor([1000.0]))
    block = network.blocks[0]
    seen = {}
    block.register_forward_hook(lambda _m, _i, out: seen.update(video=out[0].clone()))

    network(video, [(3, 6, 8)], condition)
    before = seen["video"]
    changed = video.clone()
    changed[-48:] += 1.0
    network(changed, [(3, 6, 8)], condition)

    assert torch.equal(seen["video"][:24], before[:24])
    assert not torch.equal(seen["video"][24:], before[24:])


@pytest.mark.parametrize("patch", [(1, 2, 2), (1, 1, 2)])
def test_unpatchify_undoes_patchify(patch: tuple[int, int, int], generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 6, 5, generator=generator)
    tokens = patchify(x, patch)

    # The channel is fastest, then the column: the second five features are the cell's second column.
    assert torch.equal(tokens[1, 5:10], x[0, 0, 3])
    assert torch.equal(unpatchify(tokens, (2, 4 // patch[1], 6 // patch[2]), patch), x.flatten(0, 2))


def test_rotation_keeps_lengths_and_leaves_the_tail(generator: torch.Generator) -> None:
    x = torch.randn(7, 2, 10, generator=generator)
    angle = torch.randn(7, 1, 3, generator=generator)

    rotated = rotate_(x.clone(), Rotation(angle.cos(), angle.sin()))

    assert torch.equal(rotated[..., 6:], x[..., 6:])
    lengths = [t[..., :6].unflatten(-1, (3, 2)).norm(dim=-1) for t in (x, rotated)]
    assert relative_error(lengths[1], lengths[0]) < 1e-6
    back = rotate_(rotated, Rotation(angle.cos(), -angle.sin()))
    assert relative_error(back, x) < 1e-6


def test_rotary_frequencies_are_the_published_formulas() -> None:
    seven, three = Rope.PIXEL.frequencies(64), Rope.LANGUAGE.frequencies(128)

    assert seven.dtype is three.dtype is torch.float32
    assert seven.shape == (10,)
    assert three.shape == (21,)
    assert seven[:3].tolist() == pytest.approx([3.1415927, 47.472954, 91.804321], rel=1e-7)
    assert three[20].item() == pytest.approx(10000 ** (-40 / 42), rel=1e-6)


def test_rms_norm_has_its_epsilon_inside_the_root() -> None:
    x = torch.tensor([[3e-3, 4e-3]])

    expected = x / math.sqrt(12.5e-6 + 1e-5)

    assert relative_error(rms_norm(x, None, 1e-5), expected) < 1e-6
    assert relative_error(rms_norm(x, torch.tensor([2.0, 2.0]), 1e-5), 2 * expected) < 1e-6
    assert rms_norm(x.bfloat16(), torch.ones(2), 1e-5).dtype is torch.bfloat16


def test_backend_is_chosen_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    chosen = choose_backend(torch.device("cpu"), torch.bfloat16, 128)

    assert chosen is Backend.SDPA_GROUPED
    assert "backend=sdpa-grouped" in caplog.text
    assert "flash: it needs CUDA, not cpu" in caplog.text


def test_wanted_backend_overrides_or_says_what_it_lacks() -> None:
    cpu = torch.device("cpu")

    assert choose_backend(cpu, torch.float32, 16, wanted=Backend.SDPA_EACH) is Backend.SDPA_EACH
    with pytest.raises(ValueError, match="flash was asked for, but it needs CUDA"):
        choose_backend(cpu, torch.float32, 16, wanted=Backend.FLASH)
    with pytest.raises(ValueError, match="16-bit values"):
        choose_backend(torch.device("cuda"), torch.float32, 16, wanted=Backend.FLASH)


@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_empty_segments_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="segment lengths are"):
        Segments.of(lengths, "cpu")


def test_attention_stays_inside_its_segment(generator: torch.Generator) -> None:
    q, k, v = torch.randn(3, 9, 2, 8, generator=generator)
    segments = Segments.of([4, 4, 1], "cpu")
    before = attention(q, k, v, segments, Backend.SDPA_GROUPED)
    k[4:], v[4:] = 0.0, 7.0

    after = attention(q, k, v, segments, Backend.SDPA_GROUPED)

    assert torch.equal(before[:4], after[:4])
    assert torch.equal(after[8], v[8])
    with pytest.raises(ValueError, match="8 tokens for segments of 9"):
        attention(q[:8], k[:8], v[:8], segments, Backend.SDPA_EACH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": (2, 2, 2)}, "a patch holds one latent frame"),
        ({"mm_layers": 9}, "mm_layers is 9 of 3 layers"),
        ({"rope_dim": 32}, "rope_dim is 32; heads have 16 channels"),
        ({"shifted_layers": frozenset({3})}, "of 3 layers"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    config = PRESETS["tiny-7b"].transformer
    values = {name: getattr(config, name) for name in DiTConfig.__dataclass_fields__}

    with pytest.raises(ValueError, match=message):
        DiTConfig(**values | changes)


def test_odd_latents_and_mismatched_texts_are_refused() -> None:
    network = transformer("tiny-7b")

    with pytest.raises(ValueError, match=r"latent \(1, 5, 4\) does not divide"):
        network.plan([(1, 5, 4)], [3])
    with pytest.raises(ValueError, match="7 text tokens"):
        network.condition(torch.zeros(7, 32), [3], torch.tensor([1000.0]))
