"""The upload protocol: begin, parts, resume, complete, abort, and the single request. Parts go to both stores."""

import base64
import hashlib
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from restorations import objects
from restorations.models import Upload, Video

pytestmark = pytest.mark.django_db


#: The smallest part that S3 takes, unless it is the last.
PART = 5 * 2**20
FIRST, SECOND, LAST = b"a" * PART, b"b" * PART, b"c" * 5
SIZE = 2 * PART + 5


@pytest.fixture(autouse=True)
def small_parts(settings):
    settings.UPLOAD_PART_BYTES = PART


def begin(client, workspace, *, name="tape.avi", size=SIZE, **more):
    body = json.dumps({"file_name": name, "size_bytes": size, **more})
    return client.post(reverse("upload-create", args=[workspace.slug]), body, content_type="application/json")


def sign(client, upload, number, content, *, checksum=False):
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    body = json.dumps({"sha256": digest} if checksum else {})
    return client.post(f"{upload['urls']['parts']}{number}/", body, content_type="application/json")


def send(client, http, upload, number, content, *, checksum=False):
    signed = sign(client, upload, number, content, checksum=checksum).json()
    answer = http.put(signed["url"], content=content, headers=signed["headers"])
    assert answer.status_code == 200, answer.text
    return {"PartNumber": number, "ETag": answer.headers["etag"]}


def complete(client, upload, parts):
    return client.post(
        upload["urls"]["complete"], json.dumps({"parts": parts}), content_type="application/json"
    )


@pytest.mark.parametrize("checksum", [False, True])
def test_a_file_in_three_parts_becomes_a_video(alice_client, workspace, http, checksum):
    upload = begin(alice_client, workspace, checksums="sha256" if checksum else "").json()
    parts = [
        send(alice_client, http, upload, n, content, checksum=checksum)
        for n, content in enumerate([FIRST, SECOND, LAST], 1)
    ]
    answer = complete(alice_client, upload, parts)
    video = Video.objects.get()
    assert answer.status_code == 201
    assert answer.json()["video_url"] == video.get_absolute_url()
    assert (video.file_name, video.size_bytes, video.status) == ("tape.avi", SIZE, "inspecting")
    assert video.storage_key.startswith(f"{workspace.pk}/")
    assert objects.read_bytes(video.storage_key) == FIRST + SECOND + LAST


def test_completing_twice_makes_one_video(alice_client, workspace, http):
    upload = begin(alice_client, workspace, size=5).json()
    parts = [send(alice_client, http, upload, 1, b"aaaaa")]
    assert complete(alice_client, upload, parts).json() == complete(alice_client, upload, parts).json()
    assert Video.objects.count() == 1


def test_the_same_file_again_goes_on_where_it_stopped(alice_client, workspace, http):
    """A closed tab forgets everything but what the site knows: only the part on its way is sent again."""
    first = begin(alice_client, workspace, checksums="sha256")
    parts = [send(alice_client, http, first.json(), n, FIRST, checksum=True) for n in (1, 2)]
    again = begin(alice_client, workspace, checksums="sha256")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["upload_id"] == first.json()["upload_id"]
    listed = alice_client.get(again.json()["urls"]["parts"]).json()["parts"]
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed] == [
        (part["PartNumber"], PART, part["ETag"]) for part in parts
    ]
    parts.append(send(alice_client, http, again.json(), 3, LAST, checksum=True))
    assert complete(alice_client, again.json(), parts).status_code == 201
    assert objects.read_bytes(Video.objects.get().storage_key) == FIRST + FIRST + LAST


def test_a_file_whose_parts_were_joined_when_the_site_fell_is_not_sent_again(alice_client, workspace, http):
    first = begin(alice_client, workspace, size=5).json()
    part = send(alice_client, http, first, 1, b"aaaaa")
    upload = Upload.objects.get()
    objects.complete_multipart(
        upload.storage_key, upload.storage_upload_id, parts=[(1, part["ETag"].strip('"'))]
    )
    again = begin(alice_client, workspace, size=5)
    assert (again.status_code, again.json()["upload_id"]) == (200, first["upload_id"])
    assert alice_client.get(first["urls"]["parts"]).json() == {"parts": [], "is_joined": True}
    assert complete(alice_client, first, []).status_code == 201
    assert objects.read_bytes(Video.objects.get().storage_key) == b"aaaaa"


