"""Files that nobody should send: each gets its sentence, none a traceback, none a stuck process (U4)."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings as site

from restorations import inspection, objects
from restorations.models import Video
from restorations.probing import inspector
from restorations.probing.facts import Facts, Unrestorable
from restorations.rejections import Rejection
from tests import hostile, samples
from tests.factories import VideoFactory

pytestmark = pytest.mark.services


class InMemory:
    """A file as a store opens it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.num_bytes_read = 0

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        piece = self.content[offset : offset + num_bytes]
        self.num_bytes_read += len(piece)
        return piece


def verdict_on(content: bytes) -> Facts | Rejection:
    """Returns what a file's owner gets: facts, or a reason that has a sentence."""
    try:
        return inspector.examine(InMemory(content), max_seconds=4 * 3600).facts
    except Unrestorable as refusal:
        return Rejection(refusal.reason)


def test_the_corpus_is_large_enough():
    assert len(hostile.CORPUS) >= 60


@pytest.mark.parametrize("name", hostile.CORPUS)
def test_the_right_verdict(name):
    recipe, expected = hostile.CORPUS[name]
    verdict = verdict_on(recipe())
    if isinstance(expected, dict):
        assert isinstance(verdict, Facts), verdict
        assert {key: getattr(verdict, key) for key in expected} == expected
    elif expected != hostile.ANY:
        assert verdict == Rejection(expected)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["mp4_half", "hls_file", "encrypted", "zip", "picture_bomb"])
def test_its_owner_reads_a_sentence_and_pays_nothing(workspace, alice_client, name):
    recipe, expected = hostile.CORPUS[name]
    video = VideoFactory(workspace=workspace, status=Video.Status.INSPECTING, num_frames=0, codec="")
    objects.save(video.storage_key, io.BytesIO(recipe()))
    inspection.inspect(video.pk)
    page = alice_client.get(video.get_absolute_url()).content.decode()
    assert str(Rejection(expected).label).split(".")[0] in page
    assert "Restore for" not in page


# --- The process ----------------------------------------------------------------------------------------------


def in_the_process(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code after the process has taken everything from itself."""
    confined = (
        "import os, socket, sys, threading\n"
        "from restorations.probing.confinement import Limits, allow_computing_only, limit\n"
        "limit(Limits(memory_bytes=2**30, cpu_seconds=1))\n"
        "assert allow_computing_only()\n"
    )
    tried = f"try:\n    {code}\nexcept (OSError, RuntimeError, MemoryError) as exc:\n"
    tried += "    os.write(1, type(exc).__name__.encode())\nelse:\n    os.write(1, b'done')\nos._exit(0)\n"
    return subprocess.run(
        [sys.executable, "-c", confined + tried],
        cwd=site.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux'")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("open('/etc/hostname')", "PermissionError"),
        ("open('/tmp/made', 'w')", "PermissionError"),
        ("os.listdir('/')", "PermissionError"),
        ("socket.socket()", "PermissionError"),
        ("os.fork()", "PermissionError"),
        ("os.execv('/bin/true', ['true'])", "PermissionError"),
        ("os.kill(os.getppid(), 0)", "PermissionError"),
        ("threading.Thread(target=print).start()", "RuntimeError"),
        ("bytearray(2**31)", "MemoryError"),
        ("sum(range(10**6))", "done"),
    ],
)
def test_the_process_can_only_compute(code, said):
    assert in_the_process(code).stdout == said


def test_a_process_that_computes_for_ever_is_ended():
    started = time.monotonic()
    assert in_the_process("[0 for _ in iter(int, 1)]").returncode < 0
    assert time.monotonic() - started < 60


def test_a_store_that_does_not_answer_ends_in_time(monkeypatch):
    monkeypatch.setattr(inspector, "WALL_SECONDS", 0.5)

    class Slow(InMemory):
        def read_at(self, offset, num_bytes):
            # The time is over with the first answer, however quick the machine is.
            time.sleep(1)
            return super().read_at(offset, num_bytes)

    with pytest.raises(Unrestorable) as caught:
        inspector.examine(Slow(samples.path("pal_25.mp4").read_bytes()), max_seconds=9)
    assert caught.value.reason == "too_demanding"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"not json",
        b'{"facts": {}, "poster": "", "is_confined": true}',
        b'{"facts": null, "poster": "%", "is_confined": true}',
    ],
)
def test_what_a_taken_process_says_is_not_believed(said):
    with pytest.raises(Unrestorable) as caught:
        inspector._verdict(said, -11)
    assert caught.value.reason == "unreadable"


def test_facts_that_nobody_finds_are_refused():
    facts = verdict_on(samples.path("pal_25.mp4").read_bytes())
    assert isinstance(facts, Facts)
    honest = facts.to_json()
    assert Facts.from_json(honest) == facts
    for lie in (
        {"num_frames": -1}, {"num_frames": 10**12}, {"num_frames": "50"}, {"duration_seconds": float("nan")},
        {"frame_rate": "1/0"}, {"width": 0}, {"coded_width": 10**6}, {"rotation": 45}, {"codec": "x" * 99},
        {"is_playable": 1}, {"audio_tracks": [{}] * 999}, {"storage_key": "another/workspace"},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            Facts.from_json({**honest, **lie})


def test_only_what_is_needed_of_a_large_file_is_read():
    """A verdict on gigabytes reads the index and a second of film, not the file (U3)."""
    video = hostile.made("mp4", "-c", "copy", "-movflags", "+faststart")
    file = InMemory(video + hostile.box(b"free", bytes(64 * 2**20)))
    assert inspector.examine(file, max_seconds=9).facts.num_frames == 50
    assert file.num_bytes_read < 12 * 2**20


# --- Mutations ------------------------------------------------------------------------------------------------


def test_mutations():
    """A few of them each time; `make fuzz` tries thousands."""
    dice = random.Random(int(os.environ.get("FUZZ_SEED", "7")))
    num_files = int(os.environ.get("FUZZ_FILES", "10"))
    names = ["pal_25.mp4", "vfr.mkv", "late_start.ts", "old_camera.avi", "vp9_vorbis.webm", "picture.png"]
    started, verdicts, slowest = time.monotonic(), {}, 0.0
    for _ in range(num_files):
        content = hostile.mutate(
            samples.path(dice.choice(names)).read_bytes(),
            dice,
            num_changes=dice.choice([1, 4, 16, 64]),
            within=dice.choice([0.02, 0.2, 1.0]),
        )
        before = time.monotonic()
        verdict = verdict_on(content)
        slowest = max(slowest, time.monotonic() - before)
        said = verdict.value if isinstance(verdict, Rejection) else "can be restored"
        verdicts[said] = verdicts.get(said, 0) + 1
    if report := os.environ.get("FUZZ_REPORT"):
        lines = [f"{number:6d}  {said}" for said, number in sorted(verdicts.items(), key=lambda i: -i[1])]
        seconds = time.monotonic() - started
        lines.append(f"{num_files} files in {seconds:.0f} s; the slowest took {slowest:.1f} s")
        Path(report).parent.mkdir(exist_ok=True)
        Path(report).write_text("\n".join(lines) + "\n")
    assert sum(verdicts.values()) == num_files
