"""One machine without keys: what `make run` uses."""

import secrets

from seedvr_site import env
from seedvr_site.settings.base import *  # noqa: F403
from seedvr_site.settings.base import ALLOWED_HOSTS, EMAIL_BACKEND, EMAIL_HOST, VAR_DIR

DEBUG = False
# People type either name of their own machine.
ALLOWED_HOSTS = [*ALLOWED_HOSTS, "localhost", "127.0.0.1", "[::1]"]


def _machine_secret() -> str:
    """Returns this machine's own secret key, made at the first start and kept in `var/`."""
    path = VAR_DIR / "secret_key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            path.chmod(0o600)
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = _machine_secret()
# On one's own machine Operations open without setting up a phone first.
OPERATORS_NEED_SECOND_FACTOR = env.flag("OPERATORS_NEED_SECOND_FACTOR", False)
# Without a mail server each mail becomes a file, and `manage.py serve` prints its link.
MAIL_DIR = VAR_DIR / "mail"
EMAIL_BACKEND = EMAIL_BACKEND if EMAIL_HOST else "seedvr_site.mail_folder.EmailBackend"
# Without DEBUG, WhiteNoise serves only what collectstatic gathered; here it serves the sources.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
