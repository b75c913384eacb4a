"""The endpoint that the faults are switched on at.

The world is imported late: this file is loaded before the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pytest_django import Settings

from tests.gpu_worker.processes import KEY, EndpointProcess

if TYPE_CHECKING:
    from tests.faults.world import World


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("endpoint"), "--poll-seconds", "1")
    yield endpoint
    endpoint.close()


@pytest.fixture
def world(server: EndpointProcess, settings: Settings) -> World:
    from tests.faults.world import World

    settings.RUNPOD_BASE_URL = f"http://127.0.0.1:{server.port}/v2"
    settings.RUNPOD_ENDPOINT_ID = "local"
    settings.RUNPOD_API_KEY = KEY
    server.reset()
    return World(server)
