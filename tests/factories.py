"""Minimal valid rows: each factory fills only what a row cannot be without."""

from __future__ import annotations

from datetime import timedelta

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from accounts.models import Membership, User, Workspace
from accounts.permissions import Role
from billing import ledger
from restorations.models import Attempt, Restoration, SavedSettings, Upload, Video

PASSWORD = "correct horse battery"


class UserFactory(DjangoModelFactory[User]):
    class Meta:
        model = User
        skip_postgeneration_save = True

    email = factory.Sequence(lambda n: f"person{n}@example.com")
    password = factory.django.Password(PASSWORD)


class WorkspaceFactory(DjangoModelFactory[Workspace]):
    class Meta:
        model = Workspace

    name = factory.Sequence(lambda n: f"Workspace {n}")
    slug = factory.Sequence(lambda n: f"workspace-{n}")


class MembershipFactory(DjangoModelFactory[Membership]):
    class Meta:
        model = Membership

    workspace = factory.SubFactory(WorkspaceFactory)
    user = factory.SubFactory(UserFactory)
    role = Role.MEMBER


class UploadFactory(DjangoModelFactory[Upload]):
    class Meta:
        model = Upload

    workspace = factory.SubFactory(WorkspaceFactory)
    file_name = "holiday.mp4"
    size_bytes = 1000
    part_bytes = 16 * 2**20
    storage_key = factory.LazyAttributeSequence(lambda o, n: f"{o.workspace.pk}/sources/{n}.mp4")
    storage_upload_id = factory.Sequence(lambda n: f"upload{n}")


class VideoFactory(DjangoModelFactory[Video]):
    """A video that was inspected: 640 x 480, 4 seconds at 25 frames per second."""

    class Meta:
        model = Video

    workspace = factory.SubFactory(WorkspaceFactory)
    status = Video.Status.READY
    file_name = "holiday.mp4"
    size_bytes = 1000
    storage_key = factory.LazyAttributeSequence(lambda o, n: f"{o.workspace.pk}/sources/{n}.mp4")
    codec = "h264"
    coded_width = 640
    coded_height = 480
    width = 640
    height = 480
    frame_rate = "25/1"
    num_frames = 100
    duration_seconds = 4.0
    pixel_format = "yuv420p"


class RestorationFactory(DjangoModelFactory[Restoration]):
    """A queued order of 7 credits that are charged."""

    class Meta:
        model = Restoration
        skip_postgeneration_save = True

    workspace = factory.SelfAttribute("video.workspace")
    video = factory.SubFactory(VideoFactory)
    preset = Restoration.Preset.P720
    res_w = 960
    res_h = 720
    sp_size = 1
    seed = 42
    price_credits = 7
    expected_seconds = 10
    num_frames = 100

    @factory.post_generation
    def charged(self: Restoration, create: bool, extracted: bool | None, **kwargs: object) -> None:
        if create and extracted is not False:
            ledger.grant(workspace=self.workspace, credits=self.price_credits, key=f"test:{self.pk}")
            ledger.charge(workspace=self.workspace, credits=self.price_credits, reference=self.reference)


class SavedSettingsFactory(DjangoModelFactory[SavedSettings]):
    class Meta:
        model = SavedSettings

    workspace = factory.SubFactory(WorkspaceFactory)
    name = factory.Sequence(lambda n: f"Settings {n}")
    preset = Restoration.Preset.P1080


class AttemptFactory(DjangoModelFactory[Attempt]):
    """An attempt at the endpoint."""

    class Meta:
        model = Attempt

    restoration = factory.SubFactory(RestorationFactory)
    number = 1
    status = Attempt.Status.IN_FLIGHT
    runpod_id = factory.Sequence(lambda n: f"job-{n}-u1")
    result_key = factory.LazyAttribute(lambda o: f"{o.restoration.workspace_id}/results/{o.number}.mp4")
    manifest_key = factory.LazyAttribute(lambda o: f"{o.restoration.workspace_id}/results/{o.number}.json")
    submitted_at = factory.LazyFunction(timezone.now)
    deadline_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=1))
