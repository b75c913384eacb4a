"""Every address of the site: who may use it, and that nobody else does.

`DOORS` names each address. One that is missing there fails, so a new one cannot be forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts.models import User, Workspace
from billing import purchases
from billing.models import CreditPack
from tests.factories import RestorationFactory, UploadFactory, VideoFactory


class Audience(enum.Enum):
    """Who may use an address."""

    PUBLIC = "everybody"
    PERSON = "whoever has signed in"
    READ = "members of the workspace, viewers included"
    WRITE = "members of the workspace who may change it"
    HOOK = "a machine that shows a secret"


@dataclass(frozen=True, slots=True)
class Door:
    """Who may use an address, and by which method."""

    audience: Audience
    method: str = "GET"


DOORS = {
    "home": Door(Audience.PUBLIC),
    "pricing": Door(Audience.PUBLIC),
    "health": Door(Audience.PUBLIC),
    "preferences": Door(Audience.PERSON),
    "workspace-home": Door(Audience.READ),
    "credit-statement": Door(Audience.READ),
    "credit-statement-csv": Door(Audience.READ),
    "credit-buy": Door(Audience.READ),
    "credit-checkout": Door(Audience.WRITE, "POST"),
    "credit-portal": Door(Audience.WRITE, "POST"),
    "purchase-detail": Door(Audience.READ),
    "top-up-update": Door(Audience.WRITE, "POST"),
    "upload-create": Door(Audience.WRITE, "POST"),
    "upload-abort": Door(Audience.WRITE, "DELETE"),
    "upload-parts": Door(Audience.WRITE),
    "upload-part": Door(Audience.WRITE, "POST"),
    "upload-complete": Door(Audience.WRITE, "POST"),
    "video-create": Door(Audience.WRITE, "POST"),
    "video-detail": Door(Audience.READ),
    "video-quote": Door(Audience.READ),
    "video-restore": Door(Audience.WRITE, "POST"),
    "video-buy": Door(Audience.WRITE, "POST"),
    "video-delete": Door(Audience.WRITE, "POST"),
    "restoration-list": Door(Audience.READ),
    "restoration-detail": Door(Audience.READ),
    "restoration-cancel": Door(Audience.WRITE, "POST"),
    "restoration-delete": Door(Audience.WRITE, "POST"),
    "restoration-download": Door(Audience.READ),
    "runpod-webhook": Door(Audience.HOOK, "POST"),
    "stripe-webhook": Door(Audience.HOOK, "POST"),
}
#: Addresses of packages, which guard themselves; the admin is for staff.
OF_PACKAGES = ("account_", "socialaccount_", "mfa_", "admin:")
PLACES = [name for name, door in DOORS.items() if door.audience in (Audience.READ, Audience.WRITE)]
ONLY_FOR_EDITORS = [name for name, door in DOORS.items() if door.audience is Audience.WRITE]
FOR_VIEWERS = [name for name, door in DOORS.items() if door.audience is Audience.READ]

SignIn = Callable[[User], Client]


def url_names(resolver: URLResolver, namespace: str = "") -> Iterator[str]:
    """Yields the name of each address below a resolver, or its pattern when it has none."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from url_names(pattern, namespace + inner)
        else:
            assert isinstance(pattern, URLPattern)
            yield namespace + (pattern.name or f"without a name: {pattern.pattern}")


def variable_parts(name: str) -> list[str]:
    """Returns the names of what varies in an address."""
    [possibility, *_] = get_resolver().reverse_dict.getlist(name)
    return list(possibility[0][0][1])


