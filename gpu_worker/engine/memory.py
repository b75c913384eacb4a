"""How much memory a restoration takes: the model that plans are made from, in bytes; no tensors.

From performance.md, section 4. P is padded pixels, L the latents of a transformer's window, s the frames per
call in the layers at full frame rate:

    weights                 counted: 7B 15.35, 3B 6.32, VAE 0.47 GiB
    encoder caches          counted: 3.62 GiB * P / 10^6
    decoder caches          counted: 6.81 GiB * P / 10^6, upsamplers merged
    encode work             target: max(0.95 s, 1.43) GiB * P / 10^6
    decode work             target: 1.19 s GiB * P / 10^6
    transformer's work      published for code without fused kernels, ours: 127.2 KiB * tokens + 2.73 MiB * windows
                            target of fused kernels: 60 KiB * tokens + 2.7 MiB * windows; tokens = L * P / 256
    frames in and out       0.3 + 0.15 GiB * P / 10^6
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from gpu_worker.models.windows import axis_pieces

GIBIBYTE: Final = 1024**3
_MEBIBYTE: Final = 1024**2
_PIXELS_PER_TOKEN: Final = 16
#: The published models' windows: so many along time, rows and columns of a reference frame.
_WINDOWS: Final = (4, 3, 3)
#: A parked latent: 16 numbers of two bytes for each 8 x 8 pixels.
_LATENT_PIXELS: Final = 64
_LATENT_BYTES: Final = 32


class Weights(NamedTuple):
    """Bytes of the weights on each GPU."""

    transformer: int
    vae: int


def _hundredths(count: int) -> int:
    return count * GIBIBYTE // 100


#: The tiny models' weights are below a mebibyte.
WEIGHTS: Final = {
    "seedvr2-7b": Weights(_hundredths(1535), _hundredths(47)),
    "seedvr2-7b-sharp": Weights(_hundredths(1535), _hundredths(47)),
    "seedvr2-3b": Weights(_hundredths(632), _hundredths(47)),
    "tiny-7b": Weights(_MEBIBYTE, 0),
    "tiny-3b": Weights(_MEBIBYTE, 0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """Bytes that the transformer's kernels need for each token and each attention window."""

    token: int
    window: int


UNFUSED: Final = Kernels(token=1272 * 1024 // 10, window=273 * _MEBIBYTE // 100)
FUSED: Final = Kernels(token=60 * 1024, window=27 * _MEBIBYTE // 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """The parts for one model and frame size, on one of `num_sharing` GPUs that share the rows of each frame."""

    model: str
    width: int
    height: int
    num_sharing: int = 1
    kernels: Kernels = UNFUSED

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens after filling up to multiples of 16 pixels."""
        return -(-self.height // _PIXELS_PER_TOKEN), -(-self.width // _PIXELS_PER_TOKEN)

    @property
    def pixels(self) -> int:
        """Pixels of a frame after filling up."""
        rows, columns = self.grid
        return rows * columns * _PIXELS_PER_TOKEN**2

    @property
    def weights(self) -> Weights:
        """What stays on the device; no weights are shared."""
        return WEIGHTS[self.model]

    @property
    def encoder_caches(self) -> int:
        """What the VAE's encoder keeps between two slices of a stream."""
        return self._per_pixel(362)

    @property
    def decoder_caches(self) -> int:
        """What the VAE's decoder keeps between two slices of a stream."""
        return self._per_pixel(681)

    @property
    def in_and_out(self) -> int:
        """Frames on their way to and from the device."""
        return _hundredths(30) + self._per_pixel(15)

    def encode_work(self, frames_per_call: int) -> int:
        """The peak of encoding one slice, above the caches."""
        return self._per_pixel(max(95 * frames_per_call, 143))

    def decode_work(self, frames_per_call: int) -> int:
        """The peak of decoding one slice, above the caches."""
        return self._per_pixel(119 * frames_per_call)

    def transformer_work(self, length: int) -> int:
        """The peak of one window of `length` latents."""
        rows, columns = self.grid
        tokens, windows = length * rows * columns, num_windows(length, rows, columns)
        return -(-(self.kernels.token * tokens + self.kernels.window * windows) // self.num_sharing)

    def parked(self, num_latents: int) -> int:
        """Host memory of latents that wait between two phases."""
        return num_latents * self.pixels * _LATENT_BYTES // _LATENT_PIXELS

    def _per_pixel(self, hundredths_of_gibibyte: int) -> int:
        """Bytes of what takes so many hundredths of a GiB per 10^6 pixels, rounded up."""
        return -(-hundredths_of_gibibyte * GIBIBYTE * self.pixels // (10**8 * self.num_sharing))


def num_windows(length: int, rows: int, columns: int) -> int:
    """Attention windows of a shifted layer, which has the most."""
    return math.prod(len(pieces) for pieces in axis_pieces((length, rows, columns), _WINDOWS, shifted=True))
