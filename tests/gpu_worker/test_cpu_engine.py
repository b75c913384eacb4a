"""The CPU engine on real files: what goes in comes out restored, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpu_worker.contract import ErrorCode, WorkerError
from gpu_worker.engine.alone import restore_alone
from gpu_worker.engine.cpu import CpuEngine
from gpu_worker.engine.job import EngineJob, JoinReport
from tests import samples
from tests.gpu_worker.processes import REPOSITORY

pytestmark = pytest.mark.services

Moments = list[Fraction]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "result.mp4"


def restore(source: Path, result: Path, *, width: int, height: int, **more: Any) -> JoinReport:
    """Restores a file in this process."""
    job = EngineJob(source=source, folder=result.parent, model="cpu", width=width, height=height)
    return restore_alone(job, result, CpuEngine(), **more)[1]


def restored(name: str, result: Path, width: int = 320, height: int = 180) -> JoinReport:
    """Restores a sample and checks what holds for every result."""
    done: list[int] = []
    report = restore(samples.path(name), result, width=width, height=height, on_frame=done.append)
    assert done == list(range(1, report.num_frames + 1))
    with av.open(str(result)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        # The second is ffmpeg's name for the same layout with values of 0..255.
        assert stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p")
        assert (stream.codec_context.width, stream.codec_context.height) == (width, height)
        assert stream.sample_aspect_ratio in (None, 1)
        assert all(frame.rotation == 0 for frame in container.decode(stream))
    # The index comes first, so that a browser plays while it loads.
    content = result.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    return report


def moments(path: Path, kind: str = "video") -> Moments:
    """Returns when each frame is shown, or each packet of sound is heard, counted from the file's start."""
    with av.open(str(path)) as container:
        start = Fraction(container.start_time or 0, av.time_base)
        stream = container.streams.best(kind)
        assert stream is not None
        frames = container.decode(stream)
        return [frame.pts * frame.time_base - start for frame in frames if frame.pts is not None]


def packets(path: Path, index: int = 0) -> list[bytes]:
    """Returns a sound track's packets."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[index]) if packet.size]


def first_picture(path: Path) -> np.ndarray:
    """Returns the first frame as RGB, turned upright."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        turned: np.ndarray = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
    return turned


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean difference of two pictures in steps of 0..255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize(
    ("name", "rate", "num_frames"),
    [
        ("film_23976.mp4", "24000/1001", 48),
        ("film_23976.mkv", "24000/1001", 48),
        ("pal_25.mp4", "25", 50),
        ("ntsc_2997.mp4", "30000/1001", 60),
        ("ntsc_2997.mkv", "30000/1001", 60),
        ("fast_5994.mp4", "60000/1001", 120),
        ("late_start.ts", "25", 50),
        ("grand_prix_1906.ogv", "15", 288),
    ],
)
def test_rate_and_number_of_frames_are_kept_exactly(
    name: str, rate: str, num_frames: int, result: Path
) -> None:
    report = restored(name, result)
    assert (Fraction(report.frame_rate), report.num_frames) == (Fraction(rate), num_frames)
    assert {later - earlier for earlier, later in pairwise(moments(result))} == {1 / Fraction(rate)}


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_a_variable_rate_keeps_every_moment(name: str, result: Path) -> None:
    restored(name, result, 320, 136)
    wanted, found = moments(samples.path(name)), moments(result)
    assert len(wanted) == len(found)
    assert len({later - earlier for earlier, later in pairwise(wanted)}) > 1
    assert all(abs(one - other) <= Fraction(1, 1000) for one, other in zip(wanted, found, strict=True))


def test_a_single_frame_is_a_video(result: Path) -> None:
    assert restored("single_frame.mp4", result).num_frames == 1


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("rotated_90.mp4", 180, 320), ("rotated_180.mp4", 320, 180), ("rotated_270.mp4", 180, 320)],
)
def test_a_rotated_video_stands_upright(name: str, width: int, height: int, result: Path) -> None:
    assert restored(name, result, width, height).num_frames == 50
    upright = first_picture(samples.path(name))
    assert upright.shape == (height, width, 3)
    assert distance(upright, first_picture(result)) < 8
    assert distance(upright[::-1, ::-1], first_picture(result)) > 16


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        *[("anamorphic.mp4", 50), ("odd_size.mkv", 50), ("interlaced.mp4", 50), ("size_change.ts", 50)],
        *[("mpeg2.mpg", 50), ("old_camera.avi", 50), ("hevc_10bit.mp4", 50), ("prores.mov", 50)],
        *[("av1_opus.mkv", 50), ("vp9_vorbis.webm", 50), ("chroma_444.mp4", 50), ("gray.mkv", 50)],
    ],
)
def test_every_kind_of_source_keeps_its_frames_and_its_look(name: str, num_frames: int, result: Path) -> None:
    assert restored(name, result).num_frames == num_frames
    with av.open(str(samples.path(name))) as container:
        source = next(container.decode(video=0)).reformat(320, 180, "rgb24").to_ndarray()
    assert distance(source, first_picture(result)) < 8


