"""The contract between the site and the GPU worker: request, progress, manifest, error codes.

Both programs import this module and nothing else of each other, so it uses the standard library alone.
Every document is a JSON object that carries `version`; readers refuse a version they do not know.

    site    --RestoreRequest-->  worker      (the job's `input`)
    worker  --Progress-------->  site        (RunPod's `output` while IN_PROGRESS)
    worker  --Manifest-------->  storage     (uploaded after the result: the proof that the job is done)
    worker  --Manifest-------->  site        (RunPod's `output` when COMPLETED: a hint, storage is the truth)
    worker  --error string---->  site        (`<error code>: <detail for operators>` when FAILED)
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

VERSION: Final = 1

#: Bounds that both sides check, so that the site never submits what the worker refuses.
MAX_SIDE: Final = 8192
MAX_SEED: Final = 2**32 - 1
SP_SIZES: Final = (1, 2, 4)


class ContractError(ValueError):
    """A document breaks the contract; the message names the field, its value and what is accepted."""


class Engine(enum.StrEnum):
    """What restored the video."""

    CPU = "cpu"
    SEEDVR2 = "seedvr2"


class Model(enum.StrEnum):
    """The published SeedVR2 checkpoints. The CPU engine accepts any of them and uses none."""

    SEEDVR2_7B = "seedvr2-7b"
    SEEDVR2_7B_SHARP = "seedvr2-7b-sharp"
    SEEDVR2_3B = "seedvr2-3b"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a request, a progress report and a manifest have in common: their way into JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Returns the document as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Reads a document; unknown, missing and wrongly typed fields are a `ContractError`."""
        return cls(**_fields(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreRequest(Document):
    """One job's input.

    Sizes are in pixels of the upright picture with square pixels; URLs are presigned and short-lived.
    `attempt_id` names the attempt, so that a job delivered twice is recognised as the same one.
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
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ContractError(f"version is {self.version}; this worker accepts {VERSION}")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.attempt_id):
            raise ContractError(
                f"attempt_id is {self.attempt_id!r}; accepted are 1-64 letters, digits, - and _"
            )
        for name in ("source_url", "result_url", "manifest_url"):
            if not re.match(r"https?://[^/\s]+", getattr(self, name)):
                raise ContractError(f"{name} is not an http or https address")
        _check_range("source_bytes", self.source_bytes, 1, 2**44)
        for name in ("res_w", "res_h"):
            _check_range(name, getattr(self, name), 16, MAX_SIDE)
            if getattr(self, name) % 2:
                raise ContractError(f"{name} is {getattr(self, name)}; video needs an even number")
        if self.sp_size not in SP_SIZES:
            raise ContractError(f"sp_size is {self.sp_size}; accepted are {', '.join(map(str, SP_SIZES))}")
        _check_range("seed", self.seed, 0, MAX_SEED)
        if self.num_frames is not None:
            _check_range("num_frames", self.num_frames, 1, 2**31)
        if self.source_sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.source_sha256):
            raise ContractError("source_sha256 is not 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(Document):
    """How far a job is.

    `sequence` grows by one with each report of an attempt: the site drops a report that is not newer than the
    last one, because RunPod's SDK does not keep their order.
    """

    attempt_id: str
    sequence: int
    stage: Stage
    num_frames_done: int = 0
    num_frames: int | None = None
    version: int = VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Document):
    """What a finished job produced; uploaded after the result, so that its presence proves the result.

    `frame_rate` is an exact fraction such as `30000/1001`; `seconds_*` are wall-clock seconds of each stage.
    `num_audio_tracks_lost` counts the source's sound tracks that no decoder could read.
    """

    attempt_id: str
    engine: Engine
    result_bytes: int
    result_sha256: str
    width: int
    height: int
    num_frames: int
    frame_rate: str
    duration_seconds: float
    num_audio_tracks: int
    seed: int
    seconds_download: float
    seconds_restore: float
    gpus: int = 0
    gpu_name: str = ""
    num_audio_tracks_lost: int = 0
    version: int = VERSION


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ContractError(f"{name} is {value}; accepted are {low} to {high}")


_READERS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text or null"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number or null"),
    "float": ((int, float), "a number"),
}
_ENUMS: Final[Mapping[str, type[enum.StrEnum]]] = {
    "Model": Model,
    "Output": Output,
    "Stage": Stage,
    "Engine": Engine,
}


def _fields(cls: Any, document: object) -> dict[str, Any]:
    """Checks a JSON object against a dataclass of this module and returns its constructor's arguments."""
    if not isinstance(document, Mapping):
        raise ContractError(f"{cls.__name__} is a JSON object, not {type(document).__name__}")
    declared = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(map(str, set(document) - set(declared))):
        raise ContractError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(declared)}")
    values: dict[str, Any] = {}
    for name, field in declared.items():
        if name not in document:
            if field.default is dataclasses.MISSING:
                raise ContractError(f"{cls.__name__} misses {name}")
            continue
        values[name] = _read(name, str(field.type), document[name])
    return values


def _read(name: str, declared: str, value: object) -> object:
    if declared in _ENUMS:
        accepted = _ENUMS[declared]
        if value not in list(accepted):
            raise ContractError(f"{name} is {value!r}; accepted are {', '.join(accepted)}")
        return accepted(str(value))
    types, words = _READERS[declared]
    # bool is an int in Python, but `true` is not a number in JSON.
    if isinstance(value, bool) or not isinstance(value, types):
        raise ContractError(f"{name} is {value!r}; expected {words}")
    return value
