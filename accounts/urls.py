from allauth.account.decorators import reauthentication_required
from allauth.account.views import password_set
from django.urls import path

from accounts.reauthentication import ReauthenticateByMailView
from accounts.views import audit, invitations, members, person, workspaces

urlpatterns = [
    path(
        "accounts/reauthenticate/mail/",
        ReauthenticateByMailView.as_view(),
        name="account_reauthenticate_by_mail",
    ),
    # allauth's own, which asks nobody: a first password is a way in that stays.
    path("accounts/password/set/", reauthentication_required(password_set), name="account_set_password"),
    path("settings/", person.preferences, name="preferences"),
    path("mail/stop/<str:token>/", person.unsubscribe, name="unsubscribe"),
    path("workspaces/new/", workspaces.workspace_create, name="workspace-create"),
    path("w/<slug:slug>/settings/", workspaces.workspace_settings, name="workspace-settings"),
    path("w/<slug:slug>/leave/", workspaces.workspace_leave, name="workspace-leave"),
    path("w/<slug:slug>/hand-over/", workspaces.workspace_hand_over, name="workspace-hand-over"),
    path("w/<slug:slug>/delete/", workspaces.workspace_delete, name="workspace-delete"),
    path("w/<slug:slug>/undo-deletion/", workspaces.workspace_undo_deletion, name="workspace-undo-deletion"),
    path("w/<slug:slug>/members/", members.member_list, name="member-list"),
    path("w/<slug:slug>/members/<int:member_id>/", members.member_update, name="member-update"),
    path("w/<slug:slug>/members/<int:member_id>/remove/", members.member_remove, name="member-remove"),
    path("w/<slug:slug>/invitations/", invitations.invitation_create, name="invitation-create"),
    path(
        "w/<slug:slug>/invitations/<uuid:invitation_id>/send-again/",
        invitations.invitation_send_again,
        name="invitation-send-again",
    ),
    path(
        "w/<slug:slug>/invitations/<uuid:invitation_id>/revoke/",
        invitations.invitation_revoke,
        name="invitation-revoke",
    ),
    path("w/<slug:slug>/audit/", audit.audit_log, name="audit-log"),
    path("w/<slug:slug>/audit/log.csv", audit.audit_log_csv, name="audit-log-csv"),
    path("invitations/<str:token>/", invitations.invitation_detail, name="invitation-detail"),
    path("invitations/<str:token>/accept/", invitations.invitation_accept, name="invitation-accept"),
]
