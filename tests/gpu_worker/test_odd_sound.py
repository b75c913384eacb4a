"""Sound tracks that are not what files promise: silent where the result lies, empty, changing on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gpu_worker.contract import Output
from gpu_worker.engine.tracks import Lost
from tests import samples
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
