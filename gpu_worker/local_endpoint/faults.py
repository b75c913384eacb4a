"""Faults of the hosted service that tests switch on; each ends by itself after `times` uses.

| kind | effect | reads |
| --- | --- | --- |
| `http_status` | the operation answers `http_status` | `on`, `http_status`, `retry_after` |
| `slow` | the operation's answer comes `seconds` late | `on`, `seconds` |
| `cut` | the connection is cut before the operation does anything | `on` |
| `reply_lost` | the operation is done, then the connection is cut | `on` |
| `unseen` | `/status` answers 404 during a job's first `seconds` | `seconds` |
| `short_execution_timeout` | the next job may run for `seconds` | `seconds` |
| `timed_out_state` | an execution timeout ends as TIMED_OUT instead of FAILED | |
| `ttl_timed_out_state` | a job that was never taken ends as TIMED_OUT when its TTL is over | |
| `progress_reopens` | a progress report after the end flips the job back to IN_PROGRESS | |
| `output_lost` | a result becomes COMPLETED without output | |
| `result_stuck` | a result is thrown away with 400 and the job stays IN_PROGRESS | |
| `duplicate_delivery` | a job in progress is given to a second worker too | |
| `throttled` | no worker starts a job | |
| `webhook_drop` | the webhook is never sent | `status` |
| `webhook_duplicate` | the webhook is sent twice | `status` |
| `webhook_delay` | the webhook is sent `seconds` late | `status`, `seconds` |
| `webhook_early` | `/status` shows the final state `seconds` after the webhook | `status`, `seconds` |

`on` names an operation: `run`, `runsync`, `status`, `stream`, `cancel`, `retry`, `purge-queue`, `health`,
`job-take`, `job-done`, `job-stream`, `job-stop`, `ping`; without it every operation is meant.
`status` narrows a webhook fault to one final state. `seconds` are real seconds.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


class FaultKind(enum.StrEnum):
    """What can go wrong; the module's table explains each."""

    HTTP_STATUS = "http_status"
    SLOW = "slow"
    CUT = "cut"
    REPLY_LOST = "reply_lost"
    UNSEEN = "unseen"
    SHORT_EXECUTION_TIMEOUT = "short_execution_timeout"
    TIMED_OUT_STATE = "timed_out_state"
    TTL_TIMED_OUT_STATE = "ttl_timed_out_state"
    PROGRESS_REOPENS = "progress_reopens"
    OUTPUT_LOST = "output_lost"
    RESULT_STUCK = "result_stuck"
    DUPLICATE_DELIVERY = "duplicate_delivery"
    THROTTLED = "throttled"
    WEBHOOK_DROP = "webhook_drop"
    WEBHOOK_DUPLICATE = "webhook_duplicate"
    WEBHOOK_DELAY = "webhook_delay"
    WEBHOOK_EARLY = "webhook_early"


_numbers = itertools.count(1)


@dataclass(kw_only=True, slots=True)
class Fault:
    """One fault. `times` None means until it is switched off."""

    kind: FaultKind
    on: str | None = None
    times: int | None = None
    seconds: float = 0.0
    http_status: int = 500
    retry_after: int | None = None
    status: str | None = None
    number: int = field(default_factory=lambda: next(_numbers))

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Reads a fault; raises ValueError that names what is wrong."""
        if not isinstance(document, dict):
            raise ValueError("a fault is a JSON object")
        known = {each.name for each in fields(cls)} - {"number"}
        if unknown := sorted(set(document) - known):
            raise ValueError(f"a fault has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return cls(**{**document, "kind": FaultKind(str(document.get("kind")))})

    def to_json(self) -> dict[str, Any]:
        """Returns the fault as a JSON object."""
        return asdict(self)

    def concerns(self, *, on: str | None, status: str | None) -> bool:
        """Tells whether the fault is about this operation and this final state."""
        return self.times != 0 and self.on in (None, on) and self.status in (None, status)


class Faults:
    """The faults that are on now. They do not survive a restart: a test that restarts sets them again."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Switches a fault on."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Switches all faults off."""
        self._faults.clear()

    def all(self) -> list[Fault]:
        """Returns the faults that can still strike."""
        return [fault for fault in self._faults if fault.times != 0]

    def find(self, kind: FaultKind, *, on: str | None = None, status: str | None = None) -> Fault | None:
        """Returns the fault of this kind that is on, without using it up."""
        matching = (
            fault for fault in self._faults if fault.kind is kind and fault.concerns(on=on, status=status)
        )
        return next(matching, None)

    def strike(self, kind: FaultKind, *, on: str | None = None, status: str | None = None) -> Fault | None:
        """Returns the fault of this kind that is on and counts one use of it."""
        fault = self.find(kind, on=on, status=status)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        return fault
