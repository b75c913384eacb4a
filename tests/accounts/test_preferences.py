"""Mails that can be stopped by one click, times in the person's zone, words in the person's language."""

from datetime import UTC, datetime

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from accounts.localization import as_seen_by, time_zones
from accounts.mail_preferences import Kind, unsubscribe_address
from accounts.models import User
from restorations import notifications
from restorations.models import Restoration
from tests.factories import RestorationFactory

pytestmark = pytest.mark.django_db
ALL_ON = {"mail_on_success": "on", "mail_on_failure": "on", "mail_on_expiry": "on"}


def mailed(alice, status, **fields):
    restoration = RestorationFactory(
        video__workspace=alice.memberships.get().workspace, created_by=alice, status=status, **fields
    )
    if "expires_at" in fields:
        notifications.mail_expiry(restoration.pk)
    else:
        notifications.mail_finish(restoration.pk)
    return mail.outbox[-1] if mail.outbox else None


EXPIRES = {"expires_at": datetime(2026, 7, 1, 22, 30, tzinfo=UTC)}
CASES = [
    (Kind.SUCCESS, Restoration.Status.SUCCEEDED, {}),
    (Kind.FAILURE, Restoration.Status.FAILED, {"error_code": "worker_lost"}),
    (Kind.EXPIRY, Restoration.Status.SUCCEEDED, EXPIRES),
]


@pytest.mark.parametrize(("kind", "status", "fields"), CASES)
def test_one_click_stops_one_kind_of_mail(alice, workspace, kind, status, fields):
    message = mailed(alice, status, **fields)
    assert message.extra_headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    address = message.extra_headers["List-Unsubscribe"].strip("<>")
    assert address in message.body
    program = Client(enforce_csrf_checks=True)
    path = address.removeprefix("http://127.0.0.1:8000")
    assert program.get(path).status_code == 200
    assert getattr(User.objects.get(pk=alice.pk), kind.value), "looking changes nothing"
    assert program.post(path, {"List-Unsubscribe": "One-Click"}).status_code == 200
    switches = {each: getattr(User.objects.get(pk=alice.pk), each.value) for each in Kind}
    assert switches == {each: each is not kind for each in Kind}
    mail.outbox.clear()
    assert mailed(alice, status, **fields) is None


def test_a_forged_address_stops_nothing(alice, client):
    path = unsubscribe_address(alice, Kind.SUCCESS).removeprefix("http://127.0.0.1:8000")
    assert client.post(path[:-2] + "x/").status_code == 404


def test_times_in_mails_are_those_of_the_persons_clock(alice, workspace):
    User.objects.filter(pk=alice.pk).update(time_zone="Europe/Berlin")
    alice.refresh_from_db()
    assert "2 July 2026, 00:30 CEST" in mailed(alice, Restoration.Status.SUCCEEDED, **EXPIRES).body


def test_times_on_pages_are_those_of_the_persons_clock(signed_in, alice, workspace):
    closed_at = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    User.objects.filter(pk=alice.pk).update(time_zone="Asia/Tokyo", delete_after=closed_at)
    assert "2 July 2026, 07:30" in signed_in(alice).get(reverse("account-delete")).content.decode()
    assert timezone.get_current_timezone_name() == "UTC", "the next request starts anew"


def test_the_browsers_zone_is_kept_until_another_is_chosen(signed_in, alice):
    client = signed_in(alice)
    for told in ("Mars/Olympus", "../../etc/passwd"):
        client.cookies["time_zone"] = told
        client.get(reverse("preferences"))
        assert User.objects.get(pk=alice.pk).time_zone == ""
    client.cookies["time_zone"] = "America/New_York"
    client.get(reverse("preferences"))
    assert User.objects.get(pk=alice.pk).time_zone == "America/New_York"
    client.post(reverse("preferences"), ALL_ON | {"time_zone": "Europe/Paris"})
    client.get(reverse("preferences"))
    assert User.objects.get(pk=alice.pk).time_zone == "Europe/Paris"
    assert client.post(reverse("preferences"), ALL_ON | {"time_zone": "Mars/Olympus"}).status_code == 200
    assert User.objects.get(pk=alice.pk).time_zone == "Europe/Paris"


def test_a_zone_that_is_not_known_here_is_utc(signed_in, alice, workspace):
    # Old names go from one release of the tz database to the next, and operators may type what they like.
    for name in ("Asia/Calcutta-that-was", "Europe", "../passwd"):
        User.objects.filter(pk=alice.pk).update(time_zone=name)
        alice.refresh_from_db()
        mail.outbox.clear()
        assert "1 July 2026, 22:30 UTC" in mailed(alice, Restoration.Status.SUCCEEDED, **EXPIRES).body
        assert signed_in(alice).get(reverse("preferences")).status_code == 200
    # A name that people are not offered is still their zone.
    User.objects.filter(pk=alice.pk).update(time_zone="Etc/GMT-2")
    alice.refresh_from_db()
    mail.outbox.clear()
    assert "2 July 2026, 00:30" in mailed(alice, Restoration.Status.SUCCEEDED, **EXPIRES).body


def test_zones_are_places_that_people_know():
    assert len(time_zones()) > 300
    assert {"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"} <= set(time_zones())


def test_a_language_is_offered_when_there_is_a_choice_and_does_what_it_says(signed_in, alice, settings):
    client = signed_in(alice)
    assert "id_language" not in client.get(reverse("preferences")).content.decode()
    # Django's own catalogue stands in for one of ours: its words are on the page as well.
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    client.post(reverse("preferences"), ALL_ON | {"time_zone": "UTC", "language": "de"})
    page = client.get(reverse("preferences"), headers={"Accept-Language": "en"})
    assert '<html lang="de">' in page.content.decode()
    with as_seen_by(User.objects.get(pk=alice.pk)):
        assert translation.gettext("Yes") == "Ja"
    assert translation.get_language() == "en"
