"""Tests: quick password hashes, mail in memory; services are the real ones that tests/conftest.py starts."""

from seedvr_site.settings.base import *  # noqa: F403
from seedvr_site.settings.base import DATABASES, VAR_DIR

SECRET_KEY = "only-for-tests"  # noqa: S105
DEBUG = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
WHITENOISE_AUTOREFRESH = True
# A file, as in production. SQLite's shared memory answers "table is locked" at once when another thread reads, whatever
# the timeout.
DATABASES["default"]["TEST"] = (
    {"NAME": VAR_DIR / "test.sqlite3"} if "sqlite" in DATABASES["default"]["ENGINE"] else {}
)
