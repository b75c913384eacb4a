"""Bring a file into storage, in resumable parts or in one request, and make a video of it."""

from __future__ import annotations

import uuid
from pathlib import PurePath
from typing import IO
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.text import get_valid_filename
from django.utils.translation import gettext as _

from accounts.models import User, Workspace
from restorations import notifications, objects
from restorations.doorbells import Doorbell, ring
from restorations.models import Upload, UploadPart, Video


class UploadRefused(ValueError):
    """A file cannot be taken; the message is for the person who sent it."""


class PartsMissing(UploadRefused):
    """Not all parts of a file are there; what arrived is kept."""


def begin(
    *, workspace: Workspace, user: User, file_name: str, size_bytes: int, has_checksums: bool = False
) -> tuple[Upload, bool]:
    """Returns the upload for a file and whether it is new. With checksums, each part is signed with its own.

    A file of the same name and size that the same person began before goes on where it stopped: that is how an
    upload survives a closed tab. Raises `UploadRefused` for a file that cannot be taken.
    """
    file_name = _checked_name(file_name)
    _check_size(size_bytes, settings.UPLOAD_MAX_BYTES)
    begun = (
        Upload.objects.for_workspace(workspace)
        .unfinished()
        .filter(created_by=user, file_name=file_name, size_bytes=size_bytes, has_checksums=has_checksums)
        .order_by("-created_at")
        .first()
    )
    if begun is not None and (is_begun(begun) or is_joined(begun)):
        return begun, False
    if begun is not None:
        objects.delete([begun.storage_key])
        begun.delete()
    key = source_key(workspace, file_name)
    part_bytes = objects.part_bytes_for(size_bytes, at_least=settings.UPLOAD_PART_BYTES)
    upload = Upload.objects.create(
        workspace=workspace,
        created_by=user,
        file_name=file_name,
        size_bytes=size_bytes,
        part_bytes=part_bytes,
        storage_key=key,
        storage_upload_id=objects.create_multipart(key, part_bytes=part_bytes, has_checksums=has_checksums),
        has_checksums=has_checksums,
    )
    return upload, True


def is_begun(upload: Upload) -> bool:
    """Returns whether storage still takes parts of an upload: it may have given it up, by its own rule."""
    return objects.is_begun(upload.storage_key, upload.storage_upload_id)


def is_joined(upload: Upload) -> bool:
    """Returns whether the parts of an upload are one object already: then `complete` needs none of them."""
    try:
        return objects.size(upload.storage_key) == upload.size_bytes
    except objects.ObjectMissing:
        return False


def address_of_part(upload: Upload, number: int, *, sha256: str = "") -> objects.SignedPart:
    """Returns where one part goes, of exactly its bytes and, if given, with this Base64 SHA-256.

    Raises `UploadRefused` for a number outside the file.
    """
    if not 1 <= number <= upload.num_parts:
        raise UploadRefused(_("This file has parts 1 to %(last)s.") % {"last": upload.num_parts})
    if upload.has_checksums and not sha256:
        raise UploadRefused(_("This upload was begun with checksums, so each part needs its own."))
    if sha256:
        UploadPart.objects.update_or_create(upload=upload, number=number, defaults={"sha256": sha256})
    # Who asks for parts is still at it, however long that takes.
    Upload.objects.filter(pk=upload.pk).update(touched_at=timezone.now())
    last = upload.size_bytes - (upload.num_parts - 1) * upload.part_bytes
    num_bytes = last if number == upload.num_parts else upload.part_bytes
    return objects.address_of_part(
        upload.storage_key, upload.storage_upload_id, number, num_bytes=num_bytes, sha256=sha256
    )


def parts_of(upload: Upload) -> list[objects.Part]:
    """Returns the parts that arrived."""
    return objects.list_parts(upload.storage_key, upload.storage_upload_id)


def complete(upload: Upload, parts: list[tuple[int, str]]) -> Video:
    """Joins the parts and makes the video, once however often it is called.

    Raises `PartsMissing`; nothing that arrived is lost then.
    """
    if video := Video.objects.filter(upload=upload).first():
        return video
    if not is_joined(upload):
        _join(upload, parts)
    arrived = objects.size(upload.storage_key)
    if arrived != upload.size_bytes:
        objects.delete([upload.storage_key])
        upload.delete()
        raise UploadRefused(_("The file did not arrive whole. Please upload it again."))
    return make_video(
        workspace=upload.workspace,
        user=upload.created_by,
        file_name=upload.file_name,
        key=upload.storage_key,
        size_bytes=arrived,
        upload=upload,
    )


