"""Measures how long a verdict on a large upload takes (U3): `python -m tests.benchmarks.verdict [GIGABYTES] [--save]`.

The clock begins with the last byte of the last part: joining the parts counts, and so does everything that the
inspector asks the store for. Both stores, an MP4 whose table of frames is at its end, and a Matroska, which has none.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from tests import samples
from tests.services.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, seaweedfs

ROOT = Path(__file__).resolve().parent.parent.parent
PART_BYTES = 16 * 2**20


def film(folder: Path, suffix: str, num_bytes: int) -> Path:
    """Writes a film of about so many bytes: a real one, again and again, without encoding it."""
    source, target = samples.path("bigbuckbunny.mp4"), folder / f"film.{suffix}"
    loops = num_bytes // source.stat().st_size
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-y",
        "-stream_loop",
        str(loops),
        "-i",
        str(source),
    ]
    subprocess.run([*command, "-c", "copy", str(target)], check=True, stdin=subprocess.DEVNULL)
    return target


class Counted:
    """An object that counts what is asked of it."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened
        self.num_requests = 0
        self.num_bytes = 0

    @property
    def size_bytes(self) -> int:
        return int(self.opened.size_bytes)

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        piece: bytes = self.opened.read_at(offset, num_bytes)
        self.num_requests += 1
        self.num_bytes += len(piece)
        return piece


def measure(file: Path) -> dict[str, float]:
    """Sends a file in parts, then times the joining and the verdict."""
    import httpx
    from starlette.testclient import TestClient

    from restorations import objects
    from restorations.object_server import application
    from restorations.probing import inspector
    from restorations.stores.files import FileStore

    key = f"bench/sources/{file.name}"
    upload_id = objects.create_multipart(key, part_bytes=PART_BYTES)
    is_local = isinstance(objects.store(), FileStore)
    parts = []
    with (
        TestClient(application) if is_local else httpx.Client(timeout=120) as http,
        file.open("rb") as opened,
    ):
        for number in range(1, -(-file.stat().st_size // PART_BYTES) + 1):
            signed = objects.address_of_part(key, upload_id, number)
            answer = http.put(signed.url, content=opened.read(PART_BYTES))
            answer.raise_for_status()
            parts.append((number, answer.headers["etag"].strip('"')))
    started_at = time.monotonic()
    objects.complete_multipart(key, upload_id, parts=parts)
    joined_at = time.monotonic()
    with objects.ranges(key) as stored:
        counted = Counted(stored)
        facts = inspector.examine(counted, max_seconds=4 * 3600).facts
    ended_at = time.monotonic()
    objects.delete([key])
    return {
        "joining the parts, seconds": joined_at - started_at,
        "verdict after that, seconds": ended_at - joined_at,
        "last byte to verdict, seconds": ended_at - started_at,
        "requests to the store": counted.num_requests,
        "megabytes read": counted.num_bytes / 1e6,
        "frames": facts.num_frames,
    }


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Loads the settings with a bucket beside; yields the bucket's address."""
    os.environ |= {"VAR_DIR": str(folder / "var"), "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.test"}
    import django

    django.setup()
    (folder / "seaweedfs").mkdir()
    with seaweedfs(folder / "seaweedfs") as address:
        yield address


def main() -> None:
    """Measures, prints a table and a JSON line, and files the table when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", type=float, nargs="?", default=2.0)
    parser.add_argument("--save", action="store_true", help="file the table under docs/benchmarks/")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, site(Path(name)) as address:
        from django.conf import settings
        from django.test import override_settings

        from seedvr_site.object_storage import s3_backend

        backend = s3_backend(
            bucket=BUCKET, endpoint=address, region="us-east-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        in_bucket = {"STORAGES": {**settings.STORAGES, "default": backend}, "S3_PUBLIC_ENDPOINT_URL": address}
        for suffix in ("mp4", "mkv"):
            file = film(Path(name), suffix, int(arguments.gigabytes * 1e9))
            columns[f"{suffix}, files"] = measure(file)
            with override_settings(**in_bucket):
                columns[f"{suffix}, S3 (SeaweedFS)"] = measure(file)
            file.unlink()
    text = table(columns)
    print(text)
    if arguments.save:
        save(text, arguments.gigabytes)
    print(
        json.dumps(
            {name: {what: round(n, 3) for what, n in figures.items()} for name, figures in columns.items()}
        )
    )


def table(columns: dict[str, dict[str, float]]) -> str:
    """Returns the figures as a Markdown table."""
    lines = ["| what | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for what in next(iter(columns.values())):
        values = [f"{figures[what]:.2f}".removesuffix(".00") for figures in columns.values()]
        lines.append(f"| {what} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def save(text: str, gigabytes: float) -> None:
    """Files the table with the day and the machine."""
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    heading = (
        f"# The verdict on an upload of {gigabytes:g} GB, {today}\n\n"
        f"`python -m tests.benchmarks.verdict {gigabytes:g}` on {machine}, other work beside it. The clock begins "
        "with the last byte\nof the last part. U3 asks for 10 seconds for the MP4.\n\n"
    )
    (ROOT / "docs" / "benchmarks" / f"verdict_cpu_{today}.md").write_text(f"{heading}{text}\n")


if __name__ == "__main__":
    main()
