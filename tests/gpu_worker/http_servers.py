"""Small real HTTP servers on loopback: an object storage with presigned addresses, a receiver of webhooks."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], owner: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle of a request are what these tests are about."""


class Storage:
    """Objects in memory, with the faults that a storage has.

    `answers` are statuses for the next requests instead of the usual ones; `cut_after` cuts the next
    downloads after so many bytes, then calls `after_cut`; uploads hang while `release_uploads` is not set.
    So many of the next uploads in parts fail inside an answer of 200 as `failures_inside` says.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.content_types: dict[str, str] = {}
        self.answers: deque[int] = deque()
        self.cut_after: deque[int] = deque()
        self.requests: list[tuple[str, str, str | None]] = []
        self.after_cut: Callable[[], None] | None = None
        self.is_announcing_length = True
        self.is_giving_etags = True
        self.failures_inside = 0
        self.release_uploads = threading.Event()
        self.release_uploads.set()
        self._server = _Server(_StorageHandler, self)

    def url(self, name: str) -> str:
        """Returns a presigned-like address: the signature is what must never be logged."""
        return self._server.address(f"{name}?X-Signature=topsecret")

    def close(self) -> None:
        self.release_uploads.set()
        self._server.close()


class _StorageHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        storage: Storage = self.server.owner
        name = self._note(storage)
        if self._is_refused(storage):
            return
        content = storage.objects.get(name)
        if content is None:
            self._answer(404)
            return
        self._send(storage, content)

    def do_PUT(self) -> None:
        storage: Storage = self.server.owner
        name = self._note(storage)
        length = self.headers["Content-Length"]
        if length is None:
            # Presigned addresses of S3 take no chunked bodies.
            self.close_connection = True
            self._answer(411)
            return
        content = self.rfile.read(int(length))
        storage.release_uploads.wait()
        if self._is_refused(storage):
            return
        storage.objects[name] = content
        storage.content_types[name] = self.headers["Content-Type"]
        self._answer(200, etag=f'"etag-{name}"' if storage.is_giving_etags else None)

    def do_POST(self) -> None:
        """Joins the parts of an upload, as S3 does."""
        storage: Storage = self.server.owner
        name = self._note(storage)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_refused(storage):
            return
        if storage.failures_inside:
            self._answer(200, body=b"<Error><Code>InternalError</Code></Error>")
            storage.failures_inside -= 1
            return
        etags = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>\"etag-(.*?)\"</ETag>", content.decode())
        assert [int(number) for number, _part in etags] == [*range(1, len(etags) + 1)]
        storage.objects[name] = b"".join(storage.objects[part] for _number, part in etags)
        self._answer(200, body=b"<CompleteMultipartUploadResult/>")

    def _note(self, storage: Storage) -> str:
        name = self.path.partition("?")[0].lstrip("/")
        storage.requests.append((self.command, name, self.headers["Range"]))
        return name

    def _is_refused(self, storage: Storage) -> bool:
        if not storage.answers:
            return False
        self._answer(storage.answers.popleft())
        return True

    def _send(self, storage: Storage, content: bytes) -> None:
        etag = f'"{hash(content)}"'
        span = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(span[1]) if span and self.headers["If-Range"] in (None, etag) else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", etag)
        if storage.is_announcing_length:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        end = len(content)
        if storage.cut_after:
            end = start + storage.cut_after.popleft()
            self.close_connection = True
        self.wfile.write(content[start:end])
        if end < len(content):
            if storage.after_cut is not None:
                storage.after_cut()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, *, body: bytes = b"", etag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if etag is not None:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Prints nothing."""


class WebhookSink:
    """Receives webhooks; `answers` are statuses for the next ones, afterwards 200."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.content_types: list[str] = []
        self.answers: deque[int] = deque()
        self._server = _Server(_SinkHandler, self)
        self.url = self._server.address("hooks/topsecret")

    def close(self) -> None:
        self._server.close()


class _SinkHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    location: ClassVar = "http://127.0.0.1:1/"

    def do_POST(self) -> None:
        sink: WebhookSink = self.server.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sink.content_types.append(self.headers["Content-Type"])
        sink.received.append(json.loads(body))
        self.send_response(sink.answers.popleft() if sink.answers else 200)
        self.send_header("Location", self.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Prints nothing."""
