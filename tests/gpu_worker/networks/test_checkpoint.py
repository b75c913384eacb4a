"""Checkpoints load completely or not at all, and what is fetched is what was meant."""

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.engine.presets import PRESETS, load_networks
from gpu_worker.models.checkpoint import (
    CheckpointError,
    load_weights,
    random_weights,
    read_prompt,
    read_weights,
    verify_sha256,
)
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.sources import PROMPTS, WEIGHTS, HubFile, Origin
from gpu_worker.models.vae import VideoVAE
from gpu_worker.tools.convert_checkpoint import convert
from gpu_worker.tools.fetch_models import fetch_weights, origin_of, verify
from tests.gpu_worker.test_image import tree

pytestmark = pytest.mark.torch

TINY = PRESETS["tiny-3b"]


def tiny_transformer() -> NaDiT:
    return NaDiT(TINY.transformer)


def on_meta() -> NaDiT:
    with torch.device("meta"):
        return tiny_transformer()


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    """A state dict as published: float32, with rotary buffers."""
    weights = dict(random_weights(tiny_transformer, seed=4, dtype=torch.float32).state_dict())
    return weights | {f"blocks.{i}.attn.rope.rope.freqs": torch.ones(2) for i in range(4)}


def expected_keys(name: str) -> dict[str, tuple[int, ...]]:
    """The published key list, written out from the specification's tables rather than from our modules."""
    dim, blocks, is_seven = {"seedvr2-7b": (3072, 36, True), "seedvr2-3b": (2560, 32, False)}[name]
    keys: dict[str, tuple[int, ...]] = {}

    def linear(key: str, out: int, into: int, bias: bool = True) -> None:
        keys[f"{key}.weight"] = (out, into)
        if bias:
            keys[f"{key}.bias"] = (out,)

    linear("vid_in.proj", dim, 132)
    linear("txt_in", dim, 5120)
    linear("emb_in.proj_in", dim, 256)
    linear("emb_in.proj_hid", dim, dim)
    linear("emb_in.proj_out", 6 * dim, dim)
    linear("vid_out.proj", 64, dim)
    if not is_seven:
        keys |= dict.fromkeys(
            ("vid_out_norm.weight", "vid_out_ada.out_shift", "vid_out_ada.out_scale"), (dim,)
        )
    for i in range(blocks):
        for s in ("vid", "txt") if is_seven or i < 10 else ("all",):
            block = f"blocks.{i}"
            linear(f"{block}.attn.proj_qkv.{s}", 3 * dim, dim, bias=False)
            linear(f"{block}.attn.proj_out.{s}", dim, dim)
            keys[f"{block}.attn.norm_q.{s}.weight"] = keys[f"{block}.attn.norm_k.{s}.weight"] = (128,)
            if is_seven:
                linear(f"{block}.mlp.{s}.proj_in", 12288, 3072)
                linear(f"{block}.mlp.{s}.proj_out", 3072, 12288)
            else:
                linear(f"{block}.mlp.{s}.proj_in_gate", 6912, 2560, bias=False)
                linear(f"{block}.mlp.{s}.proj_in", 6912, 2560, bias=False)
                linear(f"{block}.mlp.{s}.proj_out", 2560, 6912, bias=False)
            for sub in ("attn", "mlp"):
                for role in ("shift", "scale", "gate"):
                    keys[f"{block}.ada.{s}.{sub}_{role}"] = (dim,)
    return keys


@pytest.mark.parametrize(
    ("name", "num_keys", "num_parameters"),
    [("seedvr2-7b", 1128 - 36, 8_239_607_872), ("seedvr2-3b", 635 - 32, 3_391_475_776)],
)
def test_full_size_keys_are_the_published_ones(name: str, num_keys: int, num_parameters: int) -> None:
    with torch.device("meta"):
        network = NaDiT(PRESETS[name].transformer)

    ours = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}

    assert ours == expected_keys(name)
    assert len(ours) == num_keys
    assert sum(p.numel() for p in network.parameters()) == num_parameters


