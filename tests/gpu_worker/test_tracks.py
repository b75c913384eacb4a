"""Beside the picture: sound, subtitles, chapters, tags and covers, compared with the source packet by packet."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from gpu_worker.contract import Output
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.join import Joined, Span, join
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.tracks import Lost
from gpu_worker.engine.video import VideoSource
from tests import samples
from tests.gpu_worker.media_files import CREATED, contents, packets, rich_file, samples_of

pytestmark = pytest.mark.services


def restored(
    source_path: Path, folder: Path, output: Output = Output.H264, *, frames: range | None = None
) -> tuple[Path, Joined]:
    """Writes a source's own pictures as a result."""
    with closing(VideoSource(source_path)) as source:
        pictures = [picture for picture, _ in source.pictures()]
        height, width = pictures[0].size
        result_format = ResultFormat.of(source, output, width=width, height=height)
        chosen = pictures[frames.start : frames.stop] if frames else pictures
        segment = folder / f"segment{result_format.segment_suffix}"
        with closing(SegmentWriter(segment, result_format)) as writer:
            for picture in chosen:
                writer.write(picture.pixels, picture.ticks, alpha=picture.alpha)
            writer.finish()
        result = folder / f"result{result_format.result_suffix}"
        span = Span(chosen[0].ticks, chosen[-1].ticks + result_format.frame_ticks) if frames else None
        return result, join([segment], result, source=source, result_format=result_format, span=span)


def codec_of(path: Path, kind: str = "audio", number: int = 0) -> str:
    with av.open(str(path)) as container:
        stream = [one for one in container.streams if one.type == kind][number]
        return stream.codec_context.codec.canonical_name


@pytest.mark.parametrize(
    ("name", "output"),
    [
        *[("sound_ac3.mkv", Output.H264), ("sound_eac3.mkv", Output.H264), ("sound_dts.mkv", Output.H264)],
        *[("sound_alac.mov", Output.H264), ("sound_flac.mkv", Output.H265), ("sound_mp3.mkv", Output.H265)],
        *[("sound_opus.webm", Output.H264), ("sound_pcm24.mov", Output.PRORES)],
        *[("sound_pcm16.avi", Output.PRORES), ("sound_alac.mov", Output.PRORES)],
        *[("sound_ac3.mkv", Output.PRORES), ("surround.mkv", Output.PRORES)],
    ],
)
def test_sound_is_copied_bit_for_bit_where_the_container_holds_it(
    name: str, output: Output, tmp_path: Path
) -> None:
    source = samples.path(name)
    result, joined = restored(source, tmp_path, output)
    assert not joined.lost
    assert not joined.converted
    assert codec_of(result) == codec_of(source)
    # A container may cut the same bytes of PCM into other packets.
    assert b"".join(contents(result, "audio")) == b"".join(contents(source, "audio"))


@pytest.mark.parametrize(
    ("name", "output", "codec"),
    [
        *[("sound_pcm24.mov", Output.H264, "flac"), ("sound_pcm16.avi", Output.H264, "flac")],
        *[("surround.mkv", Output.H265, "flac"), ("sound_flac.mkv", Output.PRORES, "pcm_s24le")],
    ],
)
def test_lossless_sound_keeps_every_sample(name: str, output: Output, codec: str, tmp_path: Path) -> None:
    result, joined = restored(samples.path(name), tmp_path, output)
    assert codec_of(result) == codec
    assert [one.kind for one in joined.converted] == ["audio"]
    np.testing.assert_array_equal(samples_of(result), samples_of(samples.path(name)))


@pytest.mark.parametrize(
    ("name", "output", "codec"),
    [
        *[("sound_wma.wmv", Output.H264, "aac"), ("sound_mp2.ts", Output.H264, "aac")],
        *[("sound_float.mkv", Output.H264, "flac"), ("sound_opus.webm", Output.PRORES, "pcm_s24le")],
    ],
)
def test_other_sound_is_encoded_anew_and_sounds_the_same(
    name: str, output: Output, codec: str, tmp_path: Path
) -> None:
    result, joined = restored(samples.path(name), tmp_path, output)
    assert codec_of(result) == codec
    assert "became" in joined.converted[0].name
    wanted, found = (samples_of(path).astype(float) / 2**31 for path in (samples.path(name), result))
    middle = slice(9600, 38400)
    # The codecs' delays differ by some samples: the best of the near shifts counts.
    errors = [
        np.abs(wanted[:, middle] - np.roll(found, shift, axis=1)[:, middle]).mean()
        for shift in range(-1500, 1501)
    ]
    assert min(errors) < 0.02


def test_picture_and_sound_stay_together(tmp_path: Path) -> None:
    source = samples.path("late_picture.mkv")
    for output in (Output.H264, Output.PRORES):
        result, _ = restored(source, tmp_path, output)
        apart = [packets(path, "video")[0][0] - packets(path, "audio")[0][0] for path in (source, result)]
        assert abs(apart[0] - apart[1]) <= Fraction(1, 1000)
        assert apart[1] > Fraction(3, 10)


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return rich_file(tmp_path / "rich.mkv")


