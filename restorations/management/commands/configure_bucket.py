"""`manage.py configure_bucket`: sets a bucket's rules, then uses it as browsers and workers do."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from restorations import bucket, objects
from restorations.stores.s3 import S3Store


class Command(BaseCommand):
    """Translates between the command line and `restorations.bucket`."""

    help = (
        "Sets CORS and lifecycle rules of S3_BUCKET, blocks public access, and checks that all of it works."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Names the options."""
        parser.add_argument("--create", action="store_true", help="make the bucket when there is none")
        parser.add_argument("--check", action="store_true", help="change nothing, only check")
        parser.add_argument(
            "--origin",
            action="append",
            default=[],
            help="another address under which pages are served; SITE_URL is always one",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Configures, then reports line by line; a problem is exit status 1."""
        store = objects.store()
        if not isinstance(store, S3Store):
            raise CommandError(
                "S3_BUCKET is not set: objects lie on this machine, and there is no bucket to set up."
            )
        origins = [settings.SITE_URL, *options["origin"]]
        if not options["check"]:
            try:
                bucket.configure(store, origins=origins, create=options["create"])
            except bucket.NotConfigured as exc:
                raise CommandError(str(exc)) from None
        num_problems = 0
        for finding in bucket.check(store, origins=origins):
            num_problems += bool(finding.problem)
            mark = self.style.ERROR("FAILED") if finding.problem else self.style.SUCCESS("ok    ")
            self.stdout.write(f"{mark} {finding.what}{': ' + finding.problem if finding.problem else ''}")
        if num_problems:
            raise CommandError(
                f"The bucket {store.bucket} does not do what the site needs: {num_problems} problems."
            )
