"""Translations: shipped languages lack nothing, and the check that says so finds what is missing."""

from pathlib import Path

import pytest
from babel.messages.pofile import read_po, write_po
from django.conf import settings
from django.utils.translation import gettext, ngettext, override, trans_real

from seedvr_site import catalogues


@pytest.mark.parametrize("language", [code for code, _name in settings.LANGUAGES])
def test_shipped_languages_lack_nothing(language: str) -> None:
    assert catalogues.problems(language) == []


def test_packages_speak_our_words() -> None:
    with override("en"):
        assert gettext("Confirm Access") == "Is it still you?"


def test_everything_that_people_read_is_found() -> None:
    ids = {message.id for message in catalogues.messages()}
    for known in (
        "Your account is yours again, as it was.",  # in Python
        "Drop your video",  # in a page
        "Watch, compare and download it here:",  # in a mail
        ("%(n)s credit to begin with. No card needed.", "%(n)s credits to begin with. No card needed."),
    ):
        assert known in ids


def translate(po: Path, *, but: str = "") -> None:
    with po.open("rb") as file:
        catalogue = read_po(file, locale="de")
    for message in catalogue:
        if message.id and message.id != but:
            message.string = ("eins", "viele") if isinstance(message.id, tuple) else "übersetzt"
    with po.open("wb") as file:
        write_po(file, catalogue)


def test_a_sentence_without_a_translation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalogues.problems("de", folder=tmp_path) == [f"{tmp_path}/de/LC_MESSAGES/django.po is missing"]
    catalogues.update("de", folder=tmp_path)
    assert len(catalogues.problems("de", folder=tmp_path)) > 500
    po = tmp_path / "de" / "LC_MESSAGES" / "django.po"
    translate(po, but="Drop your video")
    assert catalogues.problems("de", folder=tmp_path) == [
        "stale: django.mo; run `make messages`",
        "no translation: Drop your video",
    ]
    translate(po)
    catalogues.update("de", folder=tmp_path)
    assert catalogues.problems("de", folder=tmp_path) == []

    # And Django reads it.
    monkeypatch.setattr(settings, "LOCALE_PATHS", [str(tmp_path)])
    monkeypatch.setattr(trans_real, "_translations", {})
    with override("de"):
        assert gettext("Drop your video") == "übersetzt"
        assert ngettext("%(n)s credit to begin with. No card needed.", "…", 1) == "eins"
