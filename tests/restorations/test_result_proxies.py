"""Copies of results that browsers cannot play: made once, with the same frames and sound, deleted with the result."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import av
import pytest
from django.utils import timezone

from gpu_worker.contract import Output
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.join import join
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource
from restorations import lifecycle, objects, repair, result_proxies, retention
from restorations.models import Restoration, Video
from tests import samples
from tests.factories import RestorationFactory

pytestmark = pytest.mark.django_db

SIZE = 320, 136


def result_of(source: Path, output: Output, folder: Path) -> Path:
    """Writes what a worker would: the source's own pictures in another format."""
    result = folder / "result"
    with closing(VideoSource(source)) as video:
        result_format = ResultFormat.of(video, output, width=SIZE[0], height=SIZE[1])
        segment = folder / f"segment{result_format.segment_suffix}"
        with closing(SegmentWriter(segment, result_format)) as writer:
            for picture, _luma in video.pictures():
                frame = av.VideoFrame.from_ndarray(picture.pixels, format="rgb24")
                writer.write(frame.reformat(*SIZE).to_ndarray(format="rgb24"), picture.ticks)
            writer.finish()
        join([segment], result, source=video, result_format=result_format)
    return result


def restoration_with(result: Path, output: str, *, days: int = 1) -> Restoration:
    restoration = RestorationFactory(
        status="succeeded",
        output=output,
        proxy_wanted_at=timezone.now(),
        expires_at=timezone.now() + timedelta(days=days),
    )
    restoration.result_key = (
        f"{restoration.workspace_id}/results/{restoration.pk}/1{restoration.result_suffix}"
    )
    restoration.save()
    with result.open("rb") as content:
        objects.save(restoration.result_key, content)
    return restoration


def moments(file: Path) -> list[Fraction]:
    with av.open(file) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.parametrize("output", [Output.H265, Output.PRORES, Output.PNG])
def test_a_proxy_has_the_frames_and_the_sound_of_its_result(output: Output, tmp_path: Path) -> None:
    source = samples.path("vfr.mp4")
    restoration = restoration_with(result_of(source, output, tmp_path), output)
    result_proxies.make(restoration.pk)
    restoration.refresh_from_db()
    assert restoration.proxy_wanted_at is None
    with objects.local_copy(restoration.proxy_key) as proxy:
        with av.open(proxy) as container, av.open(source) as original:
            [stream] = container.streams.video
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height) == SIZE
            assert len(container.streams.audio) == min(1, len(original.streams.audio))
        shown, wanted = moments(proxy), moments(source)
    assert len(shown) == len(wanted)
    assert all(
        abs((one - shown[0]) - (other - wanted[0])) <= Fraction(2, 1000)
        for one, other in zip(shown, wanted, strict=True)
    )


def test_sound_of_a_sequence_is_in_its_proxy(tmp_path: Path) -> None:
    restoration = restoration_with(result_of(samples.path("pal_25.mp4"), Output.PNG, tmp_path), "png")
    result_proxies.make(restoration.pk)
    restoration.refresh_from_db()
    with objects.local_copy(restoration.proxy_key) as proxy, av.open(proxy) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]


def test_a_result_that_cannot_be_copied_is_still_there_to_download(alice_client, workspace, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a ZIP")
    restoration = restoration_with(broken, "png")
    Restoration.objects.filter(pk=restoration.pk).update(workspace=workspace)
    Video.objects.filter(pk=restoration.video_id).update(workspace=workspace)
    page = alice_client.get(f"/w/{workspace.slug}/restorations/{restoration.pk}/").content.decode()
    assert "A copy for this page is being made" in page
    assert "data-poll" in page, "the player comes without a reload"
    result_proxies.make(restoration.pk)
    page = alice_client.get(f"/w/{workspace.slug}/restorations/{restoration.pk}/").content.decode()
    assert "Download the result to see it." in page
    assert "data-poll" not in page


def test_a_proxy_goes_with_its_result(tmp_path: Path) -> None:
    restoration = restoration_with(
        result_of(samples.path("single_frame.mp4"), Output.PRORES, tmp_path), "prores"
    )
    result_proxies.make(restoration.pk)
    restoration.refresh_from_db()
    key = restoration.proxy_key
    assert objects.exists(key)
    lifecycle.expire(restoration)
    retention.purge()
    assert not objects.exists(key)
    restoration.refresh_from_db()
    assert restoration.proxy_key == ""


def test_a_proxy_made_too_late_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restoration = restoration_with(
        result_of(samples.path("single_frame.mp4"), Output.PRORES, tmp_path), "prores"
    )
    encode = result_proxies.encode_proxy

    def expire_meanwhile(*arguments: object, **options: object) -> None:
        encode(*arguments, **options)
        lifecycle.expire(restoration)

    monkeypatch.setattr(result_proxies, "encode_proxy", expire_meanwhile)
    result_proxies.make(restoration.pk)
    assert not objects.exists(f"{restoration.workspace_id}/proxies/{restoration.pk}.mp4")


def test_a_proxy_whose_ring_was_lost_is_rung_for_again(django_capture_on_commit_callbacks):
    restoration = RestorationFactory(status="succeeded", output="png", finish_mailed_at=timezone.now())
    Restoration.objects.filter(pk=restoration.pk).update(
        proxy_wanted_at=timezone.now() - repair.PROXY_LOST - timedelta(minutes=1)
    )
    with django_capture_on_commit_callbacks() as rings:
        repair.repair()
    with django_capture_on_commit_callbacks() as again:
        repair.repair()
    assert (len(rings), len(again)) == (1, 0)


def test_a_copy_that_ends_its_encoder_each_time_is_given_up_after_a_day(django_capture_on_commit_callbacks):
    begun = timezone.now() - timedelta(days=1, minutes=1)
    rung = timezone.now() - repair.PROXY_LOST - timedelta(minutes=1)
    restoration = RestorationFactory(
        status="succeeded", output="png", finished_at=begun, finish_mailed_at=begun, proxy_wanted_at=rung
    )
    Video.objects.update(created_at=begun, proxy_wanted_at=rung)
    with django_capture_on_commit_callbacks() as rings:
        repair.repair()
    assert rings == []
    restoration.refresh_from_db()
    assert not restoration.is_proxy_coming
    assert Video.objects.get().proxy_wanted_at is None
