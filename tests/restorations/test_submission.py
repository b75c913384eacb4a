"""Ordering a restoration through its page: price, charge, errors, repeats."""

import pytest
from django.urls import reverse
from django.utils import timezone

from billing import ledger
from restorations.models import Restoration, Video
from restorations.options import Options
from restorations.quotes import quote
from tests.factories import VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def video(workspace):
    return VideoFactory(workspace=workspace)


def restore(client, video, **form):
    url = reverse("video-restore", args=[video.workspace.slug, video.pk])
    htmx = {"HTTP_HX_REQUEST": "true"} if form.pop("htmx", False) else {}
    return client.post(url, {"preset": "1080p"} | form, **htmx)


def test_the_quote_is_what_is_charged(alice_client, video, workspace):
    before = ledger.balance(workspace)
    answer = restore(alice_client, video)
    restoration = Restoration.objects.get()
    assert answer.headers["location"] == restoration.get_absolute_url()
    assert (
        restoration.price_credits
        == quote(video, Options(preset="1080p")).credits
        == before - ledger.balance(workspace)
    )
    assert (restoration.res_w, restoration.res_h, restoration.sp_size) == (1440, 1080, 4)
    assert (restoration.status, restoration.num_frames) == ("queued", 100)


def test_the_page_shows_the_price_that_is_charged(alice_client, video):
    page = alice_client.get(reverse("video-quote", args=[video.workspace.slug, video.pk]), {"preset": "2k"})
    offer = quote(video, Options(preset="2k"))
    assert f"{offer.credits} credits" in " ".join(page.content.decode().split())
    assert f"{offer.size.width}" in page.content.decode()


def test_a_seed_is_drawn_and_another_is_kept(alice_client, video):
    other = VideoFactory(workspace=video.workspace)
    restore(alice_client, video)
    restore(alice_client, other)
    restore(alice_client, video, seed="7")
    seeds = list(Restoration.objects.order_by("created_at").values_list("seed", flat=True))
    assert seeds[0] != seeds[1]
    assert seeds[2] == 7


def test_htmx_is_sent_to_the_new_page(alice_client, video):
    answer = restore(alice_client, video, htmx=True)
    assert answer.headers["HX-Redirect"] == Restoration.objects.get().get_absolute_url()


@pytest.mark.parametrize("form", [{"preset": "8k"}, {"seed": "-1"}, {"seed": str(2**32)}, {"seed": "often"}])
@pytest.mark.parametrize("htmx", [True, False])
def test_a_wrong_form_comes_back_and_costs_nothing(alice_client, video, workspace, form, htmx):
    before = ledger.balance(workspace)
    answer = restore(alice_client, video, htmx=htmx, **form)
    assert answer.status_code == 422
    assert not Restoration.objects.exists()
    assert ledger.balance(workspace) == before


def test_without_enough_credits_nothing_happens_and_the_page_says_how_many_are_missing(
    alice_client, video, workspace
):
    ledger.charge(workspace=workspace, credits=ledger.balance(workspace) - 5, reference="elsewhere")
    answer = restore(alice_client, video)
    missing = quote(video, Options(preset="1080p")).credits - 5
    assert answer.status_code == 422
    assert '<div class="stack" role="alert">' in answer.content.decode()
    assert f"You need {missing} more credits for this." in answer.content.decode()
    assert ledger.balance(workspace) == 5
    assert not Restoration.objects.exists()
    ledger.grant(workspace=workspace, credits=missing - 1, key="elsewhere")
    assert "You need 1 more credit for this." in restore(alice_client, video).content.decode()


@pytest.mark.parametrize(
    "state",
    [
        {"status": Video.Status.INSPECTING, "num_frames": 0},
        {"status": Video.Status.REJECTED, "rejection": "playlist"},
    ],
)
def test_a_video_that_is_not_ready_is_not_charged(alice_client, workspace, state):
    video = VideoFactory(workspace=workspace, **state)
    before = ledger.balance(workspace)
    assert restore(alice_client, video).status_code == 422
    assert ledger.balance(workspace) == before


def test_a_deleted_video_is_not_there(alice_client, workspace):
    video = VideoFactory(workspace=workspace, deleted_at=timezone.now())
    assert restore(alice_client, video).status_code == 404


def test_one_upload_serves_many_runs(alice_client, video):
    for preset in Restoration.Preset.values:
        restore(alice_client, video, preset=preset)
    assert Restoration.objects.filter(video=video).count() == 3


def test_members_may_and_viewers_may_not(bob_client, vera_client, charlie_client, video):
    assert restore(bob_client, video).status_code == 302
    assert restore(vera_client, video).status_code == 403
    assert restore(charlie_client, video).status_code == 404


def test_get_is_no_way_to_spend(alice_client, video):
    answer = alice_client.get(reverse("video-restore", args=[video.workspace.slug, video.pk]))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "This address only takes what a form sends." in answer.content.decode()
    assert not Restoration.objects.exists()
