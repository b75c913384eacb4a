"""The contract between the site and the GPU worker: request, progress, manifest, error codes.

Both programs import this module and nothing else of each other, so it uses the standard library alone, and
`documents.py` for the JSON.
Every document is a JSON object that carries `version`; readers refuse a version they do not know.

    site    --RestoreRequest-->  worker      (the job's `input`)
    worker  --Progress-------->  site        (RunPod's `output` while IN_PROGRESS)
    worker  --Journal--------->  storage     (what is finished so far: read again by whoever takes the job over)
    worker  --Manifest-------->  storage     (uploaded after the result: the proof that the job is done)
    worker  --Manifest-------->  site        (RunPod's `output` when COMPLETED: a hint, storage is the truth)
    worker  --error string---->  site        (`<error code>: <detail for operators>` when FAILED)
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field
from typing import Final

from gpu_worker.documents import ContractError as ContractError
from gpu_worker.documents import Document as Document

VERSION: Final = 3

#: Bounds that both sides check, so that the site never submits what the worker refuses.
MAX_SIDE: Final = 8192
#: x265 writes beyond its heap where a picture has at most 48 pixels in a row (docs/media.md, 4).
MIN_WIDTH_OF_H265: Final = 64
MAX_SEED: Final = 2**32 - 1
MAX_STRENGTH: Final = 100
SP_SIZES: Final = (1, 2, 4)
#: Fewer would make joints everywhere, more would make a lost machine dear.
MIN_SEGMENT_FRAMES: Final = 8
#: Each segment needs two addresses, and RunPod takes at most 10 MiB of input.
MAX_SEGMENTS: Final = 1000
#: S3's own bound on the parts of one upload.
MAX_PARTS: Final = 10_000
MAX_PINS: Final = 100
_MAX_FRAMES: Final = 2**31


class Engine(enum.StrEnum):
    """What restored the video."""

    CPU = "cpu"
    SEEDVR2 = "seedvr2"


class Model(enum.StrEnum):
    """The published SeedVR2 checkpoints. The CPU engine accepts any of them and uses none."""

    SEEDVR2_7B = "seedvr2-7b"
    SEEDVR2_7B_SHARP = "seedvr2-7b-sharp"
    SEEDVR2_3B = "seedvr2-3b"


class ColorFix(enum.StrEnum):
    """The corrections on offer. `WAVELET`, the default, looks at one frame at a time: chunks never show."""

    NONE = "none"
    WAVELET = "wavelet"
    LAB = "lab"
    ADAIN = "adain"


class Output(enum.StrEnum):
    """What a result is written as; every kind but H264 holds more than 8 bits."""

    #: MP4 that every browser plays: H.264, 4:2:0, 8 bits.
    H264 = "h264"
    #: MP4: H.265, 4:2:0, 10 bits, HDR kept.
    H265 = "h265"
    #: MOV for editors: ProRes 422 HQ, 10 bits.
    PRORES = "prores"
    #: ZIP of numbered PNG files with their moments and the sound; a single PNG for an image.
    PNG = "png"


class Stage(enum.StrEnum):
    """Where a job is, in the order in which a job passes through."""

    DOWNLOADING = "downloading"
    RESTORING = "restoring"
    JOINING = "joining"
    UPLOADING = "uploading"


class ErrorCode(enum.StrEnum):
    """Why a job failed. `is_fault_of_input` decides whether another attempt can help."""

    INVALID_REQUEST = "invalid_request"
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_CHANGED = "source_changed"
    SOURCE_TOO_LARGE = "source_too_large"
    SOURCE_UNREADABLE = "source_unreadable"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    ENGINE_FAILED = "engine_failed"
    ENGINE_STUCK = "engine_stuck"
    UPLOAD_FAILED = "upload_failed"
    WORKER_LOST = "worker_lost"
    RESULT_MISSING = "result_missing"
    EXECUTION_TIMEOUT = "execution_timeout"
    EXPIRED = "expired"
    ENDPOINT_UNAVAILABLE = "endpoint_unavailable"

    @property
    def is_fault_of_input(self) -> bool:
        """True when the same job would fail again on any machine."""
        return self in _FAULTS_OF_INPUT


_FAULTS_OF_INPUT: Final = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.SOURCE_CHANGED,
        ErrorCode.SOURCE_TOO_LARGE,
        ErrorCode.SOURCE_UNREADABLE,
    }
)


class WorkerError(Exception):
    """A job cannot be finished: a code for the site and a detail for operators, never shown to users."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail


