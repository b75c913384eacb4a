"""Credit packs: what is on sale here, mirrored as products and prices at Stripe."""

from __future__ import annotations

from billing import stripe_client
from billing.models import CreditPack


def on_sale() -> list[CreditPack]:
    """Returns the packs that can be bought, cheapest first."""
    return list(CreditPack.objects.filter(is_active=True))


def smallest_covering(packs: list[CreditPack], missing: int) -> CreditPack | None:
    """Returns the cheapest pack with at least the missing credits, or the largest one when none has them."""
    covering = (pack for pack in packs if pack.total_credits >= missing)
    return next(covering, packs[-1] if packs else None)


def synchronise(pack: CreditPack) -> str:
    """Brings a pack's product and price at Stripe up to date; returns the price's id.

    A price at Stripe never changes: another amount makes another price and retires the one before.
    """
    wanted = f"{pack.name}|{pack.price_cents}|{pack.currency}|{pack.is_active}"
    if pack.synchronised_as == wanted:
        return pack.stripe_price_id
    product = stripe_client.save_product(
        product_id=pack.stripe_product_id,
        name=pack.name,
        is_active=pack.is_active,
        key=f"product:{pack.pk}:{pack.name}",
    )
    price = pack.stripe_price_id
    if not price or _money(pack.synchronised_as) != _money(wanted):
        price = stripe_client.create_price(
            product_id=product,
            cents=pack.price_cents,
            currency=pack.currency,
            key=f"price:{product}:{pack.stripe_price_id}:{pack.price_cents}:{pack.currency}",
        )
        if pack.stripe_price_id:
            stripe_client.retire_price(pack.stripe_price_id)
    pack.stripe_product_id, pack.stripe_price_id, pack.synchronised_as = product, price, wanted
    pack.save(update_fields=["stripe_product_id", "stripe_price_id", "synchronised_as"])
    return price


def forget(pack: CreditPack) -> None:
    """Forgets product and price at Stripe; the next `synchronise` makes new ones."""
    pack.stripe_product_id = pack.stripe_price_id = pack.synchronised_as = ""
    pack.save(update_fields=["stripe_product_id", "stripe_price_id", "synchronised_as"])


def _money(synchronised_as: str) -> list[str]:
    return synchronised_as.split("|")[-3:-1]
