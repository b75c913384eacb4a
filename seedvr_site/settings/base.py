"""Every setting of the site. Values that differ between installations come from the environment.

`.env.example` explains each variable for operators; this file is where it is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django_stubs_ext
from csp.constants import NONCE, NONE, SELF
from django.utils.translation import gettext_lazy as _

from seedvr_site import env, object_storage

# Lets annotations such as ModelAdmin[Video] work at run time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent.parent
#: Everything that the running product writes on this machine; ignored by git.
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"))).resolve()

# --- Who we are ---------------------------------------------------------------------------------------------

PRODUCT_NAME = "Clearframe"
#: The address under which browsers and GPU workers reach the site; signed URLs and mails start with it.
SITE_URL = env.text("SITE_URL", "http://127.0.0.1:8000").rstrip("/")
_site_host = urlsplit(SITE_URL).hostname or "127.0.0.1"
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", _site_host)
CSRF_TRUSTED_ORIGINS = [SITE_URL]
ROOT_URLCONF = "seedvr_site.urls"
ASGI_APPLICATION = "seedvr_site.asgi.application"

# --- Apps ---------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "seedvr_site",
    "restorations",
    "billing",
    "accounts",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "seedvr_site.static_files.StaticFiles",
    "channels",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.github",
    "allauth.socialaccount.providers.google",
    "allauth.usersessions",
    "django_htmx",
    "template_partials",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "seedvr_site.middleware.PermissionsPolicyMiddleware",
    "seedvr_site.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.OperatorMiddleware",
    "accounts.middleware.ScopeMiddleware",
    "accounts.middleware.LocalizationMiddleware",
    "accounts.middleware.ClosedAccountMiddleware",
    "accounts.middleware.SignInMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "restorations.middleware.StorageMiddleware",
    "seedvr_site.middleware.FormAddressMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "seedvr_site.context.product",
                "accounts.context.workspaces",
                "billing.context.credit_balance",
            ],
        },
    },
]

# --- Database -----------------------------------------------------------------------------------------------

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# IMMEDIATE takes the write lock at the start of each transaction: with the default, two processes that read and
# then write fail at once with "database is locked", whatever the timeout.
SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": VAR_DIR / "db.sqlite3",
    "OPTIONS": {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    },
}


def postgres(url: str) -> dict[str, Any]:
    """Returns the settings for `postgres://user:password@host:port/name?sslmode=require`, read as libpq reads it."""
    parts = urlsplit(url)
    return {
        "ENGINE": "accounts.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 10}, **dict(parse_qsl(parts.query))},
    }


_database_url = env.text("DATABASE_URL", "")
DATABASES = {"default": postgres(_database_url) if _database_url else SQLITE}

# --- Redis or Valkey: one server, a database number for each use --------------------------------------------

REDIS_URL = env.text("REDIS_URL", f"unix://{VAR_DIR / 'valkey.sock'}")


def redis_database(number: int) -> str:
    """Returns the URL of one numbered database of `REDIS_URL`, for redis-py."""
    return (
        f"{REDIS_URL}?db={number}" if REDIS_URL.startswith("unix://") else f"{REDIS_URL.rstrip('/')}/{number}"
    )


def celery_database(number: int) -> str:
    """Returns the same for kombu, which spells sockets in its own way."""
    if REDIS_URL.startswith("unix://"):
        return f"redis+socket://{REDIS_URL.removeprefix('unix://')}?virtual_host={number}"
    return redis_database(number)


CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_database(1)},
}
# Pub/sub keeps no backlog, and needs none: a message is a hint, and a socket begins with the row's state. The other
# layer of channels-redis loses cancellations with redis-py 8, which leaves a task behind for a closed socket.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [redis_database(2)]},
    },
}

# --- Celery -------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = celery_database(3)
CELERY_TASK_DEFAULT_QUEUE = "default"
# Encoding and imports take minutes: they have workers of their own, or a few long videos would keep everybody's status
# waiting, and each other.
CELERY_TASK_ROUTES = {
    "restorations.tasks.make_proxy": {"queue": "encoding"},
    "restorations.tasks.make_result_proxy": {"queue": "encoding"},
    "restorations.tasks.hash_source": {"queue": "encoding"},
    "restorations.tasks.keep_partial": {"queue": "encoding"},
    "restorations.tasks.import_link": {"queue": "imports"},
    "restorations.tasks.sweep_storage": {"queue": "encoding"},
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# Whatever hangs is ended, so that a few hanging tasks are not the end of everybody's status; tasks that answer in
# a moment, or encode, say so themselves.
CELERY_TASK_TIME_LIMIT = 290
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# With late acknowledgement a task that outlives this is delivered a second time.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 2 * 60 * 60}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # A tick that could not run before the next one is due has nothing left to do: it expires.
    "watch-jobs-in-flight": {
        "task": "restorations.tasks.watch_jobs_in_flight",
        "schedule": 1.5,
        "options": {"expires": 1.5},
    },
    "repair": {
        "task": "restorations.tasks.repair",
        "schedule": 15.0,
        "options": {"expires": 15.0},
    },
    "billing": {
        "task": "billing.tasks.sweep_billing",
        "schedule": 30.0,
        "options": {"expires": 30.0},
    },
    "accounts": {
        "task": "accounts.tasks.sweep_accounts",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "retention": {
        "task": "restorations.tasks.enforce_retention",
        "schedule": 300.0,
        "options": {"expires": 300.0},
    },
    "storage": {
        "task": "restorations.tasks.sweep_storage",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
}

# --- People -------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "accounts.passwords.BreachedPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
# A code typed into the page that asked for it, not a link: signing up by passkey needs the same browser to go on,
# and so does whoever was invited.
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_TIMEOUT = 15 * 60
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
# Not SUPPORTS_CHANGE: allauth offers it only to addresses without an account, which tells who has one.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
# Mail address, password, second factors: whoever finds an unlocked screen changes none of them.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 10 * 60

#: What somebody sees whose account is about to be deleted: the way back, their data, the way out.
PAGES_OF_CLOSED_ACCOUNTS = {
    *("account-delete", "account-keep", "account-data", "data-export", "data-export-download"),
    *("account_logout", "account_reauthenticate", "mfa_reauthenticate", "mfa_reauthenticate_webauthn"),
    "account_reauthenticate_by_mail",
}
#: Operations see everybody's videos and give credits: a stolen password alone must not open them.
OPERATORS_NEED_SECOND_FACTOR = env.flag("OPERATORS_NEED_SECOND_FACTOR", True)

MFA_ADAPTER = "accounts.adapters.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_PASSKEY_SIGNUP_ENABLED = True
MFA_TOTP_ISSUER = PRODUCT_NAME
# Clocks differ: one step of 30 seconds before and after.
MFA_TOTP_TOLERANCE = 1

# Offered only where their keys are set.
SOCIALACCOUNT_ADAPTER = "accounts.adapters.SocialAccountAdapter"
SOCIALACCOUNT_REAUTHENTICATION_REQUIRED = True
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {
    "google": {"SCOPE": ["profile", "email"], "OAUTH_PKCE_ENABLED": True, "APPS": []},
    "github": {"SCOPE": ["read:user", "user:email"], "OAUTH_PKCE_ENABLED": True, "APPS": []},
}
#: Where a form that signs in by another site may lead to.
SIGN_IN_PAGES: list[str] = []
if _google := env.text("GOOGLE_CLIENT_ID", ""):
    SOCIALACCOUNT_PROVIDERS["google"]["APPS"] = [
        {"client_id": _google, "secret": env.text("GOOGLE_CLIENT_SECRET")}
    ]
    SIGN_IN_PAGES.append("https://accounts.google.com")
if _github := env.text("GITHUB_CLIENT_ID", ""):
    SOCIALACCOUNT_PROVIDERS["github"]["APPS"] = [
        {"client_id": _github, "secret": env.text("GITHUB_CLIENT_SECRET")}
    ]
    SIGN_IN_PAGES.append("https://github.com")

# --- Mail ---------------------------------------------------------------------------------------------------

DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", f"{PRODUCT_NAME} <hello@clearframe.example>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
EMAIL_HOST = env.text("EMAIL_HOST", "")
EMAIL_PORT = env.integer("EMAIL_PORT", 25, low=1, high=65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", False)
EMAIL_TIMEOUT = 15
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"

# --- Files --------------------------------------------------------------------------------------------------

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = VAR_DIR / "static"
_objects = object_storage.from_environment(VAR_DIR / "objects")
STORAGES = {
    "default": _objects.backend,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
#: Who is asked which objects are needed, before the others are removed: functions of keys, which return those in use.
OBJECT_OWNERS = ["restorations.orphans.keys_in_use", "restorations.data_export.keys_in_use"]
#: What browsers load objects from beside this site, for the content security policy.
OBJECT_ORIGINS = _objects.origins
#: Where browsers and workers reach the bucket; empty where the site serves the objects itself.
S3_PUBLIC_ENDPOINT_URL = _objects.public_url
#: Browsers send the SHA-256 of each part, which the storage compares.
S3_PART_CHECKSUMS = _objects.part_checksums
#: Which addresses a pasted link may lead to, a function of one: the public internet and nothing else.
IMPORT_ADDRESS_POLICY = "restorations.links.policy.public_only"
IMPORT_SCHEMES = ["https"]
#: One part of a resumable upload; what is lost at most when the network goes.
UPLOAD_PART_BYTES = env.integer("UPLOAD_PART_BYTES", 16 * 2**20, low=_objects.min_part_bytes, high=64 * 2**20)
UPLOAD_MAX_BYTES = env.integer("UPLOAD_MAX_BYTES", 50 * 2**30, low=2**20)
#: Without JavaScript a video comes as one request, which has to fit into the site's disk twice.
UPLOAD_MAX_BYTES_SINGLE = env.integer("UPLOAD_MAX_BYTES_SINGLE", 500 * 2**20, low=2**20)

# --- Restorations -------------------------------------------------------------------------------------------

#: What the endpoint runs: "seedvr2" on H100s, or "cpu" for the preview engine. Pages say which.
RESTORATION_ENGINE = env.choice("RESTORATION_ENGINE", "cpu", ("cpu", "seedvr2"))
#: Changes when the engine or its weights change what results look like: older results are not the same any more then.
ENGINE_REVISION = env.text("ENGINE_REVISION", "1")
RUNPOD_BASE_URL = env.text("RUNPOD_BASE_URL", "https://api.runpod.ai/v2").rstrip("/")
RUNPOD_ENDPOINT_ID = env.text("RUNPOD_ENDPOINT_ID", "")
RUNPOD_API_KEY = env.text("RUNPOD_API_KEY", "")
#: A machine's fault is tried again as a new attempt, up to this many in all.
MAX_ATTEMPTS = env.integer("MAX_ATTEMPTS", 3, low=1, high=10)
#: Seconds that a job may wait for a machine before it fails and is refunded.
QUEUE_LIMIT_SECONDS = env.integer("QUEUE_LIMIT_SECONDS", 45 * 60, low=10)
MAX_DURATION_SECONDS = env.integer("MAX_DURATION_SECONDS", 4 * 60 * 60, low=1)
DEFAULT_RETENTION_HOURS = env.integer("DEFAULT_RETENTION_HOURS", 7 * 24, low=1, high=30 * 24)

# --- Credits ------------------------------------------------------------------------------------------------

#: What a new personal workspace gets. One credit is sold for one cent.
STARTER_CREDITS = env.integer("STARTER_CREDITS", 300)
#: Without these two nothing can be bought, and everything else works.
STRIPE_SECRET_KEY = env.text("STRIPE_SECRET_KEY", "")
STRIPE_WEBHOOK_SECRET = env.text("STRIPE_WEBHOOK_SECRET", "")
STRIPE_API_BASE = env.text("STRIPE_API_BASE", "https://api.stripe.com").rstrip("/")
STRIPE_AUTOMATIC_TAX = env.flag("STRIPE_AUTOMATIC_TAX", False)
#: Where the forms that buy may lead to: browsers hold redirects after a form against `form-action` too.
STRIPE_PAGES = (
    ["https://checkout.stripe.com", "https://billing.stripe.com"]
    if STRIPE_API_BASE == "https://api.stripe.com"
    else [STRIPE_API_BASE]
)

# --- Languages and time -------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True

# --- Browsers' protections ----------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        # Only what a page of ours names: whatever else lies on this host, an uploaded file too, runs nowhere.
        "script-src": [NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:", *OBJECT_ORIGINS],
        "media-src": [SELF, "blob:", *OBJECT_ORIGINS],
        "font-src": [SELF],
        # Parts of uploads go straight to the bucket.
        "connect-src": [SELF, *OBJECT_ORIGINS],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF, *STRIPE_PAGES, *SIGN_IN_PAGES],
        "frame-ancestors": [NONE],
    },
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# Scripts take the token from the page.
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
# A body above this goes to a temporary file instead of memory; parts of uploads do not pass through here.
FILE_UPLOAD_MAX_MEMORY_SIZE = 2**20
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**20

# --- Limits on how often ------------------------------------------------------------------------------------

#: Proxies in front of the site, each of which appends to X-Forwarded-For. Limits and logs go by the client's address.
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0, high=10)
#: For each action and whom it counts for: how many, in how many seconds. `accounts/rate_limits.py` counts.
RATE_LIMITS: dict[str, dict[str, tuple[int, int]]] = {
    "upload": {"person": (200, 3600), "workspace": (600, 3600), "address": (1000, 3600)},
    "submit": {"person": (120, 600), "workspace": (300, 600), "address": (600, 600)},
    "invite": {"person": (100, 3600)},
    "export": {"person": (3, 24 * 3600)},
    "reauthentication_mail": {"person": (10, 3600)},
}
# allauth's own, before somebody is signed in. By person: "key" is the mail address that was typed.
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "login_failed": "10/m/ip,5/5m/key",
    "signup": "20/m/ip",
    "reset_password": "20/m/ip,5/m/key",
    "reauthenticate": "10/m/user",
    "change_password": "5/m/user",
    "manage_email": "10/m/user",
}

# --- Logs ---------------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    # httpx logs each URL at INFO: a poller's noise, and signed URLs do not belong into logs. stripe is as chatty.
    "loggers": {name: {"level": "WARNING"} for name in ("httpx", "httpcore", "stripe")},
}
