"""The ledger for support staff: to read."""

from django.contrib import admin
from django.http import HttpRequest

from billing.models import CreditEntry


@admin.register(CreditEntry)
class CreditEntryAdmin(admin.ModelAdmin[CreditEntry]):
    list_display = ("created_at", "workspace", "kind", "credits", "reference", "note")
    list_filter = ("kind",)
    list_select_related = ("workspace",)
    search_fields = ("key", "reference", "workspace__slug", "workspace__memberships__user__email")
    date_hierarchy = "created_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: CreditEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: CreditEntry | None = None) -> bool:
        return False
