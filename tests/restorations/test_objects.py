"""Stored objects under signed addresses: ranges, limits, forgery, parts. Every test runs on both stores."""

import base64
import errno
import hashlib
import io
import time

import pytest
from django.core.exceptions import SuspiciousFileOperation

from restorations import objects
from restorations.stores import files
from restorations.stores.parts import PartsFolder

CONTENT = bytes(range(256)) * 40
#: S3 takes no smaller part, except for the last.
PART = bytes(range(256)) * 20 * 1024
KEY = "w1/sources/a.mp4"


@pytest.fixture
def stored(http):
    objects.save(KEY, io.BytesIO(CONTENT))
    return objects.address_to_read(KEY)


def test_what_is_saved_is_measured(http):
    saved = objects.save(KEY, io.BytesIO(CONTENT))
    assert saved == objects.Saved(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert objects.sha256(KEY) == saved.sha256


def test_an_address_reads_its_object(http, stored):
    answer = http.get(stored)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["cache-control"] == "private, max-age=3600"


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
    assert objects.address_to_read(KEY) == stored


@pytest.mark.parametrize("name", ["holiday_720p_seed1.mp4", "föhn am see.mp4"])
def test_a_download_has_a_name(http, stored, name):
    said = http.get(objects.address_to_read(KEY, download_name=name)).headers["content-disposition"]
    assert said.startswith("attachment; filename")
    assert name.rpartition(".")[0].split("ö")[-1].replace(" ", "%20") in said


def test_what_is_not_media_is_never_shown_as_a_page(http):
    objects.save("w1/sources/x.html", io.BytesIO(b"<script>alert(1)</script>"))
    answer = http.get(objects.address_to_read("w1/sources/x.html"))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_forged_and_misused_addresses_are_refused(http, stored):
    objects.save("w1/sources/b.mp4", io.BytesIO(b"another"))
    assert http.get(stored.replace("a.mp4", "b.mp4", 1)).content != b"another"
    assert http.put(stored, content=b"mine now").status_code == 403
    assert http.get(objects.address_to_write(KEY, max_bytes=10)).status_code == 403
    assert objects.read_bytes(KEY) == CONTENT


def test_an_address_of_one_workspace_opens_no_object_of_another(http, stored):
    theirs = KEY.replace("w1", "w2")
    objects.save(theirs, io.BytesIO(b"theirs"))
    other = objects.address_to_read(theirs)
    assert http.get(other).content == b"theirs"
    # My signature over their path, their signature over mine, and a way out of my folder.
    swapped = stored.partition("?")[0] + "?" + other.partition("?")[2] if "?" in stored else stored
    for address in (
        stored.replace("w1", "w2", 1),
        other.replace("w2", "w1", 1),
        swapped,
        f"{stored}/../../w2/a.mp4",
    ):
        assert address == other or http.get(address).content != b"theirs"


def test_a_forged_signature_is_refused(http, stored):
    end = stored.rpartition("/")[0] if stored.startswith("/") else stored
    forged = stored.replace(end, end[:-1] + ("0" if end[-1] != "0" else "1"))
    assert http.get(forged).status_code == 403


def test_an_address_ends(http, stored):
    address = objects.address_to_read(KEY, seconds=-2 * 3600)
    assert http.get(address).status_code in (400, 403)


def test_a_deleted_object_is_gone(http, stored):
    objects.delete([KEY, "never/was", ""])
    assert http.get(stored).status_code == 404
    assert not objects.exists(KEY)
    with pytest.raises(objects.ObjectMissing):
        objects.read_bytes(KEY)


def test_put_replaces_an_object_whole(http):
    address = objects.address_to_write("w1/results/r.mp4", max_bytes=100)
    assert http.put(address, content=b"first").status_code == 200
    assert http.put(address, content=b"result").status_code == 200
    assert objects.read_bytes("w1/results/r.mp4") == b"result"


def test_objects_are_read_in_pieces_and_as_files(http, stored):
    with objects.ranges(KEY) as opened:
        assert (opened.size_bytes, opened.read_at(256, 4)) == (len(CONTENT), b"\x00\x01\x02\x03")
        assert opened.read_at(len(CONTENT) - 2, 100) == b"\xfe\xff"
        assert opened.read_at(len(CONTENT), 100) == b""
    with objects.local_copy(KEY) as path:
        assert path.read_bytes() == CONTENT
    with pytest.raises(objects.ObjectMissing), objects.local_copy("w1/never"):
        pass


def test_a_file_of_this_machine_moves_into_the_store(http, tmp_path):
    file = tmp_path / "made.mp4"
    file.write_bytes(CONTENT)
    objects.save_file("w1/proxies/p.mp4", file)
    assert objects.size("w1/proxies/p.mp4") == len(CONTENT)
    assert not file.exists()


def test_an_object_gets_a_second_key_of_its_own(http, stored):
    for _ in range(2):
        objects.copy(KEY, "w1/segments/copy")
    objects.delete([KEY])
    assert objects.read_bytes("w1/segments/copy") == CONTENT
    with pytest.raises(objects.ObjectMissing):
        objects.copy(KEY, "w1/segments/other")


def test_every_object_is_listed(http, stored):
    objects.save("w2/results/b.mp4", io.BytesIO(b"12"))
    found = {item.key: item for item in objects.walk()}
    assert found[KEY].size_bytes == len(CONTENT)
    assert found["w2/results/b.mp4"].size_bytes == 2
    assert abs(found[KEY].modified_at.timestamp() - time.time()) < 600


# --- Parts --------------------------------------------------------------------------------------------------


def checksum(content):
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def send_part(http, key, upload_id, number, content):
    signed = objects.address_of_part(key, upload_id, number, num_bytes=len(content), sha256=checksum(content))
    answer = http.put(signed.url, content=content, headers=signed.headers)
    assert answer.status_code == 200, answer.text
    return number, answer.headers["etag"].strip('"')


def test_parts_are_listed_and_joined(http):
    key = "w1/sources/joined.mp4"
    upload_id = objects.create_multipart(key, part_bytes=len(PART), has_checksums=True)
    parts = [send_part(http, key, upload_id, n, c) for n, c in [(2, b"world"), (1, PART)]]
    assert [(p.number, p.size) for p in objects.list_parts(key, upload_id)] == [(1, len(PART)), (2, 5)]
    assert [(u.key, u.upload_id) for u in objects.multiparts() if u.key == key] == [(key, upload_id)]
    signed = {1: checksum(PART), 2: checksum(b"world")}
    objects.complete_multipart(key, upload_id, parts=sorted(parts), checksums=signed)
    assert objects.read_bytes(key) == PART + b"world"
    assert objects.list_parts(key, upload_id) == []
    assert http.get(objects.address_to_read(key)).headers["content-type"] == "video/mp4"


def test_a_part_sent_again_replaces_the_first(http):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART), has_checksums=True)
    send_part(http, KEY, upload_id, 1, b"first")
    part = send_part(http, KEY, upload_id, 1, b"again")
    objects.complete_multipart(KEY, upload_id, parts=[part], checksums={1: checksum(b"again")})
    assert objects.read_bytes(KEY) == b"again"


