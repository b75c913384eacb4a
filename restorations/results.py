"""What storage proves about an attempt: a manifest, and a result that fits it by size and checksum."""

from __future__ import annotations

import logging
from typing import Final

from gpu_worker.contract import ContractError, Manifest
from restorations import objects
from restorations.models import Attempt

logger = logging.getLogger(__name__)

#: Results up to this size are hashed in passing, larger ones by a task of their own.
QUICK_BYTES: Final = 16 * 2**20
#: Above this size hashing would outlast a task: there the size has to do.
HASHED_BYTES: Final = 20 * 2**30


class NotCheckedYet(Exception):
    """The result is there in full size, and too large to be hashed in passing."""


def proven(attempt: Attempt, *, is_patient: bool) -> Manifest | None:
    """Returns the manifest of a result that is in storage as it says; None unless both are there and fit.

    Raises `NotCheckedYet` for a large result unless the caller is patient.
    """
    try:
        manifest = Manifest.from_json(objects.read_json(attempt.manifest_key))
        stored = objects.size(attempt.result_key)
        if manifest.attempt_id != attempt.contract_id or manifest.result_bytes != stored:
            logger.warning("manifest does not fit attempt=%s bytes=%s", attempt.contract_id, stored)
            return None
        if not is_patient and stored > QUICK_BYTES:
            raise NotCheckedYet(attempt.contract_id)
        if stored <= HASHED_BYTES and objects.sha256(attempt.result_key) != manifest.result_sha256:
            logger.warning("result has another checksum attempt=%s", attempt.contract_id)
            return None
    except objects.ObjectMissing:
        return None
    except (ContractError, ValueError) as exc:
        logger.warning("unreadable manifest attempt=%s error=%s", attempt.contract_id, exc)
        return None
    return manifest
