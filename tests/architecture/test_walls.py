"""The second wall: what PostgreSQL hides when somebody forgets `for_workspace`. The first tests need no database."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from celery import shared_task
from django.apps import apps
from django.core.checks import run_checks
from django.db import DatabaseError, connection, migrations, models, transaction
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from accounts import scope
from accounts.access import WorkspaceRequest, workspace_member
from accounts.models import Invitation, Membership, User, Workspace
from accounts.walls import Wall
from accounts.workspaces import personal_workspace
from billing import ledger
from billing.models import CreditEntry
from restorations.models import Restoration, RestorationEvent, Video
from seedvr_site.celery import app
from tests.factories import AttemptFactory, RestorationFactory, VideoFactory

APPS = ("accounts", "billing", "restorations")
SignIn = Callable[[User], Client]


# --- Nothing is left without a wall -------------------------------------------------------------------------


def walled_tables() -> set[str]:
    """Returns the tables that a migration put a wall around."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    found = [m for (app, _name), m in loader.disk_migrations.items() if app in APPS]
    assert all(isinstance(migration, migrations.Migration) for migration in found)
    return {op.table for migration in found for op in migration.operations if isinstance(op, Wall)}


def tables_of_tenants() -> Iterator[str]:
    """Yields the tables whose rows belong to a workspace: they name it, or a row that they cannot be without does."""
    tenants: set[type[models.Model]] = set()
    ours = [model for model in apps.get_models() if model._meta.app_label in APPS]
    while True:
        more = {
            model
            for model in ours
            for field in model._meta.concrete_fields
            if field.is_relation and not field.null and field.related_model in tenants | {Workspace}
        }
        if more <= tenants:
            return (yield from (model._meta.db_table for model in tenants))
        tenants |= more


def test_every_table_of_tenants_has_a_wall() -> None:
    without = set(tables_of_tenants()) - walled_tables()
    assert not without, f"add Wall(...) of accounts.walls to the migration that makes {sorted(without)}"


def test_every_task_says_whose_rows_it_sees() -> None:
    app.loader.import_default_modules()
    ours = [task for name, task in app.tasks.items() if name.split(".")[0] in APPS]
    assert len(ours) > 10
    for task in ours:
        names = set(inspect.signature(task.run).parameters)
        knows = names & {*scope.WORKSPACES, *scope.PEOPLE}
        # One or the other: a task that is given a row has no business with the rows of others.
        assert getattr(task.run, "sees_everything", False) != bool(knows), (
            f"{task.name}: take an id that accounts.scope knows as an argument, or be marked by @sees_everything"
        )


# --- Forgetting on purpose, on PostgreSQL -------------------------------------------------------------------


@pytest.fixture
def secret(alice: User, workspace: Workspace) -> Restoration:
    """A restoration of Alice's, with everything around it."""
    restoration = RestorationFactory(video__workspace=workspace)
    RestorationEvent.objects.create(restoration=restoration, kind=RestorationEvent.Kind.CREATED)
    AttemptFactory(restoration=restoration)
    return restoration


@pytest.fixture
def strangers_workspace(charlie: User) -> Workspace:
    return personal_workspace(charlie)


def tenant_managers() -> list[models.Manager[models.Model]]:
    walled = walled_tables()
    return [model._default_manager for model in apps.get_models() if model._meta.db_table in walled]


@pytest.mark.postgres
def test_forgetting_the_workspace_shows_nothing_of_others(
    secret: Restoration, strangers_workspace: Workspace
) -> None:
    assert Video.objects.count() == 1
    with scope.inside(strangers_workspace):
        for manager in tenant_managers():
            rows = manager.all()
            assert not [row for row in rows if getattr(row, "workspace_id", None) == secret.workspace_id]
        assert not Restoration.objects.filter(pk=secret.pk).exists()
        assert not RestorationEvent.objects.exists()
        assert not Restoration.objects.filter(pk=secret.pk).update(seed=1)
        assert not Video.objects.filter(pk=secret.video_id).delete()[0]
    with scope.inside(secret.workspace):
        assert Restoration.objects.get().video == secret.video
        assert RestorationEvent.objects.count() == 1


@pytest.mark.postgres
def test_without_a_scope_nothing_is_there(secret: Restoration) -> None:
    token = scope.begin(scope.NOBODY)
    try:
        assert [manager.model.__name__ for manager in tenant_managers() if manager.exists()] == []
    finally:
        scope.end(token)


@pytest.mark.postgres
def test_nothing_can_be_put_behind_anothers_wall(secret: Restoration, strangers_workspace: Workspace) -> None:
    for write in (
        lambda: VideoFactory(workspace=secret.workspace),
        lambda: ledger.grant(workspace=secret.workspace, credits=1, key="gift"),
        lambda: Membership.objects.create(
            workspace=secret.workspace, user=User.objects.first(), role="admin"
        ),
        lambda: Restoration.objects.filter(workspace=strangers_workspace).update(workspace=secret.workspace),
    ):
        RestorationFactory(video__workspace=strangers_workspace)
        with (
            pytest.raises(DatabaseError, match="row-level security"),
            transaction.atomic(),
            scope.inside(strangers_workspace),
        ):
            write()


