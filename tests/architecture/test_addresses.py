"""Every address of the site: who may use it, and that nobody else does.

`DOORS` names each address. One that is missing there fails, so a new one cannot be forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, resolve, reverse
from django.utils import timezone

from accounts import invitations, workspaces
from accounts.models import Invitation, User, Workspace
from accounts.permissions import Permission, Role, may
from billing import purchases
from billing.models import CreditPack
from restorations.models import LinkImport
from tests.factories import (
    MembershipFactory,
    RestorationFactory,
    SavedSettingsFactory,
    UploadFactory,
    VideoFactory,
)


class Audience(enum.Enum):
    """Who may use an address that is not a workspace's."""

    PUBLIC = "everybody"
    PERSON = "whoever has signed in"
    OWN = "the person whose it is"
    LINK = "whoever has a link that cannot be guessed"
    HOOK = "a machine that shows a secret"


@dataclass(frozen=True, slots=True)
class Door:
    """Who may use an address, and by which method. A permission is a workspace's: roles have it or not."""

    audience: Audience | Permission
    method: str = "GET"
    #: Members come in although something stands in their way: that the workspace is about to be deleted.
    is_before_hurdles: bool = False


LOOK, RESTORE, DELETE, BUY = Permission.LOOK, Permission.RESTORE, Permission.DELETE, Permission.BUY
DOORS = {
    "home": Door(Audience.PUBLIC),
    "pricing": Door(Audience.PUBLIC),
    "health": Door(Audience.PUBLIC),
    "preferences": Door(Audience.PERSON),
    "account-data": Door(Audience.PERSON),
    "data-export": Door(Audience.PERSON, "POST"),
    "data-export-download": Door(Audience.OWN),
    "account-delete": Door(Audience.PERSON),
    "account-keep": Door(Audience.PERSON, "POST"),
    "unsubscribe": Door(Audience.LINK, "POST"),
    "workspace-create": Door(Audience.PERSON),
    "workspace-home": Door(LOOK),
    "workspace-settings": Door(Permission.CHANGE_SETTINGS),
    "workspace-leave": Door(LOOK, "POST", is_before_hurdles=True),
    "workspace-hand-over": Door(Permission.OWN, "POST"),
    "workspace-delete": Door(Permission.OWN, "POST"),
    "workspace-undo-deletion": Door(Permission.OWN, "POST", is_before_hurdles=True),
    "member-list": Door(LOOK),
    "member-update": Door(Permission.MANAGE_MEMBERS, "POST"),
    "member-remove": Door(Permission.MANAGE_MEMBERS, "POST"),
    "invitation-create": Door(Permission.MANAGE_MEMBERS, "POST"),
    "invitation-send-again": Door(Permission.MANAGE_MEMBERS, "POST"),
    "invitation-revoke": Door(Permission.MANAGE_MEMBERS, "POST"),
    "invitation-detail": Door(Audience.LINK),
    "invitation-accept": Door(Audience.LINK, "POST"),
    "audit-log": Door(Permission.SEE_AUDIT),
    "audit-log-csv": Door(Permission.SEE_AUDIT),
    "credit-statement": Door(LOOK),
    "credit-statement-csv": Door(LOOK),
    "credit-buy": Door(LOOK),
    "credit-checkout": Door(BUY, "POST"),
    "credit-portal": Door(BUY, "POST"),
    "purchase-detail": Door(LOOK),
    "top-up-update": Door(BUY, "POST"),
    "upload-create": Door(RESTORE, "POST"),
    "upload-abort": Door(RESTORE, "DELETE"),
    "upload-parts": Door(RESTORE),
    "upload-part": Door(RESTORE, "POST"),
    "upload-complete": Door(RESTORE, "POST"),
    "import-list": Door(LOOK),
    "import-create": Door(RESTORE, "POST"),
    "import-cancel": Door(RESTORE, "POST"),
    "video-create": Door(RESTORE, "POST"),
    "video-detail": Door(LOOK),
    "video-quote": Door(LOOK),
    "video-restore": Door(RESTORE, "POST"),
    "video-preview": Door(RESTORE, "POST"),
    "video-buy": Door(RESTORE, "POST"),
    "video-delete": Door(DELETE, "POST"),
    "deletion-list": Door(LOOK),
    "deletion-receipt": Door(LOOK),
    "saved-settings-create": Door(Permission.RESTORE, "POST"),
    "saved-settings-list": Door(LOOK),
    "saved-settings-delete": Door(Permission.RESTORE, "POST"),
    "restoration-list": Door(LOOK),
    "restoration-detail": Door(LOOK),
    "restoration-cancel": Door(RESTORE, "POST"),
    "restoration-delete": Door(DELETE, "POST"),
    "restoration-download": Door(LOOK),
    "runpod-webhook": Door(Audience.HOOK, "POST"),
    "stripe-webhook": Door(Audience.HOOK, "POST"),
}
#: Addresses of packages, which guard themselves; the admin is for staff.
OF_PACKAGES = (
    *("account_", "socialaccount_", "mfa_", "usersessions_", "google_", "github_", "admin:"),
    "without a name: social/",  # redirects that allauth keeps for old addresses
)
PLACES = {name: door for name, door in DOORS.items() if isinstance(door.audience, Permission)}

