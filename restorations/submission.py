"""Order a restoration: price, charge, row and queue in one transaction."""

from __future__ import annotations

import secrets
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User, Workspace
from billing import ledger, offers, price_tables
from gpu_worker.contract import MAX_SEED, Frames
from restorations import lifecycle, reuse, snippets
from restorations.models import Restoration, Video
from restorations.options import Options, outputs_for, resolved_output
from restorations.quotes import Quote, credits_taken_off, quote, subject


class NotRestorable(ValueError):
    """This video cannot be restored now; the message is for the person."""


class AlreadyRestored(Exception):
    """The result is there already, or being made: `restoration` has it."""

    def __init__(self, restoration: Restoration) -> None:
        super().__init__(str(restoration.pk))
        self.restoration = restoration


@transaction.atomic
def submit(
    *,
    video: Video,
    user: User,
    options: Options,
    frames: Frames | None = None,
    offer_id: UUID | None = None,
    preview_credits: int = 0,
) -> Restoration:
    """Charges what was quoted, or less, and queues the restoration; on commit it is sent to the GPUs.

    With `frames` it is a preview. `preview_credits` are those that the quote had taken off for previews: when less
    comes off by now, the price has changed. Previews of the same that are still being made are cancelled, which gives
    back all that they cost.

    Without a seed that of the last preview is taken, or a random one is drawn; it is stored, so that the same result
    can be made again. Raises `NotRestorable`, `AlreadyRestored`, `billing.offers.PriceChanged`,
    `billing.ledger.InsufficientCredits` or `billing.limits.LimitReached`, and then nothing was taken.
    """
    # Rows are locked in one order, the video's, previews', the workspace's, so that nobody waits in a circle.
    # The video's row is locked, so that it cannot be deleted between the check and the order.
    video = Video.objects.select_for_update().select_related("workspace").get(pk=video.pk)
    if video.deleted_at or video.status != Video.Status.READY:
        raise NotRestorable(_("This video is not there any more, or not ready yet."))
    if resolved_output(options.output, video) not in outputs_for(video):
        raise NotRestorable(_("This file format cannot hold this video. Please choose another one."))
    if frames is None:
        _take_over_previews(video, options, user)
    elif not 0 < frames[1] - frames[0] == snippets.num_frames(video):
        raise NotRestorable(_("This video is too short for a preview."))
    # Of two equal orders at once, also of two copies of one file, the second waits here and finds the first.
    Workspace.objects.select_for_update().get(pk=video.workspace_id)
    if (same := reuse.find(video, options, frames=frames)) is not None:
        raise AlreadyRestored(same)
    prices = price_tables.current()
    offer = quote(video, options, frames=frames, prices=prices)
    if offer.preview_credits < preview_credits:
        raise offers.PriceChanged(subject(video, options))
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
        seed=_seed(video, options),
        expected_seconds=offer.expected_seconds,
        num_frames=offer.num_frames,
        range_start=frames[0] if frames else None,
        range_end=frames[1] if frames else None,
    )
    accepted = offers.accept(
        workspace=video.workspace,
        offer_id=offer_id,
        subject=subject(video, options, frames=frames),
        credits_now=offer.full_credits,
        prices_now=prices,
        reference=restoration.reference,
    )
    restoration.preview_credits = credits_taken_off(accepted.credits, offer.previews)
    restoration.price_credits = accepted.credits - restoration.preview_credits
    if restoration.price_credits:
        ledger.charge(
            workspace=video.workspace,
            credits=restoration.price_credits,
            reference=restoration.reference,
            spender=user,
        )
    restoration.save()
    _credit(offer, restoration)
    lifecycle.created(restoration, actor=user)
    return restoration


def _take_over_previews(video: Video, options: Options, user: User) -> None:
    """Locks the previews of what is ordered, so that none of them changes meanwhile, and cancels unfinished ones."""
    previews = reuse.previews(video, options).select_for_update(of=("self",)).order_by("pk")
    for preview in list(previews):
        if preview.is_active:
            lifecycle.cancel(preview, actor=user)


def _seed(video: Video, options: Options) -> int:
    if options.seed is not None:
        return options.seed
    previews = reuse.paid_previews(video, options)
    return previews[0].seed if previews else secrets.randbelow(MAX_SEED + 1)


def _credit(offer: Quote, restoration: Restoration) -> None:
    """Notes on the previews which order their price came off: no other one is lowered by it."""
    previews = Restoration.objects.filter(pk__in=[preview.pk for preview in offer.previews], credited_to=None)
    if previews.update(credited_to=restoration) != len(offer.previews):
        raise offers.PriceChanged(restoration.reference)
