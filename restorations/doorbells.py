"""The tasks that domain modules ring for, by name, so that they need not import the tasks that import them.

The ring itself, and what happens when it is lost, is `accounts.doorbells`'; `repair` finds the rows here.
"""

from __future__ import annotations

import enum

from billing.doorbells import ring

__all__ = ["Doorbell", "ring"]


class Doorbell(enum.StrEnum):
    """The tasks that domain modules ring for."""

    INSPECT_VIDEO = "restorations.tasks.inspect_video"
    IMPORT_LINK = "restorations.tasks.import_link"
    HASH_SOURCE = "restorations.tasks.hash_source"
    MAKE_PROXY = "restorations.tasks.make_proxy"
    MAKE_RESULT_PROXY = "restorations.tasks.make_result_proxy"
    DISPATCH = "restorations.tasks.dispatch_restoration"
    CHECK_ATTEMPT = "restorations.tasks.check_attempt"
    CHECK_RESULT = "restorations.tasks.check_result"
    CANCEL_ATTEMPT = "restorations.tasks.cancel_attempt"
    KEEP_PARTIAL = "restorations.tasks.keep_partial"
    MAIL_FINISH = "restorations.tasks.mail_finish"
    PURGE = "restorations.tasks.purge_deleted"
    BUILD_EXPORT = "restorations.tasks.build_export"
    RETENTION = "restorations.tasks.enforce_retention"
