"""Closing an account: what goes, what is in the way, the way back, and what is left at the end."""

from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import closing, workspaces
from accounts.models import AuditEntry, DataExport, Membership, User
from accounts.tasks import mail_closing, sweep_accounts
from billing.ledger import balance
from restorations import data_export
from restorations.models import Restoration
from tests.factories import PASSWORD, MembershipFactory, RestorationFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def sign_in(person):
    client = Client()
    client.post(reverse("account_login"), {"login": person.email, "password": PASSWORD})
    return client


def close(client):
    """Presses the button, and says again who it is."""
    page = reverse("account-delete")
    again = client.get(page)["Location"]
    client.post(again, {"password": PASSWORD, "next": page})
    return client.post(page, follow=True)


@pytest.fixture
def studio(alice):
    return workspaces.create(name="Studio", owner=alice)


def test_the_page_says_what_goes_before_anything_happens(alice, workspace, studio):
    RestorationFactory(video__workspace=workspace, status=Restoration.Status.RUNNING)
    client = sign_in(alice)
    again = client.get(reverse("account-delete"))["Location"]
    page = client.post(again, {"password": PASSWORD, "next": reverse("account-delete")}, follow=True)
    text = page.content.decode()
    for words in (
        "My videos",
        "Studio",
        f"{balance(workspace)} credits in it are lost",
        "1 restoration goes on",
    ):
        assert words in text
    assert not User.objects.get(pk=alice.pk).is_closing


def test_a_closed_account_sees_the_way_back_and_nothing_else(alice, workspace, studio):
    other = sign_in(alice)
    client = sign_in(alice)
    assert "Your account is closed" in close(client).content.decode()
    assert other.get(reverse("preferences"))["Location"].startswith(reverse("account_login"))
    for path in (
        reverse("home"),
        workspace.get_absolute_url(),
        reverse("preferences"),
        reverse("account_email"),
    ):
        assert client.get(path)["Location"] == reverse("account-delete")
    assert client.post(reverse("preferences")).status_code == 403
    workspace.refresh_from_db()
    studio.refresh_from_db()
    assert workspace.delete_after == studio.delete_after == User.objects.get(pk=alice.pk).delete_after


def test_whoever_signs_in_again_takes_it_back_as_it_was(alice, workspace, studio):
    workspaces.schedule_deletion(studio)  # before, and on its own account
    close(sign_in(alice))
    client = sign_in(alice)
    assert client.get(reverse("home"))["Location"] == reverse("account-delete")
    assert client.post(reverse("account-keep"), follow=True).status_code == 200
    workspace.refresh_from_db()
    studio.refresh_from_db()
    assert not workspace.is_closing
    assert studio.is_closing
    assert client.get(workspace.get_absolute_url()).status_code == 200


def test_a_workspace_in_which_others_work_is_in_the_way(alice, studio, charlie):
    MembershipFactory(workspace=studio, user=charlie, role="member")
    page = close(sign_in(alice)).content.decode()
    assert "Others work in Studio. Hand it over or delete it first." in page
    assert not User.objects.get(pk=alice.pk).is_closing
    workspaces.hand_over(studio, to=Membership.objects.get(workspace=studio, user=charlie))
    close(sign_in(alice))
    assert User.objects.get(pk=alice.pk).is_closing


def test_nothing_is_handed_over_to_somebody_whose_account_is_closed(alice, studio, charlie):
    member = MembershipFactory(workspace=studio, user=charlie, role="admin")
    closing.close(charlie)
    page = sign_in(alice).post(reverse("workspace-hand-over", args=[studio.slug]), {"member": member.pk})
    assert page.status_code == 422
    with pytest.raises(workspaces.Refused, match=charlie.email):
        workspaces.hand_over(studio, to=member)
    User.objects.filter(pk=charlie.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    sweep_accounts()
    assert [one.user for one in Membership.objects.filter(workspace=studio, role="owner")] == [alice]


def test_the_mail_about_it_is_sent_once_and_found_when_its_ring_was_lost(
    alice, django_capture_on_commit_callbacks
):
    close(sign_in(alice))
    with django_capture_on_commit_callbacks() as rings:
        sweep_accounts()
    assert len(rings) == 1
    for _ in range(2):
        mail_closing(user_id=str(alice.pk))
    [told] = [m for m in mail.outbox if m.subject == "Your account will be deleted"]
    assert reverse("account-delete") in told.body


def test_after_the_grace_period_nothing_tells_who_it_was(alice, workspace, charlie):
    guest_of = charlie.memberships.get().workspace
    MembershipFactory(workspace=guest_of, user=alice, role="member")
    RestorationFactory(video__workspace=guest_of, created_by=alice)
    TOTP.activate(alice, generate_totp_secret())
    data_export.ask(alice)
    closing.close(alice)
    User.objects.filter(pk=alice.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    workspace.__class__.objects.filter(pk=workspace.pk).update(
        delete_after=timezone.now() - timedelta(seconds=1)
    )
    sweep_accounts()

    gone = User.objects.get(pk=alice.pk)
    assert (gone.email, gone.is_active, gone.has_usable_password()) == (
        f"deleted-{alice.pk}@deleted.invalid",
        False,
        False,
    )
    assert str(gone) == "deleted account"
    assert not Membership.objects.filter(user=alice).exists()
    for model in (EmailAddress, Authenticator):
        assert not model.objects.filter(user=alice).exists()
    data_export.delete_due()
    assert DataExport.objects.get().deleted_at
    workspace.refresh_from_db()
    assert workspace.deleted_at
    # What others see of it stays: their video, their log.
    assert Restoration.objects.filter(workspace=guest_of, created_by=alice).exists()
    assert AuditEntry.objects.for_workspace(guest_of).filter(deed="member_left").exists()
    assert mail.outbox[-1].to == ["alice@example.com"]
    sweep_accounts()
    assert mail.outbox[-1].subject == "Your account is deleted"
    assert len([m for m in mail.outbox if m.subject == "Your account is deleted"]) == 1


def test_the_address_is_free_again(alice, client):
    closing.close(alice)
    User.objects.filter(pk=alice.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    closing.delete_due()
    client.post(reverse("account_signup"), {"email": "alice@example.com", "password1": "teal frames at dawn"})
    assert User.objects.filter(email="alice@example.com").count() == 1


def test_taking_it_back_too_late_changes_nothing(alice):
    closing.close(alice)
    User.objects.filter(pk=alice.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    closing.delete_due()
    closing.keep(alice)
    assert User.objects.get(pk=alice.pk).deleted_at