@pytest.mark.parametrize(
    ("name", "rotary", "num_bytes"), [("seedvr2-7b", 10, 16_479_334_424), ("seedvr2-3b", 21, 6_783_018_808)]
)
def test_keys_reproduce_the_published_file_size(name: str, rotary: int, num_bytes: int) -> None:
    shapes = expected_keys(name)
    blocks = PRESETS[name].transformer.num_layers
    shapes |= {f"blocks.{i}.attn.rope.rope.freqs": (rotary,) for i in range(blocks)}
    header, offset = {}, 0
    for key in sorted(shapes):
        size = 2 * torch.Size(shapes[key]).numel()
        header[key] = {"dtype": "F16", "shape": list(shapes[key]), "data_offsets": [offset, offset + size]}
        offset += size
    length = len(json.dumps(header, separators=(",", ":")))

    # Eight bytes of length, the header filled to a multiple of eight, the data.
    assert 8 + -(-length // 8) * 8 + offset == num_bytes


def test_published_weights_load_and_rotary_buffers_are_ignored(published: dict[str, torch.Tensor]) -> None:
    network = load_weights(tiny_transformer, published, dtype=torch.bfloat16)

    assert network.blocks[0].attn.proj_qkv["vid"].weight.dtype is torch.bfloat16
    assert network.blocks[0].ada["vid"].attn_gate.dtype is torch.float32
    assert network.blocks[0].attn.norm_q["vid"].weight.dtype is torch.float32
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in network.parameters())


def test_every_key_that_does_not_fit_is_listed(published: dict[str, torch.Tensor]) -> None:
    del published["vid_in.proj.bias"], published["blocks.1.ada.txt.mlp_gate"]
    published["extra.weight"] = torch.zeros(1)
    published["txt_in.bias"] = torch.zeros(3)

    with pytest.raises(CheckpointError) as caught:
        load_weights(tiny_transformer, published, dtype=torch.float32)

    message = str(caught.value)
    assert "2 missing: blocks.1.ada.txt.mlp_gate, vid_in.proj.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "txt_in.bias is (3,), expected (64,)" in message


def test_historical_attention_names_of_the_vae_are_renamed() -> None:
    weights = dict(random_weights(lambda: VideoVAE(TINY.vae), seed=1, dtype=torch.float32).state_dict())
    old = {}
    for name, tensor in weights.items():
        for new_name, old_name in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f".{new_name}.", f".{old_name}.")
        is_matrix = re.search(r"attentions.*weight", name) and tensor.ndim == 2
        old[name] = tensor[:, :, None, None] if is_matrix else tensor
    assert old.keys() != weights.keys()

    vae = load_weights(lambda: VideoVAE(TINY.vae), old, dtype=torch.float32)

    assert all(torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())


def test_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")

    with pytest.raises(Exception, match=r"[Ww]eights"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


def test_conversion_is_repeatable_and_loads(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "source.pth")
    for target in ("a.safetensors", "b.safetensors"):
        convert(
            tmp_path / "source.pth", tmp_path / target, on_meta(), dtype=torch.bfloat16, metadata={"x": "y"}
        )

    converted = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(t, converted[n]) for n, t in load_file(tmp_path / "b.safetensors").items())
    assert origin_of(tmp_path / "a.safetensors") == {"x": "y"}
    assert not any("rope" in name for name in converted)
    assert torch.equal(converted["txt_in.weight"], published["txt_in.weight"].bfloat16())
    assert torch.equal(converted["vid_out_ada.out_scale"], published["vid_out_ada.out_scale"])
    load_weights(tiny_transformer, read_weights(tmp_path / "a.safetensors"), dtype=torch.bfloat16)


