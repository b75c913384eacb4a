"""The price table's versions: read the one in force, draft the next, publish it."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from billing.models import GpuPrice, PriceRate, PriceTable
from billing.pricing import Prices


def current() -> Prices:
    """Returns the table that was published last."""
    table = PriceTable.objects.filter(published_at__isnull=False).latest("published_at", "version")
    return _prices(table)


def version(number: int) -> Prices:
    """Returns one version, to settle what was quoted by it."""
    return _prices(PriceTable.objects.get(version=number))


def _prices(table: PriceTable) -> Prices:
    return Prices(
        version=table.version,
        minimum_credits=table.minimum_credits,
        pixels_per_credit={(rate.model, rate.gpus): rate.pixels_per_credit for rate in table.rates.all()},
    )


@transaction.atomic
def draft(source: PriceTable) -> PriceTable:
    """Copies a table into a new version that can be edited."""
    newest = PriceTable.objects.aggregate(newest=Max("version"))["newest"]
    copy = PriceTable.objects.create(version=newest + 1, minimum_credits=source.minimum_credits)
    PriceRate.objects.bulk_create(
        PriceRate(table=copy, model=rate.model, gpus=rate.gpus, pixels_per_credit=rate.pixels_per_credit)
        for rate in source.rates.all()
    )
    return copy


def publish(table: PriceTable) -> bool:
    """Puts a draft in force; False when it was published before. Raises `ValueError` without rates."""
    if not table.rates.exists():
        raise ValueError(f"price table {table} has no rates")
    drafts = PriceTable.objects.filter(pk=table.pk, published_at=None)
    return drafts.update(published_at=timezone.now()) == 1


def gpu_microdollars_a_second(gpu: str) -> int:
    """Returns what one second of one GPU costs us, in millionths of a dollar."""
    return GpuPrice.objects.get(gpu=gpu).microdollars_a_second
