"""The supervisor's pieces with small programs in the place of the product's parts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seedvr_site.supervisor import child
from seedvr_site.supervisor.child import Child, Part
from seedvr_site.supervisor.guard import Guard
from seedvr_site.supervisor.supervisor import CannotServe, Supervisor
from seedvr_site.supervisor.terminal import LogWatch, describe_mail, rotate
from tests.services.process_table import descendants, still_running
from tests.services.processes import wait_until

#: Says that it is there, has a child of its own, and does not obey.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("here", flush=True)
time.sleep(60)
"""


def part(script: str, *, is_ready: Callable[[Child], bool], seconds: float = 5.0) -> Part:
    """Returns a part that runs a small Python program."""
    return Part(
        name="part",
        command=(sys.executable, "-c", script),
        environment={"PATH": os.environ["PATH"]},
        is_ready=is_ready,
        stop_signals=((signal.SIGTERM, seconds),),
    )


@pytest.fixture
def guard() -> Iterator[Guard]:
    started = Guard()
    yield started
    started.close()


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Gives the test run its handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def supervise(tmp_path: Path, guard: Guard, *parts: Part, migrate: Callable[[], None] = lambda: None) -> None:
    """Runs parts, one tier for each."""
    Supervisor(
        tiers=[[each] for each in parts], folder=tmp_path, var_dir=tmp_path, guard=guard, migrate=migrate
    ).run(ready_line="ready")


@pytest.mark.usefixtures("signal_handlers")
def test_a_part_that_never_comes_up_ends_it_with_its_last_words(
    tmp_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(child, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(CannotServe, match=r"part does not start:\n(.|\n)*no such luck"):
        supervise(tmp_path, guard, part("raise SystemExit('no such luck')", is_ready=lambda child: False))
    assert capfd.readouterr().out.count("part ended with status 1") == child.MANY_FALLS


@pytest.mark.usefixtures("signal_handlers")
def test_what_was_started_is_stopped_by_force_when_the_start_fails(tmp_path: Path, guard: Guard) -> None:
    seen = []

    def fail() -> None:
        seen.extend(descendants(os.getpid()))
        raise RuntimeError("the database is broken")

    first = part(STUBBORN, is_ready=lambda child: "here" in child.output(), seconds=0.2)
    with pytest.raises(RuntimeError, match="broken"):
        supervise(tmp_path, guard, first, migrate=fail)
    assert len([process for process in seen if "sleep(60)" in process.command]) == 2
    assert not [process for process in still_running(seen) if "sleep(60)" in process.command]


def test_a_fallen_part_takes_its_own_children_with_it(tmp_path: Path, guard: Guard) -> None:
    log = tmp_path / "part.log"
    stubborn = Child(part(STUBBORN, is_ready=lambda child: True), folder=tmp_path, log=log, guard=guard)
    stubborn.start()
    wait_until(
        lambda: "here" in stubborn.output(), seconds=10, otherwise=lambda: AssertionError(stubborn.output())
    )
    family = [process for process in descendants(os.getpid()) if "sleep(60)" in process.command]
    assert len(family) == 2
    stubborn.ask_to_stop(signal.SIGKILL)
    news: list[str] = []
    wait_until(
        lambda: news.append(stubborn.tend()) or news[-1],
        seconds=5,
        otherwise=lambda: AssertionError("its end was not noticed"),
    )
    assert news[-1] == "part ended by SIGKILL; starting it again in 1 s"
    assert not stubborn.is_running
    wait_until(
        lambda: not still_running(family),
        seconds=2,
        otherwise=lambda: AssertionError(f"left behind: {still_running(family)}"),
    )


def test_the_log_of_the_last_run_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("old")
    rotate(log)
    assert log.read_text() == ""
    assert (tmp_path / "web.log.1").read_text() == "old"


def test_only_whole_lines_with_warnings_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    watch = LogWatch("web", log)
    assert list(watch.news()) == []
    log.write_text("12:00 INFO all is well\n12:01 ERROR it bro")
    assert list(watch.news()) == []
    with log.open("a") as file:
        file.write("ke\n")
    assert list(watch.news()) == ["web: 12:01 ERROR it broke"]
    assert list(watch.news()) == []


def test_a_flood_of_errors_is_cut_short(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("ERROR again\n" * 100)
    lines = list(LogWatch("web", log).news())
    assert lines[-1] == f"web: 95 more in {log}"
    assert len(lines) == 6


def test_a_mail_without_a_link_is_a_line_too() -> None:
    mail = b"To: ada@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nNothing to click.\r\n"
    assert describe_mail(mail) == "Mail to ada@example.com: Grüße"
