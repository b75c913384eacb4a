"""Matches the colours of a restored clip to those of its source (vae_and_pipeline.md, section 11).

Frames are `[T, 3, H, W]`, RGB, -1..1, on any device; arithmetic and results are float32. Content is the
network's output, style the pre-processed source of the same size. No function changes its arguments.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.contract import ColorFix


def fix_color(content: Tensor, style: Tensor, method: ColorFix) -> Tensor:
    """Applies one correction; `NONE` returns the content as it is."""
    if method is ColorFix.WAVELET:
        return wavelet(content, style)
    if method is ColorFix.LAB:
        return lab(content, style)
    return adain(content, style) if method is ColorFix.ADAIN else content


def low_pass(frames: Tensor, *, limited: bool = False) -> Tensor:
    """Binomial blurs at distances 1, 2, 4, 8, 16, each with replicated borders: the picture's coarse colours.

    `limited` caps the distance at an eighth of the shorter side. Each blur is separable, so it takes two
    passes of three taps.
    """
    for level in range(5):
        radius = 2**level
        if limited:
            radius = min(radius, max(1, min(frames.shape[-2:]) // 8))
        frames = _blur_axis(_blur_axis(frames, radius, -1), radius, -2)
    return frames


def _blur_axis(frames: Tensor, radius: int, axis: int) -> Tensor:
    length = frames.shape[axis]
    margin = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    padded = functional.pad(frames, margin, mode="replicate")
    before, here, after = (padded.narrow(axis, shift * radius, length) for shift in range(3))
    return (before + after).mul_(0.25).add_(here, alpha=0.5)


def wavelet(content: Tensor, style: Tensor) -> Tensor:
    """The content's detail on the style's coarse colours (11.1); values may leave -1..1.

    A style of another size is resized first. The low pass is linear, so one of the difference is enough.
    """
    content, style = content.float(), style.float()
    if style.shape[-2:] != content.shape[-2:]:
        style = functional.interpolate(style, content.shape[-2:], mode="bilinear", align_corners=False)
    return low_pass(style - content).add_(content)


def wavelet_limited(content: Tensor, style: Tensor) -> Tensor:
    """The variant for small pictures: blurs no wider than an eighth of the shorter side, clamped to -1..1."""
    content = content.float()
    return low_pass(style.float() - content, limited=True).add_(content).clamp_(-1.0, 1.0)


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Gives each frame and channel the style's mean and deviation (11.2; arXiv:1703.06868)."""
    (content_std, content_mean), (style_std, style_mean) = (
        _moments(frames.float()) for frames in (content, style)
    )
    return (content.float() - content_mean) / content_std * style_std + style_mean


def _moments(frames: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(frames, (-2, -1), keepdim=True)
    return (variance + 1e-5).sqrt(), mean


#: Share of the content's own lightness in the LAB correction.
LIGHTNESS_KEPT: Final = 0.8
_TO_XYZ: Final = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_FROM_XYZ: Final = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_WHITE: Final = (0.95047, 1.0, 1.08883)
_DELTA: Final = 6 / 29
_KAPPA: Final = (29 / 3) ** 3


def lab(content: Tensor, style: Tensor) -> Tensor:
    """Wavelet, then the style's histograms in CIELAB (11.3).

    One ranking spans all frames given, so the result depends on how a video is cut into chunks.
    """
    return lab_histograms(wavelet_limited(content, style), style)


def lab_histograms(content: Tensor, style: Tensor) -> Tensor:
    """The second half of `lab`: a and b take the style's values by rank, L keeps most of its own."""
    content_lab, style_lab = (_rgb_to_lab(_to_unit(frames)) for frames in (content, style))
    matched = torch.stack([match_ranks(content_lab[:, axis], style_lab[:, axis]) for axis in range(3)], dim=1)
    matched[:, 0] = LIGHTNESS_KEPT * content_lab[:, 0] + (1.0 - LIGHTNESS_KEPT) * matched[:, 0]
    return _lab_to_rgb(matched) * 2.0 - 1.0


def match_ranks(content: Tensor, style: Tensor) -> Tensor:
    """The value of rank i in the content becomes the style's value of rank i, over all elements together."""
    order = content.flatten().argsort()
    sorted_style = style.flatten().sort().values
    count = order.numel()
    if sorted_style.numel() != count:
        position = torch.arange(count, device=content.device, dtype=torch.float64)
        position = position / max(count - 1, 1) * (sorted_style.numel() - 1)
        sorted_style = sorted_style[position.floor().long()]
    out = torch.empty_like(sorted_style)
    out[order] = sorted_style
    return out.view(content.shape)


def _to_unit(frames: Tensor) -> Tensor:
    return frames.float().add(1.0).mul_(0.5).clamp_(0.0, 1.0)


def _mix(matrix: tuple[tuple[float, ...], ...], frames: Tensor) -> Tensor:
    """Applies a 3 x 3 matrix to the channels."""
    weights = torch.tensor(matrix, device=frames.device, dtype=frames.dtype)
    return torch.einsum("oc,tchw->tohw", weights, frames)


def _white(frames: Tensor) -> Tensor:
    return torch.tensor(_WHITE, device=frames.device, dtype=frames.dtype)[:, None, None]


def _rgb_to_lab(rgb: Tensor) -> Tensor:
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(_TO_XYZ, linear) / _white(rgb)
    f = torch.where(xyz > _DELTA**3, xyz.clamp_min(0.0) ** (1 / 3), (_KAPPA * xyz + 16) / 116)
    f_x, f_y, f_z = f.unbind(1)
    return torch.stack([116 * f_y - 16, 500 * (f_x - f_y), 200 * (f_y - f_z)], dim=1)


def _lab_to_rgb(values: Tensor) -> Tensor:
    lightness, a, b = values.unbind(1)
    f_y = (lightness + 16) / 116
    f = torch.stack([a / 500 + f_y, f_y, f_y - b / 200], dim=1)
    xyz = torch.where(f > _DELTA, f**3, (116 * f - 16) / _KAPPA) * _white(values)
    linear = _mix(_FROM_XYZ, xyz)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0.0, 1.0)


