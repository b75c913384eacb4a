"""The members' page: roles, limits, removing; and the audit log that keeps it all."""

import csv
import io

import pytest
from django.db import DatabaseError, connection, transaction
from django.urls import reverse

from accounts import audit
from accounts.append_only import IsAppendOnly
from accounts.audit import Deed
from accounts.models import AuditEntry
from accounts.permissions import Role
from tests.factories import MembershipFactory

pytestmark = pytest.mark.django_db


def update(client, member, **form):
    return client.post(reverse("member-update", args=[member.workspace.slug, member.pk]), form, follow=True)


@pytest.fixture
def bobs(bob, workspace):
    return workspace.memberships.get(user=bob)


def test_role_and_limit_are_changed_together_and_logged_apart(signed_in, alice, bobs):
    update(signed_in(alice), bobs, role="viewer", monthly_limit="40")
    bobs.refresh_from_db()
    assert (bobs.role, bobs.monthly_limit) == (Role.VIEWER, 40)
    log = {e.deed: e for e in AuditEntry.objects.for_workspace(bobs.workspace)}
    assert log["role_changed"].details == {"role": ["member", "viewer"]}
    assert log["limit_changed"].details == {"credits_a_month": [None, 40]}
    assert {log[d].subject for d in ("role_changed", "limit_changed")} == {"bob@example.com"}
    update(signed_in(alice), bobs, role="viewer", monthly_limit="40")
    assert AuditEntry.objects.for_workspace(bobs.workspace).count() == len(log)
    update(signed_in(alice), bobs, role="viewer", monthly_limit="")
    bobs.refresh_from_db()
    assert bobs.monthly_limit is None


def test_a_role_counts_at_once(signed_in, alice, bob, bobs):
    browser = signed_in(bob)
    create = reverse("upload-create", args=[bobs.workspace.slug])
    body = {"file_name": "a.mp4", "size_bytes": 10}
    assert browser.post(create, body, content_type="application/json").status_code == 201
    update(signed_in(alice), bobs, role="viewer")
    assert browser.post(create, body, content_type="application/json").status_code == 403


@pytest.mark.parametrize("role", ["owner", "god", ""])
def test_roles_that_cannot_be_given_are_refused(role, signed_in, alice, bobs):
    answer = update(signed_in(alice), bobs, role=role, monthly_limit="5")
    assert answer.status_code == 422
    bobs.refresh_from_db()
    assert (bobs.role, bobs.monthly_limit) == (Role.MEMBER, None)


def test_nobody_touches_the_owner_but_for_the_limit(signed_in, alice, workspace, in_role):
    owner, admin = workspace.memberships.get(user=alice), signed_in(in_role("admin"))
    update(admin, owner, role="viewer", monthly_limit="7")
    admin.post(reverse("member-remove", args=[workspace.slug, owner.pk]))
    owner.refresh_from_db()
    assert (owner.role, owner.monthly_limit) == (Role.OWNER, 7)


def test_who_is_removed_is_out(signed_in, alice, bob, bobs):
    browser, home = signed_in(bob), bobs.workspace.get_absolute_url()
    assert browser.get(home).status_code == 200
    signed_in(alice).post(reverse("member-remove", args=[bobs.workspace.slug, bobs.pk]))
    assert browser.get(home).status_code == 404


def test_another_workspaces_members_are_not_there(signed_in, alice, workspace):
    foreign = MembershipFactory()
    for name in ("member-update", "member-remove"):
        path = reverse(name, args=[workspace.slug, foreign.pk])
        assert signed_in(alice).post(path, {"role": "viewer"}).status_code == 404
    foreign.refresh_from_db()
    assert foreign.role == Role.MEMBER


def test_the_page_shows_forms_to_those_who_may(signed_in, alice, vera, bobs):
    path = reverse("member-list", args=[bobs.workspace.slug])
    change = reverse("member-update", args=[bobs.workspace.slug, bobs.pk])
    mine, theirs = (signed_in(person).get(path).content.decode() for person in (alice, vera))
    assert change in mine
    assert change not in theirs
    assert "bob@example.com" in theirs
    assert "Leave this workspace" in theirs
    assert "Leave this workspace" not in mine


# --- The log ------------------------------------------------------------------------------------------------


def test_an_entry_needs_the_transaction_of_its_deed(workspace, transactional_db):
    with pytest.raises(AssertionError, match="transaction"):
        audit.record(workspace=workspace, deed=Deed.INVITED)


def test_an_entry_goes_with_a_deed_that_failed(workspace):
    with transaction.atomic():
        audit.record(workspace=workspace, deed=Deed.INVITED, subject="x")
        transaction.set_rollback(True)
    assert not AuditEntry.objects.filter(deed="invited").exists()


def test_the_log_is_append_only_in_model_and_database(workspace):
    entry = AuditEntry.objects.for_workspace(workspace).first()
    for change in (entry.save, entry.delete, AuditEntry.objects.all().delete):
        with pytest.raises(IsAppendOnly):
            change()
    for statement in ("UPDATE accounts_auditentry SET subject = 'x'", "DELETE FROM accounts_auditentry"):
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            connection.cursor().execute(statement)


def test_the_page_filters_and_the_file_holds_the_same(signed_in, alice, bobs):
    browser, slug = signed_in(alice), bobs.workspace.slug
    update(browser, bobs, role="admin")
    with transaction.atomic():
        audit.record(workspace=bobs.workspace, deed=Deed.INVITED, subject="=HYPERLINK(1)", actor=alice)
    page = browser.get(reverse("audit-log", args=[slug]), {"deed": "role_changed"}).content.decode()
    assert "member → admin" in page
    assert "HYPERLINK" not in page
    nobody = browser.get(reverse("audit-log", args=[slug]), {"who": "charlie"}).content.decode()
    assert "No entry fits" in nobody
    file = browser.get(reverse("audit-log-csv", args=[slug]), {"who": "alice"})
    rows = list(csv.DictReader(io.StringIO(file.content.decode())))
    assert [row["deed"] for row in rows] == ["invited", "role_changed", "workspace_created"]
    assert rows[0]["subject"] == "'=HYPERLINK(1)", "spreadsheets run what begins like a formula"
    assert rows[1]["address"] == "127.0.0.1"


def test_pages_with_many_members_and_entries_ask_a_constant_number_of_times(
    signed_in, alice, workspace, django_assert_max_num_queries
):
    browser = signed_in(alice)
    for _ in range(30):
        MembershipFactory(workspace=workspace)
    for name in ("member-list", "audit-log"):
        with django_assert_max_num_queries(16):
            assert browser.get(reverse(name, args=[workspace.slug])).status_code == 200
