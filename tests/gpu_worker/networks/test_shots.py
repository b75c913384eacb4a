"""Parts of shots through tiny random networks: chunks, joints, borders, cuts, strength, depth, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_worker.contract import ColorFix, ErrorCode, WorkerError
from gpu_worker.engine.color import quantize
from gpu_worker.engine.job import EngineJob
from gpu_worker.engine.phases import Evictable
from gpu_worker.engine.pictures import Picture, Pixels
from gpu_worker.engine.planner import Mode, Tiles, num_latents
from gpu_worker.engine.preprocess import exact_geometry, from_network, to_network
from gpu_worker.engine.presets import PRESETS, Networks, load_networks
from gpu_worker.engine.segments import Segments, place
from gpu_worker.engine.shots import Look, Pace, Shot, Tools
from gpu_worker.engine.transfers import OnHost
from gpu_worker.engine.windows import Latents, windows
from tests.gpu_worker.networks.test_whole import restore as restore_whole

pytestmark = pytest.mark.torch

LOOK = Look(width=64, height=48, seed=42)
#: Longer than every clip here.
WHOLE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(PRESETS["tiny-7b"], None, device=CPU, dtype=torch.float32)


def moving_pictures(num_frames: int, brightness: int = 90) -> list[Picture]:
    """A bright spot on noise that crosses the picture: every frame differs from the one before."""
    noise = np.random.default_rng(brightness).integers(0, 24, (24, 32, 3), dtype=np.uint8)
    pictures = []
    for index in range(num_frames):
        pixels = noise + np.uint8(brightness)
        pixels[4:16, index % 24 : index % 24 + 8] += 90
        pictures.append(Picture.of(pixels, ticks=10 * index))
    return pictures


@dataclass
class Run:
    """Restores pictures as a job does; `pace` is that of all its parts."""

    networks: Networks
    pace: Pace = field(default_factory=lambda: Pace(length=WHOLE))
    look: Look = LOOK
    segment_frames: int = 1000
    pins: tuple[tuple[int, int], ...] = ()
    #: The second shot begins at this frame.
    cut: int | None = None
    #: Of the frames so far: moments, and the numbers of their segments.
    ticks: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def frames(self, pictures: Iterator[Picture]) -> Iterator[Pixels]:
        """Yields each restored frame."""
        tools = Tools.of(
            self.networks, Evictable(self.networks.transformer, CPU), OnHost(), self.look, self.pace
        )
        job = EngineJob(
            source=Path(),
            folder=Path(),
            model="tiny-7b",
            width=self.look.width,
            height=self.look.height,
            segment_frames=self.segment_frames,
            pins=self.pins,
        )
        keyed = (
            (picture, (self.cut is not None and index >= self.cut, picture.size))
            for index, picture in enumerate(pictures)
        )
        for segment in Segments(place(keyed, job)):
            for part in segment.parts():
                for made in Shot(tools, part, check=lambda: None).restored():
                    self.ticks.append(made.ticks)
                    self.numbers.append(segment.index)
                    yield np.asarray(made.picture())

    def clip(self, pictures: list[Picture]) -> Pixels:
        """Returns the restored pictures `[T, H, W, 3]`, each at its moment."""
        frames = list(self.frames(iter(pictures)))
        assert self.ticks == [picture.ticks for picture in pictures]
        return np.stack(frames)

    @property
    def borders(self) -> list[int]:
        """The first frames of the second and all later segments."""
        return [index for index, (one, other) in enumerate(pairwise(self.numbers), 1) if one != other]


def restored(
    networks: Networks,
    pictures: list[Picture],
    *,
    length: int = WHOLE,
    look: Look = LOOK,
    cut: int | None = None,
) -> Pixels:
    """Returns the restored pictures; the second shot begins at frame `cut`."""
    return Run(networks, Pace(length=length), look=look, cut=cut).clip(pictures)


def plainly_resized(pictures: list[Picture]) -> Pixels:
    geometry = exact_geometry(pictures[0].size, (LOOK.height, LOOK.width))
    frames = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2)
    plain = from_network(to_network(frames, geometry), geometry, len(pictures))
    return quantize(plain).permute(0, 2, 3, 1).numpy()


def jumps(clip: Pixels) -> list[float]:
    """The mean absolute difference of each frame and the one before."""
    return [float(np.abs(one.astype(int) - other).mean()) for one, other in pairwise(clip)]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 12])
def test_the_engine_streams_what_the_networks_make_of_the_whole_clip(
    networks: Networks, num_frames: int
) -> None:
    # Frame by frame noise is what a video of one shot gets; the whole clip gets the same here.
    pictures = moving_pictures(num_frames)
    frames = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2)
    whole = restore_whole(networks, frames, (LOOK.height, LOOK.width), LOOK.seed, keyed_by_frame=True)
    difference = np.abs(restored(networks, pictures).astype(int) - whole.permute(0, 2, 3, 1).numpy())
    # Slices add up in another order; a value that lies between two integers may fall to either side.
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_later_windows_change_nothing_before_the_overlap(networks: Networks) -> None:
    pictures = moving_pictures(41)
    alone = restored(networks, pictures[:21])
    chunked = restored(networks, pictures, length=num_latents(21))
    # Latents 0 to 3 of the first window's 6 are 13 frames; the last two are blended with the second window.
    assert np.array_equal(chunked[:13], alone[:13])
    assert not np.array_equal(chunked[13:21], alone[13:21])


def test_joints_do_not_jump(networks: Networks) -> None:
    found = jumps(restored(networks, moving_pictures(61), length=6))
    planned = windows(Latents(known=num_latents(61), ends=True), 6)
    joints = [4 * (window.fresh - 1) for window in planned][1:]
    assert len(joints) > 2
    for joint in joints:
        # The overlap is two latents: its frames and the first after it.
        assert np.mean(found[joint - 8 : joint + 1]) <= 1.2 * np.median(found)


@pytest.mark.parametrize(("segment_frames", "num_segments"), [(16, 3), (1000, 1)])
def test_no_more_pictures_are_held_than_two_windows_show(
    networks: Networks, segment_frames: int, num_segments: int
) -> None:
    length, pulled, most_ahead = 4, 0, 0

    def numbered() -> Iterator[Picture]:
        nonlocal pulled
        for picture in moving_pictures(81):
            pulled += 1
            yield picture

    run = Run(networks, Pace(length=length), segment_frames=segment_frames)
    for num_done, _ in enumerate(run.frames(numbered())):
        most_ahead = max(most_ahead, pulled - num_done)
    assert len(set(run.numbers)) == num_segments
    assert pulled == len(run.ticks) == 81
    assert most_ahead <= 2 * 4 * length


def test_borders_in_mid_shot_hardly_show(networks: Networks) -> None:
    pictures = moving_pictures(69)
    run = Run(networks, Pace(length=8), segment_frames=16, pins=((21, 26),))
    found, undivided = run.clip(pictures), restored(networks, pictures, length=8)
    # Two made by a pin, so near to each other that their joint windows meet, and one by length.
    assert run.borders == [21, 29, 61]
    usual = np.median(jumps(found))
    for border in run.borders:
        # From the last frame before the border to the first behind it, and all that the joint window changes.
        assert jumps(found)[border - 1] <= 1.2 * usual
        assert np.mean(jumps(found)[border - 8 : border + 8]) <= 1.2 * usual
        # The same noise and enough context behind the border: it differs by over 0.7 of a jump without either.
        behind = slice(border, border + 4)
        assert np.abs(found[behind].astype(int) - undivided[behind]).mean() < 0.5 * usual


@pytest.mark.parametrize("mode", [Mode.PHASED, Mode.EVICTING])
def test_phases_give_what_streaming_gives(networks: Networks, mode: Mode) -> None:
    # Two shots: the transformer leaves and comes back between them as well.
    pictures = moving_pictures(42)
    streamed = restored(networks, pictures, length=4, cut=25)
    phased = Run(networks, Pace(length=4, mode=mode), cut=25).clip(pictures)
    assert np.array_equal(phased, streamed)


def test_tiles_give_every_frame_and_meet_without_a_seam(networks: Networks) -> None:
    pictures = moving_pictures(6)
    look = Look(width=192, height=144, seed=42)
    whole = restored(networks, pictures, look=look).astype(int)
    pace = Pace(length=WHOLE, mode=Mode.EVICTING, tiles=Tiles(size=128, overlap=32))
    tiled = Run(networks, pace, look).clip(pictures).astype(int)
    assert tiled.shape == whole.shape
    # Tiles are normalised alone, so they differ from the whole; but no row or column stands out for it. Hard
    # edges (overlap=0) give 1.4 here.
    for axis in (1, 2):
        others = tuple({0, 1, 2, 3} - {axis})
        steps, of_whole = (np.abs(np.diff(clip, axis=axis)).mean(axis=others) for clip in (tiled, whole))
        assert (steps / of_whole).max() < 1.2


def test_nothing_crosses_a_cut(networks: Networks) -> None:
    dark, bright = moving_pictures(7, brightness=20), moving_pictures(10, brightness=140)
    for number, picture in enumerate(bright):
        bright[number] = Picture.of(picture.pixels, ticks=1000 + picture.ticks)
    both = restored(networks, dark + bright, cut=7)
    assert np.array_equal(both[:7], restored(networks, dark))
    # What stands before the cut changes nothing after it, but for the noise's place in the video.
    other = [Picture.of(255 - picture.pixels, picture.ticks) for picture in dark]
    assert np.array_equal(restored(networks, other + bright, cut=7)[7:], both[7:])


def test_strength_goes_from_the_plain_resize_to_the_pure_output(networks: Networks) -> None:
    pictures = moving_pictures(9)
    none, half, full = (
        restored(networks, pictures, look=Look(width=64, height=48, seed=42, strength=strength)).astype(int)
        for strength in (0, 50, 100)
    )
    assert np.array_equal(none, plainly_resized(pictures))
    assert np.abs(half - (none + full) / 2).max() <= 1
    assert not np.array_equal(none, full)


def test_the_seed_decides(networks: Networks) -> None:
    pictures = moving_pictures(6)
    one, again = (restored(networks, pictures) for _ in range(2))
    other = restored(networks, pictures, look=Look(width=64, height=48, seed=43))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("color_fix", list(ColorFix))
def test_every_color_fix_gives_a_video(networks: Networks, color_fix: ColorFix) -> None:
    look = Look(width=64, height=48, seed=1, color_fix=color_fix)
    assert restored(networks, moving_pictures(5), look=look).shape == (5, 48, 64, 3)


def test_a_change_of_size_starts_a_shot(networks: Networks) -> None:
    narrow = [Picture.of(picture.pixels[:, :20], 500 + picture.ticks) for picture in moving_pictures(3)]
    assert restored(networks, moving_pictures(3) + narrow).shape == (6, 48, 64, 3)


@pytest.fixture
def small_memory(networks: Networks) -> Iterator[list[int]]:
    """Memory for windows of so many latents: longer ones ask the allocator for more than any machine has."""
    longest = [WHOLE]

    def allocate(
        _network: torch.nn.Module, arguments: tuple[torch.Tensor, list[tuple[int, int, int]]]
    ) -> None:
        if arguments[1][0][0] > longest[0]:
            torch.empty(2**50, dtype=torch.uint8)

    hook = networks.transformer.register_forward_pre_hook(allocate)
    yield longest
    hook.remove()


def test_out_of_memory_halves_the_window_and_goes_on(networks: Networks, small_memory: list[int]) -> None:
    small_memory[0] = 5
    pictures, pace = moving_pictures(41), Pace(length=8)
    found = Run(networks, pace).clip(pictures)
    assert pace.length == 4
    assert np.array_equal(found, restored(networks, pictures, length=4))


def test_running_out_in_the_middle_keeps_what_is_done(networks: Networks, small_memory: list[int]) -> None:
    slower: list[int] = []
    run = Run(networks, Pace(length=8, on_slower=slower.append), segment_frames=16)
    for pixels in run.frames(iter(moving_pictures(81))):
        small_memory[0] = 3
        assert pixels.shape == (48, 64, 3)
    assert run.ticks == [10 * index for index in range(81)]
    assert run.pace.length == 2
    assert slower == [4, 2]


def test_memory_for_nothing_is_an_error_with_a_code(networks: Networks, small_memory: list[int]) -> None:
    small_memory[0] = 0
    with pytest.raises(WorkerError) as caught:
        restored(networks, moving_pictures(9), length=8)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


@pytest.mark.parametrize("broken", [{"strength": 101}, {"strength": -1}, {"width": 0}, {"height": 0}])
def test_impossible_looks_are_refused(broken: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(broken.values()))}"):
        Look(**{"width": 64, "height": 48, "seed": 1, **broken})
