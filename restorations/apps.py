import functools
from typing import Any
from uuid import UUID

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RestorationsConfig(AppConfig):
    name = "restorations"
    verbose_name = _("Restorations")

    def ready(self) -> None:
        from django.urls import reverse

        from accounts import scope
        from accounts.closing import account_deleted
        from accounts.workspaces import retention_changed, workspace_purged
        from billing import references
        from restorations.data_export import delete_of
        from restorations.models import Attempt, LinkImport, Restoration, Video
        from restorations.retention import apply_new_time, empty_workspace

        account_deleted.connect(delete_of, dispatch_uid="restorations.delete_exports")
        workspace_purged.connect(empty_workspace, dispatch_uid="restorations.empty_workspace")
        retention_changed.connect(apply_new_time, dispatch_uid="restorations.apply_new_time")
        for name, rows, path in (
            ("video_id", Video.objects, "workspace_id"),
            ("import_id", LinkImport.objects, "workspace_id"),
            ("restoration_id", Restoration.objects, "workspace_id"),
            ("attempt_id", Attempt.objects, "restoration__workspace_id"),
        ):
            scope.WORKSPACES[name] = functools.partial(_workspace_of, rows, path)
        references.register(
            "restoration", lambda workspace, pk: reverse("restoration-detail", args=[workspace.slug, pk])
        )


def _workspace_of(rows: Any, path: str, row_id: str) -> UUID | None:
    found: UUID | None = rows.filter(pk=row_id).values_list(path, flat=True).first()
    return found
