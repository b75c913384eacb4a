"""For whom this process works at the moment: who asks, from where, and whose rows may be seen.

A request begins with nobody's rows; the door (`accounts.access`) adds the workspace in the address. A queue task
gets the workspace of the row that it was given. Whoever needs all of them says so: `across_workspaces()`. The audit
log reads who and where from here, and PostgreSQL is told whose rows there are (`accounts.postgresql`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from accounts.models import User, Workspace

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Who asks and from where; the rows of `workspace_id` may be seen, or with `everything` those of all."""

    person_id: int | None = None
    address: str = ""
    user_agent: str = ""
    workspace_id: UUID | None = None
    everything: bool = False


NOBODY: Final = Scope()
# A thread begins without a scope, tasks of asyncio and threads of asgiref begin with that of their maker.
_current: ContextVar[Scope] = ContextVar("scope", default=NOBODY)


def current() -> Scope:
    """Returns the scope of this thread or asyncio task."""
    return _current.get()


def begin(scope: Scope) -> Token[Scope]:
    """Begins with a scope; whoever begins ends it by `end`."""
    return _current.set(scope)


def end(token: Token[Scope]) -> None:
    """Goes back to the scope before `begin`."""
    _current.reset(token)


def enter(workspace: Workspace) -> None:
    """Adds a workspace's rows until the request is over: what its page shows may be read late."""
    _current.set(dataclasses.replace(_current.get(), workspace_id=workspace.pk, everything=False))


def enter_everything() -> None:
    """Adds everybody's rows until the request is over."""
    _current.set(dataclasses.replace(_current.get(), everything=True))


@contextmanager
def _changed(**changes: Any) -> Iterator[None]:
    token = _current.set(dataclasses.replace(_current.get(), **changes))
    try:
        yield
    finally:
        _current.reset(token)


def inside(workspace: Workspace | UUID) -> Any:
    """Returns a context that sees the rows of one workspace, and no other's."""
    workspace_id = workspace if isinstance(workspace, UUID) else workspace.pk
    return _changed(workspace_id=workspace_id, everything=False)


def person(user: User) -> Any:
    """Returns a context in which this person asks: their memberships can be seen."""
    return _changed(person_id=user.pk)


def across_workspaces() -> Any:
    """Returns a context that sees everybody's rows: for sweeps, operators, and what begins without a workspace."""
    return _changed(everything=True)


def sees_everything(function: _F) -> _F:
    """Marks a view or task that works without a workspace and has to find rows of all: webhooks, sweeps."""
    function.sees_everything = True  # type: ignore[attr-defined]
    return function


# --- Tasks --------------------------------------------------------------------------------------------------

#: Whose rows a task may see that is given an id, by the argument's name: a workspace's, or a person's own memberships.
WORKSPACES: Final[dict[str, Callable[[str], UUID | None]]] = {"workspace_id": UUID}
PEOPLE: Final[dict[str, Callable[[str], int | None]]] = {"user_id": int}


@contextmanager
def of_task(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[None]:
    """Gives a task the scope of the row that it was given, everybody's rows if it is marked so, else nobody's."""
    with across_workspaces():
        workspaces = [WORKSPACES[name](arguments[name]) for name in arguments.keys() & WORKSPACES.keys()]
        people = [PEOPLE[name](arguments[name]) for name in arguments.keys() & PEOPLE.keys()]
    token = begin(
        Scope(
            workspace_id=next(iter(workspaces), None),
            person_id=next(iter(people), None),
            everything=getattr(function, "sees_everything", False),
        )
    )
    try:
        yield
    finally:
        end(token)
