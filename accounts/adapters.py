"""django-allauth's hooks, nothing else."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ReauthenticationRequired
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.db import transaction
from django.http import Http404, HttpRequest
from django.urls import reverse
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from accounts import reauthentication
from accounts.addresses import client_address
from accounts.models import User
from accounts.workspaces import personal_workspace


def _fernet() -> MultiFernet:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    digests = (salted_hmac("accounts.second-factors", "", secret=key, algorithm="sha256") for key in keys)
    return MultiFernet([Fernet(urlsafe_b64encode(digest.digest())) for digest in digests])


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Gives each new person a personal workspace, in the transaction that saves the person."""

    @transaction.atomic
    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """Saves the person and the workspace."""
        saved: User = super().save_user(request, user, form, commit)
        if commit:
            personal_workspace(saved)
        return saved

    def get_client_ip(self, request: HttpRequest) -> str:
        """Returns the address that limits and the list of sessions go by."""
        return client_address(request)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Sends a mail that names the product; there is no table of sites to take the name from."""
        super().send_mail(template_prefix, email, {**context, "product_name": settings.PRODUCT_NAME})

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Returns the ways to say again who one is; who has no other gets a code by mail."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        if methods or not user.is_authenticated:
            return methods
        url = reverse("account_reauthenticate_by_mail")
        return [{"id": "mailed_code", "description": _("Use a code from your mailbox"), "url": url}]

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Returns whether what `app` is about to do asks again.

        allauth takes whoever has neither password nor second factor for asked already. It raises the same as here for
        all others, right after this answer.
        """
        is_required: bool = super().is_reauthentication_required(app=app, **kwargs)
        if is_required and reauthentication.is_due(self.request):
            raise ReauthenticationRequired
        return is_required


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Names the product to authenticators, and keeps the secrets of apps and recovery codes encrypted."""

    def encrypt(self, text: str) -> str:
        """Returns a secret as the database keeps it: a copy of the database alone makes no codes."""
        return _fernet().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Returns the secret again; a key that was replaced is listed in `SECRET_KEY_FALLBACKS`."""
        return _fernet().decrypt(encrypted_text.encode()).decode()

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Returns who asks for a passkey: the host is what it is bound to, the name is what people see."""
        return {**super().get_public_key_credential_rp_entity(), "name": settings.PRODUCT_NAME}


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Does for those who come through Google or GitHub what `AccountAdapter` does."""

    @transaction.atomic
    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> User:
        """Saves the person and the workspace."""
        saved: User = super().save_user(request, sociallogin, form)
        personal_workspace(saved)
        return saved

    def get_app(self, request: HttpRequest, provider: str, client_id: str | None = None) -> SocialApp:
        """Returns a provider's keys; without any, its addresses do not exist."""
        try:
            return super().get_app(request, provider, client_id)
        except SocialApp.DoesNotExist:
            raise Http404 from None
