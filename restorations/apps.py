from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RestorationsConfig(AppConfig):
    name = "restorations"
    verbose_name = _("Restorations")
