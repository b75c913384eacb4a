"""Why a restoration failed: for each error code a sentence and a next step for the person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from gpu_worker.contract import ErrorCode
from restorations.models import Restoration


@dataclass(frozen=True, slots=True)
class Failure:
    """What a person reads about a failure."""

    sentence: str | Promise
    next_step: str | Promise


_TRY_AGAIN: Final = _("Start it again; if it fails once more, write to us and name the number below.")
_UPLOAD_AGAIN: Final = _("Upload the file again, best exported as MP4 with H.264, and start it once more.")

_FAILURES: Final[dict[ErrorCode, Failure]] = {
    ErrorCode.INVALID_REQUEST: Failure(_("The machine did not accept the settings."), _TRY_AGAIN),
    ErrorCode.SOURCE_UNREACHABLE: Failure(_("The machine could not fetch your video."), _TRY_AGAIN),
    ErrorCode.SOURCE_CHANGED: Failure(_("The stored video is not the one you uploaded."), _UPLOAD_AGAIN),
    ErrorCode.SOURCE_TOO_LARGE: Failure(_("Your video is too large for the machine."), _UPLOAD_AGAIN),
    ErrorCode.SOURCE_UNREADABLE: Failure(
        _("Part of your video is damaged and could not be read."), _UPLOAD_AGAIN
    ),
    ErrorCode.OUT_OF_MEMORY: Failure(
        _("The machine ran out of memory."), _("Choose a smaller resolution, or cut the video into pieces.")
    ),
    ErrorCode.OUT_OF_DISK: Failure(
        _("The machine ran out of space."), _("Cut the video into shorter pieces and restore those.")
    ),
    ErrorCode.ENGINE_FAILED: Failure(_("The restoration itself went wrong on the machine."), _TRY_AGAIN),
    ErrorCode.ENGINE_STUCK: Failure(
        _("The restoration stood still on the machine and was ended."), _TRY_AGAIN
    ),
    ErrorCode.UPLOAD_FAILED: Failure(_("The machine could not hand over the result."), _TRY_AGAIN),
    ErrorCode.WORKER_LOST: Failure(_("The machine went away in the middle of the work."), _TRY_AGAIN),
    ErrorCode.RESULT_MISSING: Failure(_("The machine finished without handing over a result."), _TRY_AGAIN),
    ErrorCode.EXECUTION_TIMEOUT: Failure(
        _("The restoration took far longer than it should."),
        _("Cut the video into shorter pieces and restore those."),
    ),
    ErrorCode.EXPIRED: Failure(_("The restoration did not finish in time."), _TRY_AGAIN),
    ErrorCode.ENDPOINT_UNAVAILABLE: Failure(
        _("No machine was free for too long."), _("Please try again later; nothing else is needed.")
    ),
}


def explain(restoration: Restoration) -> Failure | None:
    """Returns why a restoration failed; None when it did not."""
    if restoration.status != Restoration.Status.FAILED:
        return None
    return _FAILURES[ErrorCode(restoration.error_code)]
