"""Mails speak a person's language and tell their time, subject included, and stop where the person says so."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from django.utils import timezone, translation

from accounts import closing
from accounts.models import User
from billing import notifications as billing_mails
from restorations import data_export, notifications, receipts, retention
from tests.factories import RestorationFactory

pytestmark = pytest.mark.django_db

GERMAN = {
    "Your video is ready: %(title)s": "Ihr Video ist fertig: %(title)s",
    "Your files are deleted": "Ihre Dateien sind gelöscht",
    "Your data is ready": "Ihre Daten sind bereit",
    "Your account will be deleted": "Ihr Konto wird gelöscht",
    "Your credits run low": "Ihr Guthaben geht zur Neige",
    "No more of this kind:": "Keine weiteren dieser Art:",
}


@pytest.fixture
def in_german(settings, tmp_path, alice):
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    catalog = Catalog(locale="de")
    for english, german in GERMAN.items():
        catalog.add(english, german)
    with (folder / "django.mo").open("wb") as file:
        write_mo(file, catalog)
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    settings.LOCALE_PATHS = [tmp_path]
    User.objects.filter(pk=alice.pk).update(language="de", time_zone="Asia/Tokyo")
    alice.refresh_from_db()
    return alice


@pytest.fixture
def done(in_german, workspace):
    return RestorationFactory(
        video__workspace=workspace,
        video__created_by=in_german,
        created_by=in_german,
        status="succeeded",
        finished_at=timezone.now(),
        expires_at=datetime(2026, 7, 1, 22, 30, tzinfo=UTC),
    )


def ready(done):
    notifications.mail_finish(done.pk)


def deleted(done):
    retention.delete_video(done.video, actor=done.created_by)
    retention.enforce()


def collected(done):
    data_export.build(data_export.ask(done.created_by).pk)


def closed(done):
    User.objects.filter(pk=done.created_by_id).update(delete_after=done.expires_at)
    closing.mail_closing(done.created_by_id)


def low(done):
    billing_mails.mail_low_balance(done.workspace)


@pytest.mark.parametrize(
    ("happens", "subject"),
    [
        (ready, "Ihr Video ist fertig: holiday"),
        (deleted, "Ihre Dateien sind gelöscht"),
        (collected, "Ihre Daten sind bereit"),
        (closed, "Ihr Konto wird gelöscht"),
        (low, "Ihr Guthaben geht zur Neige"),
    ],
)
def test_a_mail_is_in_the_persons_language(happens, subject, done, mailoutbox):
    happens(done)
    (mail,) = mailoutbox
    assert mail.subject == subject
    assert ("List-Unsubscribe" in mail.extra_headers) == ("Keine weiteren dieser Art:" in mail.body)
    assert translation.get_language() == "en"


def test_one_click_in_a_receipt_stops_receipts(done, client, mailoutbox):
    deleted(done)
    (mail,) = mailoutbox
    address = mail.extra_headers["List-Unsubscribe"].strip("<>")
    assert address in mail.body
    client.post(urlsplit(address).path, {"List-Unsubscribe": "One-Click"})
    type(done.video).objects.update(receipt_mailed_at=None)
    receipts.mail_receipts()
    assert len(mailoutbox) == 1


def test_a_closed_account_is_told_when_on_the_persons_clock(done, mailoutbox):
    closed(done)
    assert "07:30 JST" in mailoutbox[0].body