def test_an_interlaced_video_has_no_combs_left(result: Path) -> None:
    restored("interlaced.mp4", result)

    def comb(path: Path) -> float:
        """How much lines differ from their neighbors more than from the lines beyond."""
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        luma = np.stack([frame.to_ndarray(format="gray") for frame in frames]).astype(int)
        near = np.abs(luma[:, 1:-1] - luma[:, :-2]).mean()
        far = np.abs(luma[:, 2:] - luma[:, :-2]).mean()
        return float(near / far)

    assert comb(result) < comb(samples.path("interlaced.mp4"))
    assert comb(result) < 0.8


@pytest.mark.parametrize(
    ("name", "primaries", "transfer", "matrix", "color_range"),
    [
        ("tagged_bt709.mp4", 1, 1, 1, 1),
        # A small picture without a matrix is BT.601; said aloud, for the result may be large.
        ("pal_25.mp4", 2, 2, 6, None),
        ("full_range.mov", 2, 2, None, 2),
    ],
)
def test_the_meaning_of_colors_is_kept(
    name: str, primaries: int, transfer: int, matrix: int | None, color_range: int | None, result: Path
) -> None:
    restored(name, result)
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc) == (primaries, transfer)
    assert matrix in (None, frame.colorspace)
    assert color_range in (None, frame.color_range)


@pytest.mark.parametrize("name", ["full_range.mov", "rgb.mkv"])
def test_black_and_white_stay_where_they_are(name: str, result: Path) -> None:
    restored(name, result)
    assert distance(first_picture(samples.path(name)), first_picture(result)) < 6


@pytest.mark.parametrize(
    "name", ["pal_25.mp4", "late_start.ts", "old_camera.avi", "av1_opus.mkv", "hevc_10bit.mp4"]
)
def test_sound_is_copied_bit_for_bit(name: str, result: Path) -> None:
    assert restored(name, result).num_audio_tracks == 1
    wanted, found = packets(samples.path(name)), packets(result)
    assert len(found) == len(wanted) > 50
    if name == "late_start.ts":
        # MPEG-TS repeats a header before each packet, which MP4 keeps once at its front.
        wanted = [packet[7:] for packet in wanted]
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "codec"), [("prores.mov", "flac"), ("vp9_vorbis.webm", "aac"), ("mpeg2.mpg", "aac")]
)
def test_sound_that_browsers_do_not_play_from_mp4_is_encoded_anew(
    name: str, codec: str, result: Path
) -> None:
    report = restored(name, result)
    assert (report.num_audio_tracks, report.num_audio_tracks_lost) == (1, 0)
    with av.open(str(result)) as container:
        assert container.streams.audio[0].codec_context.name == codec
    wanted, found = moments(samples.path(name), "audio"), moments(result, "audio")
    assert abs(wanted[0] - found[0]) < Fraction(1, 20)
    assert abs(wanted[-1] - found[-1]) < Fraction(1, 10)


def test_all_sound_tracks_are_kept(result: Path) -> None:
    assert restored("two_tracks.mkv", result).num_audio_tracks == 2
    assert packets(result) == packets(samples.path("two_tracks.mkv"))


def test_picture_and_sound_stay_together(result: Path) -> None:
    name = "late_start.ts"
    restored(name, result)
    wanted = moments(samples.path(name))[0] - moments(samples.path(name), "audio")[0]
    found = moments(result)[0] - moments(result, "audio")[0]
    assert abs(wanted - found) < Fraction(1, 1000)


def test_a_silent_video_stays_silent(result: Path) -> None:
    assert restored("silent.mp4", result).num_audio_tracks == 0


@pytest.mark.parametrize("name", ["text.mp4", "empty.mp4", "truncated.mp4", "sound_only.m4a"])
def test_what_is_no_readable_video_is_refused(name: str, result: Path) -> None:
    with pytest.raises(WorkerError) as raised:
        restore(samples.path(name), result, width=320, height=180, on_frame=lambda _: None)
    assert raised.value.code is ErrorCode.SOURCE_UNREADABLE


def test_noise_goes_and_the_picture_stays(result: Path, tmp_path: Path) -> None:
    with av.open(str(samples.path("silent.mp4"))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    noisy = tmp_path / "noisy.mkv"
    rng = np.random.default_rng(5)
    with av.open(str(noisy), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(16):
            grain = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grain, format="yuv420p")))
        container.mux(stream.encode(None))
    restore(noisy, result, width=320, height=180, on_frame=lambda _: None)
    assert _flicker(result) < _flicker(noisy) / 2
    assert distance(first_picture(result), first_picture(samples.path("silent.mp4"))) < 6


def _flicker(path: Path) -> float:
    """Returns how much the frames of a standing picture differ."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    return float(np.mean([np.abs(later - earlier).mean() for earlier, later in pairwise(frames)]))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    short, long = (_peak_memory(name, tmp_path) for name in ("pal_25.mp4", "half_minute.mp4"))
    assert long < short * 1.15, f"{short} kB for 2 s, {long} kB for 24 s"


def _peak_memory(name: str, folder: Path) -> int:
    """Returns the peak resident memory of one restoration in kB."""
    code = (
        "import resource, sys; from pathlib import Path; from gpu_worker.engine.alone import restore_alone;"
        "from gpu_worker.engine.cpu import CpuEngine; from gpu_worker.engine.job import EngineJob;"
        "source, result = map(Path, sys.argv[1:]);"
        "job = EngineJob(source=source, folder=result.parent, model='', width=320, height=180);"
        "restore_alone(job, result, CpuEngine());"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = [str(samples.path(name)), str(folder / "result.mp4")]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])
