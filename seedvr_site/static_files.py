from django.contrib.staticfiles.apps import StaticFilesConfig


class StaticFiles(StaticFilesConfig):
    """Django's static files without the sources of the style sheet, which only Tailwind can read."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "css/site.css"]
