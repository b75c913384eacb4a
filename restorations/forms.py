"""Forms: from what a browser sends to values of the domain."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from gpu_worker.contract import MAX_SEED
from restorations.models import Restoration, Video
from restorations.presets import recommended_preset


class RestorationForm(forms.Form):
    """What a person chooses for a restoration; everything has a recommended value."""

    preset = forms.ChoiceField(
        label=_("Resolution"), choices=Restoration.Preset.choices, widget=forms.RadioSelect
    )
    seed = forms.IntegerField(
        label=_("Seed"),
        required=False,
        min_value=0,
        max_value=MAX_SEED,
        help_text=_("The same seed gives the same result again. Leave it empty for a random one."),
    )

    offer_id = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, video: Video, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["preset"].initial = (
            recommended_preset(width=video.width, height=video.height)
            if video.width
            else Restoration.Preset.P1080
        )

    @property
    def chosen_preset(self) -> str:
        """The preset to quote: what was sent if it is one, else the recommended one."""
        sent = self.data.get("preset") if self.is_bound else None
        return sent if sent in Restoration.Preset.values else str(self.fields["preset"].initial)


class SingleUploadForm(forms.Form):
    """A file in one request, from a browser without JavaScript."""

    file = forms.FileField(
        label=_("Video"),
        allow_empty_file=True,
        error_messages={"required": _("Please choose a video first.")},
    )
