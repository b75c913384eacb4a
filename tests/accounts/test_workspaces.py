"""Workspaces: made, changed, used last, handed over, left, closed, kept, purged."""

from datetime import timedelta

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.urls import reverse
from django.utils import timezone

from accounts import workspaces
from accounts.models import AuditEntry, Membership, Workspace
from accounts.permissions import Role
from accounts.tasks import sweep_accounts
from billing.ledger import balance
from restorations.models import Restoration, Video
from tests.factories import MembershipFactory, RestorationFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def studio(alice):
    return workspaces.create(name="Studio North", owner=alice)


def post(client, address, workspace, **form):
    return client.post(reverse(address, args=[workspace.slug]), form, follow=True)


def role_of(person, workspace):
    return workspace.memberships.get(user=person).role


def deeds(workspace):
    return [entry.deed for entry in AuditEntry.objects.for_workspace(workspace).order_by("pk")]


def test_a_new_workspace_is_its_makers_and_has_no_gift(signed_in, alice):
    answer = signed_in(alice).post(reverse("workspace-create"), {"name": "Studio North"}, follow=True)
    studio = Workspace.objects.get(name="Studio North")
    assert answer.redirect_chain[-1][0] == reverse("member-list", args=[studio.slug])
    assert (studio.slug[:13], studio.is_personal) == ("studio-north-", False)
    assert role_of(alice, studio) == Role.OWNER
    assert balance(studio) == 0
    assert deeds(studio) == ["workspace_created"]


def test_nobody_makes_workspaces_without_end(signed_in, alice, monkeypatch):
    monkeypatch.setattr(workspaces, "MAX_OWNED", 1)
    answer = signed_in(alice).post(reverse("workspace-create"), {"name": "One more"})
    assert answer.status_code == 422
    assert "Delete one first" in answer.content.decode()
    assert not Workspace.objects.filter(name="One more").exists()


def test_the_first_page_leads_to_the_workspace_used_last(signed_in, bob, workspace):
    browser = signed_in(bob)
    own = Workspace.objects.get(is_personal=True, memberships__user=bob, memberships__role=Role.OWNER)
    assert browser.get("/").url == own.get_absolute_url()
    browser.get(reverse("restoration-list", args=[workspace.slug]))
    assert browser.get("/").url == workspace.get_absolute_url()
    # Also in another browser; and not where there is nothing left to see.
    assert signed_in(bob).get("/").url == workspace.get_absolute_url()
    workspace.memberships.get(user=bob).delete()
    assert signed_in(bob).get("/").url == own.get_absolute_url()


def test_being_a_guest_in_a_personal_workspace_does_not_make_it_ones_own(workspace, django_user_model):
    guest = django_user_model.objects.create_user("guest@example.com")
    MembershipFactory(workspace=workspace, user=guest)
    assert workspaces.personal_workspace(guest) != workspace


def test_the_account_menu_leads_from_one_workspace_to_the_other(signed_in, alice, workspace, studio):
    page = signed_in(alice).get(workspace.get_absolute_url()).content.decode()
    assert studio.get_absolute_url() in page
    assert reverse("workspace-create") in page


def test_a_new_name_leaves_the_address_and_is_in_the_log(signed_in, alice, studio):
    form = {"name": "Studio South", "retention_hours": studio.retention_hours}
    post(signed_in(alice), "workspace-settings", studio, **form)
    before = studio.slug
    studio.refresh_from_db()
    assert (studio.name, studio.slug) == ("Studio South", before)
    entry = AuditEntry.objects.for_workspace(studio).get(deed="workspace_changed")
    assert entry.details["name"] == ["Studio North", "Studio South"]
    assert entry.actor_mail == alice.email
    assert entry.address == "127.0.0.1"


