"""Has a confined process look into a file, and believes only what it could honestly have found."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from restorations.probing.facts import Facts, Unrestorable
from restorations.stores import Ranges

logger = logging.getLogger(__name__)

#: No decoder of a picture within our bounds needs more; the address space counts, libraries included.
MEMORY_BYTES: Final = 4 * 2**30
CPU_SECONDS: Final = 12
#: Waiting for a store counts here, not there.
WALL_SECONDS: Final = 30.0
_MOST_SAID: Final = 2 * 2**20
_MOST_ASKED: Final = 8 * 2**20
_PROJECT: Final = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Verdict:
    """A file that can be restored: its facts, and a JPEG that shows it, or nothing."""

    facts: Facts
    poster: bytes


def examine(opened: Ranges, *, max_seconds: float) -> Verdict:
    """Returns what is in a file; raises `Unrestorable` with the reason when it cannot be restored.

    Whatever the file does to its decoder, this returns or raises within `WALL_SECONDS`.
    """
    if opened.size_bytes == 0:
        raise Unrestorable("empty")
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "restorations.probing.child", str(theirs.fileno())]
    command += [str(opened.size_bytes), str(max_seconds), str(MEMORY_BYTES), str(CPU_SECONDS)]
    process = subprocess.Popen(
        command,
        cwd=_PROJECT,
        # No key or address of ours goes to where a stranger's file is read.
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    try:
        said = _serve(process, ours, opened)
    finally:
        ours.close()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return _verdict(said, process.returncode)


def _serve(process: subprocess.Popen[bytes], ours: socket.socket, opened: Ranges) -> bytes:
    """Answers for bytes until the process has said everything; returns what it said."""
    assert process.stdout is not None
    deadline = time.monotonic() + WALL_SECONDS
    said = bytearray()
    ours.settimeout(WALL_SECONDS)
    with selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                if key.fileobj is ours:
                    if not _answer(ours, opened):
                        selector.unregister(ours)
                    continue
                piece = os.read(process.stdout.fileno(), 2**16)
                said += piece
                if not piece:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1)
                    return bytes(said)
                if len(said) > _MOST_SAID:
                    raise Unrestorable("unreadable")
    logger.warning("a file took too long to be read")
    raise Unrestorable("too_demanding")


def _answer(ours: socket.socket, opened: Ranges) -> bool:
    """Gives the bytes that were asked for; False when the other side has gone."""
    try:
        asked = ours.recv(12, socket.MSG_WAITALL)
        if len(asked) < 12:
            return False
        offset, length = struct.unpack(">QI", asked)
        piece = opened.read_at(offset, min(length, _MOST_ASKED)) if offset < opened.size_bytes else b""
        ours.sendall(struct.pack(">I", len(piece)) + piece)
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def _verdict(said: bytes, return_code: int) -> Verdict:
    try:
        verdict = json.loads(said)
        if "reason" in verdict:
            raise Unrestorable(str(verdict["reason"]))
        if not verdict["is_confined"]:
            logger.info("this system has no seccomp: the probe had limits only")
        poster = base64.b64decode(verdict["poster"], validate=True)
        return Verdict(Facts.from_json(verdict["facts"]), poster)
    except (ValueError, KeyError, TypeError, binascii.Error):
        # Ended before it could say anything: by its limits, or by a fault in a decoder.
        logger.warning("a file ended its probe return_code=%s said=%d bytes", return_code, len(said))
        exhausted = return_code in (-signal.SIGXCPU, -signal.SIGKILL)
        raise Unrestorable("too_demanding" if exhausted else "unreadable") from None
