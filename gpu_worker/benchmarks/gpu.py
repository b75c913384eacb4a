"""The worker's whole benchmark on a GPU: `make bench-gpu`.

Random weights of full size, 720p, 1080p and 2K, with the plan that the planner makes for this card. For every size:

- each stage alone (encode, denoise, decode, colors): seconds, frames per second, share of the card's peak by the
  reference's arithmetic and by ours, peak memory beside the memory model's;
- the whole engine on a file, decoding and encoding included, and who held up whom;
- one GPU, and four: with fewer than four at hand each rank's quarter runs alone, and the slowest counts. Segments
  need no exchange between GPUs, so what this leaves out is that four ranks share the CPU's cores.

Then cold starts, each in a process of its own, with the weights in the page cache and without. The report is a
Markdown table and, last, one JSON line. `--tiny` runs all of it with tiny networks on any machine, in seconds, to
show that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from gpu_worker.benchmarks.cold import Unheard, write_weights
from gpu_worker.benchmarks.encoders import encoder_cores
from gpu_worker.benchmarks.flops import decode_flops
from gpu_worker.benchmarks.material import write_clip
from gpu_worker.benchmarks.run import PEAK_FLOPS, Bench, Case, bench_vae_flops, denoiser, describe
from gpu_worker.contract import ColorFix, Output
from gpu_worker.diffusion.noise import chunk_noise
from gpu_worker.engine import work
from gpu_worker.engine.color import fix_color, quantize
from gpu_worker.engine.job import Done, EngineJob
from gpu_worker.engine.memory import GIBIBYTE, Footprint
from gpu_worker.engine.planner import DoesNotFit, Plan, Work, num_latents, plan
from gpu_worker.engine.presets import PRESETS
from gpu_worker.engine.seedvr2 import SeedVR2Engine, free_memory
from gpu_worker.models.vae_layers import Execution

_SIZES: Final = ((1280, 720), (1920, 1088), (2560, 1440))
_TINY_SIZES: Final = ((64, 48),)
_NUM_SIMULATED: Final = 4
#: Sources are smaller than results.
_SOURCE_SCALE: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage at one size. `share_executed` counts the arithmetic that we do, `share` the reference's."""

    size: str
    case: Case
    share: float | None
    share_executed: float | None
    modelled_gib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """The engine on a file. `busy` are the slowest rank's seconds; with `simulated` the ranks ran in turn."""

    size: str
    num_gpus: int
    simulated: bool
    num_frames: int
    seconds: float
    frames_per_second: float
    busy: dict[str, float]
    #: A sentence when decoding or encoding held up the networks; empty otherwise.
    bottleneck: str
    peak_gib: float | None
    #: CPU cores that encoding takes at this speed, for each output.
    encoder_cores: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is measured and how long."""

    model: str
    sizes: tuple[tuple[int, int], ...]
    device: torch.device
    #: Frames of the stages; the transformer always sees a whole window.
    stage_frames: int
    clip_frames: int
    warmups: int
    repeats: int
    #: Memory to plan for; what is free when None.
    memory_gib: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        """CPUs have no fast 16-bit arithmetic."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def plan(self, size: tuple[int, int]) -> Plan:
        """The planner's choice for this device, with nothing loaded. Raises DoesNotFit."""
        free = free_memory(self.device) if self.memory_gib is None else int(self.memory_gib * GIBIBYTE)
        return plan(Work(model=self.model, width=size[0], height=size[1]), free)


def stages(run: Run, size: tuple[int, int], chosen: Plan) -> list[Stage]:
    """Every stage alone, the others' weights not loaded."""
    name = f"{size[0]}x{size[1]}"
    bench = Bench(
        preset=PRESETS[run.model],
        width=size[0],
        height=size[1],
        num_frames=run.stage_frames,
        device=run.device,
        dtype=run.dtype,
        warmups=run.warmups,
        repeats=run.repeats,
    )
    parts = Footprint(model=run.model, width=size[0], height=size[1])
    encode, decode = bench_vae_flops(bench)
    variant = f"{chosen.frames_per_call} frames per call"
    vae = bench.vae()
    vae.execution = Execution(frames_per_call=chosen.frames_per_call)
    modelled = parts.weights.vae + parts.in_and_out
    found = [
        _stage(
            name,
            bench.measure("encode", variant, _encoder(bench, vae), encode),
            executed=encode,
            modelled=modelled + parts.encoder_caches + parts.encode_work(chosen.frames_per_call),
        ),
        _stage(
            name,
            bench.measure("decode", variant, _decoder(bench, vae), decode),
            executed=decode_flops(*size, bench.num_frames, merged=True) if decode else None,
            modelled=modelled + parts.decoder_caches + parts.decode_work(chosen.frames_per_call),
        ),
    ]
    del vae
    window = replace(bench, num_frames=4 * chosen.window_length - 3)
    network = window.transformer()
    case = window.measure(
        "denoise",
        f"{chosen.window_length} latents, {network.backend.value}",
        denoiser(window, network),
        window.dit_flops(),
    )
    transformer = parts.weights.transformer + parts.transformer_work(chosen.window_length)
    found.append(_stage(name, case, executed=window.dit_flops(), modelled=transformer))
    del network
    slice_ = replace(bench, num_frames=5)
    colors = slice_.measure("colors", ColorFix.WAVELET.value, _colors(slice_), None)
    return [*found, _stage(name, colors, executed=None, modelled=parts.in_and_out)]


