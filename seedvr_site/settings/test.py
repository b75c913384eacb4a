"""Tests: quick password hashes, mail in memory; services are the real ones that tests/conftest.py starts."""

from seedvr_site.settings.base import *  # noqa: F403

SECRET_KEY = "only-for-tests"  # noqa: S105
DEBUG = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
WHITENOISE_AUTOREFRESH = True
