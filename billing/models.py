"""Credits: an append-only ledger of whole numbers, what people owe, and what they were quoted."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.append_only import AppendOnlyQuerySet, AppendOnlyRow
from accounts.models import Workspace
from accounts.querysets import TenantQuerySet


class CreditEntryQuerySet(AppendOnlyQuerySet["CreditEntry"]):
    """Movements of credits."""


class DebtEntryQuerySet(AppendOnlyQuerySet["DebtEntry"]):
    """Movements of what is owed."""


class BooksRow(AppendOnlyRow):
    """A row of the books. `billing.ledger` is the only writer; a database trigger refuses all but INSERT."""

    key = models.CharField(
        _("key"), max_length=200, unique=True, help_text=_("Names the movement, so that it happens once.")
    )
    reference = models.CharField(_("reference"), max_length=100, blank=True, db_index=True)
    created_at = models.DateTimeField(_("time"), default=timezone.now, editable=False)

    class Meta:
        abstract = True


class CreditEntry(BooksRow):
    """One movement of credits."""

    class Kind(models.TextChoices):
        PURCHASE = "purchase", _("Purchase")
        BONUS = "bonus", _("Bonus")
        GRANT = "grant", _("Gift")
        CHARGE = "charge", _("Restoration")
        REFUND = "refund", _("Refund")
        REVERSAL = "reversal", _("Payment returned")

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    credits = models.BigIntegerField(_("credits"), help_text=_("What came in, or minus what went out."))
    note = models.CharField(_("note"), max_length=200, blank=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("by"),
        help_text=_("The operator who gave the credits."),
    )
    # Whose monthly limit it counts against. The entry outlives the account and is never changed: no constraint.
    spender = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("spent by"),
    )

    objects = CreditEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger")
        indexes = [
            # Statement page and balance of one workspace.
            models.Index(fields=["workspace", "-created_at"], name="credit_entry_statement"),
            # What a member has spent in a month.
            models.Index(fields=["workspace", "spender", "created_at"], name="credit_entry_spender"),
        ]
        constraints = [
            # A reversal takes back what a returned payment bought, or gives it again when a dispute is won.
            models.CheckConstraint(
                condition=models.Q(kind="charge", credits__lt=0)
                | models.Q(kind__in=["purchase", "bonus", "grant", "refund"], credits__gt=0)
                | (models.Q(kind="reversal") & ~models.Q(credits=0)),
                name="credit_entry_sign_fits_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.credits:+d}"


class DebtEntry(BooksRow):
    """One movement of what a workspace owes: credits that were spent before their payment was returned."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+")
    credits = models.BigIntegerField(_("credits"), help_text=_("What is owed now, or minus what was paid."))

    objects = DebtEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("debt")
        verbose_name_plural = _("debts")
        constraints = [
            models.CheckConstraint(condition=~models.Q(credits=0), name="debt_entry_moves_something"),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.credits:+d}"


# --- Prices -------------------------------------------------------------------------------------------------


class PublishedIsFinal(TypeError):
    """Somebody tried to change a published price table; publish a new version instead."""


