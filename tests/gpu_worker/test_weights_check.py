"""Weights are compared with their checksums before the first job; a stamp spares unchanged files."""

import hashlib
import os
from pathlib import Path

import pytest

from gpu_worker.weights_check import STAMP, WeightsBroken, files_of, verify_folder

NAMES = files_of("seedvr2-7b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write(tmp_path, name, bytes([number]) * 100_000)
    return tmp_path


def write(folder: Path, name: str, content: bytes, *, checksum: bool = True) -> None:
    (folder / f"{name}.safetensors").write_bytes(content)
    if checksum:
        digest = hashlib.sha256(content).hexdigest()
        (folder / f"{name}.sha256").write_text(f"{digest}  {name}.safetensors\n")


def test_a_model_needs_itself_the_vae_and_the_prompt() -> None:
    assert NAMES == ("seedvr2-7b", "seedvr2-vae", "prompt-positive")


def test_unchanged_files_are_hashed_once(folder: Path) -> None:
    assert verify_folder(folder, NAMES) == list(NAMES)
    assert verify_folder(folder, NAMES) == []


def test_a_file_that_changed_is_hashed_again(folder: Path) -> None:
    verify_folder(folder, NAMES)
    os.utime(folder / "seedvr2-vae.safetensors", (1, 1))
    assert verify_folder(folder, NAMES) == ["seedvr2-vae"]
    # Another revision comes with another checksum, even if size and time are the same.
    write(folder, "seedvr2-vae", b"x" * 100_000)
    os.utime(folder / "seedvr2-vae.safetensors", (1, 1))
    assert verify_folder(folder, NAMES) == ["seedvr2-vae"]


@pytest.mark.parametrize("content", [b"short", b"y" * 100_000], ids=["cut off", "other bytes"])
def test_every_broken_file_is_named_with_the_way_out(folder: Path, content: bytes) -> None:
    verify_folder(folder, NAMES)
    write(folder, "seedvr2-7b", content, checksum=False)
    os.utime(folder / "seedvr2-7b.safetensors", (1, 1))
    (folder / "prompt-positive.safetensors").unlink()
    with pytest.raises(WeightsBroken) as caught:
        verify_folder(folder, NAMES)
    message = str(caught.value)
    assert hashlib.sha256(content).hexdigest() in message
    assert "prompt-positive.safetensors missing" in message
    assert f"fetch_models --into {folder} seedvr2-7b" in message


def test_a_folder_that_cannot_be_written_is_checked_each_time(folder: Path) -> None:
    stamp = folder / "no such folder" / STAMP
    assert verify_folder(folder, NAMES, stamp=stamp) == list(NAMES)
    assert verify_folder(folder, NAMES, stamp=stamp) == list(NAMES)


def test_a_broken_stamp_is_no_stamp(folder: Path) -> None:
    (folder / STAMP).write_text("[1, 2")
    assert verify_folder(folder, NAMES) == list(NAMES)
