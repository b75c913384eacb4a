"""Who: people, workspaces and the roles that join them."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.append_only import AppendOnlyQuerySet, AppendOnlyRow
from accounts.permissions import Permission, Role, may
from accounts.querysets import TenantQuerySet


class UserManager(BaseUserManager["User"]):
    """Makes people, who are known by their mail address."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Saves a person; the address is the name, so it is required."""
        if not email:
            raise ValueError("a person needs a mail address")
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Saves an operator with every right in the admin."""
        return self.create_user(email, password, **{"is_staff": True, "is_superuser": True, **fields})


class User(AbstractUser):
    """A person, known by a mail address."""

    username = None  # type: ignore[assignment]
    email = models.EmailField(_("mail address"), unique=True)
    mail_on_success = models.BooleanField(_("when a restoration is ready"), default=True)
    mail_on_failure = models.BooleanField(_("when a restoration fails"), default=True)
    mail_on_expiry = models.BooleanField(_("a day before files are deleted, and when they are"), default=True)
    time_zone = models.CharField(
        _("time zone"),
        max_length=64,
        blank=True,
        help_text=_("All times on pages and in mails are shown in it."),
    )
    language = models.CharField(
        _("language"), max_length=10, blank=True, help_text=_("Of pages and mails. Empty is the browser's.")
    )
    #: Until then the person can take the closing of the account back, and sees nothing else.
    delete_after = models.DateTimeField(_("deleted after"), null=True, blank=True, editable=False)
    #: When the mail about it was handed over; empty while it has to be sent.
    closing_mailed_at = models.DateTimeField(_("told about closing"), null=True, blank=True, editable=False)
    #: Nothing tells any more who it was. The row stays, because the books point to it.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True, editable=False)
    last_workspace = models.ForeignKey(
        "Workspace", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case"),
        ]

    def __str__(self) -> str:
        return str(_("deleted account")) if self.deleted_at else self.email

    @property
    def is_closing(self) -> bool:
        """True between the order to delete the account and its end."""
        return self.delete_after is not None


def default_retention_hours() -> int:
    """Returns the retention that the installation gives to new workspaces."""
    hours: int = settings.DEFAULT_RETENTION_HOURS
    return hours


class WorkspaceQuerySet(models.QuerySet["Workspace"]):
    def for_member(self, user: User) -> WorkspaceQuerySet:
        """Returns the workspaces that this person belongs to, personal one first."""
        return self.filter(memberships__user=user).order_by("-is_personal", "name")

    def due(self) -> WorkspaceQuerySet:
        """Returns the workspaces whose grace period is over and whose contents have to go."""
        return self.filter(delete_after__lte=timezone.now(), deleted_at=None)


class Workspace(models.Model):
    """The tenant: owns videos, restorations and credits."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(_("name in addresses"), max_length=60, unique=True)
    is_personal = models.BooleanField(_("made at sign-up"), default=False)
    retention_hours = models.PositiveIntegerField(
        _("hours that files are kept"), default=default_retention_hours
    )
    requires_second_factor = models.BooleanField(
        _("only with a second factor"),
        default=False,
        help_text=_("Members need a second step at sign-in, such as a code or a passkey, to come in."),
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    #: Until then its owner can take the deletion back; nobody else gets in.
    delete_after = models.DateTimeField(_("deleted after"), null=True, blank=True, editable=False)
    #: Its contents and members are gone. The row stays, because the books and the audit log point to it.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True, editable=False)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(retention_hours__gte=1, retention_hours__lte=720),
                name="workspace_retention_from_an_hour_to_30_days",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("workspace-home", args=[self.slug])

    @property
    def is_closing(self) -> bool:
        """True between the order to delete it and its end."""
        return self.delete_after is not None


class MembershipQuerySet(TenantQuerySet["Membership"]):
    """Who belongs to a workspace."""


class Membership(models.Model):
    """A person's role in a workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    monthly_limit = models.PositiveIntegerField(
        _("credits a month"),
        null=True,
        blank=True,
        help_text=_("What this person may spend in a calendar month (UTC). Empty is no limit."),
    )
    created_at = models.DateTimeField(_("since"), default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "user"], name="membership_one_role_per_person"),
            models.UniqueConstraint(
                fields=["workspace"], condition=models.Q(role="owner"), name="membership_one_owner"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} {self.workspace_id}"

    def may(self, permission: Permission) -> bool:
        """Returns whether this person may do it in this workspace."""
        return may(self.role, permission)

    @property
    def is_owner(self) -> bool:
        """True for the one who may hand the workspace over or delete it."""
        return self.role == Role.OWNER


class InvitationQuerySet(TenantQuerySet["Invitation"]):
    def open(self) -> InvitationQuerySet:
        """Returns the invitations that can still be accepted."""
        return self.filter(accepted_at=None, revoked_at=None, expires_at__gt=timezone.now())


class Invitation(models.Model):
    """A seat in a workspace, offered to a mail address. Whether that address has an account is nobody's business."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(_("mail address"))
    role = models.CharField(_("role"), max_length=10, choices=Role.choices, default=Role.MEMBER)
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(_("invited"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("open until"))
    #: When its mail was handed over last; empty while it has to be sent.
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)
    accepted_at = models.DateTimeField(_("accepted"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        verbose_name = _("invitation")
        indexes = [
            # The sweep for mails that were not sent.
            models.Index(fields=["mailed_at", "expires_at"], name="invitation_to_mail"),
            # What waits for somebody who has just signed up.
            models.Index(Lower("email"), name="invitation_of_address"),
        ]
        constraints = [
            models.UniqueConstraint(
                "workspace",
                Lower("email"),
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="invitation_one_open_per_address",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} {self.role}"

    @property
    def is_open(self) -> bool:
        """True while it can be accepted."""
        return self.accepted_at is None and self.revoked_at is None and self.expires_at > timezone.now()


class AuditEntryQuerySet(AppendOnlyQuerySet["AuditEntry"]):
    """What was done in a workspace."""


class AuditEntry(AppendOnlyRow):
    """Who did what in a workspace, when, and from where. `accounts.audit` is the only writer."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+")
    deed = models.CharField(_("what"), max_length=40)
    #: What it was done to, in words: a name stays readable when its row is gone.
    subject = models.CharField(_("to what"), max_length=300, blank=True)
    details = models.JSONField(_("details"), default=dict, blank=True)
    # The entry outlives the account, and is never changed: so no constraint, and the address beside it.
    actor = models.ForeignKey(
        User, on_delete=models.DO_NOTHING, db_constraint=False, null=True, related_name="+"
    )
    actor_mail = models.CharField(_("who"), max_length=254, blank=True)
    address = models.GenericIPAddressField(_("from"), null=True)
    user_agent = models.CharField(_("browser"), max_length=300, blank=True)
    created_at = models.DateTimeField(_("when"), default=timezone.now, editable=False)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")
        indexes = [
            # The log's page.
            models.Index(fields=["workspace", "-created_at"], name="audit_of_workspace"),
        ]

    def __str__(self) -> str:
        return f"{self.deed} {self.subject}"


class DataExportQuerySet(models.QuerySet["DataExport"]):
    """Archives of people's own data."""

    def of(self, user: User) -> DataExportQuerySet:
        """Returns the archives that this person may fetch, newest first."""
        return self.filter(user=user, deleted_at=None).order_by("-created_at")

    def unfinished(self) -> DataExportQuerySet:
        """Returns those that have to be made, or whose mail has to be sent."""
        return self.filter(mailed_at=None, deleted_at=None)


class DataExport(models.Model):
    """An archive of everything that belongs to a person. It belongs to no workspace; only the person gets it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    storage_key = models.CharField(_("storage key"), max_length=255, blank=True)
    size_bytes = models.BigIntegerField(_("bytes"), default=0)
    created_at = models.DateTimeField(_("asked for"), default=timezone.now, editable=False)
    ready_at = models.DateTimeField(_("ready"), null=True, blank=True)
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)
    expires_at = models.DateTimeField(_("deleted after"), null=True, blank=True)
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True)

    objects = DataExportQuerySet.as_manager()

    class Meta:
        verbose_name = _("data export")
        indexes = [
            # The sweeps.
            models.Index(fields=["deleted_at", "expires_at"], name="data_export_due"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.created_at:%Y-%m-%d}"

    @property
    def is_ready(self) -> bool:
        """True while it can be fetched."""
        return self.ready_at is not None and self.deleted_at is None
