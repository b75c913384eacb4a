"""What inspection finds in real files, and what it says about those that cannot be restored."""

import io
from datetime import timedelta

import av
import pytest
from django.utils import timezone
from PIL import Image

from restorations import inspection, objects, previews, repair, retention, tasks
from restorations.doorbells import Doorbell
from restorations.models import Video
from restorations.probing import inspector
from restorations.rejections import Rejection
from restorations.stores.files import FileRanges
from tests import samples
from tests.factories import VideoFactory

pytestmark = pytest.mark.services

FACTS = {
    "bigbuckbunny.mp4": {
        "codec": "h264", "width": 1280, "height": 720, "frame_rate": "25/1", "num_frames": 132,
        "duration_seconds": pytest.approx(5.28), "is_playable": True, "bit_depth": 8, "is_interlaced": False,
    },
    "grand_prix_1906.ogv": {"codec": "theora", "width": 214, "height": 160, "is_playable": False},
    "film_23976.mp4": {"frame_rate": "24000/1001", "is_variable_frame_rate": False},
    "ntsc_2997.mp4": {"frame_rate": "30000/1001", "is_variable_frame_rate": False},
    "fast_5994.mp4": {"frame_rate": "60000/1001", "is_variable_frame_rate": False},
    "ntsc_2997.mkv": {"is_variable_frame_rate": False},
    "vfr.mp4": {"is_variable_frame_rate": True},
    "vfr.mkv": {"is_variable_frame_rate": True, "is_playable": False},
    "rotated_90.mp4": {"rotation": 90, "width": 180, "height": 320, "coded_width": 320},
    "rotated_180.mp4": {"rotation": 180, "width": 320, "height": 180},
    "rotated_270.mp4": {"rotation": 270, "width": 180, "height": 320},
    "anamorphic.mp4": {"sample_aspect_ratio": "64/45", "width": 512, "height": 288},
    "odd_size.mkv": {"coded_width": 175, "width": 176, "height": 99, "codec": "ffv1"},
    "interlaced.mp4": {"is_interlaced": True},
    "hevc_10bit.mp4": {"bit_depth": 10, "pixel_format": "yuv420p10le", "is_playable": False},
    "vp9_vorbis.webm": {"is_playable": True},
    "mpeg2.mpg": {"codec": "mpeg2video", "is_playable": False},
    "silent.mp4": {"audio_tracks": []},
    "two_tracks.mkv": {"is_playable": False},
    "late_start.ts": {"num_frames": 50},
    "single_frame.mp4": {"num_frames": 1, "is_image": False},
    "picture.png": {"num_frames": 1, "is_image": True, "width": 320, "has_alpha": False, "is_playable": True},
    "hdr_pq.mp4": {"bit_depth": 10, "color": {"range": 1, "matrix": 9, "primaries": 9, "transfer": 16}},
    "prores.mov": {"bit_depth": 10, "is_playable": False},
    "rgb.mkv": {"pixel_format": "bgr0", "has_alpha": False},
}  # fmt: skip

REJECTED = {
    "empty.mp4": Rejection.EMPTY,
    "text.mp4": Rejection.UNREADABLE,
    "truncated.mp4": Rejection.UNREADABLE,
    "sound_only.m4a": Rejection.NO_PICTURE,
}


def look_into(file, *, max_seconds=14400):
    """Returns what the site's own process finds in a file."""
    with file.open("rb") as opened:
        return inspector.examine(FileRanges(opened.fileno()), max_seconds=max_seconds)


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    facts = look_into(samples.path(name)).facts
    assert {field: getattr(facts, field) for field in FACTS[name]} == FACTS[name]


@pytest.mark.parametrize("name", FACTS)
def test_as_many_frames_are_counted_as_decode(name):
    file = samples.path(name)
    with av.open(file) as container:
        decoded = sum(1 for _ in container.decode(video=0))
    assert look_into(file).facts.num_frames == decoded


def test_tracks_are_told():
    facts = look_into(samples.path("two_tracks.mkv")).facts
    assert [track["codec"] for track in facts.audio_tracks] == ["aac", "vorbis"]


@pytest.mark.parametrize("reason", Rejection)
def test_every_reason_is_a_sentence_with_a_way_out_or_an_explanation(reason):
    assert str(reason.label).endswith(".")
    assert len(str(reason.label)) > 30


# --- The use case -------------------------------------------------------------------------------------------


def uploaded(workspace, name: str) -> Video:
    video = VideoFactory(
        workspace=workspace, file_name=name, status=Video.Status.INSPECTING, num_frames=0, codec=""
    )
    with samples.path(name).open("rb") as file:
        objects.save(video.storage_key, file)
    return video


@pytest.mark.django_db
def test_an_upload_becomes_ready_with_an_upright_poster(workspace):
    video = uploaded(workspace, "rotated_90.mp4")
    inspection.inspect(video.pk)
    video.refresh_from_db()
    assert (video.status, video.width, video.height) == (Video.Status.READY, 180, 320)
    with Image.open(io.BytesIO(objects.read_bytes(video.poster_key))) as poster:
        assert poster.size == (180, 320)


