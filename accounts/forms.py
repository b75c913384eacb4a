"""Forms: from what a browser sends to values of the domain."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.conf import settings
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.audit import Deed
from accounts.localization import time_zones
from accounts.models import Membership, User, Workspace
from accounts.permissions import GIVEN_ROLES, Role
from accounts.second_factor import has_second_factor


class PreferencesForm(forms.ModelForm[User]):
    """Which mails a person wants, and how times and words are shown."""

    time_zone = forms.ChoiceField(label=_("Time zone"))
    language = forms.ChoiceField(label=_("Language"), required=False)

    class Meta:
        model = User
        fields = ("mail_on_success", "mail_on_failure", "mail_on_expiry", "time_zone", "language")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zones = self.fields["time_zone"]
        assert isinstance(zones, forms.ChoiceField)
        zones.choices = [(name, name.replace("_", " ")) for name in time_zones()]
        if not self.instance.time_zone:
            self.initial["time_zone"] = "UTC"
        languages = self.fields["language"]
        assert isinstance(languages, forms.ChoiceField)
        languages.choices = [("", _("As the browser asks for")), *settings.LANGUAGES]
        if len(settings.LANGUAGES) == 1:
            # A choice that changes nothing is none.
            del self.fields["language"]

    @property
    def mail_fields(self) -> list[forms.BoundField]:
        """The switches for mails."""
        return [field for field in self if field.name.startswith("mail_")]

    @property
    def other_fields(self) -> list[forms.BoundField]:
        """The rest."""
        return [field for field in self if not field.name.startswith("mail_")]


class WorkspaceForm(forms.Form):
    """A new workspace."""

    name = forms.CharField(
        label=_("Name"), max_length=80, help_text=_("Such as the name of your studio or of a client.")
    )


#: From an hour to 30 days.
RETENTION_HOURS: Final = (1, 6, 24, 3 * 24, 7 * 24, 14 * 24, 30 * 24)


def span_in_words(hours: int) -> str:
    """Returns a number of hours as people say it."""
    if hours % 24:
        return ngettext("%(n)d hour", "%(n)d hours", hours) % {"n": hours}
    return ngettext("%(n)d day", "%(n)d days", hours // 24) % {"n": hours // 24}


class WorkspaceSettingsForm(forms.ModelForm[Workspace]):
    """What admins can change about a workspace. Its address stays when its name changes."""

    class Meta:
        model = Workspace
        fields = ("name", "retention_hours", "requires_second_factor")

    retention_hours = forms.TypedChoiceField(
        label=_("Files are kept for"),
        coerce=int,
        help_text=_(
            "Counted from the upload, or from the last restoration made of it. What is older than that already is "
            "deleted within 15 minutes after you save."
        ),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        hours = sorted({*RETENTION_HOURS, self.instance.retention_hours})
        kept = self.fields["retention_hours"]
        assert isinstance(kept, forms.ChoiceField)
        kept.choices = [(each, span_in_words(each)) for each in hours]

    def clean_requires_second_factor(self) -> bool:
        """Refuses a rule that would lock out whoever makes it."""
        required: bool = self.cleaned_data["requires_second_factor"]
        if required and not has_second_factor(self.user):
            raise forms.ValidationError(
                _("Set up a second factor for yourself first; this rule would lock you out.")
            )
        return required


class RoleField(forms.ChoiceField):
    """A role that can be given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            label=_("Role"), choices=[(role.value, role.label) for role in GIVEN_ROLES], **kwargs
        )


class InvitationForm(forms.Form):
    """Whom to invite, and as what."""

    email = forms.EmailField(label=_("Mail address"), max_length=254)
    role = RoleField(initial=Role.MEMBER)


class MemberForm(forms.Form):
    """A member's role and limit. The owner has a limit only."""

    role = RoleField()
    monthly_limit = forms.IntegerField(
        label=_("Credits a month"),
        required=False,
        min_value=0,
        max_value=10_000_000,
        widget=forms.NumberInput(attrs={"inputmode": "numeric", "placeholder": _("no limit")}),
    )

    def __init__(self, sent: QueryDict | None = None, *, member: Membership) -> None:
        initial = {"role": member.role, "monthly_limit": member.monthly_limit}
        super().__init__(sent, initial=initial, auto_id=f"member-{member.pk}-%s")
        self.member = member
        if member.is_owner:
            del self.fields["role"]


class MemberField(forms.ModelChoiceField[Membership]):
    """A member, shown by mail address."""

    def label_from_instance(self, obj: Membership) -> str:
        return obj.user.email


class HandOverForm(forms.Form):
    """Who owns the workspace from now on."""

    member = MemberField(Membership.objects.none(), label=_("New owner"), empty_label=None)

    def __init__(self, sent: QueryDict | None = None, *, workspace: Workspace) -> None:
        super().__init__(sent)
        others = Membership.objects.for_workspace(workspace).exclude(role=Role.OWNER)
        others = others.filter(user__delete_after=None).select_related("user")
        field = self.fields["member"]
        assert isinstance(field, MemberField)
        field.queryset = others.order_by("user__email")


class DeleteForm(forms.Form):
    """The name, typed again: what keeps somebody from deleting the wrong workspace."""

    name = forms.CharField(label=_("Type the workspace's name to delete it"), max_length=80)

    def __init__(self, sent: QueryDict | None = None, *, workspace: Workspace) -> None:
        super().__init__(sent, auto_id="delete-%s")
        self.workspace = workspace

    def clean_name(self) -> str:
        """Refuses any other name."""
        name: str = self.cleaned_data["name"]
        if name.strip() != self.workspace.name.strip():
            raise forms.ValidationError(_("This is not the workspace's name: %s") % self.workspace.name)
        return name


class AuditForm(forms.Form):
    """Which entries of the audit log to show."""

    deed = forms.ChoiceField(label=_("What"), required=False, choices=[("", _("Everything")), *Deed.choices])
    who = forms.CharField(label=_("Who"), required=False, max_length=254)
    since = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date"}))

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that make sense; the others are left out."""
        self.is_valid()
        return self.cleaned_data
