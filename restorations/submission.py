"""Order a restoration: price, charge, row and queue in one transaction."""

from __future__ import annotations

import secrets
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User, Workspace
from billing import ledger, offers, price_tables
from gpu_worker.contract import MAX_SEED
from restorations import lifecycle, reuse
from restorations.models import Restoration, Video
from restorations.options import Options, outputs_for, resolved_output
from restorations.quotes import quote, subject


class NotRestorable(ValueError):
    """This video cannot be restored now; the message is for the person."""


class AlreadyRestored(Exception):
    """The result is there already, or being made: `restoration` has it."""

    def __init__(self, restoration: Restoration) -> None:
        super().__init__(str(restoration.pk))
        self.restoration = restoration


@transaction.atomic
def submit(*, video: Video, user: User, options: Options, offer_id: UUID | None = None) -> Restoration:
    """Charges what was quoted, or less, and queues the restoration; on commit it is sent to the GPUs.

    Without a seed a random one is drawn and stored, so that the same result can be made again. Raises
    `NotRestorable`, `AlreadyRestored`, `billing.offers.PriceChanged`, `billing.ledger.InsufficientCredits` or
    `billing.limits.LimitReached`, and then nothing was taken.
    """
    # The video's row is locked, so that it cannot be deleted between the check and the order.
    video = Video.objects.select_for_update().select_related("workspace").get(pk=video.pk)
    if video.deleted_at or video.status != Video.Status.READY:
        raise NotRestorable(_("This video is not there any more, or not ready yet."))
    if resolved_output(options.output, video) not in outputs_for(video):
        raise NotRestorable(_("This file format cannot hold this video. Please choose another one."))
    # Of two equal orders at once, also of two copies of one file, the second waits here and finds the first.
    Workspace.objects.select_for_update().get(pk=video.workspace_id)
    if (same := reuse.find(video, options)) is not None:
        raise AlreadyRestored(same)
    prices = price_tables.current()
    offer = quote(video, options, prices=prices)
    restoration = Restoration(
        workspace=video.workspace,
        created_by=user,
        video=video,
        preset=options.preset,
        model=options.model,
        strength=options.strength,
        color_fix=options.color_fix,
        output=offer.output,
        res_w=offer.size.width,
        res_h=offer.size.height,
        sp_size=offer.size.sp_size,
        revision=reuse.revision(),
        seed=secrets.randbelow(MAX_SEED + 1) if options.seed is None else options.seed,
        expected_seconds=offer.expected_seconds,
        num_frames=offer.num_frames,
    )
    accepted = offers.accept(
        workspace=video.workspace,
        offer_id=offer_id,
        subject=subject(video, options),
        credits_now=offer.credits,
        prices_now=prices,
        reference=restoration.reference,
    )
    restoration.price_credits = accepted.credits
    ledger.charge(
        workspace=video.workspace,
        credits=accepted.credits,
        reference=restoration.reference,
        spender=user,
    )
    restoration.save()
    lifecycle.created(restoration, actor=user)
    return restoration
