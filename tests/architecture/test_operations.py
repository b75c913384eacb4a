"""Operations: for staff, whatever somebody's role in a workspace is; and what operators change is logged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry, User, Workspace
from accounts.permissions import Role
from billing import purchases
from billing.models import CreditPack, PriceTable
from tests.factories import AttemptFactory, RestorationFactory

SignIn = Callable[[User], Client]
InRole = Callable[[str], User]
#: Every page and every action of every model under Operations.
VERBS = ("changelist", "add", "change", "delete", "history")


@pytest.fixture
def things(workspace: Workspace) -> None:
    """Rows of Alice's workspace under as many models as there are."""
    AttemptFactory(restoration=RestorationFactory(video__workspace=workspace))
    purchases.new_purchase(workspace=workspace, pack=CreditPack.objects.earliest("price_cents"))


def walk(client: Client, *, method: str, verbs: tuple[str, ...] = VERBS) -> set[int]:
    """Asks for every page about a row of each model, and for every action on it; returns the answers' statuses."""
    statuses = set()
    for model, model_admin in admin.site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        ids = list(model._base_manager.values_list("pk", flat=True)[:1])
        for verb in verbs:
            arguments: list[list[object]] = [[pk] for pk in ids] if verb in VERBS[2:] else [[]]
            for args in arguments:
                path = reverse(f"{name}_{verb}", args=args)
                statuses.add(client.generic(method, path).status_code)
        for action in ["delete_selected", *(model_admin.actions or ())]:
            label = action if isinstance(action, str) else action.__name__
            form = {"action": label, "_selected_action": [str(pk) for pk in ids]}
            statuses.add(client.post(reverse(f"{name}_changelist"), form).status_code)
    return statuses


@pytest.mark.usefixtures("things")
def test_no_role_opens_operations(in_role: InRole, charlie: User, signed_in: SignIn) -> None:
    counted = {model: model._base_manager.count() for model in admin.site._registry}
    for client in (*(signed_in(in_role(role)) for role in Role), signed_in(charlie), Client()):
        # Everything leads to the sign-in page of Operations, and nothing happens.
        assert walk(client, method="POST", verbs=()) == {302}
    for method in ("GET", "POST"):
        assert walk(signed_in(in_role(Role.OWNER)), method=method) == {302}
    grown = {model for model, number in counted.items() if model._base_manager.count() < number}
    assert not grown


@pytest.mark.usefixtures("things")
def test_operators_see_every_workspace(operator: User, signed_in: SignIn) -> None:
    assert walk(signed_in(operator), method="GET") <= {200, 302, 403}
    page = signed_in(operator).get(reverse("admin:restorations_restoration_changelist"))
    assert page.status_code == 200
    assert "1 restoration" in page.content.decode()


@pytest.mark.usefixtures("things")
def test_who_may_only_look_is_offered_no_action(operator: User, signed_in: SignIn) -> None:
    User.objects.filter(pk=operator.pk).update(is_superuser=False)
    looker = User.objects.get(pk=operator.pk)
    looker.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = signed_in(looker)
    for model in admin.site._registry:
        page = client.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"))
        assert (page.status_code, 'name="action"' in page.content.decode()) == (200, False), model
    walk(client, method="GET")
    assert not PriceTable.objects.exclude(version=1).exists()


def test_operators_do_not_delete_people(
    operator: User, alice: User, workspace: Workspace, signed_in: SignIn
) -> None:
    client, selected = signed_in(operator), {"_selected_action": alice.pk, "action": "delete_selected"}
    client.post(reverse("admin:accounts_user_delete", args=[alice.pk]), {"post": "yes"})
    client.post(reverse("admin:accounts_user_changelist"), selected | {"post": "yes"})
    assert workspace.memberships.get(role=Role.OWNER).user == alice


def test_what_operators_change_is_in_the_workspaces_log(
    operator: User, workspace: Workspace, signed_in: SignIn
) -> None:
    path = reverse("admin:accounts_workspace_change", args=[workspace.pk])
    form = {"name": "Renamed", "retention_hours": workspace.retention_hours}
    none = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    assert signed_in(operator).post(path, form | none).status_code == 302
    workspace.refresh_from_db()
    assert workspace.name == "Renamed"
    entry = AuditEntry.objects.for_workspace(workspace).get(deed="workspace_changed")
    assert entry.actor_mail == operator.email
