"""Windows cover every token once, whatever the grid, in both kinds."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.models.plan import Rope, make_plan, window_tokens
from gpu_worker.models.windows import axis_pieces, cut_axis, partition, window_size

pytestmark = pytest.mark.torch

SMALL_GRIDS = st.tuples(st.integers(1, 12), st.integers(1, 24), st.integers(1, 24))
LARGE_GRIDS = st.tuples(st.integers(1, 121), st.integers(1, 300), st.integers(1, 300))
COUNTS = st.tuples(st.integers(1, 5), st.integers(1, 14), st.integers(1, 14))
KINDS = st.booleans()


@given(grid=SMALL_GRIDS, counts=COUNTS, shifted=KINDS)
@settings(max_examples=200)
def test_every_token_is_in_exactly_one_window(
    grid: tuple[int, int, int], counts: tuple[int, int, int], shifted: bool
) -> None:
    seen = [
        token
        for t0, t1, h0, h1, w0, w1 in partition(grid, counts, shifted=shifted)
        for token in itertools.product(range(t0, t1), range(h0, h1), range(w0, w1))
    ]

    assert sorted(seen) == list(itertools.product(*map(range, grid)))


@given(grid=LARGE_GRIDS, counts=COUNTS, shifted=KINDS)
@settings(max_examples=500)
def test_pieces_join_without_gap_and_never_exceed_the_window(
    grid: tuple[int, int, int], counts: tuple[int, int, int], shifted: bool
) -> None:
    sizes = window_size(grid, counts)
    for length, size, pieces in zip(grid, sizes, axis_pieces(grid, counts, shifted=shifted), strict=True):
        edges = [first for first, _ in pieces] + [pieces[-1][1]]
        assert edges == [0] + [last for _, last in pieces]
        assert edges[-1] == length
        assert all(0 < last - first <= size for first, last in pieces)
        whole = pieces[1:-1] if shifted else pieces[:-1]
        assert {last - first for first, last in whole} <= {size}


@given(length=st.integers(2, 300), size=st.integers(1, 299))
def test_shifted_axis_begins_with_half_a_window(length: int, size: int) -> None:
    pieces = cut_axis(length, size, shifted=True)

    if size >= length:
        assert pieces == [(0, length)]
    else:
        assert pieces[0] == (0, size // 2 or 1)


@given(grid=SMALL_GRIDS, counts=COUNTS, shifted=KINDS)
@settings(max_examples=100)
def test_window_tokens_are_a_permutation_in_row_major_order(
    grid: tuple[int, int, int], counts: tuple[int, int, int], shifted: bool
) -> None:
    parts = [window_tokens(grid, window) for window in partition(grid, counts, shifted=shifted)]

    assert all(bool((part.diff() > 0).all()) for part in parts)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(math.prod(grid)))


@given(
    grids=st.lists(SMALL_GRIDS, min_size=1, max_size=3),
    counts=COUNTS,
    shifted=KINDS,
    rope=st.sampled_from(Rope),
)
@settings(max_examples=50)
def test_plan_places_every_video_token_once_and_text_in_every_window(
    grids: list[tuple[int, int, int]], counts: tuple[int, int, int], shifted: bool, rope: Rope
) -> None:
    texts = [3 + i for i in range(len(grids))]
    device = torch.device("cpu")
    plan = make_plan(grids, texts, counts=counts, rope=rope, rope_dim=12, device=device)
    kind = plan.of_kind(shifted=shifted)

    rows = torch.cat([kind.video_rows_L, kind.text_rows_L])
    assert torch.equal(rows.sort().values, torch.arange(kind.segments.num_tokens))
    assert sum(count for count, _ in kind.texts) == len(kind.segments.lengths)
    assert kind.video_rotation.cos_L1P.shape == (sum(map(math.prod, grids)), 1, 6)
    assert (kind.text_rotation is None) == (rope is Rope.PIXEL)


@pytest.mark.parametrize(
    ("grid", "size"), [((7, 67, 121), (2, 15, 27)), ((1, 23, 19), (1, 22, 19)), ((31, 33, 59), (8, 15, 27))]
)
def test_window_size_follows_the_worked_examples(
    grid: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    assert window_size(grid, (4, 3, 3)) == size


def test_impossible_grid_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValueError, match=r"grid is \(0, 4, 4\)"):
        window_size((0, 4, 4), (4, 3, 3))
    with pytest.raises(ValueError, match="cannot cut 5 tokens into windows of 0"):
        cut_axis(5, 0, shifted=False)