def test_joining_twice_is_joining_once(http):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART), has_checksums=True)
    part = send_part(http, KEY, upload_id, 1, b"once")
    for _ in range(2):
        objects.complete_multipart(KEY, upload_id, parts=[part], checksums={1: checksum(b"once")})
    assert objects.read_bytes(KEY) == b"once"


def test_missing_parts_are_noticed_and_nothing_is_lost(http):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART), has_checksums=True)
    part = send_part(http, KEY, upload_id, 2, b"second")
    for named in ([part], [], [(1, part[1]), part]):
        with pytest.raises(objects.PartsMismatch):
            objects.complete_multipart(KEY, upload_id, parts=named)
    assert len(objects.list_parts(KEY, upload_id)) == 1


def test_a_part_with_another_tag_is_not_joined(http):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART))
    number, tag = send_part(http, KEY, upload_id, 1, b"part")
    with pytest.raises(objects.PartsMismatch):
        objects.complete_multipart(KEY, upload_id, parts=[(number, "0" * 32)])
    objects.complete_multipart(KEY, upload_id, parts=[(number, tag)])
    assert objects.read_bytes(KEY) == b"part"


@pytest.mark.parametrize("sent", [b"other bytes", b"longer than what was signed", b"short"])
def test_a_part_that_is_not_what_was_signed_is_refused(http, sent):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART), has_checksums=True)
    signed = objects.address_of_part(KEY, upload_id, 1, num_bytes=11, sha256=checksum(b"these bytes"))
    assert 400 <= http.put(signed.url, content=sent, headers=signed.headers).status_code < 500
    assert objects.list_parts(KEY, upload_id) == []


def test_a_part_of_an_aborted_upload_is_refused(http):
    upload_id = objects.create_multipart(KEY, part_bytes=len(PART))
    signed = objects.address_of_part(KEY, upload_id, 1, num_bytes=4)
    for _ in range(2):
        objects.abort_multipart(KEY, upload_id)
    assert http.put(signed.url, content=b"late").status_code == 404
    assert upload_id not in {upload.upload_id for upload in objects.multiparts()}


def test_a_worker_sends_a_large_result_in_parts(http, monkeypatch, settings):
    settings.SITE_URL = "http://testserver"
    monkeypatch.setattr(objects, "_MIN_WORKER_PART", len(PART))
    key = "w1/results/large.mp4"
    upload = objects.worker_multipart(key, num_bytes=2 * len(PART) + 1)
    assert len(upload.part_urls) == 3
    contents = [PART, PART, b"!"]
    tags = [
        http.put(url, content=c).headers["etag"] for url, c in zip(upload.part_urls, contents, strict=True)
    ]
    named = "".join(
        f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1)
    )
    document = f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>"
    answer = http.post(upload.complete_url, content=document)
    assert answer.status_code == 200
    assert "<CompleteMultipartUploadResult" in answer.text
    assert objects.read_bytes(key) == PART + PART + b"!"


