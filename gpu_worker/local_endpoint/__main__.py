"""Starts the local endpoint: `python -m gpu_worker.local_endpoint --port 8001 --store FILE --api-key KEY`."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from gpu_worker.local_endpoint.options import EndpointOptions
from gpu_worker.local_endpoint.server import LocalEndpoint


def main() -> None:
    """Reads the command line and serves until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # httpx logs whole addresses, and a webhook's address is a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arguments = _parser().parse_args()
    endpoint = LocalEndpoint(options=_options(arguments), store_path=arguments.store, speed=arguments.speed)
    endpoint.serve(arguments.host, arguments.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_worker.local_endpoint", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--store", type=Path, required=True, help="the SQLite file that survives a restart")
    add("--endpoint-id", default="local", help="the id in /v2/<endpoint id>/")
    add(
        "--api-key",
        default=os.environ.get("LOCAL_ENDPOINT_API_KEY"),
        help="or LOCAL_ENDPOINT_API_KEY, which `ps` does not show",
    )
    add("--worker-key", help="the workers' RUNPOD_AI_API_KEY; default: the API key")
    add("--admin", action="store_true", help="serve /admin/: faults, clock, workers")
    add("--speed", type=float, default=1.0, help="divide the service's clocks by this; tests only")
    add(
        "--poll-seconds",
        type=float,
        default=EndpointOptions.poll_seconds,
        help="how long workers' polls are held",
    )
    add(
        "--ping-seconds",
        type=float,
        default=EndpointOptions.ping_seconds,
        help="the workers' RUNPOD_PING_INTERVAL",
    )
    add(
        "--return-seconds",
        type=float,
        default=EndpointOptions.return_seconds,
        help="how long a worker may be away",
    )
    add("--max-deliveries", type=int, default=EndpointOptions.max_deliveries)
    add("--cold-start-seconds", type=float, default=EndpointOptions.cold_start_seconds)
    add("--idle-seconds", type=float, default=EndpointOptions.idle_seconds)
    add("--workers-max", type=int, default=EndpointOptions.workers_max)
    add("--execution-timeout-seconds", type=float, default=EndpointOptions.execution_timeout_seconds)
    return parser


def _options(arguments: argparse.Namespace) -> EndpointOptions:
    if not arguments.api_key:
        raise SystemExit("the endpoint needs --api-key or LOCAL_ENDPOINT_API_KEY")
    return EndpointOptions(
        endpoint_id=arguments.endpoint_id,
        api_key=arguments.api_key,
        worker_key=arguments.worker_key or arguments.api_key,
        has_admin=arguments.admin,
        poll_seconds=arguments.poll_seconds,
        ping_seconds=arguments.ping_seconds,
        return_seconds=arguments.return_seconds,
        max_deliveries=arguments.max_deliveries,
        cold_start_seconds=arguments.cold_start_seconds,
        idle_seconds=arguments.idle_seconds,
        workers_max=arguments.workers_max,
        execution_timeout_seconds=arguments.execution_timeout_seconds,
    )


if __name__ == "__main__":
    main()
