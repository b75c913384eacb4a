"""The worker's image without Docker: every build step that needs neither Ubuntu nor CUDA's compiler runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.contract import RestoreRequest
from gpu_worker.scratch import Scratch
from gpu_worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "gpu_worker/Dockerfile").read_text()
#: Every RUN of the file, without its continuation lines.
STEPS = [
    re.sub(r"\\\n\s*", "", step) for step in re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
]
#: What cannot run here, and why.
ELSEWHERE = {
    "apt-get": "changes an Ubuntu machine",
    "kernels.txt": "needs CUDA's compiler and half an hour",
    "/src/apex": "needs CUDA's compiler",
    "fetch_models": "downloads gigabytes; its tests have a Hub of their own, and the networks lane imports it",
}
RUN_HERE = ("uv.txt", "install --directory", "compileall")


def step(part: str) -> str:
    """The one build step that contains this text."""
    (found,) = [step for step in STEPS if part in step]
    return found


def run(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a build step as Docker's shell would."""
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def copied(stage: str) -> list[tuple[list[str], str]]:
    """Sources and target of the COPY lines of one stage that take files of this repository."""
    body = re.split(r"^FROM .*", DOCKERFILE.split(stage, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.split() for line in re.findall(r"^COPY (?!--from)(.*)$", body, re.MULTILINE)]
    return [(line[:-1], line[-1]) for line in lines]


def tree(folder: Path, stage: str) -> Path:
    """A folder with what a stage copies, and nothing else."""
    for sources, target in copied(stage):
        place = folder / target.removeprefix("/app/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    return folder


def test_every_build_step_runs_here_or_says_why_not() -> None:
    known = [*ELSEWHERE, *RUN_HERE]
    for command in STEPS:
        assert any(part in command for part in known), f"neither run nor explained: {command}"
    for part in known:
        assert any(part in command for command in STEPS), f"no step has {part}"


def test_the_image_runs_what_was_tested() -> None:
    def pins(name: str) -> dict[str, str]:
        found: dict[str, set[str]] = {}
        for package, version in re.findall(
            r"^([\w.-]+)(?:\[.*\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE
        ):
            found.setdefault(package, set()).add(version)
        return {package: ",".join(sorted(versions)) for package, versions in found.items()}

    worker, gpu, torch = (pins(f"requirements/{name}.txt") for name in ("worker", "gpu", "torch"))
    assert {name: gpu.get(name) for name in worker | torch} == worker | torch
    assert {"runpod", "huggingface-hub", "safetensors", "nvidia-cudnn-cu13"} <= gpu.keys()
    assert list(pins("requirements/kernels.txt")) == ["flash-attn"]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert f"torch=={torch['torch']}" in groups["gpu"]
    for name in ("gpu", "kernels"):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


def test_the_image_is_not_root_and_its_worker_is_process_1() -> None:
    last = DOCKERFILE.rpartition("FROM nvidia/cuda")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
    assert json.loads(re.findall(r"^CMD (.*)$", last, re.MULTILINE)[-1]) == ["python", "-m", "gpu_worker"]
    assert re.search(r"^HEALTHCHECK .*gpu_worker\.healthcheck", last, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert base in ("packages", "weights-${WEIGHTS}") or re.fullmatch(
            r"nvidia/cuda:13\.0\.\d+-\w+-ubuntu24\.04", base
        )


def test_variables_of_the_image_and_the_hub_are_ones_that_the_worker_reads() -> None:
    read = set(re.findall(r'"(WORKER_[A-Z_]+)"', (ROOT / "gpu_worker/settings.py").read_text()))
    hub, tests = (json.loads((ROOT / f".runpod/{name}.json").read_text()) for name in ("hub", "tests"))
    named = {entry["key"] for entry in [*hub["config"]["env"], *tests["config"]["env"]]}
    named |= {key for preset in hub["config"]["presets"] for key in preset["defaults"]}
    named |= set(re.findall(r"(WORKER_[A-Z_]+)=", DOCKERFILE))
    assert named <= read
    WorkerSettings.from_environment({entry["key"]: entry["value"] for entry in tests["config"]["env"]})


def test_the_hubs_files_follow_its_schema(hub_schemas: dict[str, Any], tmp_path: Path) -> None:
    for name, schema in hub_schemas.items():
        described = tmp_path / f"{name}.schema.json"
        described.write_text(json.dumps(schema))
        checker = Path(sys.executable).with_name("check-jsonschema")
        checked = subprocess.run(
            [str(checker), "--schemafile", str(described), str(ROOT / f".runpod/{name}.json")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout
    for test in json.loads((ROOT / ".runpod/tests.json").read_text())["tests"]:
        RestoreRequest.from_json(test["input"])


@pytest.fixture
def hub_schemas() -> dict[str, Any]:
    """What RunPod's publishing guide says of both files."""
    text, texts = {"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}
    variable = {
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": text,
            "value": {"type": "string"},
            "input": {
                "type": "object",
                "required": ["name", "type"],
                "properties": {
                    "name": text,
                    "type": {"enum": ["string", "boolean", "number"]},
                    "description": text,
                    "default": {},
                    "options": {"type": "array", "items": {"type": "object", "required": ["label", "value"]}},
                },
                "additionalProperties": False,
            },
        },
        "oneOf": [{"required": ["value"]}, {"required": ["input"]}],
        "additionalProperties": False,
    }
    hub = {
        "type": "object",
        "required": ["title", "description", "type", "category", "config"],
        "properties": {
            "title": text,
            "description": text,
            "type": {"const": "serverless"},
            "category": {"enum": ["audio", "embedding", "language", "video", "image"]},
            "iconUrl": text,
            "config": {
                "type": "object",
                "required": ["runsOn", "containerDiskInGb"],
                "properties": {
                    "runsOn": {"enum": ["GPU", "CPU"]},
                    "containerDiskInGb": {"type": "integer", "minimum": 1},
                    "gpuCount": {"type": "integer", "minimum": 1},
                    "gpuIds": text,
                    "allowedCudaVersions": texts,
                    "presets": {
                        "type": "array",
                        "items": {"type": "object", "required": ["name", "defaults"]},
                    },
                    "env": {"type": "array", "items": variable},
                },
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    }
    tests = {
        "type": "object",
        "required": ["tests", "config"],
        "properties": {
            "tests": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["name", "input", "timeout"],
                    "properties": {"name": text, "input": {"type": "object"}, "timeout": {"type": "integer"}},
                    "additionalProperties": False,
                },
            },
            "config": {
                "type": "object",
                "required": ["gpuTypeId", "gpuCount", "allowedCudaVersions"],
                "properties": {
                    "gpuTypeId": text,
                    "gpuCount": {"type": "integer"},
                    "env": {"type": "array", "items": variable},
                    "allowedCudaVersions": texts,
                },
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    }
    return {"hub": hub, "tests": tests}


def test_the_healthcheck_knows_a_worker_that_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpu_worker.healthcheck"]
    environment = {**os.environ, "WORKER_SCRATCH_DIR": str(tmp_path / "scratch")}

    def status() -> int:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True).returncode

    assert status() == 1
    scratch = Scratch(tmp_path / "scratch")
    assert status() == 0
    scratch.close()
    assert status() == 1


def test_the_last_steps_run_on_what_the_image_copies(tmp_path: Path) -> None:
    app = tree(tmp_path / "app", "AS weights\n")
    shutil.copytree(ROOT / "gpu_worker", app / "gpu_worker", ignore=shutil.ignore_patterns("__pycache__"))
    compiled = run(step("compileall").replace("/app", str(app)), app)
    assert compiled.returncode == 0, compiled.stderr
    assert list((app / "gpu_worker/__pycache__").glob("*.pyc"))
    made = run(step('install --directory "$MODEL_DIR"'), app, MODEL_DIR=str(tmp_path / "models"))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "models").is_dir()


@pytest.mark.services
@pytest.mark.timeout(300)
def test_the_packages_step_installs_locked_wheels_that_the_worker_runs_on(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    for name in ("uv", "worker"):
        shutil.copy(ROOT / f"requirements/{name}.txt", tmp_path / "requirements")
    # The same command with fewer packages: those for CUDA are gigabytes. Wheels may come from this machine's cache.
    command = step("uv.txt").replace("python3.12", sys.executable).replace("--no-cache ", "")
    built = run(
        command, tmp_path, TOOLS=str(tmp_path / "tools"), VENV=str(tmp_path / "venv"), REQUIREMENTS="worker"
    )
    assert built.returncode == 0, built.stderr
    tried = subprocess.run(
        [str(tmp_path / "venv/bin/python"), "-c", "import av, runpod, gpu_worker.handler"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
