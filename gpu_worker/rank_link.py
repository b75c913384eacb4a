"""A rank's end of the control socket: JSON lines from the parent and to it.

A thread listens, so that a cancel is heard while the rank works; when the parent closes the socket or dies, the
rank ends at once, whatever it does.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import SegmentPlan
from gpu_worker.engine.job import Cancelled, SegmentSpan

#: The parent reads every message: more of them help nobody.
_BEAT_SECONDS: Final = 0.25


class Link:
    """The socket to the parent. Messages may be sent from any thread."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(address)
        self._sending = threading.Lock()
        #: What the parent asks for, one request after the other.
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: set[int] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message."""
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def is_cancelled(self, number: int) -> bool:
        """True once the parent has cancelled this request."""
        return number in self._cancelled

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "cancel" in message:
                    self._cancelled.add(int(message["cancel"]))
                else:
                    self.requests.put(message)
        os._exit(1)


class RankEvents:
    """Tells the parent how one request goes; this is the `Events` of `engine/job.py`."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._beaten_at = time.monotonic()
        self._num_frames = 0

    def expect(self, num_frames: int) -> None:
        """Tells how many frames the result will have."""
        self._tell({"expected": num_frames, "frames": self._num_frames})

    def frames(self, num_done: int) -> None:
        """Notes how many frames are done; the next beat tells it."""
        self._num_frames = num_done
        self._beat()

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Tells that a segment's file is complete."""
        told = None if plan is None else plan.to_json()
        self._tell({"segment": span.to_json(), "path": str(path), "plan": told, "frames": self._num_frames})

    def check(self) -> None:
        """Tells that this rank moves on. Raises `Cancelled`."""
        self._beat()
        if self.is_cancelled:
            raise Cancelled

    @property
    def is_cancelled(self) -> bool:
        """True once the request was cancelled."""
        return self._link.is_cancelled(self._number)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten_at >= _BEAT_SECONDS:
            self._beaten_at = now
            self._tell({"frames": self._num_frames})

    def _tell(self, message: dict[str, Any]) -> None:
        self._link.send({"number": self._number, **message})