@pytest.mark.usefixtures("unreachable")
def test_while_the_storage_is_away_scripts_are_told_to_wait(alice_client, workspace):
    answer = begin(alice_client, workspace)
    assert (answer.status_code, answer.json()["is_storage_away"]) == (503, True)
    assert answer.headers["retry-after"] == "30"
    file = SimpleUploadedFile("a.mp4", b"content")
    page = alice_client.post(reverse("video-create", args=[workspace.slug]), {"file": file})
    assert page.status_code == 503
    assert "Nothing is lost" in page.content.decode()
    assert not Upload.objects.exists()


def test_another_person_or_size_begins_anew(alice_client, bob_client, workspace):
    first = begin(alice_client, workspace).json()
    assert begin(bob_client, workspace).json()["upload_id"] != first["upload_id"]
    assert begin(alice_client, workspace, size=26).json()["upload_id"] != first["upload_id"]


def test_missing_parts_are_told_and_can_be_sent(alice_client, workspace, http):
    upload = begin(alice_client, workspace).json()
    parts = [send(alice_client, http, upload, n, FIRST) for n in (1, 2)]
    answer = complete(alice_client, upload, parts)
    assert answer.status_code == 409
    assert "have not arrived yet" in answer.json()["error"]
    parts.append(send(alice_client, http, upload, 3, LAST))
    assert complete(alice_client, upload, parts).status_code == 201


def test_a_checksum_that_is_none_and_one_that_is_missing_are_refused(alice_client, workspace):
    upload = begin(alice_client, workspace, checksums="sha256").json()
    assert "needs its own" in sign(alice_client, upload, 1, FIRST).json()["error"]
    bad = alice_client.post(
        f"{upload['urls']['parts']}1/", json.dumps({"sha256": "0" * 44}), content_type="application/json"
    )
    assert bad.status_code == 400


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("a.mp4", 0, "This file is empty."),
        ("a.mp4", 2**50, "at most 50.0"),
        ("", 5, "needs a name"),
        ("x" * 256, 5, "needs a name"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_before_it_is_sent(
    alice_client, workspace, name, size, sentence
):
    answer = begin(alice_client, workspace, name=name, size=size)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"].replace("\xa0", " ")
    assert not Upload.objects.exists()


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"file_name": "a", "size_bytes": "many"}'])
def test_a_body_that_is_none_is_refused(alice_client, workspace, body):
    url = reverse("upload-create", args=[workspace.slug])
    assert alice_client.post(url, body, content_type="application/json").status_code == 400


def test_parts_outside_the_file_are_not_signed(alice_client, workspace):
    upload = begin(alice_client, workspace).json()
    for number in (0, 4):
        assert alice_client.post(f"{upload['urls']['parts']}{number}/").status_code == 400


def test_abort_forgets_the_upload(alice_client, workspace):
    upload = begin(alice_client, workspace).json()
    assert alice_client.delete(upload["urls"]["abort"]).status_code == 204
    assert alice_client.get(upload["urls"]["parts"]).status_code == 404


def test_viewers_cannot_upload(vera_client, workspace):
    assert begin(vera_client, workspace).status_code == 403


def test_a_file_in_one_request_becomes_a_video(alice_client, workspace):
    file = SimpleUploadedFile("..\\tapes\\old film.mpg", b"content")
    answer = alice_client.post(reverse("video-create", args=[workspace.slug]), {"file": file})
    video = Video.objects.get()
    assert answer.headers["location"] == video.get_absolute_url()
    assert (video.file_name, video.size_bytes) == ("old film.mpg", 7)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "Please choose a video first."),
        ({"file": SimpleUploadedFile("a.mp4", b"")}, "This file is empty."),
    ],
)
def test_a_refused_single_upload_says_why(alice_client, workspace, files, sentence):
    answer = alice_client.post(reverse("video-create", args=[workspace.slug]), files, follow=True)
    assert sentence in answer.content.decode()
    assert not Video.objects.exists()
