"""Measures the networks: a table for people, one JSON line per case for scripts.

    python -m gpu_worker.benchmarks.run stages --model seedvr2-7b --size 1280x720 --frames 33
    python -m gpu_worker.benchmarks.run attention --model seedvr2-7b --size 1280x720 --frames 33
    python -m gpu_worker.benchmarks.run image --model seedvr2-3b --size 1920x1088

True shapes, random weights, random inputs, never zeros. Times are medians with the 10th and 90th percentile
after a warm-up; peak memory is reset before each stage. Runs on a CPU too, with the tiny models.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import torch
from torch import Tensor

from gpu_worker.benchmarks.flops import decode_flops, dit_flops, encode_flops, image_flops
from gpu_worker.diffusion.noise import chunk_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, sample
from gpu_worker.engine.presets import PRESETS, Preset
from gpu_worker.kernels.attention import Backend, choose_backend
from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.vae import VideoVAE

#: Dense 16-bit peak of an H100 SXM as measured on large products (performance.md); MFU is relative to it.
PEAK_FLOPS: Final = 790e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One measured stage. `tflops` and `mfu` count the reference's arithmetic, None where no form exists."""

    stage: str
    variant: str
    seconds: float
    seconds_p10: float
    seconds_p90: float
    frames_per_second: float
    tflops: float | None
    mfu: float | None
    peak_gib: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a run measures, and how often."""

    preset: Preset
    width: int
    height: int
    num_frames: int
    device: torch.device
    dtype: torch.dtype
    warmups: int
    repeats: int

    def __post_init__(self) -> None:
        if self.width % 16 or self.height % 16:
            raise ValueError(f"{self.width}x{self.height}; both sides must be multiples of 16")
        if self.num_frames % 4 != 1:
            raise ValueError(f"{self.num_frames} frames; expected 4n + 1")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the latent."""
        return (self.num_frames - 1) // 4 + 1, self.height // 8, self.width // 8

    @property
    def has_forms(self) -> bool:
        """True for the published sizes, whose arithmetic has closed forms."""
        return self.preset.weights is not None

    def measure(self, stage: str, variant: str, run: Callable[[], object], flops: float | None) -> Case:
        """Times one stage."""
        is_cuda = self.device.type == "cuda"
        for _ in range(self.warmups):
            run()
        if is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            run()
            if is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        deciles = statistics.quantiles(seconds, n=10) if len(seconds) > 1 else [seconds[0]] * 9
        median = statistics.median(seconds)
        rate = None if flops is None else flops / median
        return Case(
            stage=stage,
            variant=variant,
            seconds=median,
            seconds_p10=deciles[0],
            seconds_p90=deciles[-1],
            frames_per_second=self.num_frames / median,
            tflops=None if rate is None else rate / 1e12,
            mfu=None if rate is None or not is_cuda else rate / PEAK_FLOPS,
            peak_gib=torch.cuda.max_memory_allocated() / 2**30 if is_cuda else None,
        )

    def transformer(self) -> NaDiT:
        """The preset's transformer with random weights and the backend that a worker would choose."""
        network = random_weights(
            lambda: NaDiT(self.preset.transformer), seed=1, dtype=self.dtype, device=self.device
        )
        network.backend = choose_backend(self.device, self.dtype, self.preset.transformer.head_dim)
        return network

    def vae(self) -> VideoVAE:
        """The preset's VAE with random weights."""
        return random_weights(
            lambda: VideoVAE(self.preset.vae), seed=2, dtype=self.dtype, device=self.device
        ).prepare()

    def dit_flops(self) -> float | None:
        """The transformer's arithmetic for this clip."""
        t, h, w = self.latent_shape
        return dit_flops(self.preset.transformer, (t, h // 2, w // 2)) if self.has_forms else None


def denoiser(bench: Bench, network: NaDiT) -> Callable[[], Tensor]:
    """The one-step sampler on a random latent, as the restorer calls it."""
    shape = bench.latent_shape
    text_shape = (bench.preset.num_text_tokens, bench.preset.transformer.txt_in_dim)
    text = chunk_noise(3, 0, text_shape).to(bench.device, bench.dtype)
    condition = network.condition(text, [len(text)], torch.tensor([1000.0], device=bench.device))
    noise = chunk_noise(4, 0, (*shape, 16)).to(bench.device)
    latent = chunk_noise(5, 0, (*shape, 16)).to(bench.device, bench.dtype)
    model_input = assemble_condition(latent, None, torch.zeros(1))

    def velocity(x: Tensor, _t: Tensor) -> Tensor:
        return torch.unflatten(network(x.flatten(0, 2), [shape], condition), 0, shape)

    return lambda: sample(noise, model_input, velocity, SamplerConfig())


def bench_stages(bench: Bench, *, compiled: bool) -> list[Case]:
    """Encode, denoise and decode one clip; the transformer again with compiled blocks when asked."""
    cases = _bench_vae(bench)
    network = bench.transformer()
    run = denoiser(bench, network)
    cases.append(bench.measure("denoise", network.backend.value, run, bench.dit_flops()))
    if compiled:
        network.compile_blocks()
        name = f"{network.backend.value}, compiled blocks"
        cases.append(bench.measure("denoise", name, run, bench.dit_flops()))
    return cases


def _bench_vae(bench: Bench) -> list[Case]:
    vae = bench.vae()
    frames = (bench.num_frames, bench.height, bench.width)
    pixels = chunk_noise(6, 0, (1, 3, *frames)).clamp_(-1, 1).to(bench.device, bench.dtype)
    latents = chunk_noise(7, 0, (1, 16, *bench.latent_shape)).to(bench.device, bench.dtype)
    encode, decode = bench_vae_flops(bench)
    return [
        bench.measure("encode", "default", lambda: vae.encode(pixels), encode),
        bench.measure("decode", "default", lambda: vae.decode(latents), decode),
    ]


def bench_vae_flops(bench: Bench) -> tuple[float | None, float | None]:
    """The reference's arithmetic of encoding and decoding the clip; None where no form exists."""
    if not bench.has_forms:
        return None, None
    if bench.num_frames == 1:
        return image_flops(bench.width, bench.height)
    return (
        encode_flops(bench.width, bench.height, bench.num_frames),
        decode_flops(bench.width, bench.height, bench.num_frames, merged=False),
    )


def bench_attention(bench: Bench) -> list[Case]:
    """The whole transformer with every attention backend that this machine has."""
    network = bench.transformer()
    cases = []
    for backend in Backend:
        try:
            network.backend = choose_backend(
                bench.device, bench.dtype, bench.preset.transformer.head_dim, wanted=backend
            )
        except ValueError as error:
            sys.stderr.write(f"left out: {error}\n")
            continue
        cases.append(bench.measure("denoise", backend.value, denoiser(bench, network), bench.dit_flops()))
    return cases


def describe(bench: Bench) -> dict[str, object]:
    """Everything that a figure depends on, for the JSON line."""
    is_cuda = bench.device.type == "cuda"
    cudnn: int | None = torch.backends.cudnn.version() if is_cuda else None  # type: ignore[no-untyped-call]
    return {
        "model": bench.preset.name,
        "size": f"{bench.width}x{bench.height}",
        "frames": bench.num_frames,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(bench.device) if is_cuda else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "python": platform.python_version(),
        "repeats": bench.repeats,
    }


def report(bench: Bench, cases: list[Case]) -> str:
    """A Markdown table, then one JSON line per case."""
    rows = [
        "| stage | variant | s | p10 - p90 | frames/s | TFLOP/s | MFU | peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        cells = (
            case.stage,
            case.variant,
            f"{case.seconds:.4f}",
            f"{case.seconds_p10:.4f} - {case.seconds_p90:.4f}",
            f"{case.frames_per_second:.2f}",
            "-" if case.tflops is None else f"{case.tflops:.1f}",
            "-" if case.mfu is None else f"{case.mfu:.1%}",
            "-" if case.peak_gib is None else f"{case.peak_gib:.2f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    about = describe(bench)
    return "\n".join([*rows, "", *(json.dumps(about | asdict(case)) for case in cases)]) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["stages", "attention", "image"])
    parser.add_argument("--model", choices=list(PRESETS), default="seedvr2-7b")
    parser.add_argument("--size", default="1280x720", metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=33, help="4n + 1; an image has one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--warmups", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="measure compiled blocks as well")
    return parser.parse_args()


def main() -> int:
    """Runs what the command line asks for and prints the report."""
    arguments = _arguments()
    width, _, height = arguments.size.partition("x")
    bench = Bench(
        preset=PRESETS[arguments.model],
        width=int(width),
        height=int(height),
        num_frames=1 if arguments.what == "image" else arguments.frames,
        device=torch.device(arguments.device),
        dtype=getattr(torch, arguments.dtype),
        warmups=arguments.warmups,
        repeats=arguments.repeats,
    )
    with torch.inference_mode():
        if arguments.what == "attention":
            cases = bench_attention(bench)
        else:
            cases = bench_stages(bench, compiled=arguments.compile)
    sys.stdout.write(report(bench, cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
