"""The Celery app: broker and schedule come from Django's settings, tasks from each app's `tasks.py`."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedvr_site.settings.dev")

app = Celery("seedvr_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
