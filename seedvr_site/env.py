"""Typed readers of the environment: each names the variable, the bad value and what is accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import overload

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


@overload
def text(name: str) -> str: ...
@overload
def text(name: str, default: str) -> str: ...
def text(name: str, default: str | None = None) -> str:
    """Returns the variable, or the content of the file that `<name>_FILE` names, or the default.

    Raises `ImproperlyConfigured` when none of them exists, and for an empty one without a default.
    """
    value = os.environ.get(name, default)
    if file_name := os.environ.get(f"{name}_FILE"):
        try:
            value = Path(file_name).read_text().strip()
        except OSError as exc:
            raise ImproperlyConfigured(f"{name}_FILE names {file_name}, which cannot be read: {exc}") from exc
    if value is None or (default is None and not value):
        what = "not set" if value is None else "empty"
        raise ImproperlyConfigured(f"{name} is {what}; set it, or set {name}_FILE to a file that holds it")
    return value


def flag(name: str, default: bool) -> bool:
    """Returns a switch: 1, true, yes, on, or 0, false, no, off."""
    value = text(name, str(default)).strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(
        f"{name} is {value!r}; accepted are {', '.join(sorted((_TRUE | _FALSE) - {''}))}"
    )


def integer(name: str, default: int, *, low: int = 0, high: int = 2**62) -> int:
    """Returns a whole number between `low` and `high`."""
    value = text(name, str(default))
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}; expected a whole number") from None
    if not low <= number <= high:
        raise ImproperlyConfigured(f"{name} is {number}; accepted are {low} to {high}")
    return number


def choice(name: str, default: str, accepted: tuple[str, ...]) -> str:
    """Returns one of the accepted words."""
    value = text(name, default)
    if value not in accepted:
        raise ImproperlyConfigured(f"{name} is {value!r}; accepted are {', '.join(accepted)}")
    return value


def words(name: str, default: str = "") -> list[str]:
    """Returns a comma-separated list without its empty items."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]