#: Hue bins of the saturation match, and how many pixels make a bin count.
_NUM_HUES: Final = 12
_MIN_PIXELS: Final = 100


def hsv(content: Tensor, style: Tensor) -> Tensor:
    """Gives each of twelve hues the style's saturations by rank (11.4); hue and value stay the content's."""
    content_unit, style_unit = _to_unit(content), _to_unit(style)
    hue, saturation, value = _rgb_to_hsv(content_unit)
    style_hue, style_saturation, _ = _rgb_to_hsv(style_unit)
    matched = saturation.clone()
    for index in range(_NUM_HUES):
        ours, theirs = _in_bin(hue, index), _in_bin(style_hue, index)
        if ours.sum() > _MIN_PIXELS and theirs.sum() > _MIN_PIXELS:
            matched[ours] = match_ranks(saturation[ours], style_saturation[theirs])
    return _hsv_to_rgb(hue, matched, value).clamp(0.0, 1.0) * 2.0 - 1.0


def wavelet_adaptive(content: Tensor, style: Tensor) -> Tensor:
    """Wavelet, blended with the saturation match where the content is the more saturated one (11.4)."""
    smooth, matched = wavelet_limited(content, style), hsv(content, style)
    ours, theirs, after = (_saturation(_to_unit(frames)) for frames in (content, style, smooth))
    alpha = torch.sigmoid(5 * (ours - theirs - 0.15)) * (after - theirs > 0.075)
    alpha = alpha[:, None]
    return smooth * (1 - alpha) + matched * alpha


def _in_bin(hue: Tensor, index: int) -> Tensor:
    inside = (hue >= index / _NUM_HUES) & (hue < (index + 1) / _NUM_HUES)
    # Red lies on both sides of zero; the last bin is matched again by its own pass.
    return inside | (hue >= (_NUM_HUES - 1) / _NUM_HUES) if index == 0 else inside


def _saturation(rgb: Tensor) -> Tensor:
    largest = rgb.amax(1)
    spread = largest - rgb.amin(1)
    return torch.where(largest > 1e-10, spread / largest.clamp_min(1e-10), torch.zeros_like(largest))


def _rgb_to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue 0..1, saturation and value; where channels tie for the maximum, the last of R, G, B wins."""
    red, green, blue = rgb.unbind(1)
    value = rgb.amax(1)
    spread = value - rgb.amin(1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    hue = ((green - blue) / safe).remainder(6.0)
    hue = torch.where(value == green, (blue - red) / safe + 2.0, hue)
    hue = torch.where(value == blue, (red - green) / safe + 4.0, hue)
    hue = torch.where(spread > 0, hue / 6.0, torch.zeros_like(hue)).remainder(1.0)
    return hue, _saturation(rgb), value


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + hue * 6.0).remainder(6.0)
        channels.append(value - value * saturation * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return torch.stack(channels, dim=1)


def quantize(frames: Tensor, *, is_deep: bool = False) -> Tensor:
    """-1..1 of any shape -> uint8, or uint16 when deep, over the whole range; ties to even (section 12)."""
    dtype = torch.uint16 if is_deep else torch.uint8
    scaled = frames.float().clamp(-1.0, 1.0).mul_(0.5).add_(0.5).mul_(torch.iinfo(dtype).max)
    return scaled.round_().to(dtype)
