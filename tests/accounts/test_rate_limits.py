"""Limits by person, workspace and address: a plain sentence and the time to wait, and others are not held up."""

import json

import pytest
from django.core.cache import cache
from django.urls import reverse

from tests.factories import PASSWORD, VideoFactory


@pytest.fixture
def few(settings):
    settings.RATE_LIMITS = {
        "upload": {"person": (2, 3600), "workspace": (3, 3600), "address": (4, 3600)},
        "submit": {"person": (1, 60)},
    }


@pytest.fixture
def few_by_address(settings):
    settings.RATE_LIMITS = {"upload": {"address": (2, 3600)}}


@pytest.fixture
def begin(signed_in, workspace):
    def begin_upload(person, place=workspace, **extra):
        path = reverse("upload-create", args=[place.slug])
        body = json.dumps({"file_name": "holiday.mp4", "size_bytes": 1000})
        return signed_in(person).post(path, body, content_type="application/json", **extra)

    return begin_upload


def test_a_person_is_told_when_to_try_again(few, begin, alice):
    assert [begin(alice).status_code for _ in range(3)] == [201, 200, 429]
    answer = begin(alice)
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.json()["error"].startswith("That was too often in a short time. Wait ")


def test_a_workspace_is_limited_over_all_its_members(few, begin, alice, bob):
    statuses = [begin(person).status_code for person in (alice, bob, alice, bob)]
    assert statuses[-1] == 429
    assert 429 not in statuses[:3]


def test_an_address_is_limited_over_all_workspaces_and_another_is_not(few, begin, alice, bob, charlie):
    own = charlie.memberships.get().workspace
    for person, place in ((alice, None), (alice, None), (bob, None), (charlie, own)):
        begin(person, **({"place": place} if place else {}))
    assert begin(charlie, own).status_code == 429
    cache.clear()
    assert begin(charlie, own, REMOTE_ADDR="198.51.100.9").status_code == 200


def test_the_addresses_of_one_line_are_one_and_those_of_many_are_many(few_by_address, begin, charlie):
    own = charlie.memberships.get().workspace

    def answers(pattern):
        cache.clear()
        return [begin(charlie, own, REMOTE_ADDR=pattern.format(n)).status_code for n in range(1, 4)]

    assert answers("2001:db8:0:1::{}") == [201, 200, 429]
    assert 429 not in answers("2001:db8:0:{}::1")
    assert 429 not in answers("::ffff:198.51.100.{}"), "a machine that listens to both writes IPv4 like this"


def test_a_page_for_people_whose_sentence_scripts_find(few, signed_in, alice, workspace):
    client = signed_in(alice)
    path = reverse("video-restore", args=[workspace.slug, VideoFactory(workspace=workspace).pk])
    assert client.post(path).status_code == 422
    page = client.post(path)
    assert page.status_code == 429
    assert "Wait 1 minute, then try again." in page.content.decode()
    assert "<html" in page.content.decode()
    for_htmx = client.post(path, headers={"HX-Request": "true"})
    assert for_htmx.status_code == 429
    assert '<p class="page-lead">That was too often in a short time. Wait' in for_htmx.content.decode()


def test_signing_up_is_limited_by_address(client, db, settings):
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {"signup": "1/m/ip"}
    form = {"email": "dora@example.com", "password1": PASSWORD}
    statuses = [client.post(reverse("account_signup"), form).status_code for _ in range(2)]
    assert statuses == [302, 429]


def test_signing_in_is_limited_by_person_whatever_the_address(client, alice, settings):
    alice.emailaddress_set.create(email=alice.email, verified=True, primary=True)
    form = {"login": alice.email, "password": "wrong wrong wrong"}
    for number in range(5):
        client.post(reverse("account_login"), form, REMOTE_ADDR=f"198.51.100.{number}")
    form["password"] = PASSWORD
    answer = client.post(reverse("account_login"), form, REMOTE_ADDR="198.51.100.99")
    assert "Too many failed login attempts" in answer.content.decode()
    assert "_auth_user_id" not in client.session


def test_a_lost_cache_holds_nobody_up(few, begin, alice, settings):
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
        }
    }
    assert [begin(alice).status_code for _ in range(4)] == [201, 200, 200, 200]