def _stage(name: str, case: Case, *, executed: float | None, modelled: int) -> Stage:
    is_shared = executed is not None and case.mfu is not None
    return Stage(
        size=name,
        case=case,
        share=case.mfu,
        share_executed=executed / case.seconds / PEAK_FLOPS if is_shared and executed else None,
        modelled_gib=modelled / GIBIBYTE,
    )


def _encoder(bench: Bench, vae: Any) -> Callable[[], None]:
    """Streams the frames as the engine does: nothing piles up but the caches."""
    pixels = (
        chunk_noise(6, 0, (1, 3, 4, bench.height, bench.width)).clamp_(-1, 1).to(bench.device, bench.dtype)
    )

    def encode() -> None:
        stream = vae.stream()
        vae.encode_slice(pixels[:, :, :1], stream, ends=False)
        for _ in range(bench.latent_shape[0] - 1):
            vae.encode_slice(pixels, stream, ends=False)

    return encode


def _decoder(bench: Bench, vae: Any) -> Callable[[], None]:
    num, rows, columns = bench.latent_shape
    latent = chunk_noise(7, 0, (1, 16, 1, rows, columns)).to(bench.device, bench.dtype)

    def decode() -> None:
        stream = vae.stream()
        for _ in range(num):
            vae.decode_slice(latent, stream, ends=False)

    return decode


def _colors(bench: Bench) -> Callable[[], Tensor]:
    """Colors and the pixel format of one latent's frames, the way to the host included."""
    shape = (bench.num_frames, 3, bench.height, bench.width)
    ours, plain = (chunk_noise(seed, 0, shape).clamp_(-1, 1).to(bench.device) for seed in (8, 9))
    return lambda: quantize(fix_color(ours, plain, ColorFix.WAVELET)).cpu()


