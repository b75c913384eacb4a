"""Keep the catalogues of translations in step with the sources: `python -m seedvr_site.catalogues`.

`locale/<language>/LC_MESSAGES/django.po` is what translators edit, the `.mo` beside it is what Django reads; both are
committed. English is what the sources say: its catalogue only holds sentences of packages that we say otherwise.
Babel does the work, in Python, so that nobody needs gettext's programs. Only development has it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from babel.messages import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "locale"
#: The language that the sources are written in.
SOURCE: Final = "en"
_APPS: Final = ("accounts", "billing", "restorations", "seedvr_site")
_NAMES: Final[dict[str, tuple[int, ...] | None]] = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy")),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (1, 2)),
}


def messages() -> Catalog:
    """Returns everything that people may read, from Python files and templates."""
    catalogue = Catalog(charset="utf-8")
    for path in sorted(_files()):
        source = path.read_text()
        if path.suffix != ".py":
            # Lines of a template are indented as they like, which Python's tokens do not forgive.
            source = re.sub(r"^\s+", "", templatize(source), flags=re.MULTILINE)
        found = extract("python", io.BytesIO(source.encode()), keywords=_NAMES)
        for _line, message, comments, context in found:
            place = (str(path.relative_to(ROOT)), 0)
            catalogue.add(message, locations=[place], auto_comments=comments, context=context)
    return catalogue


def _files() -> Iterator[Path]:
    for app in _APPS:
        yield from (path for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts)
    yield from (path for path in (ROOT / "templates").rglob("*") if path.suffix in (".html", ".txt"))


def problems(language: str, *, folder: Path = FOLDER) -> list[str]:
    """Returns what a shipped language lacks: sentences without a translation, and a stale `.mo`."""
    po, mo = _paths(language, folder)
    if not po.exists():
        return [f"{po} is missing"]
    catalogue = _read(po, language)
    is_stale = _translations(catalogue) != _translations(_compiled(mo))
    lacking = [f"stale: {mo.name}; run `make messages`"] if is_stale else []
    if language == SOURCE:
        return lacking
    for message in messages():
        if not message.id:
            continue
        known = catalogue.get(message.id, message.context)
        if known is None or known.fuzzy or not all(_forms(known.string)):
            lacking.append(f"no translation: {message.id}")
    return lacking


def update(language: str, *, folder: Path = FOLDER) -> None:
    """Brings a language's `.po` up to date, keeping what is translated, and compiles it."""
    po, mo = _paths(language, folder)
    po.parent.mkdir(parents=True, exist_ok=True)
    catalogue = _read(po, language) if po.exists() else Catalog(locale=language, charset="utf-8")
    if language != SOURCE:
        catalogue.update(messages(), no_fuzzy_matching=True)
        with po.open("wb") as file:
            write_po(file, catalogue, omit_header=False, include_lineno=False, ignore_obsolete=True)
    with mo.open("wb") as file:
        write_mo(file, catalogue)


def _paths(language: str, folder: Path) -> tuple[Path, Path]:
    stem = folder / language.replace("-", "_") / "LC_MESSAGES" / "django"
    return stem.with_suffix(".po"), stem.with_suffix(".mo")


def _read(path: Path, language: str) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=language.replace("-", "_"))


def _translations(catalogue: Catalog) -> dict[tuple[tuple[str, ...], str | None], tuple[str, ...]]:
    """Returns what is translated; sentences that a person has to look at again are not."""
    return {
        (_forms(message.id), message.context): _forms(message.string)
        for message in catalogue
        if message.id and message.string and not message.fuzzy
    }


def _forms(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns a sentence's singular and plural, or the one form that it has."""
    return (text or "",) if text is None or isinstance(text, str) else tuple(text)


def _compiled(mo: Path) -> Catalog:
    if not mo.exists():
        return Catalog()
    with mo.open("rb") as file:
        return read_mo(file)


if __name__ == "__main__":
    for each in sorted({SOURCE, *(path.name for path in FOLDER.iterdir() if path.is_dir())}):
        update(each)
