"""Signing in: what outsiders cannot learn, what sessions survive, where redirects lead, how secrets are kept."""

import re

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts import workspaces
from accounts.models import User
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db
NEW_PASSWORD = "teal frames at dawn 81"


@pytest.fixture
def alice(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def sign_in(client, person, **form):
    return client.post(reverse("account_login"), {"login": person.email, "password": PASSWORD} | form)


def without_tokens(response):
    """Returns a page without what is new each time."""
    return re.sub(r'(nonce|value|X-CSRFToken)"?[=:] ?"[^"]*"', "", response.content.decode())


# --- What outsiders learn -----------------------------------------------------------------------------------


def test_signing_up_does_not_tell_who_has_an_account(alice):
    pages = []
    for email in (alice.email, "nobody@example.com"):
        client = Client()
        answer = client.post(
            reverse("account_signup"), {"email": email, "password1": NEW_PASSWORD}, follow=True
        )
        pages.append(without_tokens(answer).replace(email, "EMAIL"))
    assert pages[0] == pages[1]
    assert "You have an account already" in mail.outbox[0].subject
    assert User.objects.get(email=alice.email).check_password(PASSWORD)


def test_resetting_a_password_does_not_tell_who_has_an_account(alice):
    pages = []
    for email in (alice.email, "nobody@example.com"):
        answer = Client().post(reverse("account_reset_password"), {"email": email}, follow=True)
        pages.append(without_tokens(answer).replace(email, "EMAIL"))
    assert pages[0] == pages[1]


def test_a_wrong_password_and_an_unknown_person_are_refused_alike(alice):
    wrong = Client().post(reverse("account_login"), {"login": alice.email, "password": NEW_PASSWORD})
    unknown = Client().post(
        reverse("account_login"), {"login": "nobody@example.com", "password": NEW_PASSWORD}
    )
    pages = [without_tokens(page).replace(alice.email, "nobody@example.com") for page in (wrong, unknown)]
    assert pages[0] == pages[1]


# --- Sessions -----------------------------------------------------------------------------------------------


def test_signing_in_changes_the_session_that_an_attacker_may_have_planted(client, alice):
    client.get(reverse("account_login"))
    session = client.session
    session["planted"] = True
    session.save()
    client.cookies["sessionid"] = planted = session.session_key
    sign_in(client, alice)
    assert client.cookies["sessionid"].value != planted
    assert not client.session.exists(planted)


def test_sign_out_everywhere_ends_the_others_and_not_this_one(alice):
    laptop, phone = Client(), Client()
    for device in (laptop, phone):
        assert sign_in(device, alice).status_code == 302
    page = laptop.get(reverse("usersessions_list")).content.decode()
    assert "Sign out everywhere else" in page
    laptop.post(reverse("usersessions_list"))
    assert laptop.get(reverse("preferences")).status_code == 200
    assert phone.get(reverse("preferences")).status_code == 302


def test_a_new_password_ends_the_other_sessions_and_is_mailed(alice):
    laptop, phone = Client(), Client()
    for device in (laptop, phone):
        sign_in(device, alice)
    form = {"oldpassword": PASSWORD, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    laptop.post(reverse("account_change_password"), form)
    assert laptop.get(reverse("preferences")).status_code == 200
    assert phone.get(reverse("preferences")).status_code == 302
    assert "127.0.0.1" in mail.outbox[-1].body


@pytest.mark.django_db(transaction=True)
def test_a_first_second_step_ends_the_sessions_that_came_in_without_it(alice, workspace):
    own, elsewhere = Client(), Client()
    for client in (own, elsewhere):
        sign_in(client, alice)
    page = reverse("mfa_activate_totp")
    again = own.get(page)["Location"]
    secret = own.post(again, {"password": PASSWORD, "next": page}, follow=True).context["form"].secret
    own.post(page, {"code": code_of(secret)})
    workspaces.change(workspace, requires_second_factor=True)
    assert own.get(workspace.get_absolute_url()).status_code == 200
    # Whoever knew the password only has not become somebody with a second step.
    assert elsewhere.get(workspace.get_absolute_url()).status_code == 302
    sign_in(elsewhere, alice)
    [code, *_] = Authenticator.objects.get(type="recovery_codes").wrap().get_unused_codes()
    elsewhere.post(reverse("mfa_authenticate"), {"code": code})
    assert elsewhere.get(workspace.get_absolute_url()).status_code == 200
    # What comes after the first ends nothing: all of these came in by it.
    own.post(reverse("mfa_generate_recovery_codes"))
    assert elsewhere.get(workspace.get_absolute_url()).status_code == 200


def code_of(secret):
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


def test_resetting_a_password_by_mail_works_once(client, alice):
    client.post(reverse("account_reset_password"), {"email": alice.email})
    link = re.search(r"https?://\S+", mail.outbox[-1].body).group()
    form_page = client.get(link, follow=True)
    form = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    client.post(form_page.redirect_chain[-1][0], form)
    alice.refresh_from_db()
    assert alice.check_password(NEW_PASSWORD)
    assert "already been used" in Client().get(link, follow=True).content.decode()


# --- What asks again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mfa_activate_totp", "mfa_add_webauthn", "account_email"])
def test_sensitive_pages_ask_again_who_it_is(client, alice, name, settings):
    sign_in(client, alice)
    answer = client.post(reverse(name), {"email": "new@example.com", "action_add": ""})
    assert answer["Location"].startswith(reverse("account_reauthenticate"))
    client.post(answer["Location"], {"password": PASSWORD})
    let_in = client.post(reverse(name), {"code": "0"})
    assert reverse("account_reauthenticate") not in let_in.headers.get("Location", "")
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 0
    answer = client.post(reverse(name), {"email": "other@example.com", "action_add": ""})
    assert answer["Location"].startswith(reverse("account_reauthenticate"))


def test_a_new_address_counts_once_its_code_was_entered(client, alice):
    sign_in(client, alice)
    form = {"email": "new@example.com", "action_add": ""}
    again = client.post(reverse("account_email"), form)["Location"]
    client.post(again, {"password": PASSWORD, "next": reverse("account_email")})
    alice.refresh_from_db()
    assert alice.email == "alice@example.com"
    code = next(m for m in mail.outbox if m.to == ["new@example.com"]).subject.partition(" ")[0]
    client.post(reverse("account_email_verification_sent"), {"code": code})
    alice.refresh_from_db()
    assert alice.email == "new@example.com"
    assert any(
        "Your mail address has changed" in m.subject and m.to == ["alice@example.com"] for m in mail.outbox
    )


# --- Where it leads, what is kept ---------------------------------------------------------------------------


def test_who_sent_a_form_after_signing_out_comes_back_to_its_page(client, alice, workspace):
    page, delete = workspace.get_absolute_url(), reverse("workspace-delete", args=[workspace.slug])
    answer = client.post(delete, headers={"Referer": f"http://testserver{page}?page=2"})
    assert answer.headers["Location"] == f"{reverse('account_login')}?next={page}%3Fpage%3D2"
    signed_in = client.post(
        answer.headers["Location"], {"login": alice.email, "password": PASSWORD}, follow=True
    )
    assert (signed_in.status_code, signed_in.redirect_chain[-1][0]) == (200, f"{page}?page=2")


@pytest.mark.parametrize(
    "way",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http:evil.example",
    ],
)
def test_signing_in_leads_nowhere_else(client, alice, way):
    location = sign_in(client, alice, next=way)["Location"]
    assert location.startswith("/")
    assert "evil" not in location


def test_the_second_step_cannot_be_left_out(client, alice):
    TOTP.activate(alice, generate_totp_secret())
    answer = sign_in(client, alice)
    assert answer["Location"].startswith(reverse("mfa_authenticate"))
    assert client.get(reverse("preferences")).status_code == 302


def test_the_database_does_not_hold_the_secrets_of_apps(alice):
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    row = Authenticator.objects.get()
    assert secret not in str(row.data)
    assert len(row.data["secret"]) > 60


def test_other_sites_are_offered_only_with_their_keys(client):
    assert "Google" not in client.get(reverse("account_login")).content.decode()
    assert client.post(reverse("google_login")).status_code == 404
