from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RestorationsConfig(AppConfig):
    name = "restorations"
    verbose_name = _("Restorations")

    def ready(self) -> None:
        from django.urls import reverse

        from billing import references

        references.register(
            "restoration", lambda workspace, pk: reverse("restoration-detail", args=[workspace.slug, pk])
        )
