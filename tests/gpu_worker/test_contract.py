"""Both sides read what the other wrote, and refuse everything else by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.contract import (
    ContractError,
    Engine,
    ErrorCode,
    Manifest,
    Model,
    Progress,
    RestoreRequest,
    Stage,
    WorkerError,
    parse_error,
)

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
    "version": 1,
}

requests = st.builds(
    RestoreRequest,
    attempt_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    source_url=st.just(GOLDEN["source_url"]),
    result_url=st.just(GOLDEN["result_url"]),
    manifest_url=st.just(GOLDEN["manifest_url"]),
    source_bytes=st.integers(1, 2**44),
    model=st.sampled_from(Model),
    res_w=st.integers(8, 4096).map(lambda half: 2 * half),
    res_h=st.integers(8, 4096).map(lambda half: 2 * half),
    sp_size=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**32 - 1),
    num_frames=st.none() | st.integers(1, 2**31),
    source_sha256=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    version=st.just(1),
)
progresses = st.builds(Progress, stage=st.sampled_from(Stage), version=st.just(1))
manifests = st.builds(
    Manifest,
    engine=st.sampled_from(Engine),
    duration_seconds=st.floats(0, 1e6),
    seconds_download=st.floats(0, 1e6),
    seconds_restore=st.floats(0, 1e6),
    version=st.just(1),
)


@given(requests | progresses | manifests)
def test_what_is_written_is_read_back(document: RestoreRequest | Progress | Manifest) -> None:
    over_the_wire = json.loads(json.dumps(document.to_json()))
    assert type(document).from_json(over_the_wire) == document


def test_the_golden_request_is_version_1() -> None:
    assert RestoreRequest.from_json(GOLDEN).to_json() == GOLDEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("attempt_id", value) for value in ("", "a b", "a" * 65, "../x", None, 1)],
        *[("source_url", value) for value in ("", "file:///etc/passwd", "ftp://x/y", "https://", 1)],
        *[("source_bytes", value) for value in (0, -1, 2**44 + 1, "1", 1.0, True)],
        *[("model", value) for value in ("seedvr3", None, 7)],
        *[("res_w", value) for value in (0, 14, 1281, 8194, "1280", True, None)],
        *[("res_h", value) for value in (15, 721, 10**9)],
        *[("sp_size", value) for value in (0, 3, 8, True)],
        *[("seed", value) for value in (-1, 2**32)],
        *[("num_frames", value) for value in (0, "1", False)],
        *[("source_sha256", value) for value in ("", "AB" * 32, "ab" * 31)],
        *[("version", value) for value in (0, 2, "1", None)],
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ContractError, match=field):
        RestoreRequest.from_json({**GOLDEN, field: value})


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
    with pytest.raises(ContractError) as raised:
        RestoreRequest.from_json({**GOLDEN, "source_url": "nonsense?sig=topsecret"})
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
