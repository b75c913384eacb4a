"""Browsers of the cast, and the two stores that objects can lie in."""

from collections.abc import Iterator

import httpx
import pytest
from botocore.config import Config
from starlette.testclient import TestClient

from restorations.object_server import application
from seedvr_site.object_storage import s3_backend
from tests.services.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, seaweedfs


@pytest.fixture
def alice_client(signed_in, alice):
    return signed_in(alice)


@pytest.fixture
def bob_client(signed_in, bob):
    return signed_in(bob)


@pytest.fixture
def vera_client(signed_in, vera):
    return signed_in(vera)


@pytest.fixture
def charlie_client(signed_in, charlie):
    return signed_in(charlie)


@pytest.fixture(scope="session")
def bucket_address(tmp_path_factory) -> Iterator[str]:
    """A real S3-compatible server with one bucket, for all tests of this process."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as address:
        yield address


@pytest.fixture
def bucket(bucket_address, settings) -> str:
    """Has the site keep its objects in the bucket."""
    backend = s3_backend(
        bucket=BUCKET,
        endpoint=bucket_address,
        region="us-east-1",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    settings.S3_PUBLIC_ENDPOINT_URL = bucket_address
    return bucket_address


@pytest.fixture
def unreachable(settings) -> None:
    """Has the site keep its objects in a bucket that nobody serves."""
    backend = s3_backend(
        bucket="b", endpoint="http://127.0.0.1:9", region="auto", access_key="k", secret_key="s"
    )
    once = Config(retries={"total_max_attempts": 1})
    backend["OPTIONS"]["client_config"] = backend["OPTIONS"]["client_config"].merge(once)
    settings.STORAGES = {**settings.STORAGES, "default": backend}


@pytest.fixture(params=["files", pytest.param("s3", marks=pytest.mark.services)])
def http(request) -> Iterator[httpx.Client]:
    """Whoever holds signed addresses, on each of the two stores: the same tests have to pass on both."""
    if request.param == "s3":
        request.getfixturevalue("bucket")
        with httpx.Client(timeout=30) as client:
            yield client
    else:
        with TestClient(application) as client:
            yield client
