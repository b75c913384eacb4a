"""Walls in storage: a workspace's objects lie below its id. What a signed address opens is in test_objects.py."""

from __future__ import annotations

import pytest

from accounts.models import User, Workspace
from restorations import lifecycle, segments, uploads
from restorations.models import Restoration
from tests import samples
from tests.factories import RestorationFactory

pytestmark = pytest.mark.django_db


def keys_of(workspace: Workspace, person: User) -> list[str]:
    """Returns the keys of everything that an upload and an order put into storage, made by the product itself."""
    upload, _is_new = uploads.begin(workspace=workspace, user=person, file_name="a.mp4", size_bytes=1000)
    with samples.path("pal_25.mp4").open("rb") as content:
        size = samples.path("pal_25.mp4").stat().st_size
        video = uploads.receive(
            workspace=workspace, user=person, file_name="../../b.mp4", size_bytes=size, content=content
        )
    restoration = RestorationFactory(video=video, workspace=workspace, status=Restoration.Status.QUEUED)
    attempt = lifecycle.open_attempt(restoration.pk)
    assert attempt is not None
    return [
        upload.storage_key,
        video.storage_key,
        attempt.result_key,
        attempt.manifest_key,
        segments.key_of(restoration, 0),
    ]


def test_keys_begin_with_the_workspace(workspace: Workspace, alice: User) -> None:
    keys = keys_of(workspace, alice)
    assert len(set(keys)) == len(keys)
    assert [key for key in keys if not key.startswith(f"{workspace.pk}/")] == []
