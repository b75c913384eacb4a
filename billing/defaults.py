"""What a new installation sells and for how much; operators change all of it in the admin."""

from __future__ import annotations

from typing import Any, Final

from django.utils import timezone

from billing.models import CreditPack, GpuPrice, PriceRate, PriceTable

#: A credit, one cent, buys ten million pixels of output: the lowest published price for SeedVR2 (0.001 dollars
#: per megapixel, November 2026). 720p is about 2.2, 1080p 5 and 2K 8.8 credits for a second at 24 frames a second.
#: The number of GPUs changes the time, not the price.
PIXELS_PER_CREDIT: Final = 10_000_000
MODELS: Final = ("seedvr2-7b", "seedvr2-7b-sharp", "seedvr2-3b")
GPUS: Final = (1, 2, 4)
#: RunPod's list price for serverless workers, November 2026.
H100_MICRODOLLARS_A_SECOND: Final = 1160
#: Credits, credits on top, cents.
PACKS: Final = ((500, 0, 500), (1000, 0, 1000), (2500, 100, 2500), (5000, 400, 5000))


def fill_empty_tables(**_signal: Any) -> None:
    """Adds prices and packs where there are none; runs after each migration."""
    if not PriceTable.objects.exists():
        table = PriceTable.objects.create(version=1, published_at=timezone.now())
        PriceRate.objects.bulk_create(
            PriceRate(table=table, model=model, gpus=gpus, pixels_per_credit=PIXELS_PER_CREDIT)
            for model in MODELS
            for gpus in GPUS
        )
    if not GpuPrice.objects.exists():
        GpuPrice.objects.create(gpu="H100", microdollars_a_second=H100_MICRODOLLARS_A_SECOND)
    if not CreditPack.objects.exists():
        CreditPack.objects.bulk_create(
            CreditPack(name=f"{credits:,} credits", credits=credits, bonus_credits=bonus, price_cents=cents)
            for credits, bonus, cents in PACKS
        )
