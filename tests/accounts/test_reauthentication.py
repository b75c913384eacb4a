"""Whoever comes in through another site, and has neither password nor second step, is asked again by a mailed code."""

import time

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.urls import reverse

from accounts.models import DataExport
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db
BY_MAIL = reverse("account_reauthenticate_by_mail")


@pytest.fixture
def dora(alice):
    """Somebody who signs in with Google only."""
    alice.set_unusable_password()
    alice.save()
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    SocialAccount.objects.create(user=alice, provider="google", uid="1001")
    return alice


@pytest.fixture
def browser(signed_in, dora):
    return signed_in(dora)


def last_code():
    return mail.outbox[-1].subject.partition(" ")[0]


def test_a_mailed_code_lets_what_was_asked_for_go_on(browser, dora):
    asked = browser.post(reverse("data-export"))["Location"]
    assert asked.startswith(BY_MAIL)
    assert not DataExport.objects.exists()
    page = browser.get(asked).content.decode()
    assert dora.email in page
    assert [m.to for m in mail.outbox] == [[dora.email]]
    browser.get(asked)
    assert len(mail.outbox) == 1, "looking again mails nothing"
    browser.post(asked, {"code": last_code(), "next": reverse("data-export")})
    assert DataExport.objects.get().user == dora
    assert browser.get(reverse("account-delete")).status_code == 200, "asked a moment ago"


@pytest.mark.parametrize(
    "name", ["account-delete", "account_set_password", "mfa_activate_totp", "mfa_add_webauthn"]
)
def test_sensitive_pages_ask(name, browser, settings):
    assert browser.get(reverse(name))["Location"].startswith(BY_MAIL)
    browser.get(BY_MAIL)
    browser.post(BY_MAIL, {"code": last_code()})
    assert browser.get(reverse(name)).status_code == 200
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 0
    assert browser.get(reverse(name))["Location"].startswith(BY_MAIL)


def test_a_first_password_is_not_set_before_the_code(browser, dora):
    form = {"password1": PASSWORD + " 81", "password2": PASSWORD + " 81"}
    assert browser.post(reverse("account_set_password"), form)["Location"].startswith(BY_MAIL)
    dora.refresh_from_db()
    assert not dora.has_usable_password()


def test_three_wrong_codes_make_the_mailed_one_useless(browser):
    browser.get(BY_MAIL)
    first = last_code()
    for _attempt in range(2):
        assert browser.post(BY_MAIL, {"code": "WRONG1"}).status_code == 200
    page = browser.post(BY_MAIL, {"code": "WRONG1"}, follow=True).content.decode()
    assert "wrong three times" in page
    assert last_code() != first
    browser.post(BY_MAIL, {"code": first})
    assert browser.get(reverse("account-delete")).status_code == 302


def test_a_code_works_for_a_quarter_of_an_hour_and_once(browser, monkeypatch):
    browser.get(BY_MAIL)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 901)
    page = browser.post(BY_MAIL, {"code": last_code()}, follow=True).content.decode()
    assert "works no more" in page
    assert browser.get(reverse("account-delete")).status_code == 302
    used = last_code()
    assert browser.post(BY_MAIL, {"code": used}).status_code == 302
    assert browser.get(reverse("account-delete")).status_code == 200
    monkeypatch.setattr(time, "time", lambda: now + 1802)
    browser.post(BY_MAIL, {"code": used})
    assert browser.get(reverse("account-delete")).status_code == 302


def test_a_mailbox_is_not_flooded(browser, settings):
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"reauthentication_mail": {"person": (2, 3600)}}
    answers = [browser.post(BY_MAIL, {"action": "resend"}, follow=True).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert len(mail.outbox) == 2


def test_who_has_another_way_is_not_asked_by_mail(browser, dora):
    TOTP.activate(dora, generate_totp_secret())
    way = browser.get(reverse("account-delete"))["Location"]
    assert way.startswith(reverse("mfa_reauthenticate"))
    assert browser.get(BY_MAIL)["Location"].startswith(reverse("mfa_reauthenticate"))
    assert mail.outbox == []
