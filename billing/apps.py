from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = _("Credits")

    def ready(self) -> None:
        from accounts.workspaces import workspace_created
        from billing.defaults import fill_empty_tables
        from billing.ledger import grant_starter_credits

        workspace_created.connect(grant_starter_credits, dispatch_uid="billing.starter_credits")
        post_migrate.connect(fill_empty_tables, sender=self, dispatch_uid="billing.defaults")
