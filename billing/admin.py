"""Money for operators: prices and packs to edit, credits to give, the books to read."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet, URLField
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin import ReadOnly
from accounts.models import User
from billing import inbox, ledger, packs, price_tables, purchases, stripe_client
from billing.models import (
    BillingAccount,
    CreditEntry,
    CreditPack,
    DebtEntry,
    GpuPrice,
    PriceRate,
    PriceTable,
    Purchase,
    StripeEvent,
)


class ReadOnlyAdmin(ReadOnly, admin.ModelAdmin[Any]):
    """To look, not to touch: rows come from Stripe or from the ledger."""

    # Named, or Django warns of the scheme that it will assume one day.
    formfield_overrides = {URLField: {"assume_scheme": "https"}}


# --- The books ----------------------------------------------------------------------------------------------


class GrantForm(forms.ModelForm[CreditEntry]):
    """Credits that an operator gives, with the reason that the customer sees."""

    credits = forms.IntegerField(min_value=1, max_value=1_000_000)
    note = forms.CharField(label=_("Reason"), max_length=200, help_text=_("The customer sees it."))

    class Meta:
        model = CreditEntry
        fields = ("workspace", "credits", "note")


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyAdmin):
    """The ledger. Adding an entry gives credits; nothing else can be written by hand."""

    form = GrantForm
    list_display = ("created_at", "workspace", "kind", "credits", "reference", "note", "actor")
    list_filter = ("kind",)
    list_select_related = ("workspace", "actor")
    search_fields = ("key", "reference", "workspace__slug", "workspace__memberships__user__email")
    date_hierarchy = "created_at"
    autocomplete_fields = ("workspace",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("billing.add_creditentry")

    def save_model(self, request: HttpRequest, obj: CreditEntry, form: forms.Form, change: bool) -> None:
        assert isinstance(request.user, User)
        entry = ledger.grant(
            workspace=obj.workspace,
            credits=form.cleaned_data["credits"],
            key=f"operator:{uuid.uuid4()}",
            note=form.cleaned_data["note"],
            actor=request.user,
        )
        # The admin writes to its log and shows what it thinks it has saved.
        obj.pk = entry.pk


@admin.register(DebtEntry)
class DebtEntryAdmin(ReadOnlyAdmin):
    """What workspaces owe: credits that were spent before their payment was returned."""

    list_display = ("created_at", "workspace", "credits", "owed_now", "reference")
    list_select_related = ("workspace",)
    search_fields = ("key", "reference", "workspace__slug")

    @admin.display(description=_("owed now"))
    def owed_now(self, entry: DebtEntry) -> int:
        return ledger.debt(entry.workspace)


# --- Prices -------------------------------------------------------------------------------------------------


class PriceRateInline(admin.TabularInline[PriceRate, PriceTable]):
    model = PriceRate
    extra = 0

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None or obj.published_at is None

    has_add_permission = has_change_permission
    has_delete_permission = has_change_permission


@admin.register(PriceTable)
class PriceTableAdmin(admin.ModelAdmin[PriceTable]):
    """Versions of the prices: copy one, edit the draft, publish it. Published ones never change."""

    list_display = ("version", "published_at", "minimum_credits", "note")
    fields = ("version", "minimum_credits", "note")
    readonly_fields = ("version",)
    inlines = (PriceRateInline,)
    actions = ("copy_to_draft", "publish")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a new version begins as a copy

    def has_change_permission(self, request: HttpRequest, obj: PriceTable | None = None) -> bool:
        is_open = obj is None or obj.published_at is None
        return is_open and request.user.has_perm("billing.change_pricetable")

    def has_delete_permission(self, request: HttpRequest, obj: PriceTable | None = None) -> bool:
        return obj is not None and obj.published_at is None and super().has_delete_permission(request, obj)

    @admin.action(description=_("Copy to a new draft"), permissions=["change"])
    def copy_to_draft(self, request: HttpRequest, queryset: QuerySet[PriceTable]) -> None:
        for table in queryset[:1]:
            draft = price_tables.draft(table)
            self.message_user(request, _("Draft %(table)s is ready to be edited.") % {"table": draft})

    @admin.action(description=_("Publish"), permissions=["change"])
    def publish(self, request: HttpRequest, queryset: QuerySet[PriceTable]) -> None:
        for table in queryset:
            try:
                is_new = price_tables.publish(table)
            except ValueError as exc:
                self.message_user(request, str(exc), messages.ERROR)
                continue
            text = _("%(table)s is in force.") if is_new else _("%(table)s was published before.")
            self.message_user(request, text % {"table": table})


@admin.register(GpuPrice)
class GpuPriceAdmin(admin.ModelAdmin[GpuPrice]):
    list_display = ("gpu", "microdollars_a_second", "updated_at")


@admin.register(CreditPack)
class CreditPackAdmin(admin.ModelAdmin[CreditPack]):
    """What is on sale. Checkout brings Stripe up to date by itself; the action does so now."""

    list_display = (
        "name",
        "credits",
        "bonus_credits",
        "price_cents",
        "currency",
        "is_active",
        "stripe_price_id",
    )
    readonly_fields = ("stripe_product_id", "stripe_price_id")
    actions = ("synchronise",)

    @admin.action(description=_("Bring Stripe up to date"), permissions=["change"])
    def synchronise(self, request: HttpRequest, queryset: QuerySet[CreditPack]) -> None:
        if missing := stripe_client.missing_settings():
            self.message_user(request, f"set {' and '.join(missing)} first", messages.ERROR)
            return
        for pack in queryset:
            try:
                packs.synchronise(pack)
            except stripe_client.StripeProblem as exc:
                self.message_user(request, f"{pack}: {exc}", messages.ERROR)


# --- Purchases ----------------------------------------------------------------------------------------------


@admin.register(Purchase)
class PurchaseAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at", "workspace", "status", "is_top_up", "credits", "bonus_credits", "paid_cents",
        "returned_cents", "reversed_credits", "stripe_payment_id",
    )  # fmt: skip
    list_filter = ("status", "is_top_up")
    list_select_related = ("workspace",)
    search_fields = ("id", "stripe_payment_id", "stripe_session_id", "workspace__slug", "created_by__email")
    date_hierarchy = "created_at"
    actions = ("refresh",)

    @admin.action(description=_("Read again from Stripe"), permissions=["act"])
    def refresh(self, request: HttpRequest, queryset: QuerySet[Purchase]) -> None:
        for purchase in queryset:
            try:
                purchases.refresh(purchase)
            except stripe_client.StripeProblem as exc:
                self.message_user(request, f"{purchase}: {exc}", messages.ERROR)


@admin.register(BillingAccount)
class BillingAccountAdmin(ReadOnlyAdmin):
    list_display = ("workspace", "stripe_customer_id", "balance", "debt", "top_up_enabled", "is_low")
    list_select_related = ("workspace",)
    list_filter = ("top_up_enabled", "is_low")
    search_fields = ("workspace__slug", "stripe_customer_id")

    @admin.display(description=_("balance"))
    def balance(self, account: BillingAccount) -> int:
        return ledger.balance(account.workspace)

    @admin.display(description=_("debt"))
    def debt(self, account: BillingAccount) -> int:
        return ledger.debt(account.workspace)


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "type", "event_id", "applied_at", "num_tries", "error")
    list_filter = (("applied_at", admin.EmptyFieldListFilter), "type")
    search_fields = ("event_id",)
    actions = ("apply_again",)

    @admin.action(description=_("Apply now"), permissions=["act"])
    def apply_again(self, request: HttpRequest, queryset: QuerySet[StripeEvent]) -> None:
        for event in queryset.filter(applied_at=None):
            try:
                inbox.apply(event.pk)
            except stripe_client.StripeProblem as exc:
                self.message_user(request, f"{event}: {exc}", messages.ERROR)