def parse_error(text: str | None) -> tuple[ErrorCode, str]:
    """Reads the error that RunPod reports for a FAILED job back into a code and a detail.

    Accepts our own `<code>: <detail>`, the JSON text that the SDK posts when a handler raises, RunPod's own
    "executionTimeout exceeded" and "job timed out after 2 retries" (its workers were lost); anything else is
    `ENGINE_FAILED` with the text as detail.
    """
    text = (text or "").strip()
    if text.startswith("{"):
        try:
            raised = json.loads(text)
        except ValueError:
            raised = {}
        message = raised.get("error_message") if isinstance(raised, dict) else None
        if isinstance(message, str):
            text = message.strip()
    if "executiontimeout exceeded" in text.lower():
        return ErrorCode.EXECUTION_TIMEOUT, text
    if re.match(r"job timed out after \d+ retries", text):
        return ErrorCode.WORKER_LOST, text
    head, _, detail = text.partition(":")
    try:
        return ErrorCode(head.strip()), detail.strip()
    except ValueError:
        return ErrorCode.ENGINE_FAILED, text or "no reason was given"


#: Frames `start` to `end` (exclusive), counted from 0 in the order in which they are shown.
Frames = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentStore(Document):
    """Where the finished segments of a restoration are kept, so that whoever takes it over goes on after them.

    `frames` is the least number of frames of a segment but the last. Segment number k is put to `put[k]` and
    read from `get[k]`; one beyond them is made, but not kept. `journal_get` and `journal_put` are the addresses
    of the `Journal`, which is there from the first finished segment on.
    """

    frames: int
    journal_get: str
    journal_put: str
    put: tuple[str, ...]
    get: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_range("segments.frames", self.frames, MIN_SEGMENT_FRAMES, _MAX_FRAMES)
        _check_addresses(
            "segments", (self.journal_get, self.journal_put, *self.put, *self.get), limit=2 * MAX_SEGMENTS + 2
        )
        if len(self.put) != len(self.get):
            raise ContractError(
                f"segments has {len(self.put)} addresses to put and {len(self.get)} to get; expected as many"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultParts(Document):
    """Where a result that is larger than one request may be goes: S3's upload in parts, begun by the site.

    Part number k, from 1 on, is put to `put[k - 1]`; all but the last have `part_bytes`. `complete` takes S3's
    list of parts and makes the result of them.
    """

    part_bytes: int
    put: tuple[str, ...]
    complete: str

    def __post_init__(self) -> None:
        _check_range("result_parts.part_bytes", self.part_bytes, 1, 5 * 2**30)
        _check_addresses("result_parts", (self.complete, *self.put), limit=MAX_PARTS + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreRequest(Document):
    """One job's input.

    Sizes are in pixels of the upright picture with square pixels; URLs are presigned and short-lived.
    `attempt_id` names the attempt, so that a job delivered twice is recognised as the same one. `sp_size` is
    the number of GPUs to use; a worker that has fewer uses what it has.

    `range` makes the result of these frames alone; `pins` are ranges at whose ends segments end as well, so
    that segments of a preview are segments of the whole.
    """

    attempt_id: str
    source_url: str
    source_bytes: int
    result_url: str
    manifest_url: str
    model: Model
    res_w: int
    res_h: int
    sp_size: int
    seed: int
    num_frames: int | None = None
    source_sha256: str | None = None
    strength: int = MAX_STRENGTH
    color_fix: ColorFix = ColorFix.WAVELET
    output: Output = Output.H264
    range: Frames | None = None
    pins: tuple[Frames, ...] = ()
    segments: SegmentStore | None = None
    result_parts: ResultParts | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ContractError(f"version is {self.version}; this worker accepts {VERSION}")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.attempt_id):
            raise ContractError(
                f"attempt_id is {self.attempt_id!r}; accepted are 1-64 letters, digits, - and _"
            )
        for name in ("source_url", "result_url", "manifest_url"):
            _check_addresses(name, (getattr(self, name),), limit=1)
        _check_range("source_bytes", self.source_bytes, 1, 2**44)
        for name in ("res_w", "res_h"):
            _check_range(name, getattr(self, name), 16, MAX_SIDE)
            if getattr(self, name) % 2:
                raise ContractError(f"{name} is {getattr(self, name)}; video needs an even number")
        if self.output is Output.H265 and self.res_w < MIN_WIDTH_OF_H265:
            raise ContractError(f"res_w is {self.res_w}; h265 takes {MIN_WIDTH_OF_H265} pixels and more")
        if self.sp_size not in SP_SIZES:
            raise ContractError(f"sp_size is {self.sp_size}; accepted are {', '.join(map(str, SP_SIZES))}")
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("strength", self.strength, 0, MAX_STRENGTH)
        if self.num_frames is not None:
            _check_range("num_frames", self.num_frames, 1, _MAX_FRAMES)
        _check_sha256("source_sha256", self.source_sha256)
        self._check_frames()

    def _check_frames(self) -> None:
        if self.range is not None:
            _check_frames("range", self.range)
        if len(self.pins) > MAX_PINS:
            raise ContractError(f"pins has {len(self.pins)} ranges; accepted are at most {MAX_PINS}")
        for pin in self.pins:
            _check_frames("pins", pin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(Document):
    """How far a job is.

    `sequence` grows by one with each report of an attempt: the site drops a report that is not newer than the
    last one, because RunPod's SDK does not keep their order. Frames and segments that an earlier worker has
    finished count as done. `num_segments` is an expectation until the whole video has been read.
    """

    attempt_id: str
    sequence: int
    stage: Stage
    num_frames_done: int = 0
    num_frames: int | None = None
    num_segments_done: int = 0
    num_segments: int | None = None
    version: int = VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlan(Document):
    """What shows in a segment's picture of how it was fitted into the memory.

    `window_length` is how many latents the transformer saw at once, `tile_size` the side of the VAE's tiles in
    pixels, 0 without tiles.
    """

    window_length: int
    tile_size: int = 0

    def __post_init__(self) -> None:
        _check_range("window_length", self.window_length, 1, _MAX_FRAMES)
        _check_range("tile_size", self.tile_size, 0, MAX_SIDE)


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalEntry(Document):
    """One finished segment: its number, its frames, and the file that storage holds.

    Whoever goes on keeps to `plan` where it can, so that the segments look as if one worker had made them. The CPU
    engine has none.
    """

    index: int
    start: int
    end: int
    bytes: int
    sha256: str
    plan: SegmentPlan | None = None

    def __post_init__(self) -> None:
        _check_range("index", self.index, 0, _MAX_FRAMES)
        _check_frames("segment", (self.start, self.end))
        _check_range("bytes", self.bytes, 1, 2**44)
        _check_sha256("sha256", self.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal(Document):
    """What is finished of a restoration. It is written after the segment that it names is in storage.

    `fingerprint` stands for everything that the segments depend on: source, settings, and the programs that
    made them. Segments of another fingerprint cannot be joined with new ones.
    """

    fingerprint: str
    segments: tuple[JournalEntry, ...]
    version: int = VERSION

    def __post_init__(self) -> None:
        _check_sha256("fingerprint", self.fingerprint)
        indices = [entry.index for entry in self.segments]
        if indices != sorted(set(indices)):
            raise ContractError("segments of a journal are in order, each once")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Document):
    """What a finished job produced; uploaded after the result, so that its presence proves the result.

    `model` is the checkpoint that ran, empty for the CPU engine. `frame_rate` is an exact fraction such as
    `30000/1001`. `lost` names in words for operators the source's tracks that the result does not have.
    `start_seconds` is where in the source the result begins: 0 but for a range, which may begin a few frames
    later than asked. `segments_reused` were finished by an earlier worker. `seconds` has the wall-clock seconds of
    each step of the job and, where the engine tells them, the busy seconds of its stages; `bottleneck` is a
    sentence when one of them held up the others.
    """

    attempt_id: str
    engine: Engine
    model: str
    seed: int
    output: Output
    media_type: str
    bit_depth: int
    width: int
    height: int
    num_frames: int
    frame_rate: str
    duration_seconds: float
    result_bytes: int
    result_sha256: str
    num_audio_tracks: int = 0
    num_audio_tracks_lost: int = 0
    num_subtitle_tracks: int = 0
    num_subtitle_tracks_lost: int = 0
    lost: tuple[str, ...] = ()
    start_seconds: float = 0.0
    segments_made: int = 1
    segments_reused: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    gpus: int = 0
    gpu_name: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in ("result_bytes", "width", "height", "num_frames", "bit_depth"):
            _check_range(name, getattr(self, name), 1, 2**44)
        _check_sha256("result_sha256", self.result_sha256)


# --- Checks -------------------------------------------------------------------------------------------------


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ContractError(f"{name} is {value}; accepted are {low} to {high}")


def _check_frames(name: str, frames: Frames) -> None:
    start, end = frames
    if not 0 <= start < end <= _MAX_FRAMES:
        raise ContractError(f"{name} has frames {start} to {end}; expected a start before its end, from 0 on")


def _check_sha256(name: str, value: str | None) -> None:
    if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ContractError(f"{name} is not 64 hexadecimal digits")


def _check_addresses(name: str, addresses: tuple[str, ...], *, limit: int) -> None:
    """Addresses are secrets: the error names the field alone."""
    if len(addresses) > limit:
        raise ContractError(f"{name} has {len(addresses)} addresses; accepted are at most {limit}")
    if not all(re.match(r"https?://[^/\s]+", address) for address in addresses):
        raise ContractError(f"{name} is not an http or https address")
