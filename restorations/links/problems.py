"""Why a link could not be imported: a code for the row, a sentence for its owner."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Problem(models.TextChoices):
    """Each label says what is wrong and what to do now."""

    NOT_A_LINK = (
        "not_a_link",
        _("This is not a link to a file. It has to begin with https:// and name a public site."),
    )
    NOT_HTTPS = "not_https", _("Only links that begin with https:// can be imported.")
    UNKNOWN_SITE = "unknown_site", _("There is no site under this address. Please check the link.")
    PRIVATE = (
        "private",
        _("This link leads into a private network, which we do not call. Please upload the file instead."),
    )
    UNREACHABLE = (
        "unreachable",
        _("The site does not answer. Please try again later, or upload the file instead."),
    )
    UNTRUSTED = (
        "untrusted",
        _("The site cannot prove who it is: its certificate is not valid. Please upload the file instead."),
    )
    FORBIDDEN = (
        "forbidden",
        _("The site does not give this file to us. The link may have expired: please make a new one."),
    )
    EXPIRED = (
        "expired",
        _(
            "The link stopped working before the whole file had come. It may have expired: please make a new one."
        ),
    )
    NOT_FOUND = "not_found", _("There is no file under this link any more. Please check it.")
    REDIRECTS = (
        "redirects",
        _(
            "This link leads from one address to the next without end. Please use the link of the file itself."
        ),
    )
    WEB_PAGE = (
        "web_page",
        _(
            "This link leads to a web page, not to a file. Please use the link that downloads the video itself."
        ),
    )
    EMPTY = "empty", _("The file under this link is empty.")
    TOO_LARGE = "too_large", _("The file under this link is larger than what can be imported.")
    TOO_SLOW = (
        "too_slow",
        _("The site sends the file too slowly. Please try again later, or upload the file instead."),
    )
    BROKEN_OFF = "broken_off", _("The connection broke before the whole file had come. Please try again.")
    ENCODED = (
        "encoded",
        _("The site sends this file packed, which cannot be read. Please upload the file instead."),
    )
    INTERRUPTED = "interrupted", _("The import was interrupted on our side. Please try again.")


class LinkRefused(Exception):
    """A link cannot be imported."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.value)
        self.problem = problem
