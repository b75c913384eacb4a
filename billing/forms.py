"""Forms: from what a browser sends to values of the domain."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from billing.models import BillingAccount, CreditEntry, CreditPack


class StatementForm(forms.Form):
    """Which movements to show."""

    kind = forms.ChoiceField(
        label=_("Kind"), required=False, choices=[("", _("All")), *CreditEntry.Kind.choices]
    )
    since = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date"}))

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that make sense; the others are left out."""
        self.is_valid()
        return self.cleaned_data


class CheckoutForm(forms.Form):
    """Which pack to buy, and where to go back to."""

    pack = forms.ModelChoiceField(CreditPack.objects.filter(is_active=True))
    next = forms.CharField(required=False, max_length=500)


class TopUpForm(forms.ModelForm[BillingAccount]):
    """Automatic top-up, and when to mail that credits run low."""

    ceiling_dollars = forms.IntegerField(
        label=_("At most in a month, in dollars"), min_value=1, max_value=10_000
    )

    class Meta:
        model = BillingAccount
        fields = ("top_up_enabled", "top_up_threshold", "top_up_pack", "low_credits")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["top_up_pack"].queryset = CreditPack.objects.filter(is_active=True)  # type: ignore[attr-defined]
        self.fields["ceiling_dollars"].initial = self.instance.top_up_ceiling_cents // 100

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        pack, ceiling = cleaned.get("top_up_pack"), cleaned.get("ceiling_dollars")
        if cleaned.get("top_up_enabled") and pack is None:
            self.add_error("top_up_pack", _("Please choose what to buy."))
        elif cleaned.get("top_up_enabled") and pack and ceiling and pack.price_cents > ceiling * 100:
            self.add_error("ceiling_dollars", _("This is less than one purchase costs."))
        return cleaned
