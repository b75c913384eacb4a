"""Sources of every kind: turned, mirrored, odd, damaged, transparent, in old containers, and single images."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.join import join
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource
from tests import samples
from tests.gpu_worker.media_files import blurred
from tests.gpu_worker.processes import REPOSITORY
from tests.gpu_worker.test_cpu_engine import restore
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services


def pictures(path: Path) -> list[np.ndarray]:
    with closing(VideoSource(path)) as source:
        found = [picture.pixels for picture, _ in source.pictures()]
        assert source.num_frames == len(found)
        return found


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("mirrored.mp4", lambda picture: picture[:, ::-1]),
        ("upside_down.mp4", lambda picture: picture[::-1]),
    ],
)
def test_a_mirrored_video_is_seen_as_it_is_meant(name: str, seen) -> None:
    plain, found = pictures(samples.path("moving.mp4")), pictures(samples.path(name))
    for one, other in zip(plain, found, strict=True):
        # Chroma stands to the left of its pixels and is interpolated from the other side.
        assert np.abs(seen(one).astype(int) - other).mean() < 0.1


def test_a_video_that_is_turned_and_mirrored_is_seen_as_ffmpeg_shows_it(tmp_path: Path) -> None:
    turned = samples.path("turned_and_mirrored.mp4")
    # The ffmpeg program turns by itself.
    shown = samples.run_ffmpeg(tmp_path / "shown.mkv", "-i", turned, "-c:v", "ffv1")
    for one, other in zip(pictures(turned), pictures(shown), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        *[("odd_both.mkv", 170, 94), ("odd_both.mkv", 86, 48), ("beside_sixteen.mkv", 194, 126)],
        *[("beside_sixteen.mkv", 98, 62), ("wide_pixels.mpg", 140, 64), ("tall_pixels.mov", 96, 128)],
    ],
)
def test_the_result_has_exactly_the_announced_size_and_the_whole_picture(
    name: str, width: int, height: int, tmp_path: Path
) -> None:
    result = tmp_path / "result.mp4"
    restore(samples.path(name), result, width=width, height=height)
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)
    assert (frame.width, frame.height) == (width, height)
    whole = np.asarray(Image.fromarray(pictures(samples.path(name))[0]).resize((width, height)), int)
    # A missing column at either side would shift the whole pattern against itself.
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - whole).mean() < 14


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        *[("pal_50.mkv", "50"), ("ntsc.avi", "30000/1001"), ("flash.flv", "25"), ("windows.wmv", "25")],
        *[("moving.gif", "10"), ("vp8.webm", "25"), ("dv.dv", "25")],
    ],
)
def test_old_containers_keep_rate_and_frames(name: str, rate: str, tmp_path: Path) -> None:
    result, joined = restored(samples.path(name), tmp_path)
    with av.open(str(samples.path(name))) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
    assert (joined.measured.num_frames, joined.measured.frame_rate) == (num_frames, Fraction(rate))
    with av.open(str(result)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert {later - earlier for earlier, later in pairwise(times)} == {1 / Fraction(rate)}


def test_a_damaged_middle_costs_its_frames_and_nothing_else(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.ts"
    content = bytearray(samples.path("late_start.ts").read_bytes())
    middle = len(content) // 2 // 188 * 188
    content[middle : middle + 40 * 188] = bytes(40 * 188)
    damaged.write_bytes(content)
    result, joined = restored(damaged, tmp_path)
    with av.open(str(damaged)) as container:
        sound = [bytes(packet)[7:] for packet in container.demux(audio=0) if packet.size]
    with av.open(str(result)) as container:
        kept = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    with av.open(str(result)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert 25 <= joined.measured.num_frames <= 50
    # What comes after the damage stands where it stood.
    assert times[-1] - times[0] == pytest.approx(49 / 25, abs=0.001)
    assert len(kept) == len(sound)


def test_a_picture_that_cannot_be_unpacked_costs_itself_alone(tmp_path: Path) -> None:
    content = samples.path("pngs.mov").read_bytes()
    with av.open(str(samples.path("pngs.mov"))) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size][12]
    where = content.index(b"IDAT", start) + 40
    (damaged := tmp_path / "damaged.mov").write_bytes(content[:where] + bytes(40) + content[where + 40 :])
    with closing(VideoSource(damaged)) as source:
        ticks = [picture.ticks for picture, _ in source.pictures()]
        assert ticks == [number * source.timeline.frame_ticks for number in range(25) if number != 12]


@pytest.fixture
def transparent(tmp_path: Path) -> Path:
    pixels = np.zeros((30, 41, 4), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(41) * 6, np.arange(30)[:, None] * 8
    pixels[..., 3] = np.linspace(0, 255, 41).round()
    path = tmp_path / "transparent.png"
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_stays_an_image_with_its_transparency(transparent: Path, tmp_path: Path) -> None:
    result, joined = restored(transparent, tmp_path, Output.PNG)
    assert result.suffix == ".png"
    assert (joined.measured.num_frames, joined.measured.width, joined.measured.height) == (1, 41, 30)
    np.testing.assert_array_equal(np.asarray(Image.open(result)), np.asarray(Image.open(transparent)))


def test_transparency_grows_with_the_picture(transparent: Path, tmp_path: Path) -> None:
    with closing(VideoSource(transparent)) as source:
        assert (source.is_image, source.has_alpha) == (True, True)
        picture = next(source.pictures())[0]
        result_format = ResultFormat.of(source, Output.PNG, width=82, height=60)
        assert (result_format.result_suffix, result_format.media_type) == (".png", "image/png")
        with closing(SegmentWriter(tmp_path / "segment", result_format)) as writer:
            grown = picture.pixels.repeat(2, axis=0).repeat(2, axis=1)
            writer.write(grown, picture.ticks, alpha=picture.alpha)
            writer.finish()
        join([tmp_path / "segment"], tmp_path / "result.png", source=source, result_format=result_format)
    found = np.asarray(Image.open(tmp_path / "result.png")).astype(int)
    assert found.shape == (60, 82, 4)
    assert np.abs(found[:, ::2, 3] - np.asarray(Image.open(transparent))[0, :, 3]).max() <= 6


def test_a_transparent_film_keeps_its_alpha_in_png_and_says_so_elsewhere(tmp_path: Path) -> None:
    source = samples.path("prores_alpha.mov")
    _, joined = restored(source, tmp_path, Output.H265)
    assert ("video", "transparency: the format has none") in {(one.kind, one.name) for one in joined.lost}
    _result, joined = restored(source, tmp_path, Output.PNG)
    assert not joined.lost
    with closing(VideoSource(source)) as video:
        alpha = next(video.pictures())[0].alpha
    assert alpha is not None
    assert alpha.dtype == np.uint16
    assert len(np.unique(alpha)) > 50


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_photo_with_a_profile_and_exif_ends_no_process(suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.full((32, 48, 3), 90, np.uint8))
    exif = image.getexif()
    exif[0x010E] = "A photo"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = tmp_path / f"photo{suffix}"
    image.save(photo, icc_profile=profile, exif=exif)
    code = (
        "import gc, sys; from pathlib import Path; from gpu_worker.engine.video import VideoSource;"
        "source = VideoSource(Path(sys.argv[1])); pictures = list(source.pictures()); source.close();"
        "del source, pictures; gc.collect()"
    )
    subprocess.run([sys.executable, "-c", code, str(photo)], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_seen_as_its_camera_says(orientation: int, suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:20, :30] = 255
    path, photo = tmp_path / f"photo{suffix}", Image.fromarray(pixels)
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(path, exif=exif, quality=95)
    found = pictures(path)[0].astype(int)
    with Image.open(path) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_a_photo_keeps_its_color_profile(suffix: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = tmp_path / f"photo{suffix}"
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(photo, icc_profile=profile)
    result, joined = restored(photo, tmp_path, Output.PNG)
    assert not joined.lost
    with Image.open(result) as opened:
        opened.load()
        assert opened.info["icc_profile"] == profile
        assert not {"srgb", "gamma", "chromaticity"} & set(opened.info), "no two answers"
        assert abs(int(opened.getpixel((24, 16))[0]) - 90) < 3
    assert b"cICP" not in result.read_bytes()


def test_a_profile_that_is_not_for_rgb_is_named_as_lost(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "photo.png", icc_profile=lab)
    result, joined = restored(tmp_path / "photo.png", tmp_path, Output.PNG)
    (lost,) = joined.lost
    assert lost.kind == "video"
    assert lost.name.startswith("color profile (Lab")
    with Image.open(result) as opened:
        assert "icc_profile" not in opened.info


@pytest.mark.parametrize(
    ("name", "is_deep"),
    [("still.jpg", False), ("still.webp", False), ("still.tiff", True), ("still.bmp", False)],
)
def test_images_of_every_kind_become_png(name: str, is_deep: bool, tmp_path: Path) -> None:
    result, _ = restored(samples.path(name), tmp_path, Output.PNG)
    assert result.read_bytes()[24] == (16 if is_deep else 8)
    with av.open(str(samples.path(name))) as container:
        source = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    with av.open(str(result)) as container:
        found = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    # Chroma is interpolated in two ways here.
    assert np.abs(blurred(source) - blurred(found)).mean() < 3


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(WorkerError) as raised:
        VideoSource(tmp_path / "list.m3u8")
    assert raised.value.code is ErrorCode.SOURCE_UNREADABLE
