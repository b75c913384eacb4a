"""The site's image without Docker: what its Dockerfile copies and runs, in a folder, under production settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.processes import free_port, server

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "compose/web.Dockerfile").read_text()
#: What an operator sets; nothing that these tests do reaches for the database.
PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.prod",
    "SECRET_KEY": "a-key-of-this-test-that-is-long-enough-for-djangos-own-check",
    "SITE_URL": "https://restore.example.com",
    "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing",
    "RUNPOD_ENDPOINT_ID": "endpoint",
    "RUNPOD_API_KEY": "key",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder like the image's /app: what the Dockerfile copies, after its last build step."""
    app = tmp_path_factory.mktemp("image") / "app"
    app.mkdir()
    copied = re.findall(r"^COPY ([\w./]+) ([\w./]+)$", DOCKERFILE, re.MULTILINE)
    assert len(copied) > 5
    for source, target in copied:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, app / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, app)
    (step,) = re.findall(r"^RUN ((?:.*\\\n)*.*collectstatic.*)$", DOCKERFILE, re.MULTILINE)
    command = step.replace("/venv/bin/python", sys.executable).replace(" /app", f" {app}")
    subprocess.run(["bash", "-ec", command], cwd=app, env=_machine(), check=True, capture_output=True)
    return app


@pytest.fixture(scope="module")
def port(image: Path) -> Iterator[int]:
    """Starts a web process by the image's own command; yields its port."""
    (text,) = re.findall(r"^CMD (\[(?:.*\\\n)*.*\])$", DOCKERFILE, re.MULTILINE)
    command = json.loads(text.replace("\\\n", " "))
    port = free_port()
    command[command.index("--port") + 1] = str(port)
    command[command.index("--host") + 1] = "127.0.0.1"
    environment = {**_machine(), **PRODUCTION, "VAR_DIR": str(image.parent / "data")}
    with server(
        [sys.executable, "-m", *command],
        log=image.parent / "web.log",
        is_ready=lambda: _health(image, port).returncode == 0,
        cwd=image,
        env=environment,
    ):
        yield port


def _machine() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _health(image: Path, port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seedvr_site.healthcheck", str(port)]
    environment = {**_machine(), **PRODUCTION}
    return subprocess.run(
        command, cwd=image, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _get(port: int, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Host": "restore.example.com", **headers})


def test_style_sheets_and_scripts_are_served_under_names_that_change_with_them(
    image: Path, port: int
) -> None:
    names = json.loads((image / "staticfiles/staticfiles.json").read_text())["paths"]
    answer = _get(port, f"/static/{names['css/site.build.css']}", **{"X-Forwarded-Proto": "https"})
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert "css/site.css" not in names, "the source of the style sheet is not for browsers"


def test_plain_http_is_sent_to_https(port: int) -> None:
    answer = _get(port, "/healthz")
    assert (answer.status_code, answer.headers["location"]) == (301, "https://restore.example.com/healthz")


def test_the_health_check_says_what_is_wrong(image: Path) -> None:
    found = _health(image, free_port())
    assert found.returncode == 1
    assert "no answer" in found.stderr
