"""`manage.py reconcile_stripe --days 7 [--repair]`: compares our purchases with Stripe's payments."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import reconciliation, stripe_client


class Command(BaseCommand):
    help = "Compares the purchases of the last days with Stripe's payments, and repairs what differs if asked to."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=7)
        parser.add_argument("--repair", action="store_true", help="bring what differs up to date with Stripe")

    def handle(self, *args: Any, days: int, repair: bool, **options: Any) -> None:
        if missing := stripe_client.missing_settings():
            raise CommandError(f"set {' and '.join(missing)} first")
        findings = reconciliation.reconcile(days=days, repairs=repair)
        for finding in findings:
            self.stdout.write(f"{finding.purchase_id} {finding.payment_id} {finding.problem}")
        done = "repaired" if repair else "found"
        self.stdout.write(f"{len(findings)} differences {done} in {days} days")
