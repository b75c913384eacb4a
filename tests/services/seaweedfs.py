"""A real S3-compatible server: SeaweedFS, which checks signatures, lengths, checksums and origins."""

from __future__ import annotations

import os
import signal
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.services.processes import accepts_connections, free_port, server

BUCKET: Final = "videos"
ACCESS_KEY: Final = "operator"
SECRET_KEY: Final = "only-for-tests"


class SeaweedFS:
    """A server that can be taken away and brought back, with what it holds, under the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {f"{name}.port": free_port() for name in ("master", "volume", "filer", "s3", "admin")}
        self._grpc = {f"{name}.grpc": free_port() for name in self._ports}
        self._running = ExitStack()
        self.address = f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self) -> None:
        """Returns when the bucket answers."""
        self._running.enter_context(_server(self._folder, self._ports | self._grpc, self.address))

    def stop(self) -> None:
        """Ends the server from one moment to the next."""
        self._running.close()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Runs SeaweedFS with one empty bucket; yields its address."""
    running = SeaweedFS(folder)
    running.start()
    try:
        yield running.address
    finally:
        running.stop()


def _server(folder: Path, ports: dict[str, int], address: str) -> AbstractContextManager[Popen[bytes]]:
    command = [
        str(Path(sysconfig.get_path("scripts"), "weed")),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    # With connections open it takes half a minute to stop when it is asked to; what it wrote is there all the same.
    return server(
        command,
        log=folder / "weed.log",
        is_ready=lambda: accepts_connections(("127.0.0.1", ports["s3.port"])) and _has_bucket(address),
        stop_signal=signal.SIGKILL,
        env=environment,
    )


def _has_bucket(url: str) -> bool:
    """Returns whether the bucket is there: the server makes it a while after it listens."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5
        ),
    )
    try:
        client.head_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True
