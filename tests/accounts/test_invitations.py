"""Invitations: mailed, accepted with and without an account, once, in time; and nobody learns who has an account."""

import re
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import invitations
from accounts.models import AuditEntry, Invitation, User
from accounts.permissions import Role
from accounts.tasks import mail_invitation, sweep_accounts
from tests.factories import PASSWORD
from tests.services.smtp import code_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def invite(signed_in, alice, workspace):
    """Has Alice invite an address; returns her browser's answer."""

    def send(email, role="member"):
        form = {"email": email, "role": role}
        return signed_in(alice).post(reverse("invitation-create", args=[workspace.slug]), form, follow=True)

    return send


def the_link():
    """Sends what waits, and returns the path in the newest mail."""
    for invitation in Invitation.objects.open().filter(mailed_at=None):
        mail_invitation(invitation_id=str(invitation.pk))
    return re.search(r"https?://[^/]+(/invitations/\S+)", mail.outbox[-1].body)[1]


def role_in(workspace, email):
    return workspace.memberships.filter(user__email=email).values_list("role", flat=True).first()


def test_somebody_with_an_account_joins_by_one_click(invite, signed_in, charlie, workspace):
    invite(charlie.email, "viewer")
    link, browser = the_link(), signed_in(charlie)
    assert mail.outbox[-1].to == [charlie.email]
    assert "alice@example.com" in mail.outbox[-1].body
    assert "Join" in browser.get(link).content.decode()
    assert role_in(workspace, charlie.email) is None, "looking is not joining"
    answer = browser.post(f"{link}accept/", follow=True)
    assert answer.redirect_chain[-1][0] == workspace.get_absolute_url()
    assert role_in(workspace, charlie.email) == Role.VIEWER
    entry = AuditEntry.objects.for_workspace(workspace).get(deed="member_joined")
    assert (entry.actor, entry.details) == (charlie, {"role": "viewer"})


def test_somebody_without_an_account_signs_up_and_lands_in_the_workspace(invite, workspace):
    invite("dora@example.com")
    link, browser = the_link(), Client()
    sign_up = browser.post(f"{link}accept/", {"signup": ""})["Location"]
    browser.post(sign_up, {"email": "dora@example.com", "password1": PASSWORD})
    confirm = reverse("account_email_verification_sent")
    answer = browser.post(confirm, {"code": code_in(mail.outbox[-1].message())}, follow=True)
    assert answer.redirect_chain[-1][0] == workspace.get_absolute_url()
    assert role_in(workspace, "dora@example.com") == Role.MEMBER


def test_somebody_signed_out_signs_in_and_lands_in_the_workspace(invite, charlie, workspace):
    EmailAddress.objects.create(user=charlie, email=charlie.email, verified=True, primary=True)
    invite(charlie.email)
    link, browser = the_link(), Client()
    sign_in = browser.post(f"{link}accept/", {"login": ""})["Location"]
    form = {"login": charlie.email, "password": PASSWORD, "next": link}
    answer = browser.post(sign_in, form, follow=True)
    assert answer.redirect_chain[-1][0] == workspace.get_absolute_url()
    assert role_in(workspace, charlie.email) == Role.MEMBER


def test_who_signed_up_without_the_link_is_led_to_it_once(invite, signed_in, charlie, workspace):
    EmailAddress.objects.create(user=charlie, email=charlie.email, verified=True, primary=True)
    invite("CHARLIE@example.com")
    browser = signed_in(charlie)
    assert browser.get("/").url.startswith("/invitations/")
    assert browser.get("/").url.startswith("/w/charlie-")
    EmailAddress.objects.update(verified=False)
    assert signed_in(charlie).get("/").url.startswith("/w/charlie-"), "an address has to be proved"


def test_the_answer_is_the_same_with_and_without_an_account(invite, charlie):
    shown = []
    for email in (charlie.email, "nobody@example.com"):
        text = invite(email).content.decode()
        shown.append(re.sub(r"[0-9a-f-]{36}|value=\"\w{64}\"|nonce=\"\S+\"", "", text.replace(email, "")))
    # The second page lists one invitation more; the sentences are the same.
    assert "is invited." in shown[0]
    assert "is invited." in shown[1]
    links = [reverse("invitation-detail", args=[invitations.token_of(i)]) for i in Invitation.objects.all()]
    seen = {
        re.sub(
            r"[0-9a-f-]{36}:[\w-]+|value=\"\w{64}\"|nonce=\"\S+\"|\w{64}",
            "",
            Client().get(link).content.decode(),
        )
        for link in links
    }
    assert len(seen) == 1


