from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("People and workspaces")

    def ready(self) -> None:
        from accounts import checks, scope
        from accounts.models import DataExport, Invitation

        assert checks, "imported, so that its checks are registered"
        scope.WORKSPACES["invitation_id"] = lambda pk: (
            Invitation.objects.filter(pk=pk).values_list("workspace_id", flat=True).first()
        )
        scope.PEOPLE["export_id"] = lambda pk: (
            DataExport.objects.filter(pk=pk).values_list("user_id", flat=True).first()
        )
