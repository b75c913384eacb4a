"""A site somewhere, with everything that sites do to whoever fetches from them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from tests import samples

VIDEO = samples.path("pal_25.mp4").read_bytes()
SIZE = len(VIDEO)


class Site(BaseHTTPRequestHandler):
    """A site somewhere, with everything that sites do."""

    protocol_version = "HTTP/1.1"
    calls: list[str] = []
    asked_for: list[tuple[str | None, str | None]] = []

    def do_GET(self):
        self.calls.append(self.path)
        self.asked_for.append((self.headers["Range"], self.headers["If-Range"]))
        getattr(self, f"send_{self.path.strip('/').split('/')[0].split('?')[0]}")()

    def answer(self, content=b"", status=200, **heads):
        self.send_response(status)
        heads = {"Content_Type": "video/mp4", "Content_Length": str(len(content)), **heads}
        for name, value in heads.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def send_video(self):
        self.answer(VIDEO)

    def send_named(self):
        self.answer(VIDEO, Content_Disposition="attachment; filename*=UTF-8''f%C3%B6hn%20am%20see.mp4")

    def send_redirect(self):
        self.answer(status=302, Location="/video/film.mp4")

    def send_told(self):
        self.answer(VIDEO, Content_Disposition=unquote(self.path.partition("?")[2], "latin-1"))

    def send_letters(self):
        self.answer(status=302, Location="/video/föhn%20am see.mp4".encode().decode("latin-1"))

    def send_nonsense(self):
        self.answer(status=302, Location="https://[nowhere")

    def send_inside(self):
        self.answer(status=302, Location=f"http://localhost:{self.server.server_address[1]}/video/secret.mp4")

    def send_metadata(self):
        self.answer(status=307, Location="http://169.254.169.254/latest/meta-data/")

    def send_file(self):
        self.answer(status=302, Location="file:///etc/hostname")

    def send_loop(self):
        self.answer(status=302, Location="/loop/again")

    def send_page(self):
        self.answer(b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8")

    def send_disguised(self):
        self.answer(b"  <!DOCTYPE html><html>Sign in</html>")

    def send_packed(self):
        self.answer(gzip.compress(bytes(2**20)), Content_Encoding="gzip")

    def send_nothing(self):
        self.answer(b"")

    def send_missing(self):
        self.answer(b"gone", status=404)

    def send_expired(self):
        self.answer(b"<Error/>", status=403)

    def send_busy(self):
        self.answer(status=503)

    def send_huge(self):
        self.answer(Content_Length=str(2**50))

    def send_liar(self):
        self.close_connection = True
        self.answer(VIDEO[:1000], Content_Length=str(len(VIDEO)))

    def send_endless(self):
        self.answer(Content_Length=None, Connection="close")
        self.close_connection = True
        try:
            while True:
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    def send_drip(self):
        self.answer(Content_Length=str(10**6))
        self._drip(b"x")

    def send_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip(b"y")

    def send_silence(self):
        time.sleep(2.5)

    def send_pause(self):
        self.answer(VIDEO[:200_000], Content_Length=str(len(VIDEO)))
        time.sleep(0.8)
        self.wfile.write(VIDEO[200_000:])

    def send_rest(self, start=1000, end=SIZE, total=SIZE, status=206, **heads):
        if self.headers["Range"]:
            heads = {"Content_Range": f"bytes {start}-{end - 1}/{total}", **heads}
            self.answer(VIDEO[start:end], status=status, **heads)
        else:
            self.answer(VIDEO)

    def send_hop(self):
        self.answer(status=302, Location="/rest")

    def send_unsized(self):
        self.send_rest(total="*")

    def send_elsewhere(self):
        self.send_rest(start=999)

    def send_longer(self):
        self.send_rest(total=SIZE + 1)

    def send_nowhere(self):
        self.send_rest(Content_Range="bytes */*")

    def send_outside(self):
        self.send_rest(status=416)

    def send_changed(self):
        self.send_rest(ETag='"other"')

    def send_piece(self):
        self.send_rest(end=5000)

    def send_dated(self):
        etag, changed, sent = map(unquote, self.path.split("/")[2:])
        pairs = {"ETag": etag, "Last_Modified": changed, "Date": sent}
        self.answer(VIDEO, **{name: value for name, value in pairs.items() if value != "-"})

    def send_response(self, code, message=None):
        # Its own date would come first.
        self.send_response_only(code, message)

    def _drip(self, piece):
        try:
            for _ in range(25):
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    def log_message(self, *_args):
        pass


@contextmanager
def odd_site() -> Iterator[Callable[..., str]]:
    """Runs the site on this machine; gives what makes the address of one of its files."""
    Site.calls, Site.asked_for = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.handle_error = lambda *_args: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield lambda path, host="127.0.0.1": f"http://{host}:{server.server_address[1]}/{path}"
    server.shutdown()
    server.server_close()
