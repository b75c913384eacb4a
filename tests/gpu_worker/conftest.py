"""Endpoints, workers, storage and webhook receivers for tests, ended with the test that asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpu_worker.http_servers import Storage, WebhookSink
from tests.gpu_worker.processes import EndpointProcess, WorkerProcess

#: Short polls and pings, so that a lost worker is noticed within a test's patience.
QUICK = ("--poll-seconds", "1", "--ping-seconds", "1", "--return-seconds", "1")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    """An endpoint that the tests of one file share."""
    process = EndpointProcess(tmp_path_factory.mktemp("endpoint"), *QUICK)
    yield process
    process.close()


@pytest.fixture
def own_endpoint(endpoint: EndpointProcess) -> EndpointProcess:
    """The file's endpoint without what other tests left in it."""
    endpoint.reset()
    return endpoint


@pytest.fixture
def start_endpoint(tmp_path: Path) -> Iterator[Callable[..., EndpointProcess]]:
    """Starts an endpoint of the test's own, with these arguments more."""
    started: list[EndpointProcess] = []

    def start(*arguments: str) -> EndpointProcess:
        started.append(EndpointProcess(tmp_path, *QUICK, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts our worker against an endpoint."""
    started: list[WorkerProcess] = []

    def start(endpoint: EndpointProcess, worker_id: str = "worker-1", **environment: str) -> WorkerProcess:
        command = ["-m", "gpu_worker"]
        started.append(
            WorkerProcess(endpoint, tmp_path, worker_id=worker_id, command=command, environment=environment)
        )
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def storage() -> Iterator[Storage]:
    """An object storage on loopback."""
    server = Storage()
    yield server
    server.close()


@pytest.fixture
def webhook_sink() -> Iterator[WebhookSink]:
    """A receiver of webhooks on loopback."""
    server = WebhookSink()
    yield server
    server.close()
