"""The composition root: settings, URLs, ASGI, Celery. It knows every app; no app knows it."""

# Celery finds the app here, so that `.delay()` in any process talks to our broker instead of to localhost.
from seedvr_site.celery import app as celery_app

__all__ = ["celery_app"]
