"""Order a restoration: price, charge, row and queue in one transaction."""

from __future__ import annotations

import secrets

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User
from billing import ledger
from gpu_worker.contract import MAX_SEED
from restorations import lifecycle
from restorations.models import Restoration, Video
from restorations.quotes import quote


class NotRestorable(ValueError):
    """This video cannot be restored now; the message is for the person."""


@transaction.atomic
def submit(*, video: Video, user: User, preset: str, seed: int | None = None) -> Restoration:
    """Charges the quote's price and queues the restoration; on commit it is sent to the GPUs.

    Without a seed a random one is drawn and stored, so that the same result can be made again. Raises
    `NotRestorable`, or `billing.ledger.InsufficientCredits`, and then nothing was taken.
    """
    # The video's row is locked, so that it cannot be deleted between the check and the order.
    video = Video.objects.select_for_update().select_related("workspace").get(pk=video.pk)
    if video.deleted_at or video.status != Video.Status.READY:
        raise NotRestorable(_("This video is not there any more, or not ready yet."))
    offer = quote(video, preset)
    restoration = Restoration(
        workspace=video.workspace,
        created_by=user,
        video=video,
        preset=preset,
        res_w=offer.size.width,
        res_h=offer.size.height,
        sp_size=offer.size.sp_size,
        seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
        price_credits=offer.credits,
        expected_seconds=offer.expected_seconds,
        num_frames=offer.num_frames,
    )
    ledger.charge(workspace=video.workspace, credits=offer.credits, reference=restoration.reference)
    restoration.save()
    lifecycle.created(restoration, actor=user)
    return restoration