@pytest.mark.postgres
def test_people_see_their_own_memberships_and_no_others(
    alice: User, bob: User, charlie: User, workspace: Workspace
) -> None:
    token = scope.begin(scope.Scope(person_id=bob.pk))
    try:
        assert {member.user for member in Membership.objects.all()} == {bob}
        assert Membership.objects.filter(workspace=workspace).count() == 1
        with pytest.raises(DatabaseError, match="row-level security"), transaction.atomic():
            Membership.objects.filter(workspace=workspace).update(role="admin")
    finally:
        scope.end(token)


@pytest.mark.postgres
@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.django_db(transaction=True)
def test_a_rollback_never_leaves_anothers_scope(
    is_nested: bool, secret: Restoration, strangers_workspace: Workspace
) -> None:
    # What was told in a transaction goes back with it: the connection must not believe its memory.
    with transaction.atomic() if is_nested else nullcontext():
        with scope.inside(secret.workspace):
            assert Video.objects.exists()
        with scope.inside(strangers_workspace):
            with transaction.atomic():
                assert not Video.objects.exists()
                transaction.set_rollback(True)
            assert not Video.objects.exists()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_commit_that_rolls_back_never_leaves_anothers_scope(
    secret: Restoration, strangers_workspace: Workspace
) -> None:
    with scope.inside(secret.workspace):
        assert Video.objects.exists()
    with scope.inside(strangers_workspace):
        with transaction.atomic():
            assert not Video.objects.exists()
            # Caught inside, it leaves a transaction that PostgreSQL rolls back when it is told to commit.
            with pytest.raises(DatabaseError, match="by zero"):
                connection.cursor().execute("SELECT 1/0")
        assert not Video.objects.exists()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_failed_statement_is_rolled_back_in_any_scope(secret: Restoration) -> None:
    with transaction.atomic():
        with (
            pytest.raises(DatabaseError, match="by zero"),
            transaction.atomic(),
            scope.inside(secret.workspace),
        ):
            connection.cursor().execute("SELECT 1/0")
        assert Video.objects.exists()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_pooled_connection_forgets_whose_it_was(
    secret: Restoration, strangers_workspace: Workspace
) -> None:
    def count(workspace: Workspace | None) -> tuple[int, int]:
        try:
            with scope.inside(workspace) if workspace else nullcontext():
                return Video.objects.count(), connection.connection.info.backend_pid
        finally:
            connection.close()

    # Threads begin without a scope, as those of servers do; the pool's few connections serve them in turn.
    people = [secret.workspace, None, strangers_workspace]
    # A new pool, whatever tests before this one have left in it.
    connection.close()
    connection.close_pool()
    threads = [ThreadPoolExecutor(1) for _ in people]
    answers = [
        thread.submit(count, workspace).result()
        for _ in range(3)
        for thread, workspace in zip(threads, people, strict=True)
    ]
    for thread in threads:
        thread.shutdown()
    assert [number for number, _pid in answers] == [1, 0, 0] * 3
    assert len({pid for _number, pid in answers}) < len(people), "connections were not shared"


# A view and a task that forget.


@workspace_member
def forgetful_page(request: WorkspaceRequest) -> HttpResponse:
    return HttpResponse(",".join(str(video.pk) for video in Video.objects.all()))


def forgetful_person(request: HttpRequest) -> HttpResponse:
    return HttpResponse(",".join(str(entry.pk) for entry in CreditEntry.objects.all()))


@scope.sees_everything
def marked_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Video.objects.count()))


urlpatterns = [
    path("w/<slug:slug>/forgetful/", forgetful_page),
    path("forgetful/", forgetful_person),
    path("marked/", marked_page),
]


@shared_task
def forgetful_task(*, video_id: str) -> int:
    return int(Video.objects.count())


@pytest.mark.postgres
@override_settings(ROOT_URLCONF=__name__)
def test_a_view_that_forgets_shows_nothing_of_others(
    secret: Restoration, charlie: User, strangers_workspace: Workspace, signed_in: SignIn
) -> None:
    own = VideoFactory(workspace=strangers_workspace)
    browser = signed_in(charlie)
    assert browser.get(f"/w/{strangers_workspace.slug}/forgetful/").content.decode() == str(own.pk)
    assert browser.get("/forgetful/").content == b""
    assert browser.get("/marked/").content == b"2"


@pytest.mark.postgres
def test_a_task_that_forgets_sees_the_workspace_of_its_row(
    secret: Restoration, strangers_workspace: Workspace
) -> None:
    for _ in range(2):
        own = VideoFactory(workspace=strangers_workspace)
    assert forgetful_task(video_id=str(own.pk)) == 2
    assert forgetful_task(video_id=str(secret.video_id)) == 1


@pytest.mark.postgres
def test_the_sites_role_is_held_back(db: None) -> None:
    assert not [found for found in run_checks(databases=["default"]) if found.id == "accounts.W001"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid"
            " WHERE relrowsecurity AND relforcerowsecurity"
        )
        assert {name for (name,) in cursor.fetchall()} == walled_tables()


@pytest.mark.postgres
def test_an_invitation_is_found_by_its_link_only(workspace: Workspace, charlie: User) -> None:
    from django.utils import timezone

    Invitation.objects.create(workspace=workspace, email="dora@example.com", expires_at=timezone.now())
    with scope.inside(personal_workspace(charlie)):
        assert not Invitation.objects.exists()
