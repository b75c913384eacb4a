"""Production: every secret is required, everything is behind HTTPS."""

from django.core.exceptions import ImproperlyConfigured

from seedvr_site import env
from seedvr_site.settings.base import *  # noqa: F403
from seedvr_site.settings.base import BASE_DIR, STORAGES

DEBUG = False
SECRET_KEY = env.text("SECRET_KEY")
# Keys that signed before: what they signed or encrypted stays valid until they are removed here.
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
SITE_URL = env.text("SITE_URL").rstrip("/")
if not SITE_URL.startswith("https://"):
    raise ImproperlyConfigured(f"SITE_URL is {SITE_URL!r}; production is served by https:// only")
DATABASE_URL = env.text("DATABASE_URL")
RUNPOD_ENDPOINT_ID = env.text("RUNPOD_ENDPOINT_ID")
RUNPOD_API_KEY = env.text("RUNPOD_API_KEY")

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
# Browsers take cookies with this prefix from this very host over HTTPS only: no subdomain can plant one.
SESSION_COOKIE_NAME = "__Host-session"
CSRF_COOKIE_NAME = "__Host-csrf"
# Made when the image is built (`manage.py collectstatic`), so that it always fits the templates beside it.
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