@pytest.mark.django_db
@pytest.mark.parametrize("name", REJECTED)
def test_a_rejected_upload_says_why_on_its_page_and_costs_nothing(workspace, signed_in, alice, name):
    video = uploaded(workspace, name)
    inspection.inspect(video.pk)
    page = signed_in(alice).get(video.get_absolute_url()).content.decode()
    assert str(REJECTED[name].label).split(".")[0] in page
    assert "Restore for" not in page


@pytest.mark.django_db
def test_inspecting_twice_changes_nothing(workspace):
    video = uploaded(workspace, "pal_25.mp4")
    for _ in range(2):
        inspection.inspect(video.pk)
    video.refresh_from_db()
    assert video.num_inspections == 1


@pytest.mark.django_db
def test_a_file_that_kills_its_inspector_is_given_up(workspace):
    video = uploaded(workspace, "pal_25.mp4")
    Video.objects.update(num_inspections=inspection.MAX_INSPECTIONS)
    inspection.inspect(video.pk)
    video.refresh_from_db()
    assert (video.status, video.rejection) == (Video.Status.REJECTED, Rejection.TOO_DEMANDING)


@pytest.mark.django_db
def test_rings_that_come_while_a_file_is_looked_into_are_for_the_same_look(workspace, monkeypatch):
    """As `repair` rings again and again while the queue is long: several workers take them at once."""
    video = uploaded(workspace, "pal_25.mp4")
    examine = inspection._examine

    def rung_again(claimed):
        if claimed.num_inspections <= inspection.MAX_INSPECTIONS:
            tasks.inspect_video(video_id=str(video.pk))
        return examine(claimed)

    monkeypatch.setattr(inspection, "_examine", rung_again)
    tasks.inspect_video(video_id=str(video.pk))
    video.refresh_from_db()
    assert (video.status, video.num_inspections) == (Video.Status.READY, 1)


@pytest.mark.django_db
def test_nothing_stays_of_a_video_that_is_deleted_while_it_is_looked_into(workspace, alice, monkeypatch):
    video = uploaded(workspace, "pal_25.mp4")
    examine = inspection._examine

    def deleted_meanwhile(claimed):
        verdict = examine(claimed)
        retention.delete_video(video, actor=alice)
        retention.purge()
        return verdict

    monkeypatch.setattr(inspection, "_examine", deleted_meanwhile)
    inspection.inspect(video.pk)
    assert [item.key for item in objects.walk() if item.key.startswith(str(workspace.pk))] == []
    assert Video.objects.get().objects_in_storage == []


@pytest.mark.django_db
def test_a_picture_that_browsers_do_not_show_gets_a_copy_that_they_do(workspace):
    video = VideoFactory(workspace=workspace, status=Video.Status.INSPECTING, num_frames=0, codec="")
    tiff = io.BytesIO()
    Image.new("RGBA", (64, 48), (255, 0, 0, 128)).save(tiff, "TIFF")
    objects.save(video.storage_key, io.BytesIO(tiff.getvalue()))
    inspection.inspect(video.pk)
    previews.make_proxy(video.pk)
    video.refresh_from_db()
    assert (video.is_image, video.has_alpha) == (True, True)
    with Image.open(io.BytesIO(objects.read_bytes(video.proxy_key))) as copy:
        assert (copy.format, copy.size, copy.mode) == ("PNG", (64, 48), "RGBA")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["grand_prix_1906.ogv", "rotated_90.mp4", "anamorphic.mp4", "hevc_10bit.mp4"]
)
def test_a_proxy_plays_in_browsers_with_the_same_frames(workspace, name):
    video = uploaded(workspace, name)
    inspection.inspect(video.pk)
    previews.make_proxy(video.pk)
    video.refresh_from_db()
    with objects.local_copy(video.proxy_key) as proxy:
        facts = look_into(proxy).facts
    assert facts.is_playable
    assert facts.num_frames == video.num_frames
    assert abs(facts.width - video.width) <= 1
    assert abs(facts.height - video.height) <= 1


@pytest.mark.django_db
def test_a_lost_ring_for_a_copy_is_rung_again(workspace, django_capture_on_commit_callbacks):
    video = uploaded(workspace, "hevc_10bit.mp4")
    inspection.inspect(video.pk)
    Video.objects.update(proxy_wanted_at=timezone.now() - repair.PROXY_LOST - timedelta(minutes=1))
    with django_capture_on_commit_callbacks() as callbacks:
        repair.repair()
        repair.repair()
    rings = [callback.args for callback in callbacks if callback.args[0] is Doorbell.MAKE_PROXY]
    assert len(rings) == 1
    tasks.make_proxy(**rings[0][1])
    video.refresh_from_db()
    assert objects.exists(video.proxy_key)
    assert video.proxy_wanted_at is None
