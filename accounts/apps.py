from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("People and workspaces")

    def ready(self) -> None:
        from allauth.mfa.signals import authenticator_added

        from accounts import checks, scope
        from accounts.models import DataExport, Invitation
        from accounts.second_factor import end_other_sessions

        assert checks, "imported, so that its checks are registered"
        authenticator_added.connect(end_other_sessions, dispatch_uid="accounts.end_other_sessions")
        scope.WORKSPACES["invitation_id"] = lambda pk: (
            Invitation.objects.filter(pk=pk).values_list("workspace_id", flat=True).first()
        )
        scope.PEOPLE["export_id"] = lambda pk: (
            DataExport.objects.filter(pk=pk).values_list("user_id", flat=True).first()
        )
