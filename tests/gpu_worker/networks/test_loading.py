"""Weights come straight to the device, in parallel and complete, or not at all."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.engine.cold_start import ColdStart
from gpu_worker.engine.presets import PRESETS, Preset, load_networks
from gpu_worker.models.checkpoint import CheckpointError, random_weights
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.loading import described, read_parallel
from gpu_worker.models.sources import VAE
from gpu_worker.models.vae import VideoVAE

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
TINY = PRESETS["tiny-3b"]
#: The tiny networks as if they were published.
PUBLISHED = Preset(
    name="seedvr2-3b", transformer=TINY.transformer, vae=TINY.vae, weights="seedvr2-3b", num_text_tokens=5
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Tensors of three kinds and many sizes, an empty one and a single number among them."""
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"t{i}": torch.randn(shape, generator=generator).to(dtype)
        for i, (shape, dtype) in enumerate(
            [
                ((300, 70), torch.bfloat16),
                ((7,), torch.float32),
                ((), torch.float32),
                ((0, 4), torch.float16),
                ((3, 5, 2, 2), torch.float16),
                ((1000,), torch.bfloat16),
            ]
        )
    }
    save_file(tensors, tmp_path / "some.safetensors", {"origin": "here"})
    return tmp_path / "some.safetensors"


@pytest.mark.parametrize(("num_readers", "piece_bytes"), [(1, 1 << 20), (3, 1000), (8, 7)])
def test_every_byte_arrives_however_the_file_is_cut(file: Path, num_readers: int, piece_bytes: int) -> None:
    expected = load_file(file)
    found, transfer = read_parallel(file, CPU, num_readers=num_readers, piece_bytes=piece_bytes)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert transfer.num_bytes == file.stat().st_size
    assert transfer.gb_per_second > 0


def test_a_description_needs_no_memory(file: Path) -> None:
    metas = described(file)
    assert metas["t0"].is_meta
    assert {name: (m.shape, m.dtype) for name, m in metas.items()} == {
        name: (t.shape, t.dtype) for name, t in load_file(file).items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "its header describes"),
        (lambda content: content + b"\0", "its header describes"),
        (lambda content: content[:5], "cut off or not a .safetensors file"),
        (lambda content: b"PK\3\4" * 100, "cut off or not a .safetensors file"),
        (lambda content: content[:8] + b"!" + content[9:], "header that cannot be read"),
    ],
    ids=["byte missing", "byte too many", "start only", "another format", "broken header"],
)
def test_a_file_that_is_not_whole_is_refused(file: Path, change: object, message: str) -> None:
    file.write_bytes(change(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        read_parallel(file, CPU)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}, "x is I8"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}, "does not have 4 bytes"),
        ({"dtype": "F32", "shape": [1]}, "data_offsets"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match=message):
        read_parallel(path, CPU)


def published(folder: Path) -> tuple[NaDiT, VideoVAE]:
    """Writes a model folder as `fetch_models` leaves it, and returns its networks."""
    transformer = random_weights(lambda: NaDiT(TINY.transformer), seed=4, dtype=torch.bfloat16)
    vae = random_weights(lambda: VideoVAE(TINY.vae), seed=5, dtype=torch.float16)
    save_file(dict(transformer.state_dict()), folder / "seedvr2-3b.safetensors")
    save_file(dict(vae.state_dict()), folder / f"{VAE}.safetensors")
    save_file({"prompt": torch.randn(5, 32)}, folder / "prompt-positive.safetensors")
    return transformer, vae


def test_a_preset_loads_from_its_folder_and_its_cold_start_is_known(tmp_path: Path) -> None:
    transformer, vae = published(tmp_path)
    cold = ColdStart()
    networks = load_networks(PUBLISHED, tmp_path, device=CPU, vae_dtype=torch.float32, cold=cold)

    for name, tensor in transformer.state_dict().items():
        assert torch.equal(networks.transformer.state_dict()[name], tensor)
    for name, tensor in vae.state_dict().items():
        assert torch.equal(networks.vae.state_dict()[name], tensor.float())
    files = ("seedvr2-3b.safetensors", f"{VAE}.safetensors")
    figures = cold.to_json()
    (name,) = [name for name in figures if name.endswith("_bytes")]
    assert name in ("weights_from_local_disk_bytes", "weights_from_network_volume_bytes")
    assert figures[name] == sum((tmp_path / file).stat().st_size for file in files)


def test_another_networks_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    published(tmp_path)
    weights = load_file(tmp_path / "seedvr2-3b.safetensors")
    weights["more"] = weights.pop("txt_in.bias")
    save_file(weights, tmp_path / "seedvr2-3b.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: txt_in\.bias; 1 unexpected: more"):
        load_networks(PUBLISHED, tmp_path, device=CPU)


@pytest.mark.gpu
def test_weights_reach_the_gpu(file: Path) -> None:
    found, _ = read_parallel(file, torch.device("cuda"), num_readers=3, piece_bytes=1000)
    for name, tensor in load_file(file).items():
        assert torch.equal(found[name].cpu(), tensor)
