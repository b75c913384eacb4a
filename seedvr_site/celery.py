"""The Celery app: broker and schedule come from Django's settings, tasks from each app's `tasks.py`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task

from accounts import scope

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedvr_site.settings.dev")


class ScopedTask(Task):  # type: ignore[type-arg]  # it has no arguments at run time
    """A task that sees the rows of the workspace that its argument belongs to; sweeps say that they see all."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with scope.of_task(self.run, kwargs):
            return super().__call__(*args, **kwargs)


app = Celery("seedvr_site", task_cls=ScopedTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