def test_a_link_works_once_in_time_and_until_it_is_taken_back(invite, signed_in, alice, charlie, workspace):
    browser, owner = signed_in(charlie), signed_in(alice)
    invite("dora@example.com")
    link = the_link()
    invitation = Invitation.objects.get()
    Invitation.objects.update(expires_at=timezone.now())
    assert browser.post(f"{link}accept/").status_code == 404
    owner.post(reverse("invitation-send-again", args=[workspace.slug, invitation.pk]))
    assert len(mail.outbox) == 1, "a moment after the first mail"
    Invitation.objects.update(mailed_at=timezone.now() - timedelta(minutes=3))
    owner.post(reverse("invitation-send-again", args=[workspace.slug, invitation.pk]))
    assert the_link() == link
    assert len(mail.outbox) == 2
    assert browser.get(link).status_code == 200
    owner.post(reverse("invitation-revoke", args=[workspace.slug, invitation.pk]))
    assert browser.post(f"{link}accept/").status_code == 404
    assert role_in(workspace, charlie.email) is None
    Invitation.objects.update(mailed_at=timezone.now() - timedelta(minutes=3))
    invite("dora@example.com")
    used = the_link()
    browser.post(f"{used}accept/")
    assert browser.get(used).status_code == 404
    deeds = set(AuditEntry.objects.for_workspace(workspace).values_list("deed", flat=True))
    assert {"invited", "invited_again", "invitation_revoked", "member_joined"} <= deeds


def test_taking_back_and_inviting_again_floods_no_mailbox(invite, signed_in, alice, workspace):
    for email in ("dora@example.com", "Dora@Example.com", "DORA@example.com"):
        answer = invite(email)
        for invitation in Invitation.objects.open():
            mail_invitation(invitation_id=str(invitation.pk))
            signed_in(alice).post(reverse("invitation-revoke", args=[workspace.slug, invitation.pk]))
    assert len(mail.outbox) == 1
    assert "Please wait two minutes" in answer.content.decode()


def test_a_person_invites_only_so_many_in_an_hour(invite, settings):
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"invite": {"person": (2, 3600)}}
    assert [invite(f"{name}@example.com").status_code for name in ("dora", "erin", "fay")] == [200, 200, 429]


def test_what_cannot_be_invited_is_said_and_kept(invite, bob, workspace):
    for email, words in ((bob.email, "is a member already"), ("no address", "valid email")):
        answer = invite(email)
        assert answer.status_code == 422
        assert words in answer.content.decode()
        assert email in answer.content.decode()
    invite("dora@example.com")
    assert "is invited already" in invite("Dora@Example.com").content.decode()
    assert invite("erin@example.com", "owner").status_code == 422
    assert [invitation.email for invitation in Invitation.objects.all()] == ["dora@example.com"]


def test_an_invitation_to_a_closed_workspace_is_over(invite, workspace, charlie, signed_in):
    invite(charlie.email)
    link = the_link()
    workspace.delete_after = timezone.now() + timedelta(days=1)
    workspace.save()
    assert signed_in(charlie).get(link).status_code == 404


def test_a_mail_that_could_not_be_sent_is_sent_later(invite, monkeypatch, django_capture_on_commit_callbacks):
    invite("dora@example.com")
    invitation = Invitation.objects.get()
    with monkeypatch.context() as patched:
        patched.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
        with pytest.raises(OSError, match="away"):
            invitations.mail(str(invitation.pk))
    Invitation.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    with django_capture_on_commit_callbacks() as rung:
        sweep_accounts()
    assert len(rung) == 1
    for _ in range(2):
        mail_invitation(invitation_id=str(invitation.pk))
    assert len(mail.outbox) == 1


def refuse(*_args):
    raise OSError("the mail server is away")


def test_joining_twice_changes_nothing(invite, signed_in, bob, workspace):
    invitation = Invitation.objects.create(
        workspace=workspace,
        email="b@example.com",
        role=Role.ADMIN,
        expires_at=timezone.now() + timedelta(days=1),
    )
    signed_in(bob).post(reverse("invitation-accept", args=[invitations.token_of(invitation)]))
    assert role_in(workspace, bob.email) == Role.MEMBER
    assert User.objects.filter(memberships__workspace=workspace, email=bob.email).count() == 1
