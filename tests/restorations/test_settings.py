"""The settings of an order: recommended, chosen, refused, saved, stored with what ran, sent to the worker."""

import re

import pytest
from django.urls import reverse

from billing import ledger
from gpu_worker.contract import ColorFix, Model, Output
from restorations import dispatch, lifecycle, submission
from restorations.models import Restoration, SavedSettings
from restorations.options import (
    AUTOMATIC,
    ColorFixChoice,
    ModelChoice,
    Options,
    OutputChoice,
    resolved_output,
)
from restorations.quotes import quote
from tests.factories import RestorationFactory, SavedSettingsFactory, VideoFactory

pytestmark = pytest.mark.django_db

CHOSEN = {
    "preset": "720p",
    "model": "seedvr2-3b",
    "strength": "35",
    "color_fix": "lab",
    "output": "prores",
    "seed": "7",
}


@pytest.fixture
def video(workspace):
    return VideoFactory(workspace=workspace)


def at(name, video, **parts):
    return reverse(name, kwargs={"slug": video.workspace.slug, **parts})


def restore(client, video, **form):
    return client.post(at("video-restore", video, video_id=video.pk), form)


def is_open(page, name):
    tag = re.search(rf'<details[^>]*id="{name}"[^>]*>', page)
    return bool(re.search(r"\bopen\b(?!=)", tag[0].replace("data-keep-open", "")))


def test_choices_are_those_of_the_contract():
    assert set(ModelChoice.values) == set(Model)
    assert set(ColorFixChoice.values) == set(ColorFix)
    assert set(OutputChoice.values) == set(Output)


def test_a_resolution_is_enough(alice_client, video):
    restore(alice_client, video, preset="1080p")
    restoration = Restoration.objects.get()
    assert (restoration.model, restoration.strength) == ("seedvr2-7b", 100)
    assert (restoration.color_fix, restoration.output) == ("wavelet", "h264")


def test_without_a_resolution_nothing_starts(alice_client, video):
    assert restore(alice_client, video, strength="50").status_code == 422
    assert not Restoration.objects.exists()


def test_the_page_recommends_every_setting_with_a_reason(alice_client, video):
    page = alice_client.get(video.get_absolute_url()).content.decode()
    more = page[page.index('id="more-settings"') : page.index('id="preview-start"')]
    assert more.count("recommended") >= 4
    assert more.count('class="field-help"') == 5
    assert more.count("The CPU preview engine, at work here, does not use this.") == 4
    assert not is_open(page, "more-settings"), "closed until somebody asks"


def test_what_is_chosen_is_stored_shown_and_sent(alice_client, video):
    restore(alice_client, video, **CHOSEN)
    restoration = Restoration.objects.get()
    assert Options.of(restoration) == Options(**CHOSEN | {"strength": 35, "seed": 7})
    page = alice_client.get(restoration.get_absolute_url()).content.decode()
    for shown in ("SeedVR2 3B", "35", "Match colours closely", "MOV, ProRes 422 HQ", "7"):
        assert shown in page
    attempt = lifecycle.open_attempt(restoration.pk)
    request = dispatch._request(attempt)
    assert (request.model, request.strength, request.seed) == (Model.SEEDVR2_3B, 35, 7)
    assert (request.color_fix, request.output) == (ColorFix.LAB, Output.PRORES)
    assert attempt.result_key.endswith("/1.mov")


@pytest.mark.parametrize(
    "wrong",
    [
        {"strength": "101"},
        {"strength": "-1"},
        {"strength": "much"},
        {"model": "seedvr3"},
        {"color_fix": "sepia"},
        {"output": "gif"},
    ],
)
def test_wrong_settings_come_back_and_cost_nothing(alice_client, video, wrong):
    answer = restore(alice_client, video, **CHOSEN | wrong)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert is_open(page, "more-settings"), "the wrong one is in sight"
    assert 'value="7"' in page, "the others are kept"
    assert not Restoration.objects.exists()


# --- The output ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ({}, "h264"),
        ({"bit_depth": 10}, "h265"),
        ({"bit_depth": 10, "color": {"transfer": 16}}, "h265"),
        ({"bit_depth": 10, "color": {"transfer": 18}}, "h265"),
        ({"bit_depth": 10, "width": 40, "height": 1280}, "prores"),
        ({"bit_depth": 10, "width": 1280, "height": 40}, "h265"),
        ({"is_image": True}, "png"),
        ({"is_image": True, "bit_depth": 16}, "png"),
    ],
)
def test_automatic_is_never_below_the_source(source, output):
    assert resolved_output(AUTOMATIC, VideoFactory.build(**source)) == output


def test_hdr_is_not_offered_in_8_bits(alice_client, workspace):
    video = VideoFactory(workspace=workspace, bit_depth=10, color={"transfer": 16})
    page = alice_client.get(video.get_absolute_url()).content.decode()
    assert 'value="h265"' in page
    assert 'value="h264"' not in page
    assert restore(alice_client, video, **CHOSEN | {"output": "h264"}).status_code == 422
    restore(alice_client, video, preset="720p")
    assert Restoration.objects.get().output == "h265"


