"""Mails: once, to whoever ordered, as they wish; they lead to the page."""

import smtplib
from datetime import timedelta

import pytest
from django.utils import timezone

from restorations import notifications, repair, retention
from restorations.models import Restoration
from tests.factories import RestorationFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def done(alice, workspace):
    return RestorationFactory(
        video__workspace=workspace,
        video__file_name="Summer\n1987.avi",
        created_by=alice,
        status="succeeded",
        finished_at=timezone.now(),
        expires_at=timezone.now() + timedelta(days=7),
    )


@pytest.fixture
def failed(alice, workspace):
    return RestorationFactory(
        video__workspace=workspace,
        created_by=alice,
        status="failed",
        error_code="worker_lost",
        refunded_credits=7,
        finished_at=timezone.now(),
    )


def test_a_finished_restoration_is_mailed_once_with_its_link(done, mailoutbox, settings):
    for _ in range(2):
        notifications.mail_finish(done.pk)
    [mail] = mailoutbox
    assert mail.to == ["alice@example.com"]
    assert mail.subject == "Your video is ready: Summer 1987"
    assert f"{settings.SITE_URL}{done.get_absolute_url()}" in mail.body


def test_a_failed_one_says_why_what_came_back_and_what_to_do(failed, mailoutbox):
    notifications.mail_finish(failed.pk)
    body = mailoutbox[0].body
    assert "The machine went away" in body
    assert "7 credits are back" in body
    assert "Start it again" in body


@pytest.mark.parametrize(
    ("preference", "order"), [("mail_on_success", "done"), ("mail_on_failure", "failed")]
)
def test_each_mail_can_be_turned_off(preference, order, alice, mailoutbox, request):
    restoration = request.getfixturevalue(order)
    setattr(alice, preference, False)
    alice.save()
    notifications.mail_finish(restoration.pk)
    assert mailoutbox == []


def test_nothing_is_mailed_before_the_end(mailoutbox, alice):
    notifications.mail_finish(RestorationFactory(created_by=alice).pk)
    assert mailoutbox == []


def test_a_mail_that_the_server_refused_is_sent_later(done, mailoutbox, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9  # the discard port: nobody listens
    with pytest.raises(OSError):
        notifications.mail_finish(done.pk)
    assert issubclass(smtplib.SMTPException, OSError)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    notifications.mail_finish(done.pk)
    assert len(mailoutbox) == 1


def test_a_mail_whose_ring_was_lost_is_found(done, django_capture_on_commit_callbacks):
    Restoration.objects.update(finished_at=timezone.now() - timedelta(minutes=1))
    with django_capture_on_commit_callbacks() as callbacks:
        repair.repair()
    assert any("mail_finish" in str(callback) for callback in callbacks)


def test_a_day_before_deletion_a_mail_says_so_once(done, mailoutbox):
    Restoration.objects.update(expires_at=timezone.now() + timedelta(hours=20))
    for _ in range(2):
        retention.enforce()
    assert [mail.subject for mail in mailoutbox] == ["Deleted soon: Summer 1987"]


def test_the_notice_can_be_turned_off(done, alice, mailoutbox):
    alice.mail_on_expiry = False
    alice.save()
    Restoration.objects.update(expires_at=timezone.now() + timedelta(hours=20))
    retention.enforce()
    assert mailoutbox == []