class PriceTable(models.Model):
    """One version of all prices. A draft can be edited; once published it never changes, and quotes name it."""

    version = models.PositiveIntegerField(_("version"), unique=True)
    minimum_credits = models.PositiveIntegerField(_("least price in credits"), default=1)
    note = models.CharField(_("what changed"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    published_at = models.DateTimeField(_("published"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("price table")
        ordering = ["-version"]

    def __str__(self) -> str:
        return f"v{self.version}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk and PriceTable.objects.filter(pk=self.pk, published_at__isnull=False).exists():
            raise PublishedIsFinal(f"price table {self} is published")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        if self.published_at:
            raise PublishedIsFinal(f"price table {self} is published")
        return super().delete(*args, **kwargs)


class PriceRate(models.Model):
    """What one credit buys with one model on one number of GPUs."""

    table = models.ForeignKey(PriceTable, on_delete=models.CASCADE, related_name="rates")
    model = models.CharField(_("model"), max_length=40)
    gpus = models.PositiveSmallIntegerField(_("GPUs"))
    pixels_per_credit = models.PositiveBigIntegerField(
        _("pixels for a credit"), help_text=_("Output pixels, over all frames.")
    )

    class Meta:
        verbose_name = _("rate")
        ordering = ["model", "gpus"]
        constraints = [
            models.UniqueConstraint(fields=["table", "model", "gpus"], name="price_rate_once"),
            models.CheckConstraint(
                condition=models.Q(pixels_per_credit__gt=0), name="price_rate_buys_something"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} × {self.gpus}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.table.published_at:
            raise PublishedIsFinal(f"price table {self.table} is published")
        super().save(*args, **kwargs)


class GpuPrice(models.Model):
    """What one second of one GPU costs us; margins are computed from it."""

    gpu = models.CharField(_("GPU"), max_length=40, unique=True)
    microdollars_a_second = models.PositiveIntegerField(_("millionths of a dollar a second"))
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        verbose_name = _("GPU price")

    def __str__(self) -> str:
        return self.gpu


class OfferQuerySet(TenantQuerySet["Offer"]):
    """Prices that were promised."""


class Offer(models.Model):
    """A price that was shown and binds us until it expires. `subject` names what it is for."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+")
    table = models.ForeignKey(PriceTable, on_delete=models.PROTECT, related_name="+")
    subject = models.CharField(_("for"), max_length=200)
    credits = models.PositiveIntegerField(_("price in credits"))
    created_at = models.DateTimeField(_("shown"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("binding until"))
    accepted_by = models.CharField(_("accepted by"), max_length=100, blank=True)

    objects = OfferQuerySet.as_manager()

    class Meta:
        verbose_name = _("quote")
        indexes = [
            # One row serves the pages of a minute.
            models.Index(fields=["workspace", "subject", "-created_at"], name="offer_of_subject"),
            # Quotes that nobody took are deleted.
            models.Index(fields=["expires_at"], name="offer_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} {self.credits}"


# --- Purchases ----------------------------------------------------------------------------------------------


class CreditPack(models.Model):
    """Credits that are sold together. Stripe's product and price follow it (`billing.packs`)."""

    name = models.CharField(_("name"), max_length=80)
    credits = models.PositiveIntegerField(_("credits"))
    bonus_credits = models.PositiveIntegerField(_("credits on top"), default=0)
    price_cents = models.PositiveIntegerField(
        _("price"), help_text=_("In the currency's smallest unit, such as cents.")
    )
    currency = models.CharField(_("currency"), max_length=3, default="usd")
    is_active = models.BooleanField(_("on sale"), default=True)
    stripe_product_id = models.CharField(_("Stripe product"), max_length=80, blank=True, editable=False)
    stripe_price_id = models.CharField(_("Stripe price"), max_length=80, blank=True, editable=False)
    synchronised_as = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        verbose_name = _("credit pack")
        ordering = ["price_cents"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(credits__gt=0, price_cents__gt=0), name="credit_pack_sells_something"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def total_credits(self) -> int:
        """What the buyer gets: paid for and on top."""
        return self.credits + self.bonus_credits


class BillingAccountQuerySet(TenantQuerySet["BillingAccount"]):
    """How workspaces pay."""


class BillingAccount(models.Model):
    """How a workspace pays: its customer at Stripe, automatic top-up, and when a mail says credits run low."""

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, related_name="+")
    stripe_customer_id = models.CharField(_("Stripe customer"), max_length=80, blank=True, db_index=True)
    low_credits = models.PositiveIntegerField(
        _("mail below"),
        default=50,
        help_text=_("We mail once when your credits fall below this. 0 is never."),
    )
    is_low = models.BooleanField(default=False, editable=False)
    top_up_enabled = models.BooleanField(_("buy automatically"), default=False)
    top_up_threshold = models.PositiveIntegerField(_("when fewer credits are left than"), default=100)
    top_up_pack = models.ForeignKey(
        CreditPack, on_delete=models.PROTECT, null=True, blank=True, verbose_name=_("what to buy")
    )
    top_up_ceiling_cents = models.PositiveIntegerField(_("at most in a month"), default=5000)
    top_up_since = models.DateTimeField(_("switched on"), null=True, blank=True, editable=False)

    objects = BillingAccountQuerySet.as_manager()

    class Meta:
        verbose_name = _("billing account")

    def __str__(self) -> str:
        return f"{self.workspace_id} {self.stripe_customer_id}"


class PurchaseQuerySet(TenantQuerySet["Purchase"]):
    def pending(self) -> PurchaseQuerySet:
        """Returns the purchases that may still be paid."""
        return self.filter(status__in=Purchase.PENDING)


class Purchase(models.Model):
    """One purchase, begun here and paid at Stripe: what Stripe said when it was last asked.

    open -> processing -> paid | failed        open -> expired

    Credits move only through the ledger; `reversed_credits` is how many of them Stripe's refunds and disputes
    have taken back.
    """

    class Status(models.TextChoices):
        OPEN = "open", _("Begun")
        PROCESSING = "processing", _("Being paid")
        NEEDS_PERSON = "needs_person", _("The bank asks for you")
        PAID = "paid", _("Paid")
        FAILED = "failed", _("Not paid")
        EXPIRED = "expired", _("Given up")

    PENDING = (Status.OPEN, Status.PROCESSING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+")
    pack = models.ForeignKey(CreditPack, on_delete=models.PROTECT, null=True, related_name="+")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    is_top_up = models.BooleanField(_("automatic"), default=False)
    status = models.CharField(_("status"), max_length=12, choices=Status.choices, default=Status.OPEN)
    credits = models.PositiveIntegerField(_("credits"))
    bonus_credits = models.PositiveIntegerField(_("credits on top"), default=0)
    price_cents = models.PositiveIntegerField(_("price"))
    currency = models.CharField(_("currency"), max_length=3)
    paid_cents = models.PositiveIntegerField(_("paid"), default=0)
    returned_cents = models.PositiveIntegerField(_("returned"), default=0)
    reversed_credits = models.PositiveIntegerField(_("credits taken back"), default=0)
    num_reversals = models.PositiveIntegerField(default=0, editable=False)
    stripe_session_id = models.CharField(_("Checkout session"), max_length=120, blank=True, db_index=True)
    stripe_payment_id = models.CharField(_("payment"), max_length=120, blank=True, db_index=True)
    receipt_url = models.URLField(_("receipt"), max_length=500, blank=True)
    invoice_url = models.URLField(_("invoice"), max_length=500, blank=True)
    return_path = models.CharField(max_length=500, blank=True, editable=False)
    #: Readings of Stripe are numbered when they begin; one that began before the last applied one is not applied.
    readings_begun = models.PositiveIntegerField(default=0, editable=False)
    reading_applied = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(_("begun"), default=timezone.now, editable=False)
    paid_at = models.DateTimeField(_("paid at"), null=True, blank=True)
    #: When a refund or a dispute took credits back last.
    returned_at = models.DateTimeField(_("returned at"), null=True, blank=True, editable=False)

    objects = PurchaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("purchase")
        indexes = [
            # The statement's receipts, and reconciliation.
            models.Index(fields=["workspace", "-created_at"], name="purchase_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["stripe_payment_id"],
                condition=~models.Q(stripe_payment_id=""),
                name="purchase_payment_once",
            ),
            models.UniqueConstraint(
                fields=["workspace"],
                condition=models.Q(is_top_up=True, status__in=["open", "processing"]),
                name="purchase_one_top_up_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.status}"

    @property
    def reference(self) -> str:
        """The name under which the ledger knows this purchase."""
        return f"purchase:{self.pk}"

    @property
    def total_credits(self) -> int:
        """What the buyer gets: paid for and on top."""
        return self.credits + self.bonus_credits


class StripeEvent(models.Model):
    """The inbox: each event that Stripe has sent, stored before it is applied, applied once."""

    event_id = models.CharField(_("event"), max_length=120, unique=True)
    type = models.CharField(_("type"), max_length=80)
    payload = models.JSONField(_("payload"))
    received_at = models.DateTimeField(_("received"), default=timezone.now, editable=False)
    applied_at = models.DateTimeField(_("applied"), null=True, blank=True)
    num_tries = models.PositiveIntegerField(_("tries"), default=0)
    error = models.TextField(_("last error"), blank=True)

    class Meta:
        verbose_name = _("Stripe event")
        indexes = [
            # The sweep for what could not be applied.
            models.Index(fields=["applied_at", "received_at"], name="stripe_event_waiting"),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} {self.type}"