def _join(upload: Upload, parts: list[tuple[int, str]]) -> None:
    missing = PartsMissing(_("Some parts have not arrived yet. Please try again."))
    if [number for number, _etag in parts] != [*range(1, upload.num_parts + 1)]:
        raise missing
    try:
        objects.complete_multipart(
            upload.storage_key,
            upload.storage_upload_id,
            parts=parts,
            checksums=dict(upload.parts.values_list("number", "sha256")),
        )
    except (objects.PartsMismatch, objects.ObjectMissing):
        raise missing from None


def abort(upload: Upload) -> None:
    """Forgets an unfinished upload and its parts."""
    objects.abort_multipart(upload.storage_key, upload.storage_upload_id)
    upload.delete()


def receive(
    *, workspace: Workspace, user: User, file_name: str, size_bytes: int, content: IO[bytes]
) -> Video:
    """Takes a file that came in one request, from browsers without JavaScript."""
    file_name = _checked_name(file_name)
    _check_size(size_bytes, settings.UPLOAD_MAX_BYTES_SINGLE)
    key = source_key(workspace, file_name)
    saved = objects.save(key, content)
    return make_video(
        workspace=workspace,
        user=user,
        file_name=file_name,
        key=key,
        size_bytes=saved.size_bytes,
        sha256=saved.sha256,
    )


@transaction.atomic
def make_video(
    *,
    workspace: Workspace,
    user: User | None,
    file_name: str,
    key: str,
    size_bytes: int,
    sha256: str = "",
    upload: Upload | None = None,
) -> Video:
    """Makes the video of a stored file and rings for its inspection, and for its checksum where nobody has it yet."""
    values = {
        "workspace": workspace,
        "created_by": user,
        "file_name": file_name,
        "storage_key": key,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "hash_wanted_at": None if sha256 else timezone.now(),
    }
    if upload is None:
        video = Video.objects.create(**values)
    else:
        # Two completions at once: the unique `upload` lets one of them make the row.
        video, _created = Video.objects.get_or_create(upload=upload, defaults=values)
    ring(Doorbell.INSPECT_VIDEO, video_id=video.pk)
    if not video.sha256:
        ring(Doorbell.HASH_SOURCE, video_id=video.pk)
    notifications.video_changed(video)
    return video


def hash_source(video_id: UUID | str) -> None:
    """Computes a source's SHA-256 where it did not pass the site: parts go past it, in any order.

    Raises `objects.StorageUnavailable`.
    """
    video = Video.objects.present().filter(pk=video_id, hash_wanted_at__isnull=False).first()
    if video is None:
        return
    try:
        values = {"sha256": objects.sha256(video.storage_key)}
    except objects.ObjectMissing:
        values = {}
    Video.objects.filter(pk=video.pk).update(hash_wanted_at=None, **values)


def _checked_name(file_name: str) -> str:
    # Browsers send a bare name; other clients may send a path, of which only the last piece is a name.
    name = PurePath(file_name.replace("\\", "/")).name.strip()
    if not name or len(name) > 255:
        raise UploadRefused(_("The file needs a name of 1 to 255 characters."))
    return name


def _check_size(size_bytes: int, limit: int) -> None:
    if size_bytes <= 0:
        raise UploadRefused(_("This file is empty."))
    if size_bytes > limit:
        sizes = {"size": filesizeformat(size_bytes), "limit": filesizeformat(limit)}
        raise UploadRefused(_("This file has %(size)s; at most %(limit)s can be uploaded.") % sizes)


def source_key(workspace: Workspace, file_name: str) -> str:
    """Returns a new key for a source; of the file's own name it has only the ending."""
    suffix = get_valid_filename(PurePath(file_name).suffix[:10] or "x").lower().lstrip("._")
    return f"{workspace.pk}/sources/{uuid.uuid4()}.{suffix or 'bin'}"
