"""`manage.py sweep_storage`: finds objects without rows and rows without objects."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from restorations import objects, orphans


class Command(BaseCommand):
    """Translates between the command line and `restorations.orphans`."""

    help = "Lists objects without rows and rows without objects; with --remove, deletes the first."

    def add_arguments(self, parser: CommandParser) -> None:
        """Names the options."""
        parser.add_argument("--remove", action="store_true", help="delete objects that no row names")
        parser.add_argument("--force", action="store_true", help="also when most of the storage has no rows")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reports line by line; rows that lost their object are exit status 1."""
        try:
            report = orphans.sweep(removes=options["remove"], is_forced=options["force"])
        except orphans.TooMany as exc:
            raise CommandError(
                f"{exc}. Is DATABASE_URL the one of this storage? --force removes them."
            ) from None
        except objects.StorageUnavailable as exc:
            raise CommandError(f"The storage does not answer: {exc}") from None
        for orphan in report.orphans:
            self.stdout.write(f"no row     {orphan.key}  {filesizeformat(orphan.size_bytes)}")
        for begun in report.uploads:
            self.stdout.write(f"forgotten  {begun.key}  begun {begun.begun_at:%Y-%m-%d %H:%M}")
        for missing in report.missing:
            self.stdout.write(self.style.ERROR(f"no object  {missing}  {missing.key}"))
        self.stdout.write(str(report))
        if report.missing:
            raise CommandError(f"{len(report.missing)} rows have lost their object.")
