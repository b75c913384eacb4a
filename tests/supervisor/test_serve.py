"""`manage.py serve` for real: it comes up, keeps itself up, and leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.process_table import Process, descendants, still_running
from tests.services.processes import free_port, wait_until
from tests.services.product import ROOT, Product, product

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="the process table is read from /proc"),
]

PARTS = (
    "valkey-server",
    "gpu_worker.local_endpoint",
    "uvicorn",
    "seedvr_site worker",
    "seedvr_site beat",
    "guard.py",
)


@pytest.fixture(scope="module")
def var_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installation")


@pytest.fixture(scope="module")
def running(var_dir: Path) -> Iterator[Product]:
    """One product for the tests that leave it as it was."""
    with product(var_dir) as started:
        yield started


def get(url_port: int, path: str) -> int:
    """Returns the status of an answer of the site; 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", url_port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def find(processes: list[Process], text: str) -> Process:
    """Returns the first process whose command contains a text."""
    return next(process for process in processes if text in process.command)


def wait_for_end(processes: list[Process], *, seconds: float) -> None:
    """Returns when none of the processes is alive any more."""
    wait_until(
        lambda: not still_running(processes),
        seconds=seconds,
        otherwise=lambda: AssertionError(f"left behind: {still_running(processes)}"),
    )


def run_serve(port: int, var_dir: Path) -> subprocess.CompletedProcess[str]:
    """Runs a second supervisor that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "manage.py", "serve", "--port", str(port)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "VAR_DIR": str(var_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_line_tells_the_address(running: Product) -> None:
    assert [line for line in running.lines if running.url in line] == [running.wait_for_line("is ready")]
    assert get(running.port, "/healthz") == 200
    assert get(running.port, "/") == 200


def test_every_part_runs(running: Product) -> None:
    commands = [process.command for process in descendants(running.process.pid)]
    for part in PARTS:
        assert any(part in command for command in commands), f"{part} is not among {commands}"


def test_nothing_alarming_is_printed_at_the_start(running: Product) -> None:
    assert len(running.lines) == 2, running.printed


def test_secrets_are_for_the_owner_only(running: Product) -> None:
    for name in ("secret_key", "endpoint_key"):
        assert (running.var_dir / name).stat().st_mode & 0o077 == 0, name


def test_worker_gets_no_secret_of_the_site(running: Product) -> None:
    worker = next(p for p in descendants(running.process.pid) if p.command.endswith("-m gpu_worker"))
    names = {
        line.partition(b"=")[0].decode()
        for line in Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    }
    assert not names & {"SECRET_KEY", "DATABASE_URL", "REDIS_URL", "RUNPOD_API_KEY", "VAR_DIR"}


def test_a_mail_becomes_a_line_with_its_link(running: Product) -> None:
    send = "send_mail('Hello', 'Go to http://x.example/1', None, ['a@b.example'])"
    script = f"from django.core.mail import send_mail; {send}"
    subprocess.run(
        [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "VAR_DIR": str(running.var_dir)},
        check=True,
    )
    assert running.wait_for_line("Mail to", seconds=5) == "Mail to a@b.example: Hello -> http://x.example/1"


def test_a_second_one_on_the_same_data_is_refused(running: Product) -> None:
    result = run_serve(free_port(), running.var_dir)
    assert result.returncode == 1
    assert f"runs already (process {running.process.pid}" in result.stderr
    assert get(running.port, "/healthz") == 200


def test_a_taken_port_is_named_with_a_way_out(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_serve(port, tmp_path)
    assert result.returncode == 1
    assert f"Port {port} on 127.0.0.1" in result.stderr
    assert f"make run PORT={port + 1}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "part", ["uvicorn", "seedvr_site worker", "-m gpu_worker", "valkey-server", "guard.py"]
)
def test_a_killed_part_is_started_again(running: Product, part: str) -> None:
    victim = find(descendants(running.process.pid), part)
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(
        lambda: any(
            part in process.command and process.pid != victim.pid
            for process in descendants(running.process.pid)
        ),
        seconds=30,
        otherwise=lambda: AssertionError(f"{part} did not come back:\n{running.printed}"),
    )
    wait_until(
        lambda: get(running.port, "/healthz") == 200,
        seconds=30,
        otherwise=lambda: AssertionError(f"the site did not come back:\n{running.printed}"),
    )


def test_start_and_end_are_quick_and_clean(var_dir: Path, running: Product) -> None:
    """The last test of this product: it ends it, starts it again on its data, and ends that one too."""
    everyone = descendants(running.process.pid)
    assert running.interrupt() < 15
    assert running.process.returncode == 0
    assert running.lines[-1] == "Stopped"
    assert not still_running(everyone)

    started_at = time.monotonic()
    with product(var_dir) as again:
        assert time.monotonic() - started_at < 10
        everyone = descendants(again.process.pid)
        again.interrupt()
        assert again.process.returncode == 0
    assert not still_running(everyone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_as_well(tmp_path: Path, number: signal.Signals) -> None:
    with product(tmp_path) as started:
        everyone = descendants(started.process.pid)
        started.process.send_signal(number)
        assert started.process.wait(30) == 0
    assert not still_running(everyone)


def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with product(tmp_path) as started:
        everyone = descendants(started.process.pid)
        started.process.kill()
        wait_for_end(everyone, seconds=8)
    # The lock is free and the data is whole: the next start succeeds.
    with product(tmp_path) as again:
        assert get(again.port, "/healthz") == 200


def test_it_ends_with_the_shell_that_called_it(tmp_path: Path) -> None:
    port = free_port()
    serve = f"{sys.executable} manage.py serve --stop-with-parent --port {port}"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f"{serve}; echo ended"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "VAR_DIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(
        lambda: get(port, "/healthz") == 200,
        seconds=60,
        otherwise=lambda: AssertionError("it did not come up"),
    )
    everyone = descendants(shell.pid)
    shell.kill()
    shell.wait()
    wait_for_end(everyone, seconds=20)
    assert everyone


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with product(deep) as started:
        assert get(started.port, "/healthz") == 200
