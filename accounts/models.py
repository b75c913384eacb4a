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
    mail_on_expiry = models.BooleanField(_("a day before files are deleted"), default=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case"),
        ]

    def __str__(self) -> str:
        return self.email


def default_retention_hours() -> int:
    """Returns the retention that the installation gives to new workspaces."""
    hours: int = settings.DEFAULT_RETENTION_HOURS
    return hours


class WorkspaceQuerySet(models.QuerySet["Workspace"]):
    def for_member(self, user: User) -> WorkspaceQuerySet:
        """Returns the workspaces that this person belongs to, personal one first."""
        return self.filter(memberships__user=user).order_by("-is_personal", "name")


class Workspace(models.Model):
    """The tenant: owns videos, restorations and credits."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(_("name in addresses"), max_length=60, unique=True)
    is_personal = models.BooleanField(_("made at sign-up"), default=False)
    retention_hours = models.PositiveIntegerField(
        _("hours that files are kept"), default=default_retention_hours
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

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


class Membership(models.Model):
    """A person's role in a workspace."""

    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")
        ADMIN = "admin", _("Admin")
        MEMBER = "member", _("Member")
        VIEWER = "viewer", _("Viewer")

    #: Roles that may upload, spend credits and delete.
    EDITORS: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.ADMIN, Role.MEMBER})

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(_("since"), default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "user"], name="membership_one_role_per_person"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} {self.workspace_id}"

    @property
    def can_edit(self) -> bool:
        """True for those who may upload, spend credits and delete."""
        return self.role in self.EDITORS
