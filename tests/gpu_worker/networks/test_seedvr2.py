"""The SeedVR2 engine as ranks use it: jobs in segments, depth, stills, memory that runs out, jobs that break off."""

from __future__ import annotations

import gc
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker.contract import ErrorCode, Output, SegmentPlan, WorkerError
from gpu_worker.engine.alone import restore_alone
from gpu_worker.engine.job import Cancelled, Done, EngineJob, SegmentSpan
from gpu_worker.engine.pictures import Pixels
from gpu_worker.engine.seedvr2 import SeedVR2Engine
from gpu_worker.engine.work import load, run
from tests import samples
from tests.gpu_worker.test_work import Listener

pytestmark = pytest.mark.torch
#: Enough for windows of four latents of the tiny pictures, and not for more.
LITTLE_GIB = 0.32


@pytest.fixture(scope="module")
def engine() -> SeedVR2Engine:
    made = load("seedvr2", model="tiny-7b", weights=None)
    assert isinstance(made, SeedVR2Engine)
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 10 bits with a cut at 20, so that 16 frames a segment give segments at 20 and, in mid-shot, 53."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write_clip(path, num_frames=60, cut=20)
    return path


def write_clip(path: Path, *, num_frames: int, cut: int, rate: int = 25) -> None:
    """Noise with a bright spot that moves; the picture gets brighter at the cut."""
    noise = np.random.default_rng(3).integers(0, 4000, (24, 32, 3), dtype=np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv444p10le"
        for index in range(num_frames):
            pixels = noise + np.uint16(6000 if index < cut else 30000)
            pixels[4:16, abs(index % 48 - 24) :][:, :8] += 23000
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb48le")))
        container.mux(stream.encode())


def job(source: Path, folder: Path, **settings: Any) -> EngineJob:
    # Tiny pictures come out of x264 with other bits now and then; ProRes has none of its freedom.
    defaults: dict[str, Any] = {
        "width": 48,
        "height": 32,
        "segment_frames": 16,
        "seed": 7,
        "output": Output.PRORES,
    }
    values = {**defaults, **settings}
    return EngineJob(source=source, folder=folder, **{"model": "tiny-7b", **values})


def work(
    task: EngineJob, engine: SeedVR2Engine, *, rank: int = 0, world: int = 1, listener: Listener | None = None
) -> Done:
    task.folder.mkdir(exist_ok=True)
    return run(task, engine, rank=rank, world=world, events=listener or Listener())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors() -> int:
    """How many tensors this process holds."""
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_ranks_and_jobs_that_go_on_make_what_one_uninterrupted_rank_makes(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    task = job(clip, tmp_path / "one")
    done = work(task, engine)
    assert [span.start for span in done.segments] == [0, 20, 53]
    assert done.num_frames == sum(span.num_frames for span in done.segments)
    wanted = files(task.folder)

    shared = replace(task, folder=tmp_path / "two")
    for rank in range(2):
        assert work(shared, engine, rank=rank, world=2).segments == done.segments
    assert files(shared.folder) == wanted

    going_on = replace(task, folder=tmp_path / "on")
    listener = Listener(cancel_after=done.segments[0].num_frames + 3)
    with pytest.raises(Cancelled):
        work(going_on, engine, listener=listener)
    finished = tuple(listener.segments)
    assert finished
    assert len(finished) < len(done.segments)
    work(going_on.without(finished), engine)
    assert files(going_on.folder) == wanted


def test_another_kind_of_worker_goes_on_as_the_first_began(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    """The first worker has memory for short windows, the second one for more."""
    small = job(clip, tmp_path / "small", memory_gib=LITTLE_GIB)
    listener = Listener()
    spans = work(small, engine, listener=listener).segments
    plan = listener.plans[spans[0]]
    assert plan is not None
    assert plan.window_length < 8
    wanted = files(small.folder)

    for told, is_same in ((plan, True), (None, False)):
        going_on = replace(small, folder=tmp_path / f"on-{is_same}", memory_gib=None, plan=told)
        listener = Listener()
        work(going_on.without(spans[:1]), engine, listener=listener)
        made = files(going_on.folder)
        assert len(made) == len(spans) - 1
        assert all(made[name] == wanted[name] for name in made) is is_same
        assert (set(listener.plans.values()) == {plan}) is is_same


def test_a_worker_without_room_for_the_plan_keeps_what_is_finished(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    large = job(clip, tmp_path / "large")
    listener = Listener()
    spans = work(large, engine, listener=listener).segments
    going_on = replace(large, folder=tmp_path / "on", memory_gib=LITTLE_GIB, plan=listener.plans[spans[0]])
    again = Listener()
    assert work(going_on.without(spans[:1]), engine, listener=again).segments == spans
    assert tuple(again.segments) == spans[1:]
    assert all(plan is not None and plan.window_length < 8 for plan in again.plans.values())


def test_a_preview_makes_the_segments_that_the_whole_would_make(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    """In mid-shot on both sides: the frames around the range are context to the preview, too."""
    span = (26, 50)
    preview = job(clip, tmp_path / "preview", span=span)
    done = work(preview, engine)
    whole = job(clip, tmp_path / "whole", pins=(span,))
    work(whole, engine)
    made = files(preview.folder)
    assert len(made) == len(done.segments) < len(files(whole.folder))
    assert made.items() <= files(whole.folder).items()


def test_a_job_that_breaks_off_leaves_no_tensor_and_a_usable_engine(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    task = job(clip, tmp_path, segment_frames=100)
    work(task, engine)
    before, wanted = tensors(), files(tmp_path)
    for _ in range(2):
        with pytest.raises(Cancelled):
            work(task, engine, listener=Listener(cancel_after=5))
        assert tensors() <= before
    work(task, engine)
    assert files(tmp_path) == wanted
    assert tensors() <= before


@pytest.fixture
def small_vae(engine: SeedVR2Engine) -> Iterator[list[int]]:
    """A VAE that runs out of memory: after so many calls of its encoder, so many times. The allocator really fails."""
    calls = [10**6, 0]

    def allocate(*_arguments: object) -> None:
        calls[0] -= 1
        if calls[0] < 0 < calls[1]:
            calls[1] -= 1
            torch.empty(2**50, dtype=torch.uint8)

    assert engine._loaded is not None
    hook = engine._loaded.networks.vae.encoder.register_forward_pre_hook(allocate)
    yield calls
    hook.remove()


def test_a_plan_that_fails_goes_on_with_a_smaller_one(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine, small_vae: list[int]
) -> None:
    task = job(clip, tmp_path / "whole", width=64)
    done = work(task, engine)
    # Fails once, in the second segment: the first has six latents.
    small_vae[:] = [9, 1]
    again, listener = replace(task, folder=tmp_path / "again"), Listener()
    assert work(again, engine, listener=listener).segments == done.segments
    assert tuple(listener.segments) == done.segments, "no segment was made twice"
    assert listener.num_done == done.num_frames
    # The plan changes how many frames a call has: sums round in another order.
    for name in files(task.folder):
        for one, other in zip(frames(task.folder / name), frames(again.folder / name), strict=True):
            assert np.abs(one.astype(int) - other).max() <= 2


def test_memory_that_is_never_enough_ends_with_a_code_and_frees_it(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine, small_vae: list[int]
) -> None:
    before = tensors()
    small_vae[:] = [3, 10**6]
    with pytest.raises(WorkerError) as raised:
        work(job(clip, tmp_path, height=48), engine)
    assert raised.value.code is ErrorCode.OUT_OF_MEMORY
    del raised
    assert tensors() <= before + 1, "the condition of the transformer"
    small_vae[:] = [10**6, 0]
    assert work(job(clip, tmp_path, height=64), engine).num_frames


def frames(segment: Path) -> list[Pixels]:
    """The pictures of a segment."""
    with av.open(str(segment)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def pngs(result: Path) -> list[Pixels]:
    """The pictures of a sequence, as they are in the files."""
    with zipfile.ZipFile(result) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        pictures = []
        for name in names:
            with archive.open(name) as file, av.open(file, "r") as container:
                pictures.append(next(container.decode(video=0)).to_ndarray())
        return pictures


def test_more_than_8_bits_come_out_of_more_than_8_bits(
    tmp_path: Path, clip: Path, engine: SeedVR2Engine
) -> None:
    ends = []
    for strength in (0, 100):
        result = tmp_path / f"{strength}.zip"
        task = job(clip, tmp_path, output=Output.PNG, strength=strength, span=(0, 9))
        _, report = restore_alone(task, result, engine)
        assert report.bit_depth == 16
        ends.append(pngs(result))
    for plain, restored in zip(*ends, strict=True):
        assert plain.dtype == np.uint16
        # Numbers that 8 bits do not have.
        assert np.count_nonzero(plain % 257) > plain.size / 2
        assert np.count_nonzero(restored % 257) > plain.size / 2
        assert not np.array_equal(plain, restored)


def test_a_still_keeps_its_alpha(tmp_path: Path, engine: SeedVR2Engine) -> None:
    source = tmp_path / "still.png"
    alpha = np.zeros((24, 32), np.uint8)
    alpha[:, 16:] = 255
    colors = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(np.dstack([colors, alpha])).save(source)
    task = job(source, tmp_path, width=63, height=47, output=Output.PNG)
    done, report = restore_alone(task, tmp_path / "result", engine)
    assert done.num_frames == report.num_frames == 1
    with Image.open(report.path) as result:
        assert (result.mode, result.size) == ("RGBA", (63, 47))
        opacity = np.asarray(result)[..., 3]
    assert opacity[:, :24].max() == 0
    assert opacity[:, -24:].min() == 255


def test_another_model_takes_the_place_of_the_loaded_one(tmp_path: Path, engine: SeedVR2Engine) -> None:
    task = job(samples.path("single_frame.mp4"), tmp_path)
    results = []
    for model in ("tiny-7b", "tiny-3b", "tiny-7b"):
        work(replace(task, model=model), engine)
        results.append(files(tmp_path))
    assert results[0] == results[2] != results[1]
    with pytest.raises(WorkerError, match="accepted are") as raised:
        work(replace(task, model="seedvr3"), engine)
    assert raised.value.code is ErrorCode.INVALID_REQUEST
    work(task, engine)
    assert files(tmp_path) == results[0]


class _Sizes(Listener):
    """Notes this process's resident bytes whenever a segment is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.resident: list[int] = []

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        super().segment(span, path, plan)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.timeout(180)
def test_ten_minutes_take_no_more_memory_than_four(tmp_path: Path, engine: SeedVR2Engine) -> None:
    # All pictures of the source together are twice the memory that PyTorch takes, so any that stayed would show.
    source = tmp_path / "long.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for index in range(600):
            pixels = np.full((360, 640, 3), 80, np.uint8)
            pixels[100:200, index : index + 40] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    sizes = _Sizes()
    done = work(job(source, tmp_path / "out", width=16, height=16, segment_frames=60), engine, listener=sizes)
    assert (done.num_frames, len(done.segments)) == (600, 5)
    assert sizes.resident[-1] < 1.1 * sizes.resident[1]
