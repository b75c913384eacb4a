"""Holds requests and objects against the types that Stripe's SDK ships."""

from __future__ import annotations

import functools
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from stripe._request_options import RequestOptions
from stripe._stripe_context import StripeContext
from typing_extensions import is_typeddict

_OPTIONS = frozenset(RequestOptions.__annotations__)
_PART = re.compile(r"\[([^\]]*)\]")


class NotInTheApi(ValueError):
    """A parameter or field that Stripe's SDK does not know, or a required one that is missing."""


def decoded(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Returns Stripe's form encoding as nested values: `items[0][price]=x` is a list of objects."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        *way, last = [name.partition("[")[0], *_PART.findall(name)]
        place = result
        for word in way:
            place = place.setdefault(word, {})
        place[last] = value
    return _lists(result)


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() or key == "" for key in value):
        return [_lists(item) for item in value.values()]
    return {key: _lists(item) for key, item in value.items()}


@functools.cache
def _hints(shape: type) -> dict[str, Any]:
    names = {**vars(sys.modules[shape.__module__]), "Mapping": Mapping, "StripeContext": StripeContext}
    names |= vars(typing)
    return typing.get_type_hints(shape, globalns=names, localns=names)


def check_request(params: dict[str, Any], shape: type, where: str = "") -> None:
    """Raises `NotInTheApi` unless these parameters fit a TypedDict of the SDK, at every depth."""
    hints = {name: hint for name, hint in _hints(shape).items() if name not in _OPTIONS}
    if unknown := params.keys() - hints.keys():
        raise NotInTheApi(f"Received unknown parameter: {where}{sorted(unknown)[0]}")
    if missing := shape.__required_keys__ - params.keys() - _OPTIONS:  # type: ignore[attr-defined]
        raise NotInTheApi(f"Missing required param: {where}{sorted(missing)[0]}")
    for name, value in params.items():
        _check_value(value, hints[name], f"{where}{name}.")


def _check_value(value: Any, hint: Any, where: str) -> None:
    choices = _choices(hint)
    if isinstance(value, list):
        items = [get_args(choice)[0] for choice in choices if get_origin(choice) is list]
        if not items:
            raise NotInTheApi(f"Invalid array: {where}")
        for item in value:
            _check_value(item, items[0], where)
    elif isinstance(value, dict):
        shapes = [choice for choice in choices if is_typeddict(choice)]
        if shapes:
            check_request(value, shapes[0], where)
        elif not any(get_origin(choice) in (dict, Mapping) for choice in choices):
            raise NotInTheApi(f"Invalid object: {where}")
    else:
        _check_word(value, choices, where)


def _check_word(value: object, choices: list[Any], where: str) -> None:
    words = {word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)}
    # The SDK writes enumerations as `Literal | str`, to let new words pass; here only known ones do.
    if words - {""} and value not in words and bool not in choices and value is not None:
        raise NotInTheApi(f"Invalid {where[:-1]}: must be one of {sorted(map(str, words))}, not {value}")


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for part in get_args(hint) for choice in _choices(part)]
    return [hint]


def honest(shape: type, thing: dict[str, Any]) -> dict[str, Any]:
    """Returns an object for an answer; raises `NotInTheApi` for fields or words that its SDK class does not know."""
    # Not resolved: the classes name each other in ways that only a type checker follows.
    hints = shape.__annotations__
    if unknown := thing.keys() - hints.keys():
        raise NotInTheApi(f"{shape.__name__} has no {sorted(unknown)}")
    for name, value in thing.items():
        if isinstance(value, str):
            _check_word(value, _choices(hints[name]), f"{shape.__name__}.{name}.")
    return thing
