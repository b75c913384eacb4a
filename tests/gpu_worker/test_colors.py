"""Depth and color: what a file says its numbers mean stays true, and no step of gray is added or lost."""

from __future__ import annotations

import struct
import zipfile
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.colors import Colors, is_dolby_vision_alone
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.pictures import FrameMaker
from gpu_worker.engine.video import VideoSource
from tests import samples
from tests.gpu_worker.media_files import blurred, luma
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services

WIDTH, HEIGHT = 960, 64


def ramp_file(path: Path, pixel_format: str, low: int, high: int, *, color_range: int) -> np.ndarray:
    """Writes 5 frames of a gray ramp from left to right, without loss, and returns its luma."""
    ramp = np.linspace(low, high, WIDTH).round().astype(np.uint16 if high > 255 else np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.color_range, stream.codec_context.colorspace = color_range, 1
        for _ in range(5):
            frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
            for number, plane in enumerate(frame.planes):
                rows = np.full((plane.height, plane.line_size // ramp.itemsize), 0, ramp.dtype)
                rows[:, : plane.width] = ramp if number == 0 else 512 if high > 255 else 128
                plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return ramp


RAMPS = [("yuv420p10le", 64, 940, 1), ("yuv420p10le", 0, 1023, 2), ("yuv420p", 16, 235, 1)]


@pytest.mark.parametrize(("pixel_format", "low", "high", "color_range"), RAMPS)
def test_every_step_of_a_gray_ramp_survives_the_way_through_rgb(
    pixel_format: str, low: int, high: int, color_range: int, tmp_path: Path
) -> None:
    ramp = ramp_file(tmp_path / "ramp.mkv", pixel_format, low, high, color_range=color_range)
    with closing(VideoSource(tmp_path / "ramp.mkv")) as source:
        picture = next(source.pictures())[0]
        most = 65535 if source.is_deep else 255
        # Gray is gray, black is 0, white is all there is, and every step is its own.
        assert np.ptp(picture.pixels, axis=2).max() == 0
        assert (picture.pixels[0, 0, 0], picture.pixels[0, -1, 0]) == (0, most)
        assert len(np.unique(picture.pixels)) == len(np.unique(ramp))
        frame = FrameMaker(source.colors, pixel_format).frame(picture.pixels)
    np.testing.assert_array_equal(luma(frame)[0], ramp)


@pytest.mark.parametrize("output", [Output.H265, Output.PRORES])
def test_a_deep_gray_ramp_shows_no_bands(output: Output, tmp_path: Path) -> None:
    ramp = ramp_file(tmp_path / "ramp.mkv", "yuv420p10le", 64, 940, color_range=1)
    result, _ = restored(tmp_path / "ramp.mkv", tmp_path, output)
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.components[0].bits == 10
    found = luma(frame).astype(int)
    assert np.abs(found - ramp).max() <= 2
    # A band is a flat stretch with a jump at its end: with 8 bits each would be four steps.
    longest = np.diff(np.flatnonzero(np.diff(found[HEIGHT // 2])), prepend=0).max()
    assert longest < 4 * WIDTH / (940 - 64)


def test_eight_bits_are_the_nearest_of_ten(tmp_path: Path) -> None:
    ramp = ramp_file(tmp_path / "ramp.mkv", "yuv420p10le", 64, 940, color_range=1)
    with closing(VideoSource(tmp_path / "ramp.mkv")) as source:
        picture = next(source.pictures())[0]
        frame = FrameMaker(source.colors, "yuv420p").frame(picture.pixels)
    assert np.abs(luma(frame).astype(float) - ramp / 4).max() <= 1


@pytest.mark.parametrize("output", [Output.H265, Output.PRORES, Output.PNG])
@pytest.mark.parametrize(
    ("name", "transfer", "matrix"), [("hdr10.mp4", 16, 9), ("hlg.mp4", 18, 9), ("wide_gamut.mkv", 15, 9)]
)
def test_hdr_keeps_its_meaning(name: str, transfer: int, matrix: int, output: Output, tmp_path: Path) -> None:
    result, joined = restored(samples.path(name), tmp_path, output)
    if output is Output.PNG:
        with zipfile.ZipFile(result) as archive:
            picture = archive.read("frames/00000001.png")
        # The chunk cICP: primaries, transfer, matrix of RGB, full range. The picture has 16 bits.
        assert picture[24] == 16
        assert picture[picture.index(b"cICP") + 4 :][:4] == bytes([9, transfer, 0, 1])
        return
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
        assert container.streams.video[0].codec_context.codec_tag in ("hvc1", "apch")
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, transfer, matrix)
    assert frame.format.components[0].bits == 10
    assert any("mastering" in one.name for one in joined.lost) == (
        output is Output.PRORES and name == "hdr10.mp4"
    )


def test_hdr10_keeps_what_the_display_has_to_know(tmp_path: Path) -> None:
    result, _ = restored(samples.path("hdr10.mp4"), tmp_path, Output.H265)
    kept = []
    for path in (samples.path("hdr10.mp4"), result):
        with av.open(str(path)) as container:
            attached = {side.type: bytes(side) for side in iter(next(container.decode(video=0)).side_data)}
        kept.append([attached[Type.MASTERING_DISPLAY_METADATA], attached[Type.CONTENT_LIGHT_LEVEL]])
    assert kept[0] == kept[1]


def test_hdr_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="accepted are h265, prores and png") as raised:
        restored(samples.path("hlg.mp4"), tmp_path, Output.H264)
    assert raised.value.code is ErrorCode.INVALID_REQUEST


def test_a_strip_that_breaks_x265_is_refused() -> None:
    with closing(VideoSource(samples.path("hlg.mp4"))) as source:
        assert ResultFormat.of(source, Output.H265, width=64, height=32).width == 64
        with pytest.raises(WorkerError, match="h265 takes 64 pixels") as raised:
            ResultFormat.of(source, Output.H265, width=62, height=320)
    assert raised.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("rpu_profile", "is_full_range", "is_alone"), [(0, 1, True), (0, 0, False), (1, 0, False), (1, 1, False)]
)
def test_dolby_vision_without_a_base_layer_is_told_apart(
    rpu_profile: int, is_full_range: int, is_alone: bool
) -> None:
    # ffmpeg's AVDOVIRpuDataHeader: type, format, profile, level, then bytes to the range's flag.
    header = struct.pack("=BxHBB4xB", 2, 18, rpu_profile, 6, is_full_range)
    assert is_dolby_vision_alone(struct.pack("=4Q", 32, 0, 0, 0) + header + bytes(16)) == is_alone
    assert not is_dolby_vision_alone(b"")


@pytest.mark.parametrize("output", [Output.H264, Output.H265, Output.PRORES])
@pytest.mark.parametrize(
    "name", ["full_range_10bit.mkv", "full_range.mov", "tagged_bt709.mp4", "pal_25.mp4", "rgb.mkv"]
)
def test_the_picture_looks_the_same_in_every_output(name: str, output: Output, tmp_path: Path) -> None:
    result, _ = restored(samples.path(name), tmp_path, output)
    seen = []
    for path in (samples.path(name), result):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            colors = Colors.of(frame)
            matrix = None if frame.format.is_rgb else colors.matrix
            seen.append(frame.to_ndarray(format="rgb24", src_colorspace=matrix).astype(int))
            if path is result and output is not Output.PRORES:
                assert colors.color_range == (2 if name.startswith("full") else 1)
    # A wrong range shifts by 16, a wrong matrix saturated colors by as much.
    assert np.abs(blurred(seen[0]) - blurred(seen[1])).mean() < 4