SignIn = Callable[[User], Client]
InRole = Callable[[str], User]


def url_names(resolver: URLResolver, namespace: str = "") -> Iterator[str]:
    """Yields the name of each address below a resolver, or its pattern when it has none."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from url_names(pattern, namespace + inner)
        else:
            assert isinstance(pattern, URLPattern)
            yield namespace + (pattern.name or f"without a name: {pattern.pattern}")


def view_of(name: str) -> Callable[..., HttpResponse]:
    """Returns the view behind an address."""
    [found] = [pattern.callback for pattern in patterns(get_resolver()) if pattern.name == name]
    return found


def patterns(resolver: URLResolver) -> Iterator[URLPattern]:
    """Yields each address below a resolver."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern)
        else:
            yield pattern


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
        self.link_import = LinkImport.objects.create(
            workspace=workspace, link="https://example.com/a.mp4", host="example.com", storage_key="a"
        )
        self.saved_settings = SavedSettingsFactory(workspace=workspace)
        pack = CreditPack.objects.earliest("price_cents")
        self.purchase = purchases.new_purchase(workspace=workspace, pack=pack)
        self.member = MembershipFactory(workspace=workspace)
        self.invitation = Invitation.objects.create(
            workspace=workspace, email="dora@example.com", expires_at=timezone.now() + timedelta(days=1)
        )

    def path(self, name: str, *, workspace: Workspace | None = None) -> str:
        """Returns the path of an address with the ids of Alice's things, below another workspace if one is given."""
        known = {
            "slug": (workspace or self.workspace).slug,
            "video_id": self.video.pk,
            "restoration_id": self.restoration.pk,
            "upload_id": self.upload.pk,
            "import_id": self.link_import.pk,
            "saved_id": self.saved_settings.pk,
            "purchase_id": self.purchase.pk,
            "member_id": self.member.pk,
            "invitation_id": self.invitation.pk,
            "number": 1,
        }
        return reverse(name, kwargs={word: known[word] for word in variable_parts(name)})


def ask(client: Client, name: str, path: str) -> int:
    """Sends the request that the address is made for, with nothing in its document; undoes it, returns the status."""
    with transaction.atomic():
        answer = client.generic(DOORS[name].method, path, '{"parts": []}', content_type="application/json")
        transaction.set_rollback(True)
    return answer.status_code


@pytest.fixture
def places(workspace: Workspace) -> Places:
    return Places(workspace)


def test_every_address_names_its_audience() -> None:
    ours = {name for name in url_names(get_resolver()) if not name.startswith(OF_PACKAGES)}
    assert ours == set(DOORS)


