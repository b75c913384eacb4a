"""Downloads and uploads against a storage that refuses, cuts and stalls."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gpu_worker.contract import ErrorCode, ResultParts, WorkerError
from gpu_worker.settings import WorkerSettings
from gpu_worker.transfer import Transfers, sha256_of
from tests.certificates import certificate_for_loopback
from tests.gpu_worker.http_servers import Storage

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest_asyncio.fixture
async def transfers() -> AsyncIterator[Transfers]:
    settings = WorkerSettings(
        transfer_tries=3, transfer_pause_seconds=0.01, transfer_timeout_seconds=1, max_source_bytes=10_000_000
    )
    made = Transfers(settings)
    yield made
    await made.close()


@pytest.fixture
def source(storage: Storage) -> str:
    storage.objects["source"] = CONTENT
    return storage.url("source")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def content(path: Path) -> bytes:
    """Returns a file's content."""
    return path.read_bytes()


async def refused(download: object) -> WorkerError:
    with pytest.raises(WorkerError) as raised:
        await download  # type: ignore[misc]
    assert "topsecret" not in str(raised.value)
    return raised.value


async def test_a_source_arrives_whole(transfers: Transfers, source: str, path: Path) -> None:
    await transfers.download(source, path, num_bytes=len(CONTENT), sha256=SHA256)
    assert content(path) == CONTENT


async def test_a_broken_download_goes_on_where_it_stopped(
    transfers: Transfers, source: str, path: Path, storage: Storage
) -> None:
    storage.cut_after.extend([1_000_000, 2_000_000])
    await transfers.download(source, path, num_bytes=len(CONTENT), sha256=SHA256)
    assert content(path) == CONTENT
    starts = [
        0 if span is None else int(span.removeprefix("bytes=").rstrip("-")) for *_, span in storage.requests
    ]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert len(starts) == 3


async def test_a_source_that_changes_between_tries_is_fetched_anew(
    transfers: Transfers, source: str, path: Path, storage: Storage
) -> None:
    changed = CONTENT[::-1]
    storage.cut_after.append(1_000_000)
    storage.after_cut = lambda: storage.objects.update(source=changed)
    await transfers.download(source, path, num_bytes=len(CONTENT))
    assert content(path) == changed


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_transient_refusal_is_tried_again(
    transfers: Transfers, source: str, path: Path, storage: Storage, status: int
) -> None:
    storage.answers.extend([status, status])
    await transfers.download(source, path, num_bytes=len(CONTENT))
    assert len(storage.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 410, 301])
async def test_a_final_refusal_is_not_tried_again(
    transfers: Transfers, source: str, path: Path, storage: Storage, status: int
) -> None:
    storage.answers.append(status)
    error = await refused(transfers.download(source, path, num_bytes=len(CONTENT)))
    assert error.code is ErrorCode.SOURCE_UNREACHABLE
    assert len(storage.requests) == 1


async def test_tries_are_bounded(transfers: Transfers, source: str, path: Path, storage: Storage) -> None:
    storage.answers.extend([503] * 10)
    error = await refused(transfers.download(source, path, num_bytes=len(CONTENT)))
    assert error.code is ErrorCode.SOURCE_UNREACHABLE
    assert len(storage.requests) == 3


async def test_an_unreachable_storage_is_named_without_its_address(
    transfers: Transfers, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="gpu_worker"):
        error = await refused(transfers.download("http://127.0.0.1:1/x?sig=topsecret", path, num_bytes=5))
    assert error.code is ErrorCode.SOURCE_UNREACHABLE
    assert "topsecret" not in "".join(
        record.getMessage() for record in caplog.records if "gpu_worker" in record.name
    )


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("num_bytes", [len(CONTENT) - 1, 10])
async def test_a_source_longer_than_promised_is_refused(
    transfers: Transfers, source: str, path: Path, storage: Storage, num_bytes: int, is_announced: bool
) -> None:
    storage.is_announcing_length = is_announced
    error = await refused(transfers.download(source, path, num_bytes=num_bytes))
    assert error.code is ErrorCode.SOURCE_CHANGED
    assert len(content(path)) <= num_bytes


async def test_another_checksum_is_a_changed_source(transfers: Transfers, source: str, path: Path) -> None:
    error = await refused(transfers.download(source, path, num_bytes=len(CONTENT), sha256="0" * 64))
    assert error.code is ErrorCode.SOURCE_CHANGED


async def test_a_source_over_the_limit_is_refused_unread(
    transfers: Transfers, path: Path, storage: Storage
) -> None:
    error = await refused(transfers.download(storage.url("source"), path, num_bytes=10_000_001))
    assert error.code is ErrorCode.SOURCE_TOO_LARGE
    assert storage.requests == []


@pytest.fixture
def file(path: Path) -> Path:
    path.write_bytes(CONTENT)
    return path


async def test_a_file_is_put_with_its_length_and_type(
    transfers: Transfers, file: Path, storage: Storage
) -> None:
    storage.answers.append(503)
    await transfers.upload_file(storage.url("result"), file, content_type="video/mp4")
    assert storage.objects["result"] == CONTENT
    assert storage.content_types["result"] == "video/mp4"
    assert sha256_of(file) == SHA256


