"""Both sides read what the other wrote, and refuse everything else by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.contract import (
    MIN_WIDTH_OF_H265,
    ColorFix,
    ContractError,
    Document,
    Engine,
    ErrorCode,
    Journal,
    JournalEntry,
    Manifest,
    Model,
    Output,
    Progress,
    RestoreRequest,
    ResultParts,
    SegmentPlan,
    SegmentStore,
    Stage,
    WorkerError,
    parse_error,
)

STORE: dict[str, Any] = {
    "frames": 120,
    "journal_get": "https://storage.example/journal?sig=1",
    "journal_put": "https://storage.example/journal?sig=2",
    "put": ["https://storage.example/0?sig=1", "https://storage.example/1?sig=1"],
    "get": ["https://storage.example/0?sig=2", "https://storage.example/1?sig=2"],
}
PARTS: dict[str, Any] = {
    "part_bytes": 2**26,
    "put": ["https://storage.example/part1?sig=1"],
    "complete": "https://storage.example/complete?sig=1",
}
GOLDEN: dict[str, Any] = {
    "attempt_id": "attempt-1",
    "source_url": "https://storage.example/source?sig=1",
    "source_bytes": 1000,
    "result_url": "https://storage.example/result?sig=1",
    "manifest_url": "https://storage.example/manifest?sig=1",
    "model": "seedvr2-7b",
    "res_w": 1280,
    "res_h": 720,
    "sp_size": 1,
    "seed": 42,
    "num_frames": 100,
    "source_sha256": "ab" * 32,
    "strength": 80,
    "color_fix": "lab",
    "output": "h265",
    "range": [10, 82],
    "pins": [[10, 82], [90, 100]],
    "segments": STORE,
    "result_parts": PARTS,
    "version": 3,
}
GOLDEN_PROGRESS: dict[str, Any] = {
    "attempt_id": "attempt-1",
    "sequence": 7,
    "stage": "restoring",
    "num_frames_done": 50,
    "num_frames": 100,
    "num_segments_done": 1,
    "num_segments": 2,
    "version": 3,
}
GOLDEN_JOURNAL: dict[str, Any] = {
    "fingerprint": "cd" * 32,
    "segments": [
        {"index": 0, "start": 0, "end": 120, "bytes": 1000, "sha256": "01" * 32, "plan": None},
        {
            "index": 2,
            "start": 240,
            "end": 300,
            "bytes": 2000,
            "sha256": "02" * 32,
            "plan": {"window_length": 12, "tile_size": 512},
        },
    ],
    "version": 3,
}
GOLDEN_MANIFEST: dict[str, Any] = {
    "attempt_id": "attempt-1",
    "engine": "seedvr2",
    "model": "seedvr2-7b",
    "seed": 42,
    "output": "h265",
    "media_type": "video/mp4",
    "bit_depth": 10,
    "width": 1280,
    "height": 720,
    "num_frames": 100,
    "frame_rate": "30000/1001",
    "duration_seconds": 3.3366,
    "result_bytes": 12345,
    "result_sha256": "ef" * 32,
    "num_audio_tracks": 1,
    "num_audio_tracks_lost": 1,
    "num_subtitle_tracks": 2,
    "num_subtitle_tracks_lost": 0,
    "lost": ["sound track 2 (dts, fre)"],
    "start_seconds": 0.4,
    "segments_made": 2,
    "segments_reused": 1,
    "seconds": {"download": 1.5, "restore": 60.0, "networks": 55.25},
    "bottleneck": "",
    "gpus": 1,
    "gpu_name": "NVIDIA H100 80GB HBM3",
    "version": 3,
}
GOLDEN_DOCUMENTS = [
    (RestoreRequest, GOLDEN),
    (Progress, GOLDEN_PROGRESS),
    (Journal, GOLDEN_JOURNAL),
    (Manifest, GOLDEN_MANIFEST),
]

addresses = st.just("https://storage.example/object?sig=1")
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
frames = st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda ends: (ends[0], ends[0] + ends[1]))
stores = st.integers(0, 3).flatmap(
    lambda length: st.builds(
        SegmentStore,
        frames=st.integers(8, 1000),
        journal_get=addresses,
        journal_put=addresses,
        put=st.tuples(*[addresses] * length),
        get=st.tuples(*[addresses] * length),
    )
)
requests = st.builds(
    RestoreRequest,
    attempt_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    source_url=addresses,
    result_url=addresses,
    manifest_url=addresses,
    source_bytes=st.integers(1, 2**44),
    model=st.sampled_from(Model),
    # Narrower ones are not for every output.
    res_w=st.integers(MIN_WIDTH_OF_H265 // 2, 4096).map(lambda half: 2 * half),
    res_h=st.integers(8, 4096).map(lambda half: 2 * half),
    sp_size=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**32 - 1),
    num_frames=st.none() | st.integers(1, 2**31),
    source_sha256=st.none() | digests,
    strength=st.integers(0, 100),
    color_fix=st.sampled_from(ColorFix),
    output=st.sampled_from(Output),
    range=st.none() | frames,
    pins=st.lists(frames, max_size=3).map(tuple),
    segments=st.none() | stores,
    result_parts=st.none()
    | st.builds(ResultParts, part_bytes=st.integers(1, 2**30), put=st.tuples(addresses), complete=addresses),
)
progresses = st.builds(Progress, stage=st.sampled_from(Stage), version=st.just(2))
journals = st.sets(st.integers(0, 50), max_size=3).flatmap(
    lambda indices: st.builds(
        Journal,
        fingerprint=digests,
        segments=st.tuples(
            *[
                st.builds(
                    JournalEntry,
                    index=st.just(index),
                    start=st.just(index),
                    end=st.just(index + 9),
                    bytes=st.integers(1, 2**30),
                    sha256=digests,
                    plan=st.none()
                    | st.builds(
                        SegmentPlan, window_length=st.integers(1, 64), tile_size=st.integers(0, 2048)
                    ),
                )
                for index in sorted(indices)
            ]
        ),
    )
)
sizes = st.integers(1, 2**30)
manifests = st.builds(
    Manifest,
    engine=st.sampled_from(Engine),
    output=st.sampled_from(Output),
    bit_depth=st.sampled_from([8, 10]),
    width=sizes,
    height=sizes,
    num_frames=sizes,
    result_bytes=sizes,
    result_sha256=digests,
    duration_seconds=st.floats(0, 1e6),
    lost=st.lists(st.text(), max_size=2).map(tuple),
    seconds=st.dictionaries(st.text(), st.floats(0, 1e6), max_size=2),
    version=st.just(2),
)


@given(requests | progresses | journals | manifests)
def test_what_is_written_is_read_back(document: Document) -> None:
    over_the_wire = json.loads(json.dumps(document.to_json()))
    assert type(document).from_json(over_the_wire) == document


@pytest.mark.parametrize(("kind", "golden"), GOLDEN_DOCUMENTS)
def test_the_golden_documents_are_version_3(kind: type[Document], golden: dict[str, Any]) -> None:
    document = kind.from_json(golden)
    assert document.to_json() == golden
    assert list(document.to_json()) == list(golden), "a field more or less is another version"


def test_a_first_request_needs_no_more_than_version_1_did() -> None:
    later = ("strength", "color_fix", "output", "range", "pins", "segments", "result_parts")
    request = RestoreRequest.from_json({name: GOLDEN[name] for name in GOLDEN if name not in later})
    assert (request.strength, request.color_fix, request.output) == (100, ColorFix.WAVELET, Output.H264)
    assert (request.range, request.pins, request.segments, request.result_parts) == (None, (), None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("attempt_id", value) for value in ("", "a b", "a" * 65, "../x", None, 1)],
        *[("source_url", value) for value in ("", "file:///etc/passwd", "ftp://x/y", "https://", 1)],
        *[("source_bytes", value) for value in (0, -1, 2**44 + 1, "1", 1.0, True)],
        *[("model", value) for value in ("seedvr3", None, 7)],
        *[("res_w", value) for value in (0, 14, 1281, 8194, "1280", True, None)],
        *[("res_h", value) for value in (15, 721, 10**9)],
        ("res_w", 62),  # in H.265, which the golden request asks for
        *[("sp_size", value) for value in (0, 3, 8, True)],
        *[("seed", value) for value in (-1, 2**32)],
        *[("num_frames", value) for value in (0, "1", False)],
        *[("source_sha256", value) for value in ("", "AB" * 32, "ab" * 31)],
        *[("strength", value) for value in (-1, 101, 50.5, None)],
        *[("color_fix", value) for value in ("WAVELET", "sharp", None)],
        *[("output", value) for value in ("mp4", None, 1)],
        *[("range", value) for value in ([], [5, 5], [-1, 5], [1, 2, 3], [0, "9"], "0-9", {"0": 9})],
        *[("pins", value) for value in (None, [1, 2], [[9, 3]], [[0, 1]] * 101)],
        *[("frames", {**STORE, "frames": value}) for value in (0, 7, None)],
        ("segments", {**STORE, "put": STORE["put"][:1]}),
        ("segments", {**STORE, "journal_put": "nowhere"}),
        ("segments", {**STORE, "get": ["ftp://x/1"] * 2}),
        ("segments", {**STORE, "put": STORE["put"] * 501, "get": STORE["get"] * 501}),
        ("journal_get", {name: STORE[name] for name in STORE if name != "journal_get"}),
        ("part_bytes", {**PARTS, "part_bytes": 0}),
        ("result_parts", {**PARTS, "complete": ""}),
        *[("version", value) for value in (0, 1, 2, 4, "3", None)],
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    inside = {"frames": "segments", "journal_get": "segments", "part_bytes": "result_parts"}
    with pytest.raises(ContractError, match=field):
        RestoreRequest.from_json({**GOLDEN, inside.get(field, field): value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "short"),
        ("segments", [GOLDEN_JOURNAL["segments"][0]] * 2),
        ("segments", GOLDEN_JOURNAL["segments"][::-1]),
        ("bytes", [{**GOLDEN_JOURNAL["segments"][0], "bytes": 0}]),
        ("sha256", [{**GOLDEN_JOURNAL["segments"][0], "sha256": "0"}]),
        ("frames", [{**GOLDEN_JOURNAL["segments"][0], "end": 0}]),
        ("window_length", [{**GOLDEN_JOURNAL["segments"][0], "plan": {"window_length": 0}}]),
    ],
)
def test_a_journal_that_cannot_be_true_is_refused(field: str, value: object) -> None:
    changed = {"fingerprint": value} if field == "fingerprint" else {"segments": value}
    with pytest.raises(ContractError, match=field):
        Journal.from_json({**GOLDEN_JOURNAL, **changed})


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_frames", 0), ("result_bytes", 0), ("result_sha256", ""), ("seconds", {"a": "b"}), ("lost", "x")],
)
def test_a_manifest_that_proves_nothing_is_refused(field: str, value: object) -> None:
    with pytest.raises(ContractError, match=field):
        Manifest.from_json({**GOLDEN_MANIFEST, field: value})


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(ContractError, match="JSON object"):
        RestoreRequest.from_json(document)


def test_unknown_and_missing_fields_are_refused() -> None:
    with pytest.raises(ContractError, match="surprise"):
        RestoreRequest.from_json({**GOLDEN, "surprise": 1})
    with pytest.raises(ContractError, match="misses seed"):
        RestoreRequest.from_json({name: GOLDEN[name] for name in GOLDEN if name != "seed"})


def test_a_refusal_never_repeats_an_address() -> None:
    for field, value in [
        ("source_url", "nonsense?sig=topsecret"),
        ("segments", {**STORE, "journal_get": "nonsense?sig=topsecret"}),
        ("result_parts", {**PARTS, "put": ["nonsense?sig=topsecret"]}),
    ]:
        with pytest.raises(ContractError) as raised:
            RestoreRequest.from_json({**GOLDEN, field: value})
        assert "topsecret" not in str(raised.value)


@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_is_read_back_with_its_detail(code: ErrorCode) -> None:
    assert parse_error(str(WorkerError(code, "disk: full"))) == (code, "disk: full")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("executionTimeout exceeded", ErrorCode.EXECUTION_TIMEOUT),
        ("job timed out after 2 retries", ErrorCode.WORKER_LOST),
        (json.dumps({"error_message": "source_unreadable: text"}), ErrorCode.SOURCE_UNREADABLE),
        (json.dumps({"error_message": 3}), ErrorCode.ENGINE_FAILED),
        ("{broken", ErrorCode.ENGINE_FAILED),
        ("something else", ErrorCode.ENGINE_FAILED),
        ("", ErrorCode.ENGINE_FAILED),
        (None, ErrorCode.ENGINE_FAILED),
    ],
)
def test_other_errors_get_a_code(text: str | None, code: ErrorCode) -> None:
    found, detail = parse_error(text)
    assert found is code
    assert detail


def test_only_faults_of_the_input_are_final() -> None:
    final = {code for code in ErrorCode if code.is_fault_of_input}
    assert final == {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.SOURCE_CHANGED,
        ErrorCode.SOURCE_TOO_LARGE,
        ErrorCode.SOURCE_UNREADABLE,
    }


def test_documents_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RestoreRequest.from_json(GOLDEN).seed = 1  # type: ignore[misc]