def test_a_strip_that_breaks_the_encoder_is_refused_before_anything_is_charged(alice_client, workspace):
    video = VideoFactory(workspace=workspace, width=24, height=640)
    page = alice_client.get(video.get_absolute_url()).content.decode()
    assert "H.265 cannot hold so narrow a picture" in page
    assert 'value="h265"' not in page
    before = ledger.balance(workspace)
    assert restore(alice_client, video, **CHOSEN | {"output": "h265"}).status_code == 422
    with pytest.raises(submission.NotRestorable, match="choose another"):
        submission.submit(video=video, user=None, options=Options(preset="2k", output="h265"))
    assert ledger.balance(workspace) == before
    restore(alice_client, video, preset="720p")
    assert Restoration.objects.get().output == "h264"


@pytest.mark.parametrize(
    ("output", "is_image", "name"),
    [
        ("h264", False, "holiday_720p_seed42.mp4"),
        ("h265", False, "holiday_720p_seed42.mp4"),
        ("prores", False, "holiday_720p_seed42.mov"),
        ("png", False, "holiday_720p_seed42.zip"),
        ("png", True, "holiday_720p_seed42.png"),
    ],
)
def test_downloads_are_named_by_what_they_are(output, is_image, name):
    assert RestorationFactory.build(output=output, video__is_image=is_image).download_name == name


# --- Price and time -----------------------------------------------------------------------------------------


def test_formats_cost_time_and_not_credits(video):
    quotes = {output: quote(video, Options(preset="1080p", output=output)) for output in Output}
    assert len({offer.credits for offer in quotes.values()}) == 1
    assert quotes["h265"].expected_seconds > quotes["h264"].expected_seconds
    assert quotes["png"].expected_bytes > quotes["prores"].expected_bytes > quotes["h264"].expected_bytes


def test_the_page_says_so_when_a_file_will_be_large(alice_client, workspace):
    video = VideoFactory(workspace=workspace, num_frames=50_000, duration_seconds=2000)
    address = at("video-quote", video, video_id=video.pk)
    assert "Size of the file" in alice_client.get(address, CHOSEN).content.decode()
    assert "Size of the file" not in alice_client.get(address, {"preset": "720p"}).content.decode()


# --- Run again ----------------------------------------------------------------------------------------------


def test_run_again_opens_the_form_with_what_ran(alice_client, video):
    restoration = RestorationFactory(
        video=video,
        status="succeeded",
        result_key="x/1.mov",
        strength=35,
        output="prores",
        model="seedvr2-3b",
    )
    page = alice_client.get(restoration.get_absolute_url()).content.decode()
    again = page[: page.index("Run again with other settings")].rpartition('href="')[2].split('"')[0]
    form = alice_client.get(again.replace("&amp;", "&")).content.decode()
    assert 'value="35"' in form
    assert 'value="42"' in form, "the same seed, so that both can be compared"
    for chosen in ("prores", "seedvr2-3b"):
        assert f'value="{chosen}" selected' in form


def test_run_again_stays_automatic(alice_client, video):
    restoration = RestorationFactory(video=video, status="succeeded", result_key="x/1.mp4")
    page = alice_client.get(restoration.get_absolute_url()).content.decode()
    assert "output=auto" in page


# --- Saved settings -----------------------------------------------------------------------------------------


def save(client, video, **form):
    return client.post(at("saved-settings-create", video, video_id=video.pk), CHOSEN | form)


def test_settings_are_saved_and_used_by_a_colleague(alice_client, bob_client, video):
    answer = save(alice_client, video, name="Old films")
    assert "strength=35" in answer.headers["location"], "the form stays as it was"
    saved = SavedSettings.objects.get()
    assert (saved.name, saved.strength, saved.output) == ("Old films", 35, "prores")
    other = VideoFactory(workspace=video.workspace)
    assert "?saved=Old%20films" in bob_client.get(other.get_absolute_url()).content.decode()
    form = bob_client.get(other.get_absolute_url(), {"saved": "Old films"}).content.decode()
    assert 'value="35"' in form
    assert 'value="prores" selected' in form
    assert 'value="7"' not in form, "the seed is not part of them"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "Please type a name"), ("Old films", "of this name already"), ("x" * 61, "60")],
)
def test_a_name_that_cannot_be_used_comes_back(alice_client, video, name, sentence):
    SavedSettingsFactory(workspace=video.workspace, name="Old films")
    answer = save(alice_client, video, name=name)
    assert answer.status_code == 422
    assert sentence in answer.content.decode()
    assert SavedSettings.objects.count() == 1


def test_automatic_is_saved_as_automatic(alice_client, video):
    save(alice_client, video, name="Usual", output="auto")
    assert SavedSettings.objects.get().output == AUTOMATIC


def test_saved_settings_are_listed_and_deleted(bob_client, vera_client, video):
    saved = SavedSettingsFactory(workspace=video.workspace, name="Old films")
    page = vera_client.get(at("saved-settings-list", video)).content.decode()
    assert "Old films" in page
    assert "Delete settings" not in page
    bob_client.post(at("saved-settings-delete", video, saved_id=saved.pk))
    assert not SavedSettings.objects.exists()


def test_settings_of_another_workspace_are_not_there(charlie_client, charlie, video):
    SavedSettingsFactory(workspace=video.workspace, name="Old films")
    own = VideoFactory(workspace=charlie.memberships.get().workspace)
    assert charlie_client.get(own.get_absolute_url(), {"saved": "Old films"}).status_code == 404
    assert "Old films" not in charlie_client.get(at("saved-settings-list", own)).content.decode()