def test_failed_conversion_leaves_nothing_behind(tmp_path: Path) -> None:
    save_file({"vid_in.proj.weight": torch.zeros(2)}, tmp_path / "half.safetensors")

    with pytest.raises(CheckpointError, match="missing"):
        convert(
            tmp_path / "half.safetensors",
            tmp_path / "out.safetensors",
            on_meta(),
            dtype=torch.bfloat16,
            metadata={},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["half.safetensors"]


def test_wrong_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")

    verify_sha256(tmp_path / "file", hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(CheckpointError, match=f"expected {'0' * 64}"):
        verify_sha256(tmp_path / "file", "0" * 64)


def test_tiny_presets_need_no_files_and_are_the_same_every_time() -> None:
    first, second = (
        load_networks(TINY, None, device=torch.device("cpu"), dtype=torch.float32) for _ in range(2)
    )

    assert torch.equal(first.prompt, second.prompt)
    for ours, theirs in zip(first.transformer.parameters(), second.transformer.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_missing_files_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fetch_models seedvr2-3b"):
        load_networks(PRESETS["seedvr2-3b"], tmp_path, device=torch.device("cpu"))


def test_every_published_preset_has_pinned_weights() -> None:
    for preset in PRESETS.values():
        if preset.weights:
            assert WEIGHTS[preset.weights][Origin.FLOAT16].sha256
    assert len(PROMPTS) == 2


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's protocol as one download needs; drops the first connection midway."""

    content: bytes
    ranges: list[str | None]
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self._reply(0, head=True)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        self._reply(int(re.findall(r"\d+", asked)[0]) if asked else 0, head=False)

    def _reply(self, first: int, *, head: bool) -> None:
        body = self.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        self.end_headers()
        if head:
            return
        if len(self.ranges) == 1:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Stays quiet."""


@pytest.fixture
def hub(published: dict[str, torch.Tensor], tmp_path: Path) -> Iterator[str]:
    save_file(published, tmp_path / "published.safetensors")
    Hub.content, Hub.ranges = (tmp_path / "published.safetensors").read_bytes(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore")  # the dropped connection
def test_interrupted_download_resumes_is_checked_and_converted(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client writes blocks of 10 MB; the file of this test is smaller than one.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    target = tmp_path / "models" / "tiny.safetensors"
    target.parent.mkdir()
    file = HubFile(repo_id="owner/name", filename="tiny.safetensors", sha256=None)

    fetch_weights(file, target, on_meta(), dtype=torch.bfloat16, endpoint=hub)

    assert Hub.ranges[0] is None
    assert any(asked and not asked.startswith("bytes=0-") for asked in Hub.ranges[1:])
    assert origin_of(target)["revision"] == Hub.COMMIT
    assert origin_of(target)["sha256"] == hashlib.sha256(Hub.content).hexdigest()
    assert sorted(path.name for path in target.parent.iterdir()) == ["tiny.safetensors", "tiny.sha256"]
    verify(target)
    target.write_bytes(target.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors has SHA-256"):
        verify(target)


@pytest.mark.filterwarnings("ignore")
def test_download_with_a_wrong_checksum_is_deleted_and_refused(hub: str, tmp_path: Path) -> None:
    target = tmp_path / "models" / "tiny.safetensors"
    target.parent.mkdir()
    Hub.ranges.append(None)  # no interruption this time
    file = HubFile(repo_id="owner/name", filename="tiny.safetensors", sha256="0" * 64)

    with pytest.raises(CheckpointError, match="It was deleted"):
        fetch_weights(file, target, on_meta(), dtype=torch.bfloat16, endpoint=hub)

    assert not target.exists()
    assert not [p for p in target.parent.rglob("*") if p.is_file() and p.stat().st_size > 1000]


def test_prompt_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_file({"prompt": torch.zeros(58, 8)}, tmp_path / "good.safetensors")
    save_file({"other": torch.zeros(58, 8)}, tmp_path / "bad.safetensors")

    assert read_prompt(tmp_path / "good.safetensors").shape == (58, 8)
    with pytest.raises(CheckpointError, match="expected one matrix named prompt"):
        read_prompt(tmp_path / "bad.safetensors")


def test_unknown_model_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gpu_worker.tools.fetch_models", "seedvr3", "--into", tmp_path / "models"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )

    assert run.returncode == 2
    assert "known are seedvr2-7b, seedvr2-7b-sharp, seedvr2-3b" in run.stderr
    assert not (tmp_path / "models").exists()


def test_the_image_copies_all_that_fetching_needs(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gpu_worker.tools.fetch_models", "--help"],
        cwd=tree(tmp_path, "AS weights-image\n"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