class Places:
    """Alice's things, and the addresses that lead to them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.video = VideoFactory(workspace=workspace)
        self.restoration = RestorationFactory(video=self.video)
        self.upload = UploadFactory(workspace=workspace)
        pack = CreditPack.objects.earliest("price_cents")
        self.purchase = purchases.new_purchase(workspace=workspace, pack=pack)

    def path(self, name: str, *, workspace: Workspace | None = None) -> str:
        """Returns the path of an address with the ids of Alice's things, below another workspace if one is given."""
        known = {
            "slug": (workspace or self.workspace).slug,
            "video_id": self.video.pk,
            "restoration_id": self.restoration.pk,
            "upload_id": self.upload.pk,
            "purchase_id": self.purchase.pk,
            "number": 1,
        }
        return reverse(name, kwargs={word: known[word] for word in variable_parts(name)})


def ask(client: Client, name: str, path: str) -> HttpResponse:
    """Sends the request that the address is made for, with nothing in its document."""
    return client.generic(DOORS[name].method, path, '{"parts": []}', content_type="application/json")


@pytest.fixture
def places(workspace: Workspace) -> Places:
    return Places(workspace)


def test_every_address_names_its_audience() -> None:
    ours = {name for name in url_names(get_resolver()) if not name.startswith(OF_PACKAGES)}
    assert ours == set(DOORS)


@pytest.mark.parametrize("name", PLACES)
def test_stranger_finds_nothing(name: str, places: Places, charlie: User, signed_in: SignIn) -> None:
    assert ask(signed_in(charlie), name, places.path(name)).status_code == 404


@pytest.mark.parametrize("name", [name for name in PLACES if len(variable_parts(name)) > 1])
def test_stranger_finds_nothing_below_an_own_workspace(
    name: str, places: Places, charlie: User, signed_in: SignIn
) -> None:
    own = charlie.memberships.get().workspace
    assert ask(signed_in(charlie), name, places.path(name, workspace=own)).status_code == 404


@pytest.mark.parametrize("name", PLACES)
def test_visitor_is_asked_to_sign_in(name: str, places: Places) -> None:
    response = ask(Client(), name, places.path(name))
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("account_login"))


@pytest.mark.parametrize("name", ONLY_FOR_EDITORS)
def test_viewer_cannot_change_anything(name: str, places: Places, vera: User, signed_in: SignIn) -> None:
    assert ask(signed_in(vera), name, places.path(name)).status_code == 403


@pytest.mark.parametrize("name", FOR_VIEWERS)
def test_viewer_can_look(name: str, places: Places, vera: User, signed_in: SignIn) -> None:
    # What is not there for anybody yet, such as the result of a queued restoration, is 404; never 403.
    assert ask(signed_in(vera), name, places.path(name)).status_code in (200, 302, 404)


@pytest.mark.parametrize("name", ONLY_FOR_EDITORS)
def test_member_passes_the_door(name: str, places: Places, bob: User, signed_in: SignIn) -> None:
    # The requests are empty, so most are refused for what they lack; none for who asks.
    assert ask(signed_in(bob), name, places.path(name)).status_code not in (403, 404)


@pytest.mark.parametrize("name", PLACES)
def test_other_methods_are_refused(name: str, places: Places, bob: User, signed_in: SignIn) -> None:
    other = {"GET": "POST", "POST": "GET", "DELETE": "GET"}[DOORS[name].method]
    assert signed_in(bob).generic(other, places.path(name)).status_code == 405


def test_preferences_are_for_those_who_signed_in(alice: User, signed_in: SignIn) -> None:
    path = reverse("preferences")
    assert signed_in(alice).get(path).status_code == 200
    assert Client().get(path).status_code == 302


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.audience is Audience.PUBLIC])
def test_everybody_sees_public_pages(name: str, db: None) -> None:
    assert Client().get(reverse(name)).status_code == 200


def test_hook_does_not_know_a_wrong_token(db: None) -> None:
    path = reverse("runpod-webhook", kwargs={"token": str(uuid4())})
    assert Client().post(path, data={}, content_type="application/json").status_code == 404
    assert Client().get(path).status_code == 405


def test_admin_is_for_staff(alice: User, signed_in: SignIn) -> None:
    assert signed_in(alice).get(reverse("admin:index")).status_code == 302
