"""People and workspaces for support staff."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.db.models import Model
from django.db.models.options import Options
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts import workspaces
from accounts.models import AuditEntry, Membership, User, Workspace


class ReadOnly:
    """To look, not to touch. Actions with `permissions=["act"]` are for those who may change the model."""

    opts: Options[Any]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")


class MembershipInline(ReadOnly, admin.TabularInline[Membership, Workspace]):
    """Members: they change on their workspace's own page, where the audit log sees it."""

    model = Membership
    extra = 0
    fields = ("user", "role", "monthly_limit", "created_at")
    readonly_fields = fields


@admin.register(User)
class UserAdmin(BaseUserAdmin[User]):
    """People. Their rows are never deleted: accounts close and go by `accounts.closing`, with what they own."""

    ordering = ("email",)
    list_display = ("email", "is_active", "is_staff", "date_joined")
    search_fields = ("email",)
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        (_("Mail"), {"fields": ("mail_on_success", "mail_on_failure", "mail_on_expiry")}),
        (_("Times and words"), {"fields": ("time_zone", "language")}),
        (_("Rights"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "password1", "password2")}),)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


@admin.register(Workspace)
class WorkspaceAdmin(admin.ModelAdmin[Workspace]):
    """Workspaces. What operators change is in the workspace's audit log, under their name."""

    list_display = ("name", "slug", "is_personal", "retention_hours", "created_at", "delete_after")
    search_fields = ("name", "slug", "memberships__user__email")
    fields = (
        *("id", "name", "slug", "is_personal", "retention_hours", "requires_second_factor"),
        *("created_at", "delete_after", "deleted_at"),
    )
    readonly_fields = ("id", "slug", "is_personal", "created_at", "delete_after", "deleted_at")
    inlines = (MembershipInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return False

    def save_model(
        self, request: HttpRequest, obj: Workspace, form: ModelForm[Workspace], change: bool
    ) -> None:
        workspaces.change(obj, **{name: form.cleaned_data[name] for name in form.changed_data})


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, admin.ModelAdmin[AuditEntry]):
    """Every workspace's audit log."""

    list_display = ("created_at", "workspace", "deed", "subject", "actor_mail", "address")
    list_select_related = ("workspace",)
    list_filter = ("deed",)
    search_fields = ("workspace__slug", "actor_mail", "subject")
    date_hierarchy = "created_at"
