"""Why a file cannot be restored: a code for the row, a sentence for its owner."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Rejection(models.TextChoices):
    """Each label says what is wrong and what to do now."""

    EMPTY = "empty", _("This file is empty. Please check it and upload it again.")
    UNREADABLE = (
        "unreadable",
        _(
            "This file cannot be read as a video. It may be damaged, or not be a video at all. "
            "Try to export it again as MP4."
        ),
    )
    NO_PICTURE = "no_picture", _("This file has sound but no picture, so there is nothing to restore.")
    PLAYLIST = "playlist", _("This is a list of other files. Please upload the video itself.")
    ARCHIVE = "archive", _("This is an archive. Please unpack it and upload the video itself.")
    ENCRYPTED = (
        "encrypted",
        _("This video is copy-protected and cannot be read. Please upload an unprotected copy."),
    )
    TOO_LONG = "too_long", _("This video is too long. Please cut it into shorter pieces and upload those.")
    TOO_LARGE = (
        "too_large",
        _("The picture is larger than 8192 pixels on one side. Please upload a smaller version."),
    )
    TOO_SMALL = "too_small", _("The picture is smaller than 16 pixels on one side, too small to restore.")
    TOO_DEMANDING = (
        "too_demanding",
        _(
            "This file takes more time or memory to read than any video should. It may be damaged. "
            "Try to export it again as MP4."
        ),
    )
    LOST = "lost", _("This file is not in our storage any more. Please upload it again.")