@pytest.mark.parametrize(("answers", "num_tries"), [([403], 1), ([500] * 9, 3)])
async def test_a_refused_upload_fails(
    transfers: Transfers, storage: Storage, answers: list[int], num_tries: int
) -> None:
    storage.answers.extend(answers)
    error = await refused(transfers.upload_bytes(storage.url("m"), b"{}", content_type="application/json"))
    assert error.code is ErrorCode.UPLOAD_FAILED
    assert len(storage.requests) == num_tries


async def test_a_stalled_upload_is_given_up(transfers: Transfers, storage: Storage) -> None:
    storage.release_uploads.clear()
    error = await refused(transfers.upload_bytes(storage.url("m"), b"{}", content_type="application/json"))
    assert error.code is ErrorCode.UPLOAD_FAILED
    assert "ReadTimeout" in error.detail


async def test_a_small_document_is_fetched_or_not_there(transfers: Transfers, storage: Storage) -> None:
    storage.objects["journal"] = b"{}"
    storage.answers.append(503)
    assert await transfers.fetch_document(storage.url("journal"), max_bytes=10) == b"{}"
    assert await transfers.fetch_document(storage.url("missing"), max_bytes=10) is None
    # S3 hides what is not there from those who may not list.
    storage.answers.append(403)
    assert await transfers.fetch_document(storage.url("journal"), max_bytes=10) is None
    error = await refused(transfers.fetch_document(storage.url("journal"), max_bytes=1))
    assert "more than 1 bytes" in error.detail
    storage.answers.extend([500] * 3)
    error = await refused(transfers.fetch_document(storage.url("journal"), max_bytes=10))
    assert error.code is ErrorCode.SOURCE_UNREACHABLE


def parts(storage: Storage, count: int, part_bytes: int = 2_000_000) -> ResultParts:
    return ResultParts(
        part_bytes=part_bytes,
        put=tuple(storage.url(f"part{number}") for number in range(count)),
        complete=storage.url("result"),
    )


async def test_a_large_result_goes_in_parts(transfers: Transfers, storage: Storage, path: Path) -> None:
    path.write_bytes(CONTENT)  # noqa: ASYNC240
    storage.answers.append(500)
    storage.failures_inside = 1
    await transfers.upload_parts(parts(storage, 5), path)
    assert storage.objects["result"] == CONTENT
    sizes = [len(storage.objects[f"part{number}"]) for number in range(3)]
    assert sizes == [2_000_000, 2_000_000, len(CONTENT) - 4_000_000]
    assert "part3" not in storage.objects


async def test_parts_that_cannot_become_a_result_are_an_error(
    transfers: Transfers, storage: Storage, path: Path
) -> None:
    path.write_bytes(CONTENT)  # noqa: ASYNC240
    too_few = await refused(transfers.upload_parts(parts(storage, 2), path))
    assert (too_few.code, storage.objects) == (ErrorCode.UPLOAD_FAILED, {})
    storage.failures_inside = 3
    assert (await refused(transfers.upload_parts(parts(storage, 5), path))).code is ErrorCode.UPLOAD_FAILED
    storage.is_giving_etags = False
    assert "no ETag" in (await refused(transfers.upload_parts(parts(storage, 5), path))).detail


async def test_a_download_that_has_no_room_is_refused_before_it_begins(
    storage: Storage, source: str, path: Path
) -> None:
    transfers = Transfers(WorkerSettings(max_source_bytes=2**60))
    error = await refused(transfers.download(source, path, num_bytes=2**59))
    await transfers.close()
    assert (error.code, storage.requests) == (ErrorCode.OUT_OF_DISK, [])


async def test_a_connection_that_breaks_behind_the_last_byte_has_brought_everything(
    transfers: Transfers, path: Path
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"Range:" in request:
            writer.write(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")
        else:
            # The chunk that says that no other follows does not come any more.
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        await transfers.download(f"http://{host}:{port}/source", path, num_bytes=len(CONTENT), sha256=SHA256)
    assert content(path) == CONTENT


@pytest.fixture
def broken_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address whose server answers each request with a record that cannot be decrypted."""
    authority, certificate = certificate_for_loopback(tmp_path, name="localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.fromfd(self.request.fileno(), socket.AF_INET, socket.SOCK_STREAM) as below:
                encrypted = context.wrap_socket(self.request, server_side=True)
                encrypted.recv(65_536)
                below.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
                encrypted.close()

    with socketserver.ThreadingTCPServer(("localhost", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_address[1]}/source?X-Signature=topsecret"
        server.shutdown()


async def test_an_answer_that_cannot_be_decrypted_is_tried_again(broken_tls: str, path: Path) -> None:
    transfers = Transfers(WorkerSettings(transfer_tries=2, transfer_pause_seconds=0.01))
    error = await refused(transfers.download(broken_tls, path, num_bytes=len(CONTENT)))
    assert (error.code, error.detail) == (ErrorCode.SOURCE_UNREACHABLE, "SSLError, after 2 tries")
    error = await refused(transfers.upload_bytes(broken_tls, b"{}", content_type="application/json"))
    assert error.code is ErrorCode.UPLOAD_FAILED
    await transfers.close()
