"""Stored objects under signed addresses: ranges, limits, forgery, parts."""

import io
import time

import pytest
from starlette.testclient import TestClient

from restorations import objects
from restorations.object_server import application

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def http():
    with TestClient(application) as client:
        yield client


@pytest.fixture
def stored():
    objects.save("w1/sources/a.mp4", io.BytesIO(CONTENT))
    return objects.address_to_read("w1/sources/a.mp4")


def test_an_address_reads_its_object(http, stored):
    answer = http.get(stored)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-99", 0, 99), ("bytes=10000-", 10000, 10239), ("bytes=-40", 10200, 10239)],
)
def test_a_range_gets_206_so_that_players_can_seek(http, stored, asked, first, last):
    answer = http.get(stored, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10240"


def test_a_range_outside_gets_416(http, stored):
    assert http.get(stored, headers={"Range": "bytes=20000-"}).status_code == 416


def test_the_same_address_comes_twice_so_that_browsers_can_cache(stored):
    assert objects.address_to_read("w1/sources/a.mp4") == stored


def test_a_download_has_a_name(http, stored):
    address = objects.address_to_read("w1/sources/a.mp4", download_name="holiday_720p_seed1.mp4")
    assert http.get(address).headers["content-disposition"] == 'attachment; filename="holiday_720p_seed1.mp4"'


def test_what_is_not_media_is_never_shown_as_a_page(http):
    objects.save("w1/sources/x.html", io.BytesIO(b"<script>alert(1)</script>"))
    answer = http.get(objects.address_to_read("w1/sources/x.html"))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_forged_expired_and_misused_addresses_are_refused(http, stored):
    token = stored.split("/")[2]
    expired = objects.Claim(verb=objects.GET, key="w1/sources/a.mp4", expires=int(time.time()) - 1).sign()
    assert http.get(f"/objects/{token[:-1]}x/a.mp4").status_code == 403
    assert http.get(f"/objects/{expired}/a.mp4").status_code == 403
    assert http.put(stored, content=b"mine now").status_code == 403
    assert http.get(objects.address_to_write("w1/sources/a.mp4", max_bytes=10)).status_code == 403


def test_a_deleted_object_is_gone(http, stored):
    objects.delete(["w1/sources/a.mp4", "never/was"])
    assert http.get(stored).status_code == 404


def test_put_replaces_an_object_whole(http):
    address = objects.address_to_write("w1/results/r.mp4", max_bytes=100)
    assert http.put(address, content=b"result").status_code == 200
    assert objects.size("w1/results/r.mp4") == 6
    assert http.put(address, content=b"x" * 101).status_code == 413
    assert objects.size("w1/results/r.mp4") == 6


def test_a_key_cannot_leave_the_store():
    with pytest.raises(Exception, match="outside"):
        objects.path("../secret_key")


# --- Parts --------------------------------------------------------------------------------------------------


def send_part(http, upload_id, number, content):
    address = objects.address_of_part(upload_id, number, max_bytes=len(content))
    return number, http.put(address, content=content).headers["etag"].strip('"')


def test_parts_are_listed_and_joined(http):
    upload_id = objects.create_multipart()
    parts = [send_part(http, upload_id, n, c) for n, c in [(2, b"world"), (1, b"hello ")]]
    assert [(p.number, p.size) for p in objects.list_parts(upload_id)] == [(1, 6), (2, 5)]
    objects.complete_multipart(upload_id, "w1/sources/joined", parts=sorted(parts))
    assert objects.path("w1/sources/joined").read_bytes() == b"hello world"
    assert objects.list_parts(upload_id) == []


def test_a_part_sent_again_replaces_the_first(http):
    upload_id = objects.create_multipart()
    send_part(http, upload_id, 1, b"first")
    part = send_part(http, upload_id, 1, b"again")
    objects.complete_multipart(upload_id, "w1/sources/again", parts=[part])
    assert objects.path("w1/sources/again").read_bytes() == b"again"


def test_joining_twice_is_joining_once(http):
    upload_id = objects.create_multipart()
    part = send_part(http, upload_id, 1, b"once")
    for _ in range(2):
        objects.complete_multipart(upload_id, "w1/sources/once", parts=[part])
    assert objects.path("w1/sources/once").read_bytes() == b"once"


def test_missing_parts_are_noticed_and_nothing_is_lost(http):
    upload_id = objects.create_multipart()
    part = send_part(http, upload_id, 2, b"second")
    with pytest.raises(objects.PartsMismatch):
        objects.complete_multipart(upload_id, "w1/sources/half", parts=[part])
    assert len(objects.list_parts(upload_id)) == 1


def test_a_part_of_an_aborted_upload_is_refused(http):
    upload_id = objects.create_multipart()
    address = objects.address_of_part(upload_id, 1, max_bytes=10)
    objects.abort_multipart(upload_id)
    assert http.put(address, content=b"late").status_code == 404
