"""Forms: from what a browser sends to values of the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from gpu_worker.contract import MAX_SEED, MAX_STRENGTH, Engine, Frames
from restorations import snippets
from restorations.models import Restoration, Video
from restorations.options import (
    AUTOMATIC,
    UNUSED_BY,
    ColorFixChoice,
    ModelChoice,
    Options,
    OutputChoice,
    is_too_narrow_for_h265,
    outputs_for,
    resolved_output,
)
from restorations.presets import recommended_preset

#: The settings behind 'More settings', in the order of the page.
MORE_SETTINGS = ("model", "strength", "color_fix", "output", "seed")


class RestorationForm(forms.Form):
    """What a person chooses for a restoration; everything has a recommended value and the reason for it."""

    preset = forms.ChoiceField(
        label=_("Resolution"), choices=Restoration.Preset.choices, widget=forms.RadioSelect
    )
    model = forms.ChoiceField(
        label=_("Model"),
        choices=[
            (ModelChoice.SEEDVR2_7B, _("SeedVR2 7B (recommended)")),
            (ModelChoice.SEEDVR2_7B_SHARP, ModelChoice.SEEDVR2_7B_SHARP.label),
            (ModelChoice.SEEDVR2_3B, ModelChoice.SEEDVR2_3B.label),
        ],
        help_text=_("7B keeps faces and text truest. Sharp looks crisper, 3B is a little quicker."),
    )
    strength = forms.IntegerField(
        label=_("Strength"),
        min_value=0,
        max_value=MAX_STRENGTH,
        widget=forms.NumberInput(attrs={"type": "range", "step": 1, "data-range": ""}),
        help_text=_(
            "100 is the full restoration (recommended), 0 only enlarges. Lower it where detail looks invented."
        ),
    )
    color_fix = forms.ChoiceField(
        label=_("Colours"),
        choices=[
            (ColorFixChoice.WAVELET, _("Keep the original's colours (recommended)")),
            *(choice for choice in ColorFixChoice.choices if choice[0] != ColorFixChoice.WAVELET),
        ],
        help_text=_("Restoring can shift colours a little; this puts the original's back."),
    )
    output = forms.ChoiceField(label=_("File format"))
    seed = forms.IntegerField(
        label=_("Seed"),
        required=False,
        min_value=0,
        max_value=MAX_SEED,
        help_text=_(
            "The same seed and settings give the same picture again. Leave it empty for a random one."
        ),
    )

    #: Only for saving, where it has to be there.
    name = forms.CharField(
        label=_("Name of these settings"),
        required=False,
        max_length=60,
        help_text=_("Everybody in this workspace finds them under this name. The seed is not saved."),
    )
    offer_id = forms.UUIDField(required=False, widget=forms.HiddenInput)
    #: What the quote of the whole had taken off for previews.
    preview_credits = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)
    preview_offer_id = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Mapping[str, Any] | None = None, *, video: Video) -> None:
        """Takes what was sent; what was not sent has its recommended value."""
        self.recommended = Options(
            preset=recommended_preset(width=video.width, height=video.height)
            if video.width
            else Restoration.Preset.P1080
        )
        initial = self.recommended.to_form()
        if data is not None:
            # A resolution has to be chosen: it makes the price.
            usual = {name: initial[name] for name in MORE_SETTINGS}
            usual["preview_start"] = snippets.usual_start(video) if snippets.num_frames(video) else ""
            data = usual | {name: data[name] for name in data if data[name] != ""}
        super().__init__(data, initial=initial)
        self._video = video
        if snippets.num_frames(video):
            self.fields["preview_start"] = _preview_start(video)
        allowed = outputs_for(video)
        automatic = OutputChoice(resolved_output(AUTOMATIC, video)).label
        output = self.fields["output"]
        assert isinstance(output, forms.ChoiceField)
        output.choices = [
            (AUTOMATIC, _("Automatic: %(format)s (recommended)") % {"format": automatic}),
            *(choice for choice in OutputChoice.choices if choice[0] in allowed),
        ]
        output.help_text = _help_for_output(video)

    @property
    def options(self) -> Options:
        """What was chosen; the recommended value where nothing valid was."""
        chosen = self.cleaned_data if self.is_bound and self.errors is not None else {}
        names = ("preset", *MORE_SETTINGS)
        given = {name: chosen[name] for name in names if chosen.get(name) not in (None, "")}
        return Options(**{**self.recommended.to_form(), "seed": None, **given})

    @property
    def preview_frames(self) -> Frames | None:
        """The frames of a preview that begins where it was chosen; None for a video that is too short for one."""
        if "preview_start" not in self.fields:
            return None
        start = snippets.usual_start(self._video)
        if self.is_bound and self.errors is not None:
            start = self.cleaned_data.get("preview_start", start)
        return snippets.frames_from(self._video, start)

    @property
    def more_settings(self) -> list[tuple[forms.BoundField, bool]]:
        """The fields behind 'More settings', each with whether this installation's engine uses it."""
        unused = UNUSED_BY[Engine(settings.RESTORATION_ENGINE)]
        return [(self[name], name not in unused) for name in MORE_SETTINGS]

    @property
    def is_unusual(self) -> bool:
        """True when one of 'More settings' is not the recommended one, or wrong: they are shown then."""
        if not self.is_bound:
            return False
        return bool(set(self.errors) & set(MORE_SETTINGS)) or any(
            getattr(self.options, name) != getattr(self.recommended, name) for name in MORE_SETTINGS
        )


def _preview_start(video: Video) -> forms.FloatField:
    """Returns the field for the second at which a preview of this video begins."""
    return forms.FloatField(
        label=_("The preview begins at"),
        required=False,
        min_value=0,
        max_value=snippets.latest_start(video),
        initial=snippets.usual_start(video),
        step_size=0.1,
        widget=forms.NumberInput(attrs={"type": "range", "data-start": ""}),
        help_text=_("Move the slider, or stop the player where the preview shall begin."),
    )


def _help_for_output(video: Video) -> str:
    if video.is_image:
        return gettext("A still picture stays one, with its transparency.")
    if is_too_narrow_for_h265(video):
        return gettext(
            "Automatic keeps everything that your video has. H.265 cannot hold so narrow a picture."
        )
    return gettext(
        "Automatic keeps everything that your video has. ProRes and PNG are for editing and large."
    )


class SingleUploadForm(forms.Form):
    """A file in one request, from a browser without JavaScript."""

    file = forms.FileField(
        label=_("Video"),
        allow_empty_file=True,
        error_messages={"required": _("Please choose a video first.")},
    )