def test_parts_grow_with_the_file_so_that_ten_thousand_are_enough():
    assert objects.part_bytes_for(5 * 2**30, at_least=2**24) == 2**24
    large = objects.part_bytes_for(400 * 2**30, at_least=2**24)
    assert large % 2**20 == 0
    assert -(-400 * 2**30 // large) <= 10_000


# --- The file store alone -----------------------------------------------------------------------------------


@pytest.fixture
def folder(http, request):
    if request.node.callspec.params["http"] != "files":
        pytest.fail("this fixture is for the file store")
    return objects.file_store()


only_files = pytest.mark.parametrize("http", ["files"], indirect=True)


@only_files
def test_a_key_cannot_leave_the_store(folder):
    with pytest.raises(SuspiciousFileOperation):
        folder.path("../secret_key")


@only_files
def test_a_put_is_bounded(http, folder):
    address = objects.address_to_write("w1/results/bounded.mp4", max_bytes=100)
    assert http.put(address, content=b"x" * 101).status_code == 413
    assert not objects.exists("w1/results/bounded.mp4")


@only_files
def test_an_expired_claim_is_refused_and_a_page_of_ours_it_never_is(http, folder):
    objects.save(KEY, io.BytesIO(CONTENT))
    expired = files.Claim(verb=files.GET, key=KEY, expires=int(time.time()) - 1).sign()
    assert http.get(f"/objects/{expired}/a.mp4").status_code == 403
    answer = http.get(objects.address_to_read(KEY))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@only_files
def test_a_full_disk_is_said_and_nothing_half_is_kept(http, folder, monkeypatch, tmp_path):
    store = objects.file_store()
    full, key = tmp_path / "staged", "w1/results/full.mp4"

    def on_a_full_disk():
        full.symlink_to("/dev/full")
        return full

    monkeypatch.setattr(store, "staging_path", on_a_full_disk)
    answer = http.put(objects.address_to_write(key, max_bytes=10**6), content=CONTENT)
    assert answer.status_code == 507
    assert "no room left" in answer.text
    assert not objects.exists(key)
    assert not full.is_symlink(), "nothing staged is left"


@only_files
def test_joining_moves_no_bytes_and_nothing_reaches_them_afterwards(http, folder):
    upload_id = objects.create_multipart(KEY, part_bytes=8)
    late = objects.address_of_part(KEY, upload_id, 1, num_bytes=8)
    parts = [send_part(http, KEY, upload_id, 2, b"end"), send_part(http, KEY, upload_id, 1, b"8 bytes!")]
    written = next(folder.path(".parts").glob(f"{upload_id}/whole")).stat().st_ino
    objects.complete_multipart(KEY, upload_id, parts=parts[::-1])
    assert folder.path(KEY).stat().st_ino == written
    assert http.put(late.url, content=b"too late").status_code == 404
    assert objects.read_bytes(KEY) == b"8 bytes!end"
    assert not folder.path(".parts").joinpath(upload_id).exists()


@only_files
def test_a_part_stays_in_its_place(http, folder):
    upload_id = objects.create_multipart(KEY, part_bytes=4)
    parts = [
        send_part(http, KEY, upload_id, n, content) for n, content in ((1, b"aaaa"), (2, b"bbbb"), (3, b"c"))
    ]
    any_length = objects.address_of_part(KEY, upload_id, 1)
    assert http.put(any_length.url, content=b"longer than a part").status_code == 413
    assert [part.size for part in objects.list_parts(KEY, upload_id)] == [4, 4, 1]
    # A shorter one may be kept, for the last part may be sent before it is known to be the last; the rest lies behind.
    parts[1] = send_part(http, KEY, upload_id, 2, b"b")
    with pytest.raises(objects.PartsMismatch):
        objects.complete_multipart(KEY, upload_id, parts=parts)
    parts[1] = send_part(http, KEY, upload_id, 2, b"BBBB")
    objects.complete_multipart(KEY, upload_id, parts=parts)
    assert objects.read_bytes(KEY) == b"aaaaBBBBc"


@only_files
def test_a_part_whose_writer_falls_has_not_arrived(http, folder):
    upload_id = objects.create_multipart(KEY, part_bytes=4)
    parts = [send_part(http, KEY, upload_id, 1, b"aaaa"), send_part(http, KEY, upload_id, 2, b"bbbb")]

    class Falls:
        def read(self, _num_bytes):
            raise OSError(errno.EIO, "the disk fails")

    with pytest.raises(OSError, match="disk fails"):
        PartsFolder(folder.path(f".parts/{upload_id}")).save(1, Falls(), size=4, etag="0" * 32)
    assert [part.number for part in objects.list_parts(KEY, upload_id)] == [2]
    assert send_part(http, KEY, upload_id, 1, b"aaaa") == parts[0]
    objects.complete_multipart(KEY, upload_id, parts=parts)
    assert objects.read_bytes(KEY) == b"aaaabbbb"
