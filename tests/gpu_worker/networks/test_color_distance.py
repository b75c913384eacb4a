"""Colors of a result against its source by CIEDE2000 (Sharma, Wu, Dalal 2005), the distance that people see.

Random networks have no detail worth measuring, so a picture with a color cast, other contrast and sharper detail
stands for what networks return.
"""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.contract import ColorFix
from gpu_worker.engine.color import _rgb_to_lab, fix_color
from gpu_worker.engine.preprocess import exact_geometry, from_network, to_network
from tests import samples

pytestmark = pytest.mark.torch

_POWER = 25.0**7


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """The distance of colors in CIELAB, `[..., 3]` each."""
    (l_1, a_1, b_1), (l_2, a_2, b_2) = one.double().unbind(-1), other.double().unbind(-1)
    mean_c = (torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2
    stretch = 1.5 - 0.5 * (mean_c**7 / (mean_c**7 + _POWER)).sqrt()
    a_1, a_2 = a_1 * stretch, a_2 * stretch
    c_1, c_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    h_1, h_2 = (torch.rad2deg(torch.atan2(b, a)) % 360 for b, a in ((b_1, a_1), (b_2, a_2)))
    is_gray = c_1 * c_2 == 0
    turn = torch.where(is_gray, 0.0, (h_2 - h_1 + 180) % 360 - 180)
    lightness, chroma = l_2 - l_1, c_2 - c_1
    hue = 2 * (c_1 * c_2).sqrt() * torch.sin(torch.deg2rad(turn / 2))
    mean_l, mean_c = (l_1 + l_2) / 2, (c_1 + c_2) / 2
    mean_h = torch.where(is_gray, h_1 + h_2, h_1 + turn / 2)

    def wave(times: int, shift: float) -> Tensor:
        return torch.cos(torch.deg2rad(times * mean_h + shift))

    t = 1 - 0.17 * wave(1, -30) + 0.24 * wave(2, 0) + 0.32 * wave(3, 6) - 0.20 * wave(4, -63)
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / (20 + (mean_l - 50) ** 2).sqrt()
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    angle = 60 * torch.exp(-(((mean_h % 360 - 275) / 25) ** 2))
    r_t = -2 * (mean_c**7 / (mean_c**7 + _POWER)).sqrt() * torch.sin(torch.deg2rad(angle))
    parts = lightness / s_l, chroma / s_c, hue / s_h
    return (parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2 + r_t * parts[1] * parts[2]).clamp_min(0).sqrt()


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((50.0, 2.5, 0.0), (50.0, 3.2592, 0.3350), 1.0000),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_measure_gives_the_published_figures(
    one: tuple[float, ...], other: tuple[float, ...], distance: float
) -> None:
    assert ciede2000(torch.tensor(one), torch.tensor(other)).item() == pytest.approx(distance, abs=1e-4)


def _source() -> Tensor:
    """A picture of a real video, uint8 `[1, 3, H, W]`."""
    with av.open(str(Path(samples.path("bikes.mp4")))) as container:
        frame = next(container.decode(video=0)).reformat(width=160, height=96, format="rgb24")
    return torch.from_numpy(frame.to_ndarray()).permute(2, 0, 1)[None]


def _distance_to_source(result: Tensor, source: Tensor) -> float:
    """The mean distance between a result, shrunk to the source's size, and the source."""
    shrunk = functional.interpolate(
        result, source.shape[-2:], mode="bicubic", align_corners=False, antialias=True
    )
    unit = [frames.clamp(0, 1) for frames in (shrunk * 0.5 + 0.5, source.float() / 255)]
    one, other = (_rgb_to_lab(frames).permute(0, 2, 3, 1) for frames in unit)
    return ciede2000(one, other).mean().item()


@pytest.mark.parametrize("method", [ColorFix.WAVELET, ColorFix.LAB, ColorFix.ADAIN])
def test_corrected_colors_stay_within_two_of_the_source(method: ColorFix) -> None:
    source = _source()
    geometry = exact_geometry((96, 160), (192, 320))
    plain = from_network(to_network(source, geometry), geometry, 1)
    soft = functional.avg_pool2d(plain, 3, 1, 1)
    cast = torch.tensor([0.10, -0.05, -0.12])[None, :, None, None]
    content = 0.85 * (plain + 0.3 * (plain - soft)) + cast

    assert _distance_to_source(content.clamp(-1, 1), source) > 4
    assert _distance_to_source(fix_color(content, plain, method).clamp(-1, 1), source) < 2
