from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RestorationsConfig(AppConfig):
    name = "restorations"
    verbose_name = _("Restorations")

    def ready(self) -> None:
        from django.urls import reverse

        from accounts.closing import account_deleted
        from accounts.workspaces import retention_changed, workspace_purged
        from billing import references
        from restorations.data_export import delete_of
        from restorations.retention import apply_new_time, empty_workspace

        account_deleted.connect(delete_of, dispatch_uid="restorations.delete_exports")
        workspace_purged.connect(empty_workspace, dispatch_uid="restorations.empty_workspace")
        retention_changed.connect(apply_new_time, dispatch_uid="restorations.apply_new_time")
        references.register(
            "restoration", lambda workspace, pk: reverse("restoration-detail", args=[workspace.slug, pk])
        )
