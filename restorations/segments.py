"""Where the finished parts of a running restoration are kept, so that another machine goes on after them.

The objects belong to the restoration, not to an attempt: whichever attempt runs reads and writes the same ones.
They are needed until the restoration has ended, and then once more for `partial`.
"""

from __future__ import annotations

import logging
from typing import Final

from gpu_worker.contract import ContractError, Frames, Journal, SegmentStore
from restorations import objects
from restorations.models import Restoration

logger = logging.getLogger(__name__)

#: A lost machine costs at most about so many frames of work; the worker may wait for a cut, twice as long at most.
_FRAMES: Final = 120
#: Each segment needs two addresses in the job's input.
_MAX_SEGMENTS: Final = 240
_SEGMENT_MAX_BYTES: Final = 2**40
_JOURNAL_MAX_BYTES: Final = 2**20


def frames_of_segment(num_frames: int) -> int:
    """Returns the least frames of a segment: it grows with the video, so that there are never too many."""
    return max(_FRAMES, -(-num_frames // _MAX_SEGMENTS))


def num_segments(num_frames: int) -> int:
    """Returns how many segments a video has at most; a video of one has nothing to go on after."""
    return -(-num_frames // frames_of_segment(num_frames))


def store_for(restoration: Restoration) -> SegmentStore | None:
    """Returns signed addresses for the segments of a restoration; None when nothing can go on after them.

    From now on `restoration.num_segment_objects` says that storage may hold some.
    """
    count = num_segments(restoration.video.num_frames)
    if restoration.is_preview or pins_of(restoration):
        # Segments end at both ends of a preview as well.
        count += 2
    if count < 2:
        return None
    Restoration.objects.filter(pk=restoration.pk).update(num_segment_objects=count)
    keys = [_segment_key(restoration, index) for index in range(count)]
    journal = _journal_key(restoration)
    return SegmentStore(
        frames=frames_of_segment(restoration.video.num_frames),
        journal_get=_to_read(journal),
        journal_put=_to_write(journal, _JOURNAL_MAX_BYTES),
        put=tuple(_to_write(key, _SEGMENT_MAX_BYTES) for key in keys),
        get=tuple(_to_read(key) for key in keys),
    )


def pins_of(restoration: Restoration) -> tuple[Frames, ...]:
    """Returns the range of the last preview that an order was lowered by: its segments are segments of the whole."""
    preview = _last_preview(restoration)
    return (preview.frames,) if preview is not None and preview.frames else ()


def _last_preview(restoration: Restoration) -> Restoration | None:
    return restoration.previews.order_by("created_at").last()


def take_over(restoration: Restoration) -> None:
    """Copies the segments of a preview to an order that begins, which then goes on after them.

    Raises `StorageUnavailable`. Where they are gone, the frames are made again.
    """
    preview = _last_preview(restoration)
    if preview is None or not preview.num_segment_objects or objects.exists(_journal_key(restoration)):
        return
    try:
        for entry in Journal.from_json(objects.read_json(_journal_key(preview))).segments:
            objects.copy(_segment_key(preview, entry.index), _segment_key(restoration, entry.index))
        # Last of all: it names segments that are there.
        objects.copy(_journal_key(preview), _journal_key(restoration))
    except (objects.ObjectMissing, ContractError, ValueError) as exc:
        logger.warning("no segments of a preview restoration=%s error=%s", restoration.pk, exc)


def journal_of(restoration: Restoration) -> Journal | None:
    """Returns what is finished of a restoration; None when nothing is, or when it cannot be read."""
    try:
        return Journal.from_json(objects.read_json(_journal_key(restoration)))
    except objects.ObjectMissing:
        return None
    except (ContractError, ValueError) as exc:
        logger.warning("unreadable journal restoration=%s error=%s", restoration.pk, exc)
        return None


def key_of(restoration: Restoration, index: int) -> str:
    """Returns the key of one segment."""
    return _segment_key(restoration, index)


def forget(restoration: Restoration) -> None:
    """Deletes all segments and the journal of a restoration that has ended."""
    keys = [_segment_key(restoration, index) for index in range(restoration.num_segment_objects)]
    objects.delete([_journal_key(restoration), *keys])
    Restoration.objects.filter(pk=restoration.pk).update(num_segment_objects=0)


def _folder(restoration: Restoration) -> str:
    return f"{restoration.workspace_id}/segments/{restoration.pk}"


def _journal_key(restoration: Restoration) -> str:
    return f"{_folder(restoration)}/journal.json"


def _segment_key(restoration: Restoration, index: int) -> str:
    return f"{_folder(restoration)}/{index:05d}"


def _to_read(key: str) -> str:
    return objects.for_worker(objects.address_to_read(key, seconds=objects.WORKER_SECONDS))


def _to_write(key: str, max_bytes: int) -> str:
    return objects.for_worker(objects.address_to_write(key, max_bytes=max_bytes))
