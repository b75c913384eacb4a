from django import forms

from accounts.models import User


class MailPreferencesForm(forms.ModelForm[User]):
    """Which mails a person wants."""

    class Meta:
        model = User
        fields = ("mail_on_success", "mail_on_failure", "mail_on_expiry")
