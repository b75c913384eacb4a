"""Dataclasses as JSON and back: what `contract.py` builds its documents from."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self


class ContractError(ValueError):
    """A document breaks the contract; the message names the field, its value and what is accepted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What all documents have in common: their way into JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Returns the document as a JSON object."""
        document = _plain(dataclasses.asdict(self))
        assert isinstance(document, dict)
        return document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Reads a document; unknown, missing and wrongly typed fields are a `ContractError`."""
        return cls(**cls.read_fields(document))

    @classmethod
    def read_fields(cls, document: object) -> dict[str, Any]:
        """Checks a JSON object and returns the constructor's arguments."""
        return _fields(cls, document)


_WORDS: Final[Mapping[type, str]] = {str: "text", int: "a whole number", float: "a number"}


def _plain(value: object) -> object:
    """Returns a value with lists in place of tuples, as JSON gives it back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


@functools.cache
def _declared(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fields(cls: Any, document: object) -> dict[str, Any]:
    """Checks a JSON object against a dataclass of this module and returns its constructor's arguments."""
    if not isinstance(document, Mapping):
        raise ContractError(f"{cls.__name__} is a JSON object, not {type(document).__name__}")
    declared = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(map(str, set(document) - set(declared))):
        raise ContractError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(declared)}")
    values: dict[str, Any] = {}
    for name, known in declared.items():
        if name in document:
            values[name] = _read(name, _declared(cls)[name], document[name])
        elif known.default is known.default_factory is dataclasses.MISSING:
            raise ContractError(f"{cls.__name__} misses {name}")
    return values


def _read(name: str, declared: Any, value: object) -> Any:
    """Reads a value as the type that a field declares."""
    if isinstance(declared, types.UnionType):
        (inner,) = set(typing.get_args(declared)) - {type(None)}
        return None if value is None else _read(name, inner, value)
    if typing.get_origin(declared) is tuple:
        return _read_list(name, typing.get_args(declared), value)
    if typing.get_origin(declared) is dict:
        return _read_table(name, typing.get_args(declared)[1], value)
    if issubclass(declared, Document):
        return declared.from_json(value)
    if issubclass(declared, enum.StrEnum):
        if value not in list(declared):
            raise ContractError(f"{name} is {value!r}; accepted are {', '.join(declared)}")
        return declared(str(value))
    # bool is an int in Python, but `true` is not a number in JSON.
    accepted = (int, float) if declared is float else declared
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise ContractError(f"{name} is {value!r}; expected {_WORDS[declared]}")
    return value


def _read_list(name: str, declared: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ContractError(f"{name} is a {type(value).__name__}; expected a list")
    if declared[-1] is not Ellipsis and len(value) != len(declared):
        raise ContractError(f"{name} has {len(value)} items; expected {len(declared)}")
    return tuple(_read(name, declared[0], item) for item in value)


def _read_table(name: str, declared: Any, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ContractError(f"{name} is a {type(value).__name__}; expected a JSON object")
    return {str(key): _read(name, declared, item) for key, item in value.items()}