@pytest.mark.parametrize("name", PLACES)
def test_strangers_find_nothing(name: str, places: Places, charlie: User, signed_in: SignIn) -> None:
    own = charlie.memberships.get().workspace
    stranger, path = signed_in(charlie), places.path(name)
    assert ask(stranger, name, path) == 404
    if len(variable_parts(name)) > 1:
        assert ask(stranger, name, places.path(name, workspace=own)) == 404, "below an own workspace"
    visit = Client().generic(DOORS[name].method, path)
    assert visit.status_code == 302
    assert visit["Location"].startswith(reverse("account_login"))


@pytest.mark.parametrize("name", PLACES)
def test_each_role_may_what_the_table_says(
    name: str, places: Places, in_role: InRole, signed_in: SignIn
) -> None:
    # The requests are empty, so some are refused for what they lack, and the result of a queued restoration is not
    # there for anybody; none is refused for who asks.
    passed = {200, 302, 204, 400, 409, 422} | ({404} if name == "restoration-download" else set())
    for role in Role:
        status = ask(signed_in(in_role(role)), name, places.path(name))
        assert status in (passed if may(role, PLACES[name].audience) else {403}), f"{role}: {status}"


@pytest.mark.parametrize("name", PLACES)
def test_the_door_is_the_one_that_is_named(name: str, places: Places) -> None:
    view = resolve(places.path(name)).func
    assert getattr(view, "permission", None) is PLACES[name].audience


@pytest.mark.parametrize("name", PLACES)
def test_closed_and_deleted_workspaces(
    name: str, places: Places, workspace: Workspace, alice: User, signed_in: SignIn
) -> None:
    owner, path = signed_in(alice), places.path(name)
    workspaces.schedule_deletion(workspace)
    assert (ask(owner, name, path) == 403) != PLACES[name].is_before_hurdles
    Workspace.objects.filter(pk=workspace.pk).update(deleted_at=timezone.now())
    assert ask(owner, name, path) == 404


@pytest.mark.parametrize("name", PLACES)
def test_other_methods_are_refused(name: str, places: Places, alice: User, signed_in: SignIn) -> None:
    other = {"GET": "PUT", "POST": "GET", "DELETE": "GET"}[DOORS[name].method]
    assert signed_in(alice).generic(other, places.path(name)).status_code == 405


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.audience is Audience.PERSON])
def test_pages_about_a_person_are_for_those_who_signed_in(name: str, alice: User, signed_in: SignIn) -> None:
    path, method = reverse(name), DOORS[name].method
    # What is sensitive first asks who it is.
    assert signed_in(alice).generic(method, path).status_code in (200, 302)
    visit = Client().generic(method, path)
    assert visit["Location"].startswith(reverse("account_login"))


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.audience is Audience.PUBLIC])
def test_everybody_sees_public_pages(name: str, db: None) -> None:
    assert Client().get(reverse(name)).status_code == 200


def test_an_invitations_link_cannot_be_guessed(places: Places, alice: User, signed_in: SignIn) -> None:
    token = invitations.token_of(places.invitation)
    for guess in (str(places.invitation.pk), token[:-1], token + "x", uuid4().hex):
        detail = reverse("invitation-detail", args=[guess])
        assert Client().get(detail).status_code == 404
        assert signed_in(alice).post(f"{detail}accept/").status_code == 404
    assert Client().get(reverse("invitation-detail", args=[token])).status_code == 200


def test_what_works_without_a_workspace_is_known() -> None:
    marked = {name for name in DOORS if getattr(view_of(name), "sees_everything", False)}
    assert marked == {"runpod-webhook", "stripe-webhook", "invitation-detail", "invitation-accept"}


def test_hook_does_not_know_a_wrong_token(db: None) -> None:
    path = reverse("runpod-webhook", kwargs={"token": str(uuid4())})
    assert Client().post(path, data={}, content_type="application/json").status_code == 404
    assert Client().get(path).status_code == 405


def test_admin_is_for_staff(alice: User, signed_in: SignIn) -> None:
    assert signed_in(alice).get(reverse("admin:index")).status_code == 302
