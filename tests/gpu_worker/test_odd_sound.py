"""Sound tracks that are not what files promise: silent where the result lies, empty, changing on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gpu_worker.contract import Output
from tests import samples
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services


@pytest.mark.parametrize("output", Output)
def test_a_preview_may_lie_where_no_track_sounds(output: Output, tmp_path: Path) -> None:
    result, joined = restored(samples.path("short_sound.mkv"), tmp_path, output, frames=range(15, 25))
    assert (joined.measured.num_frames, joined.measured.num_audio_tracks) == (10, 0)
    assert not joined.lost
    if output is Output.PNG:
        with zipfile.ZipFile(result) as archive:
            assert "sound.mka" not in archive.namelist()
