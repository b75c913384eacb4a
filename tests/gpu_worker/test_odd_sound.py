"""Sound tracks that are not what files promise: silent where the result lies, empty, changing on the way."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpu_worker.contract import Output
from gpu_worker.engine.tracks import Lost
from tests import samples
from tests.gpu_worker.media_files import packets, samples_of
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services

#: ffmpeg's number for the first sound of a transport stream.
_SOUND_PID = 0x101


def without_sound(stream: bytes) -> bytes:
    """A transport stream that still announces its sound, and holds none."""
    packets = [stream[start : start + 188] for start in range(0, len(stream), 188)]
    return b"".join(one for one in packets if int.from_bytes(one[1:3], "big") & 0x1FFF != _SOUND_PID)


@pytest.mark.parametrize("output", [Output.H264, Output.PRORES, Output.PNG])
def test_a_track_that_is_announced_and_not_there_is_named(output: Output, tmp_path: Path) -> None:
    source = tmp_path / "silent.ts"
    source.write_bytes(without_sound(samples.path("sound_mp2.ts").read_bytes()))
    _, joined = restored(source, tmp_path, output)
    assert (joined.measured.num_frames, joined.measured.num_audio_tracks) == (25, 0)
    # Which kind of MPEG sound it would have been, ffmpeg guesses.
    assert joined.lost == (Lost("audio", "track 1 (mp3): announced, and not there"),)


@pytest.mark.parametrize("output", Output)
def test_a_preview_may_lie_where_no_track_sounds(output: Output, tmp_path: Path) -> None:
    result, joined = restored(samples.path("short_sound.mkv"), tmp_path, output, frames=range(15, 25))
    assert (joined.measured.num_frames, joined.measured.num_audio_tracks) == (10, 0)
    assert not joined.lost
    if output is Output.PNG:
        with zipfile.ZipFile(result) as archive:
            assert "sound.mka" not in archive.namelist()


@pytest.mark.parametrize("change", [("-ac", "1"), ("-ar", "32000")], ids=["one channel", "another rate"])
@pytest.mark.parametrize("output", [Output.H264, Output.PRORES])
def test_sound_can_change_its_form_on_the_way(
    output: Output, change: tuple[str, ...], tmp_path: Path
) -> None:
    first = samples.path("sound_mp2.ts")
    # The tone of the left channel is 440 Hz in all parts.
    changed = ("-i", first, "-c:v", "copy", "-af", "pan=stereo|c0=c0|c1=c0", *change, "-c:a", "mp2")
    second = samples.run_ffmpeg(tmp_path / "second.ts", *changed, "-output_ts_offset", "1")
    source = tmp_path / "changing.ts"
    source.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    result, joined = restored(source, tmp_path, output)
    assert (joined.measured.num_audio_tracks, joined.lost) == (1, ())
    tone = samples_of(result)[0].astype(float)
    assert len(tone) == pytest.approx(3 * 48_000, abs=4_000)
    for start in (12_000, 60_000, 108_000):
        spectrum = np.abs(np.fft.rfft(tone[start : start + 24_000]))
        assert spectrum.argmax() * 2 == pytest.approx(440, abs=2)


@pytest.mark.parametrize("output", Output)
def test_what_a_decoder_held_back_is_heard_at_the_end(output: Output, tmp_path: Path) -> None:
    result, joined = restored(samples.path("sound_wma.wmv"), tmp_path, output)
    assert joined.measured.num_audio_tracks == 1
    if output is Output.PNG:
        with zipfile.ZipFile(result) as archive:
            result = Path(archive.extract("sound.mka", tmp_path))
    # WMA's decoder says no moment of its last frame.
    wanted, found = (samples_of(path).shape[1] for path in (samples.path("sound_wma.wmv"), result))
    assert found == pytest.approx(wanted, abs=1024)


@pytest.mark.parametrize("output", [Output.H264, Output.PRORES, Output.PNG])
def test_damaged_sound_is_left_out(output: Output, tmp_path: Path) -> None:
    source = samples.run_ffmpeg(tmp_path / "whole.ts", "-i", samples.path("sound_mp2.ts"), "-c:a", "aac")
    content = source.read_bytes()
    num_packets = len(packets(source, "audio"))
    # The heads of two frames of sound, which begin with twelve bits that are set.
    heads = [found.start() for found in re.finditer(rb"\xff\xf1", content)][10:12]
    for head in heads:
        content = content[:head] + bytes(2) + content[head + 2 :]
    (damaged := tmp_path / "damaged.ts").write_bytes(content)
    result, joined = restored(damaged, tmp_path, output)
    assert (joined.measured.num_frames, joined.measured.num_audio_tracks) == (25, 1)
    if output is not Output.PNG:
        assert num_packets - 6 <= len(packets(result, "audio")) < num_packets