def test_all_tracks_keep_their_language_and_title(rich: Path, tmp_path: Path) -> None:
    result, joined = restored(rich, tmp_path)
    with av.open(str(result)) as container:
        assert [stream.language for stream in container.streams.audio] == ["eng", "fre"]
        titles = [stream.metadata.get("handler_name") for stream in container.streams.audio]
        assert container.streams.audio[0].disposition & Disposition.default
        subtitles = [stream for stream in container.streams.subtitles if stream.language != "und"]
        assert [stream.language for stream in subtitles] == ["ger", "spa"]
        assert {stream.codec_context.name for stream in subtitles} == {"mov_text"}
    assert titles == ["Main", "Commentaire"]
    assert contents(result, "audio") == contents(rich, "audio")
    assert joined.num_audio_tracks_lost == 0


def test_subtitles_keep_text_and_moment(rich: Path, tmp_path: Path) -> None:
    result, _ = restored(rich, tmp_path)
    with av.open(str(result)) as container:
        stream = next(one for one in container.streams.subtitles if one.language == "ger")
        texts = []
        for packet in container.demux(stream):
            for text in packet.decode() if packet.size > 2 else []:
                texts.append((float(packet.pts * packet.time_base), text.dialogue.decode()))
    assert [at for at, _ in texts] == pytest.approx([0.2, 0.6], abs=0.001)
    assert "day" in texts[0][1]
    assert texts[1][1] == "Grüße, 世界"


def test_chapters_and_tags_are_kept(rich: Path, tmp_path: Path) -> None:
    result, joined = restored(rich, tmp_path)
    with av.open(str(result)) as container:
        chapters = [
            (chapter["metadata"]["title"], float(chapter["start"] * chapter["time_base"]))
            for chapter in container.chapters()
        ]
        tags = dict(container.metadata)
    assert chapters == [("One", 0.0), ("Two", 0.8)]
    assert (tags["title"], tags["artist"], tags["creation_time"]) == ("A film", "Somebody", CREATED)
    assert Lost("tag", "MOOD") in joined.lost


def test_a_cover_is_kept(rich: Path, tmp_path: Path) -> None:
    result, _ = restored(rich, tmp_path)
    with av.open(str(result)) as container:
        covers = [one for one in container.streams.video if one.disposition & Disposition.attached_pic]
        cover = next(bytes(packet) for packet in container.demux(covers[0]) if packet.size)
        assert len(container.streams.video) == 2
    assert cover == rich.with_suffix(".png").read_bytes()


def test_a_result_can_be_a_source_and_loses_nothing(rich: Path, tmp_path: Path) -> None:
    first, _ = restored(rich, tmp_path)
    (again := tmp_path / "again").mkdir()
    second, joined = restored(first, again)
    assert (joined.lost, joined.converted) == ((), ())
    for kind, number in (("audio", 0), ("audio", 1), ("subtitle", 0), ("subtitle", 1), ("video", 1)):
        assert contents(second, kind, number) == contents(first, kind, number)
    chapters = []
    for path in (first, second):
        with av.open(str(path)) as container:
            assert container.streams.audio[1].metadata["name"] == "Commentaire"
            chapters.append([(one["start"], one["metadata"]["title"]) for one in container.chapters()])
    assert chapters[0] == chapters[1]


def test_sound_and_picture_agree_after_ten_minutes_of_a_variable_rate(tmp_path: Path) -> None:
    source = tmp_path / "long.mkv"
    moments = [number * 2000 + (number * 7919) % 613 for number in range(300)]
    with av.open(str(source), "w") as container:
        video = container.add_stream("mjpeg", rate=25, options={"qscale": "2"})
        video.width, video.height, video.pix_fmt = 32, 32, "yuvj420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("mp2", rate=16000)
        sound.layout = "mono"
        for moment in moments:
            gray = np.full((32, 32), moment % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuvj420p")
            frame.pts = moment
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, 605 * 16000, 1152):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 16000, start
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    result, joined = restored(source, tmp_path)
    assert joined.measured.num_frames == len(moments)
    apart = []
    for path in (source, result):
        last_sound, last_picture = packets(path, "audio")[-1][0], packets(path, "video")[-1][0]
        apart.append(last_sound - last_picture)
    assert abs(apart[0] - apart[1]) <= Fraction(40, 1000)


def test_what_is_lost_is_named(rich: Path, tmp_path: Path) -> None:
    _, joined = restored(rich, tmp_path)
    lost = {(one.kind, one.name) for one in joined.lost}
    assert ("subtitles", "track 5 (hdmv_pgs_subtitle, jpn): the container holds text only") in lost
    assert any(kind == "attachment" and "font.ttf" in name for kind, name in lost)


def test_a_preview_has_its_part_of_everything(rich: Path, tmp_path: Path) -> None:
    result, _ = restored(rich, tmp_path, frames=range(15, 25))
    with av.open(str(result)) as container:
        chapters = [
            (chapter["metadata"]["title"], float(chapter["start"] * chapter["time_base"]))
            for chapter in container.chapters()
        ]
        assert container.duration == pytest.approx(400_000, abs=30_000)
    # Frame 15 stands at 0.6 s, where the second text begins.
    assert chapters == [("One", 0.0), ("Two", pytest.approx(0.2))]
    texts = [at for at, content in packets(result, "subtitle") if len(content) > 2]
    assert texts[0] == 0
    whole = contents(rich, "audio")
    cut = contents(result, "audio")
    start = whole.index(cut[0])
    assert whole[start : start + len(cut)] == cut


def test_a_sequence_brings_its_sound_in_matroska(rich: Path, tmp_path: Path) -> None:
    result, joined = restored(rich, tmp_path, Output.PNG)
    assert joined.measured.num_audio_tracks == 2
    assert not [one for one in joined.lost if one.kind in ("audio", "subtitles")]
    assert result.suffix == ".zip"
