"""Downloads the published weights, checks them, and converts them once for the worker.

    python -m gpu_worker.tools.fetch_models --into FOLDER [MODEL ...] [--origin float16|official]

Models are seedvr2-7b (the default), seedvr2-7b-sharp and seedvr2-3b; the VAE and the two prompts come
along. The folder may be a network volume: files appear complete or not at all, and a second run does
nothing. An interrupted download resumes where it stopped. A file with a wrong SHA-256 is deleted and
refused.

Each result carries its origin in its metadata: repository, commit, file, SHA-256. Beside it lies
`NAME.sha256` in the format of sha256sum; `--verify` compares again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from safetensors import safe_open
from torch import nn

from gpu_worker.engine.presets import PRESETS
from gpu_worker.models.checkpoint import CheckpointError, sha256_of, verify_sha256
from gpu_worker.models.sources import PROMPTS, VAE, WEIGHTS, HubFile, Origin, PromptFile
from gpu_worker.tools.convert_checkpoint import build_on_meta, convert, stored_dtype, write_safetensors
from gpu_worker.weights_check import WeightsBroken, files_of, verify_folder

logger = logging.getLogger(__name__)

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PROMPT_BYTES: Final = 4 << 20


def fetch_weights(
    file: HubFile,
    target: Path,
    network: nn.Module,
    *,
    dtype: torch.dtype,
    endpoint: str | None = None,
    keep_source: bool = False,
) -> None:
    """Downloads one checkpoint from the Hub and converts it to `target`.

    Args:
        file: what to fetch; its revision is resolved to a commit first, and everything comes from that
        commit. target: the `.safetensors` file to write. Downloads wait in the folder `.downloads` beside
        it. network: on the meta device, to check keys and shapes against. dtype: stored precision of
        matrices. endpoint: the Hub's address, when it is not the public one. keep_source: keeps the
        download instead of deleting it after the conversion.

    Raises CheckpointError for a wrong checksum (the download is deleted) and for keys that do not fit.
    """
    url = hf_hub_url(file.repo_id, file.filename, revision=file.revision, endpoint=endpoint)
    stated = get_hf_file_metadata(url, endpoint=endpoint)
    if stated.commit_hash is None:
        raise CheckpointError(f"the Hub states no commit for {file.repo_id} at {file.revision}")
    expected = file.sha256 or stated.etag or ""
    if not _SHA256.fullmatch(expected):
        raise CheckpointError(f"there is no SHA-256 for {file.filename}: the Hub states {stated.etag!r}")
    pinned = "pinned" if file.sha256 else "stated by the Hub, not pinned here"
    logger.info(
        "fetching file=%s commit=%s sha256=%s (%s)", file.filename, stated.commit_hash, expected, pinned
    )
    downloads = target.parent / ".downloads"
    source = Path(
        hf_hub_download(
            file.repo_id,
            file.filename,
            revision=stated.commit_hash,
            cache_dir=downloads,
            endpoint=endpoint,
        )
    )
    found = sha256_of(source, _progress(f"checking {file.filename}", source.stat().st_size))
    if found != expected:
        source.resolve().unlink()
        source.unlink(missing_ok=True)
        raise CheckpointError(f"{file.filename} has SHA-256 {found}; expected {expected}. It was deleted")
    metadata = {
        "repo_id": file.repo_id,
        "revision": stated.commit_hash,
        "filename": file.filename,
        "sha256": found,
    }
    logger.info("converting file=%s to=%s", file.filename, target.name)
    convert(source, target, network, dtype=dtype, metadata=metadata)
    _write_checksum(target)
    if not keep_source:
        shutil.rmtree(downloads, ignore_errors=True)


def fetch_prompt(file: PromptFile, target: Path) -> None:
    """Downloads one prompt embedding and stores it as `prompt` in `target`; checked like a checkpoint."""
    with urllib.request.urlopen(file.url, timeout=60) as response:  # noqa: S310  # our own constant addresses
        content = response.read(_PROMPT_BYTES)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        source = Path(folder) / "prompt.pt"
        source.write_bytes(content)
        verify_sha256(source, file.sha256)
        prompt = torch.load(source, map_location="cpu", weights_only=True)
    write_safetensors({"prompt": prompt.contiguous()}, target, {"url": file.url, "sha256": file.sha256})
    _write_checksum(target)


def origin_of(path: Path) -> dict[str, str]:
    """What a converted file says about its origin; empty for a file that is not there or not one of ours."""
    if not path.is_file():
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def verify(path: Path) -> None:
    """Compares a converted file with the checksum beside it; raises CheckpointError when they differ."""
    expected = path.with_suffix(".sha256").read_text().split()[0]
    verify_sha256(path, expected)


def _write_checksum(path: Path) -> None:
    path.with_suffix(".sha256").write_text(f"{sha256_of(path)}  {path.name}\n")


def _progress(title: str, total: int) -> Callable[[int], None]:
    """Reports every tenth of `total` bytes on standard error."""
    done = shown = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        tenth = 10 * done // max(total, 1)
        if tenth > shown:
            shown = tenth
            sys.stderr.write(f"{title}: {10 * tenth} %\n")

    return advance


def main() -> int:
    """Fetches what the command line names; returns the exit status."""
    published = [name for name, preset in PRESETS.items() if preset.weights]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join(published)}")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    origins = [origin.value for origin in Origin]
    parser.add_argument("--origin", default=Origin.FLOAT16.value, choices=origins, help="whose files")
    parser.add_argument("--revision", help="branch, tag or commit of the weights' repository, for all files")
    parser.add_argument("--endpoint", help="address of the Hub or of a mirror")
    parser.add_argument("--keep-sources", action="store_true", help="keep the downloads after converting")
    parser.add_argument("--verify", action="store_true", help="compare files that are already there")
    arguments = parser.parse_args()
    models = arguments.models or ["seedvr2-7b"]
    if unknown := set(models) - set(published):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; known are {', '.join(published)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arguments.into.mkdir(parents=True, exist_ok=True)
    try:
        for name in [*models, VAE]:
            target = arguments.into / f"{name}.safetensors"
            file = WEIGHTS[name][Origin(arguments.origin)]
            if arguments.revision:
                file = dataclasses.replace(file, revision=arguments.revision)
            if _is_present(target, file.filename, arguments.verify, arguments.revision):
                continue
            fetch_weights(
                file,
                target,
                build_on_meta(name),
                dtype=stored_dtype(name),
                endpoint=arguments.endpoint,
                keep_source=arguments.keep_sources,
            )
        for name, prompt in PROMPTS.items():
            target = arguments.into / f"{name}.safetensors"
            if not _is_present(target, prompt.url, arguments.verify):
                logger.info("fetching %s", name)
                fetch_prompt(prompt, target)
        for name in models:
            # Leaves the stamp that spares workers the hashing.
            verify_folder(arguments.into, files_of(name))
    except (CheckpointError, WeightsBroken) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _is_present(target: Path, origin: str, checks: bool, revision: str | None = None) -> bool:
    known = origin_of(target)
    if origin not in (known.get("filename"), known.get("url")):
        return False
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision) and known.get("revision") != revision:
        return False  # another commit than the one asked for
    if checks:
        verify(target)
    logger.info("present file=%s%s", target.name, " verified" if checks else "")
    return True


if __name__ == "__main__":
    sys.exit(main())
