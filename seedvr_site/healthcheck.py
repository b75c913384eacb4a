"""Asks this machine's web process for `/healthz`; the image's HEALTHCHECK. Exit status 0: it serves requests.

It asks as the proxy in front does: for the site's own host, and as if over HTTPS, or production would redirect it.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final
from urllib.parse import urlsplit

from seedvr_site import env

_TIMEOUT_SECONDS: Final = 4


def main(port: int = 8000) -> int:
    """Returns 0 when the process that listens on `port` is well, otherwise 1 and a line that says why."""
    site = urlsplit(env.text("SITE_URL", f"http://127.0.0.1:{port}"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(
            "GET", "/healthz", headers={"Host": site.netloc, "X-Forwarded-Proto": site.scheme or "http"}
        )
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from port {port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        print(f"port {port} answers {status}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(port) for port in sys.argv[1:2])))