def test_a_second_factor_can_be_required_by_those_who_have_one(signed_in, alice, workspace, bob):
    form = {"name": "x", "retention_hours": workspace.retention_hours, "requires_second_factor": "on"}
    browser, guest = signed_in(alice), signed_in(bob)
    assert "would lock you out" in post(browser, "workspace-settings", workspace, **form).content.decode()
    TOTP.activate(alice, generate_totp_secret())
    post(browser, "workspace-settings", workspace, **form)
    assert "sign_in_policy" in deeds(workspace)
    for name in ("workspace-home", "restoration-list", "member-list"):
        answer = guest.get(reverse(name, args=[workspace.slug]))
        assert answer.status_code == 403
        assert reverse("mfa_index") in answer.content.decode()
    assert guest.get("/").status_code == 302
    assert browser.get(workspace.get_absolute_url()).status_code == 200
    TOTP.activate(bob, generate_totp_secret())
    assert guest.get(workspace.get_absolute_url()).status_code == 200


def test_handing_over_swaps_owner_and_admin(signed_in, alice, bob, studio):
    member = MembershipFactory(workspace=studio, user=bob)
    post(signed_in(alice), "workspace-hand-over", studio, member=member.pk)
    assert (role_of(alice, studio), role_of(bob, studio)) == (Role.ADMIN, Role.OWNER)
    assert "handed_over" in deeds(studio)
    assert post(signed_in(alice), "workspace-hand-over", studio, member=member.pk).status_code == 403


def test_handing_over_goes_to_a_member_and_never_with_the_personal_workspace(
    signed_in, alice, charlie, workspace, studio, bob
):
    foreign = charlie.memberships.get()
    for target, member in ((studio, foreign), (workspace, workspace.memberships.get(user=bob))):
        assert post(signed_in(alice), "workspace-hand-over", target, member=member.pk).status_code == 422
        assert role_of(alice, target) == Role.OWNER


def test_members_leave_and_owners_do_not(signed_in, alice, bob, workspace):
    post(signed_in(bob), "workspace-leave", workspace)
    assert not workspace.memberships.filter(user=bob).exists()
    assert "member_left" in deeds(workspace)
    assert "Hand it over" in post(signed_in(alice), "workspace-leave", workspace).content.decode()
    assert role_of(alice, workspace) == Role.OWNER


def test_deleting_asks_for_the_name(signed_in, alice, workspace, studio):
    browser = signed_in(alice)
    assert post(browser, "workspace-delete", studio, name="Studio").status_code == 422
    assert post(browser, "workspace-delete", workspace, name=workspace.name).status_code == 422
    assert not Workspace.objects.exclude(delete_after=None).exists()


def test_a_closed_workspace_lets_its_owner_in_to_open_it_again(signed_in, alice, bob, studio):
    MembershipFactory(workspace=studio, user=bob)
    browser, guest = signed_in(alice), signed_in(bob)
    assert "is closed" in post(browser, "workspace-delete", studio, name="Studio North").content.decode()
    page, theirs = browser.get(studio.get_absolute_url()), guest.get(studio.get_absolute_url())
    undo = reverse("workspace-undo-deletion", args=[studio.slug])
    assert (page.status_code, theirs.status_code) == (403, 403)
    assert undo in page.content.decode()
    assert undo not in theirs.content.decode()
    browser.post(undo)
    assert guest.get(studio.get_absolute_url()).status_code == 200
    assert deeds(studio)[-2:] == ["workspace_closing", "workspace_kept"]


def test_after_the_grace_period_contents_and_members_go_and_the_books_stay(alice, bob, studio):
    MembershipFactory(workspace=studio, user=bob)
    done = RestorationFactory(video__workspace=studio, status=Restoration.Status.SUCCEEDED)
    queued = RestorationFactory(video=done.video)
    workspaces.schedule_deletion(studio, actor=alice)
    sweep_accounts()
    assert Membership.objects.for_workspace(studio).count() == 2
    Workspace.objects.filter(pk=studio.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    for _ in range(2):
        sweep_accounts()
    assert not Membership.objects.for_workspace(studio).exists()
    assert not Video.objects.for_workspace(studio).present().exists()
    assert {r.status for r in Restoration.objects.for_workspace(studio)} == {"expired", "cancelled"}
    assert balance(studio) == queued.price_credits
    assert deeds(studio).count("workspace_deleted") == 1
