"""The face that tests see: `/admin/` switches faults, moves time, loses workers, shows what is kept.

It is served only where the endpoint was started with `--admin`, and takes the client's key.
"""

from __future__ import annotations

import dataclasses
import json

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from gpu_worker.local_endpoint.faults import Fault
from gpu_worker.local_endpoint.options import MEBIBYTE
from gpu_worker.local_endpoint.queue import Queue
from gpu_worker.local_endpoint.replies import Route, is_authorized, problem, read_body


class AdminFace:
    """Hooks for tests and for people who look into a queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def routes(self) -> list[StarletteRoute]:
        """Returns the routes, each behind the client's key."""
        return [
            self._route("/admin/faults", "GET", self.faults),
            self._route("/admin/faults", "POST", self.add_fault),
            self._route("/admin/faults", "DELETE", self.clear_faults),
            self._route("/admin/clock", "POST", self.advance),
            self._route("/admin/reset", "POST", self.reset),
            self._route("/admin/jobs", "GET", self.jobs),
            self._route("/admin/workers", "GET", self.workers),
            self._route("/admin/workers/{worker_id}/lose", "POST", self.lose_worker),
            self._route("/admin/deliveries", "GET", self.deliveries),
        ]

    async def faults(self, _request: Request) -> Response:
        """Lists the faults that can still strike."""
        return JSONResponse([fault.to_json() for fault in self._queue.faults.all()])

    async def add_fault(self, request: Request) -> Response:
        """Switches a fault on; 400 says what is wrong with it."""
        try:
            fault = Fault.from_json(await _json(request))
        except ValueError as error:
            return problem(400, str(error))
        self._queue.faults.add(fault)
        self._queue.announce()
        return JSONResponse(fault.to_json(), status_code=201)

    async def clear_faults(self, _request: Request) -> Response:
        """Switches all faults off."""
        self._queue.faults.clear()
        self._queue.announce()
        return Response(status_code=204)

    async def advance(self, request: Request) -> Response:
        """Moves the endpoint's clock ahead by `advance_seconds`, workers' last calls with it."""
        document = await _json(request)
        seconds = document.get("advance_seconds") if isinstance(document, dict) else None
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            return problem(400, f"advance_seconds is {seconds!r}; expected a number of seconds, 0 or more")
        self._queue.clock.advanced_seconds += seconds
        self._queue.store.add_to_figure("advanced_seconds", seconds)
        # The workers did not sleep through the jump.
        self._queue.fleet.revive()
        self._queue.sweep()
        return JSONResponse({"now": self._queue.clock.now()})

    async def reset(self, _request: Request) -> Response:
        """Forgets jobs, workers, webhooks, faults and the clock's advance."""
        self._queue.reset()
        return Response(status_code=204)

    async def jobs(self, _request: Request) -> Response:
        """Lists the jobs with their deliveries, without inputs, outputs and addresses."""
        hidden = {"input_json", "output_json", "webhook", "s3_config_json"}
        jobs = [dataclasses.asdict(job) for job in self._queue.store.jobs()]
        return JSONResponse([{key: job[key] for key in job if key not in hidden} for job in jobs])

    async def workers(self, _request: Request) -> Response:
        """Lists the workers that have called."""
        return JSONResponse([dataclasses.asdict(worker) for worker in self._queue.store.workers()])

    async def lose_worker(self, request: Request) -> Response:
        """Treats a worker as lost: its jobs are requeued, its results ignored until it takes a job again."""
        worker_id = request.path_params["worker_id"]
        if self._queue.store.worker(worker_id) is None:
            raise HTTPException(404, "worker not found")
        self._queue.lose_worker(worker_id, "told so by /admin")
        return Response(status_code=204)

    async def deliveries(self, _request: Request) -> Response:
        """Lists the webhooks: job, tries, outcome."""
        deliveries = [dataclasses.asdict(delivery) for delivery in self._queue.store.deliveries()]
        hidden = {"url", "body"}
        return JSONResponse([{key: each[key] for key in each if key not in hidden} for each in deliveries])

    def _route(self, path: str, verb: str, route: Route) -> StarletteRoute:
        async def guarded(request: Request) -> Response:
            if not is_authorized(request, self._queue.options.api_key):
                return problem(401, "unauthorized")
            return await route(request)

        return StarletteRoute(path, guarded, methods=[verb], name=f"{verb} {path}")


async def _json(request: Request) -> object:
    try:
        document: object = json.loads(await read_body(request, max_bytes=MEBIBYTE))
    except ValueError:
        raise HTTPException(400, "bad request: body: not JSON") from None
    return document
