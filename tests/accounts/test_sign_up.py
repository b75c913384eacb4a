"""Signing up: a verified address, a workspace of one's own, starter credits once."""

import pytest
from django.urls import reverse

from accounts.models import Membership, User, Workspace
from accounts.workspaces import personal_workspace
from billing import ledger
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
PERSON = {"email": "Dora@Example.com", "password1": "correct horse battery"}


def sign_up(client, **changes):
    return client.post(reverse("account_signup"), PERSON | changes, follow=True)


def confirm(client, mail):
    code = mail.subject.partition(" ")[0]
    return client.post(reverse("account_email_verification_sent"), {"code": code}, follow=True)


def test_the_mailed_code_leads_to_a_workspace_with_starter_credits(client, mailoutbox, settings):
    sign_up(client)
    assert client.get(reverse("preferences")).status_code == 302, (
        "not signed in before the address is verified"
    )
    answer = confirm(client, mailoutbox[0])
    workspace = Workspace.objects.get()
    assert answer.redirect_chain[-1][0] == workspace.get_absolute_url()
    assert workspace.slug.startswith("dora-")
    assert Membership.objects.get().role == "owner"
    assert ledger.balance(workspace) == settings.STARTER_CREDITS


def test_starter_credits_are_given_once():
    user = UserFactory()
    workspaces = {personal_workspace(user) for _ in range(3)}
    assert len(workspaces) == 1
    assert ledger.balance(workspaces.pop()) == 300


def test_the_same_address_in_other_letters_is_the_same_person(client, mailoutbox):
    sign_up(client)
    sign_up(client, email="dora@example.COM")
    assert User.objects.count() == 1


@pytest.mark.parametrize("password", ["short", "12345678901234", "password1234", "Basketball1"])
def test_weak_passwords_are_refused_with_a_reason(client, password):
    answer = sign_up(client, password1=password)
    assert not User.objects.exists()
    assert "password" in answer.content.decode().lower()


def test_pages_inside_ask_for_signing_in_and_come_back(client, alice, workspace):
    from tests.factories import PASSWORD, VideoFactory

    page = VideoFactory(workspace=workspace).get_absolute_url()
    login = client.get(page, follow=True)
    assert login.request["PATH_INFO"] == reverse("account_login")
    alice.emailaddress_set.create(email=alice.email, verified=True, primary=True)
    form = {"login": alice.email, "password": PASSWORD, "next": page}
    answer = client.post(reverse("account_login"), form, follow=True)
    assert answer.redirect_chain[-1][0] == page


def test_preferences_are_kept(signed_in, alice):
    client = signed_in(alice)
    client.post(reverse("preferences"), {"mail_on_failure": "on", "time_zone": "UTC"})
    alice.refresh_from_db()
    assert (alice.mail_on_success, alice.mail_on_failure, alice.mail_on_expiry) == (False, True, False)
