"""Where the published weights are, and how each file is recognised (dit.md, sections 10.5 and 11).

A file is pinned by its SHA-256. The hashes of the authors' own `.pth` files are not public knowledge here, so
those are checked against the hash that the Hub states for a commit, and both are recorded on first download.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Origin(enum.Enum):
    """Which publication of the same weights to fetch."""

    FLOAT16 = "float16"  # the community's safetensors, half the download, pinned by hash
    OFFICIAL = "official"  # the authors' float32 .pth files


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file on the Hugging Face Hub. `revision` is a branch, tag or commit; it is resolved to a commit."""

    repo_id: str
    filename: str
    sha256: str | None = None
    revision: str = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFile:
    """A small tensor file at a fixed address, pinned by hash."""

    url: str
    sha256: str


_COMMUNITY: Final = "numz/SeedVR2_comfyUI"
_SEVEN: Final = "ByteDance-Seed/SeedVR2-7B"
_THREE: Final = "ByteDance-Seed/SeedVR2-3B"
#: The VAE's name among the weights; both sizes share it.
VAE: Final = "seedvr2-vae"

WEIGHTS: Final[dict[str, dict[Origin, HubFile]]] = {
    "seedvr2-7b": {
        Origin.FLOAT16: HubFile(
            repo_id=_COMMUNITY,
            filename="seedvr2_ema_7b_fp16.safetensors",
            sha256="7b8241aa957606ab6cfb66edabc96d43234f9819c5392b44d2492d9f0b0bbe4a",
        ),
        Origin.OFFICIAL: HubFile(repo_id=_SEVEN, filename="seedvr2_ema_7b.pth"),
    },
    "seedvr2-7b-sharp": {
        Origin.FLOAT16: HubFile(
            repo_id=_COMMUNITY,
            filename="seedvr2_ema_7b_sharp_fp16.safetensors",
            sha256="20a93e01ff24beaeebc5de4e4e5be924359606c356c9c51509fba245bd2d77dd",
        ),
        Origin.OFFICIAL: HubFile(repo_id=_SEVEN, filename="seedvr2_ema_7b_sharp.pth"),
    },
    "seedvr2-3b": {
        Origin.FLOAT16: HubFile(
            repo_id=_COMMUNITY,
            filename="seedvr2_ema_3b_fp16.safetensors",
            sha256="2fd0e03a3dad24e07086750360727ca437de4ecd456f769856e960ae93e2b304",
        ),
        Origin.OFFICIAL: HubFile(repo_id=_THREE, filename="seedvr2_ema_3b.pth"),
    },
    VAE: {
        Origin.FLOAT16: HubFile(
            repo_id=_COMMUNITY,
            filename="ema_vae_fp16.safetensors",
            sha256="20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
        ),
        Origin.OFFICIAL: HubFile(repo_id=_SEVEN, filename="ema_vae.pth"),
    },
}

_REFERENCE: Final = (
    "https://raw.githubusercontent.com/ByteDance-Seed/SeedVR/673b56374c2adb21b7628b90df3829d457a52bbb"
)
#: The two constant prompts, 58 and 64 tokens of 5120 numbers; no text encoder is needed.
PROMPTS: Final[dict[str, PromptFile]] = {
    "prompt-positive": PromptFile(
        url=f"{_REFERENCE}/pos_emb.pt",
        sha256="fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799",
    ),
    "prompt-negative": PromptFile(
        url=f"{_REFERENCE}/neg_emb.pt",
        sha256="6a43e5800ef2354f1c156d27535834da055cbec8248298b8923492bba2076581",
    ),
}
