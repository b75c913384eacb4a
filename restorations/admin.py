"""Videos and restorations for support staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.admin import ReadOnly
from accounts.models import User
from restorations import losses, margins, objects
from restorations.models import Attempt, LostObject, Restoration, RestorationEvent, Video


class ReadOnlyInline(admin.TabularInline[Any, Any]):
    """Rows that only the lifecycle writes."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class AttemptInline(ReadOnlyInline):
    model = Attempt
    fields = (
        "number", "status", "runpod_id", "runpod_status", "worker_id", "delay_ms", "execution_ms", "gpus",
        "cost_microdollars", "error_code", "error_detail",
    )  # fmt: skip


class EventInline(ReadOnlyInline):
    model = RestorationEvent
    fields = ("created_at", "kind", "detail", "actor")
    readonly_fields = fields


class ReadOnlyAdmin(ReadOnly, admin.ModelAdmin[Any]):
    """To look, not to touch: rows change by transitions, which also move credits."""


@admin.register(Restoration)
class RestorationAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "video",
        "workspace",
        "status",
        "preset",
        "price_credits",
        "margin",
        "error_code",
        "created_at",
    )
    list_filter = ("status", "preset", ("range_start", admin.EmptyFieldListFilter), "engine", "error_code")
    list_select_related = ("video", "workspace")
    search_fields = ("id", "created_by__email", "attempts__runpod_id", "video__file_name", "workspace__slug")
    date_hierarchy = "created_at"
    inlines = (AttemptInline, EventInline)
    change_list_template = "billing/admin/margins.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return margins.with_costs(super().get_queryset(request))

    @admin.display(description=_("margin"))
    def margin(self, restoration: Any) -> str:
        percent = margins.margin_of(restoration).percent
        return "" if percent is None else f"{percent} %"

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        recent = Restoration.objects.filter(finished_at__gte=timezone.now() - timedelta(days=30))
        return super().changelist_view(request, {"margins": margins.by_day_and_preset(recent)})


@admin.register(Video)
class VideoAdmin(ReadOnlyAdmin):
    list_display = ("file_name", "workspace", "status", "rejection", "codec", "width", "height", "created_at")
    list_filter = ("status", "rejection")
    list_select_related = ("workspace",)
    search_fields = ("id", "file_name", "created_by__email", "workspace__slug")
    date_hierarchy = "created_at"


@admin.register(LostObject)
class LostObjectAdmin(ReadOnlyAdmin):
    """What storage has lost: whose, since when, and whether the money is back."""

    list_display = (
        "what",
        "file_name",
        "workspace",
        "created_at",
        "confirmed_at",
        "money",
        "handled_at",
        "handled_by",
    )
    list_filter = (("handled_at", admin.EmptyFieldListFilter), ("confirmed_at", admin.EmptyFieldListFilter))
    list_select_related = ("workspace", "video", "restoration", "handled_by")
    search_fields = ("storage_key", "video__file_name", "workspace__slug", "restoration__id")
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    actions = ("mark_handled", "give_up")

    @admin.display(description=_("what"))
    def what(self, lost: LostObject) -> str:
        return str(_("Source") if lost.restoration is None else _("Result"))

    @admin.display(description=_("file"))
    def file_name(self, lost: LostObject) -> str:
        return lost.video.file_name

    @admin.display(description=_("money"))
    def money(self, lost: LostObject) -> str:
        if lost.restoration is None:
            return str(_("nothing to give back: sources cost nothing"))
        if lost.confirmed_at is None:
            rest = lost.restoration.price_credits - lost.restoration.refunded_credits
            return _("%(n)s credits go back when the second look misses it too") % {"n": rest}
        return _("%(n)s credits were given back") % {"n": lost.returned_credits}

    @admin.action(description=_("Mark as handled"), permissions=["act"])
    def mark_handled(self, request: HttpRequest, queryset: QuerySet[LostObject]) -> None:
        assert isinstance(request.user, User)
        num_handled = losses.handle(queryset, actor=request.user)
        self.message_user(request, _("%(n)s marked as handled.") % {"n": num_handled})

    @admin.action(
        description=_("Give up what is still missing, and give its credits back"), permissions=["act"]
    )
    def give_up(self, request: HttpRequest, queryset: QuerySet[LostObject]) -> None:
        try:
            for lost in queryset.filter(confirmed_at=None).select_related("video", "restoration"):
                losses.settle(lost)
        except objects.StorageUnavailable:
            self.message_user(
                request, _("The storage does not answer. Please try again later."), messages.ERROR
            )