def whole(run: Run, size: tuple[int, int], engine: SeedVR2Engine, folder: Path, num_gpus: int) -> Whole:
    """The engine from file to segments: all of them on one GPU, or each rank's in turn; the slowest rank counts."""
    clip = folder / f"{size[0]}x{size[1]}.mp4"
    if not clip.exists():
        width, height = (side // _SOURCE_SCALE // 2 * 2 for side in size)
        write_clip(clip, width=width, height=height, num_frames=run.clip_frames)
    found: list[Done] = []
    for rank in range(num_gpus):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            job = EngineJob(
                source=clip,
                folder=Path(name),
                model=run.model,
                width=size[0],
                height=size[1],
                # Without a cut a segment is twice as long: every simulated rank gets one.
                segment_frames=-(-run.clip_frames // (2 * _NUM_SIMULATED)),
                memory_gib=run.memory_gib,
            )
            found.append(work.run(job, engine, rank=rank, world=num_gpus, events=Unheard()))
    slowest = max(found, key=lambda done: done.seconds["total"])
    seconds = slowest.seconds["total"]
    return Whole(
        size=f"{size[0]}x{size[1]}",
        num_gpus=num_gpus,
        simulated=num_gpus > 1,
        num_frames=run.clip_frames,
        seconds=seconds,
        frames_per_second=run.clip_frames / seconds,
        busy=slowest.seconds,
        bottleneck=slowest.bottleneck,
        peak_gib=slowest.peak_bytes / GIBIBYTE if run.device.type == "cuda" else None,
        encoder_cores={
            output.value: encoder_cores(output, *size, run.clip_frames / seconds) for output in Output
        },
    )


def cold_starts(run: Run, folder: Path) -> dict[str, dict[str, float]]:
    """Starts in fresh processes: weights from the disk, then from the page cache; tiny ones only once."""
    command = [
        *(sys.executable, "-m", "gpu_worker.benchmarks.cold", "--model", run.model),
        *("--weights", str(folder)),
        *("--size", str(run.sizes[0][0]), str(run.sizes[0][1])),
    ]
    write_weights(PRESETS[run.model], folder, run.device)
    found = {}
    starts = {"from the disk": ["--forget"], "from the page cache": []}
    for name, options in list(starts.items())[: 1 if run.model.startswith("tiny") else None]:
        done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(run: Run, weights: Path | None) -> dict[str, Any]:
    """Measures everything; sizes without a plan are named with the reason."""
    found: dict[str, Any] = {"plans": {}, "stages": [], "whole": [], "left_out": {}}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        folder = Path(name)
        found["cold"] = cold_starts(run, weights or folder / "weights")
        plans = dict(_plans(run, found["left_out"]))
        for size, chosen in plans.items():
            found["plans"][f"{size[0]}x{size[1]}"] = asdict(chosen)
            with torch.inference_mode():
                found["stages"] += stages(run, size, chosen)
        engine = SeedVR2Engine(model=run.model, weights=weights or folder / "weights")
        for size in plans:
            found["whole"] += [whole(run, size, engine, folder, num) for num in (1, _NUM_SIMULATED)]
    return found


def _plans(run: Run, left_out: dict[str, str]) -> Iterator[tuple[tuple[int, int], Plan]]:
    for size in run.sizes:
        try:
            yield size, run.plan(size)
        except DoesNotFit as error:
            left_out[f"{size[0]}x{size[1]}"] = str(error)


def report(run: Run, found: dict[str, Any]) -> str:
    """Markdown tables for people, then one JSON line for scripts."""
    lines = [
        "| size | stage | variant | s | frames/s | TFLOP/s | of peak | of peak, ours | peak GiB | model GiB |"
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for stage in found["stages"]:
        case = stage.case
        cells = (
            stage.size,
            case.stage,
            case.variant,
            f"{case.seconds:.3f}",
            f"{case.frames_per_second:.2f}",
            _number(case.tflops, ".0f"),
            _number(stage.share, ".1%"),
            _number(stage.share_executed, ".1%"),
            _number(case.peak_gib, ".1f"),
            f"{stage.modelled_gib:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| size | GPUs | frames | s | frames/s | decode s | networks s | encode s | peak GiB | held up by |",
    ]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---|---:|---|")
    for one in found["whole"]:
        gpus = f"{one.num_gpus}, simulated" if one.simulated else str(one.num_gpus)
        busy = [f"{one.busy[stage]:.2f}" for stage in ("decode", "restore", "encode")]
        cells = (
            *(one.size, gpus, str(one.num_frames), f"{one.seconds:.2f}", f"{one.frames_per_second:.2f}"),
            *busy,
            f"{one.encoder_cores['h264']}/{one.encoder_cores['h265']}",
            _number(one.peak_gib, ".1f"),
            one.bottleneck or "nothing",
        )
        lines.append(f"| {' | '.join(cells)} |")
    for name, figures in found.get("cold", {}).items():
        lines += [
            "",
            f"Cold start, weights {name}: {', '.join(f'{key} {value}' for key, value in figures.items())}",
        ]
    lines += ["", *(f"Left out, {size}: {reason}" for size, reason in found["left_out"].items())]
    plain = found | {
        "stages": [asdict(stage) for stage in found["stages"]],
        "whole": [asdict(one) for one in found["whole"]],
    }
    return "\n".join([*lines, json.dumps(about(run) | plain)]) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def about(run: Run) -> dict[str, object]:
    """What the figures depend on."""
    width, height = run.sizes[0]
    bench = Bench(
        preset=PRESETS[run.model],
        width=width,
        height=height,
        num_frames=run.stage_frames,
        device=run.device,
        dtype=run.dtype,
        warmups=run.warmups,
        repeats=run.repeats,
    )
    described = describe(bench)
    del described["size"]
    return {"what": "bench-gpu", **described, "simulated_gpus": _NUM_SIMULATED}


def main(arguments: list[str] | None = None) -> int:
    """Measures and reports; returns 2 where there is nothing to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--tiny", action="store_true", help="tiny networks on any machine: shows that it works"
    )
    parser.add_argument("--model", choices=["seedvr2-7b", "seedvr2-3b"], default="seedvr2-7b")
    parser.add_argument(
        "--weights", type=Path, help="folder for the cold start; random ones are written if empty"
    )
    parser.add_argument(
        "--clip-frames", type=int, default=480, help="of the whole engine's clip (default 480)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--save", type=Path, help="folder to file the report in, as bench-gpu_HARDWARE_DATE.md"
    )
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write(
            "bench-gpu measures a CUDA GPU, and PyTorch finds none here. `make bench-gpu TINY=1` runs the same "
            "programme with tiny networks on the CPU, to show that it works; nothing was measured.\n"
        )
        return 2
    run = Run(
        model="tiny-7b" if options.tiny else options.model,
        sizes=_TINY_SIZES if options.tiny else _SIZES,
        device=torch.device("cuda" if torch.cuda.is_available() and not options.tiny else "cpu"),
        stage_frames=5 if options.tiny else 33,
        clip_frames=16 if options.tiny else options.clip_frames,
        warmups=0 if options.tiny else 1,
        repeats=1 if options.tiny else options.repeats,
        memory_gib=1.0 if options.tiny else None,
    )
    text = report(run, measure(run, options.weights))
    sys.stdout.write(text)
    if options.save is not None:
        _save(options.save, text, run)
    return 0


def _save(folder: Path, text: str, run: Run) -> None:
    device = str(about(run)["device"]).lower().replace(" ", "-")
    path = folder / f"bench-gpu_{device}_{dt.datetime.now(dt.UTC).date()}.md"
    command = f"`make bench-gpu` with {run.model}; {num_latents(run.clip_frames)} latents of clip."
    path.write_text(f"# The worker on {device}\n\n{command}\n\n{text}")


if __name__ == "__main__":
    sys.exit(main())
