"""The SeedVR2 engine: networks that stay loaded, restoring one job's parts after the other's.

`shots.py` has what happens to a part; this has what parts share: the loaded networks, the plan for the memory, and
what is remembered from jobs that ran out of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from gpu_worker.contract import MAX_SEED, ErrorCode, SegmentPlan, WorkerError
from gpu_worker.engine.cold_start import ColdStart
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.job import EngineJob
from gpu_worker.engine.phases import Evictable
from gpu_worker.engine.pictures import Picture
from gpu_worker.engine.planner import MAX_LENGTH, DoesNotFit, Plan, Work, plan, plan_like
from gpu_worker.engine.presets import PRESETS, Networks, load_networks
from gpu_worker.engine.segments import Part
from gpu_worker.engine.shots import Look, Pace, Shot, Tools, free, is_out_of_memory
from gpu_worker.engine.transfers import transfers_for
from gpu_worker.engine.video import VideoSource
from gpu_worker.engine.work import Made, PlanFailed
from gpu_worker.kernels.self_check import ConvolutionBroken, check_convolution
from gpu_worker.models.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

#: Of the free memory; the rest is for what the driver and the allocator keep.
_USABLE_PERCENT: Final = 95
#: Of a plan that failed: what the next one may use.
_LESS_PERCENT: Final = 95
_GIBIBYTE: Final = 1024**3

#: What memory depends on: model, width, height, and whether channels have 16 bits.
_Kind = tuple[str, int, int, bool]


@dataclass(slots=True)
class _Limit:
    """What jobs of one kind have learned: longer windows, or a plan of more bytes, ran out of memory."""

    length: int = MAX_LENGTH
    num_bytes: int | None = None


class SeedVR2Engine:
    """Networks of one model at a time, on one device; jobs of another model load that instead."""

    def __init__(self, *, model: str, weights: Path | None, local_rank: int = 0) -> None:
        """Loads a model. Raises `WorkerError` when its weights are missing or do not fit."""
        cold = ColdStart()
        cold.imported()
        with cold.phase("device"):
            self.device = _device(local_rank)
            self.transfers = transfers_for(self.device)
        if self.device.type == "cuda":
            with cold.phase("self check"):
                _check_device(self.device)
        self._weights = weights
        self._limits: dict[_Kind, _Limit] = {}
        self._loaded: _Loaded | None = _Loaded.load(model, weights, self.device, cold)
        self.cold_start: Mapping[str, float] = cold.to_json()

    @property
    def gpu_name(self) -> str:
        """The GPU's name, empty without one."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""

    @property
    def held_bytes(self) -> int:
        """Bytes of weights on the device, which stay there between jobs."""
        return self._loaded.num_bytes if self._loaded is not None and self.device.type == "cuda" else 0

    def begin(self, job: EngineJob, source: VideoSource, result_format: ResultFormat) -> SeedVR2Restorer:
        """Prepares a job: its model, and a plan for the memory. Raises `WorkerError`."""
        look = _look(job, result_format)
        loaded = self._use(job.model)
        limit = self._limits.setdefault((job.model, job.width, job.height, look.is_deep), _Limit())
        chosen = self._plan(job, source, limit)
        return SeedVR2Restorer(self, loaded, look, chosen, limit)

    def _use(self, model: str) -> _Loaded:
        """Brings back what a job that failed had evicted, or loads another model."""
        if self._loaded is not None and self._loaded.model == model:
            with _out_of_memory("the weights do not fit"):
                self._loaded.transformer.restore()
            return self._loaded
        cold = ColdStart()
        # Two models would take the memory that plans count on.
        self._loaded = None
        free(self.device)
        self._loaded = _Loaded.load(model, self._weights, self.device, cold)
        logger.info("loaded %s: %s", model, cold.to_json())
        return self._loaded

    def _plan(self, job: EngineJob, source: VideoSource, limit: _Limit) -> Plan:
        work = Work(model=job.model, width=job.width, height=job.height, num_frames=source.num_frames or None)
        free_bytes = free_memory(self.device) if job.memory_gib is None else int(job.memory_gib * _GIBIBYTE)
        if limit.num_bytes is not None:
            free_bytes = min(free_bytes, limit.num_bytes)
        if job.plan is not None:
            like = plan_like(work, free_bytes, job.plan) if job.plan.window_length <= limit.length else None
            if like is not None:
                return like
            # What is finished stays, as when memory runs out within a job: see docs/engine.md, 2.
            logger.warning("%s of the segments that are finished does not fit here", job.plan)
        try:
            chosen = plan(work, free_bytes)
        except DoesNotFit as error:
            raise WorkerError(ErrorCode.OUT_OF_MEMORY, str(error)) from error
        return replace(chosen, window_length=min(chosen.window_length, limit.length))


class SeedVR2Restorer:
    """One job of the engine."""

    def __init__(
        self, engine: SeedVR2Engine, loaded: _Loaded, look: Look, chosen: Plan, limit: _Limit
    ) -> None:
        """Takes loaded networks, and how they go through the memory."""
        self._device = engine.device
        self._plan = chosen
        self._limit = limit
        self.pace = Pace(
            length=chosen.window_length,
            mode=chosen.mode,
            tiles=chosen.tiles,
            on_slower=self._remember_length,
        )
        vae = loaded.networks.vae
        vae.execution = replace(vae.execution, frames_per_call=chosen.frames_per_call)
        self._tools = Tools.of(loaded.networks, loaded.transformer, engine.transfers, look, self.pace)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    @property
    def peak_bytes(self) -> int:
        """The most memory that tensors have taken on the GPU since the job began; 0 without one."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0

    @property
    def plan(self) -> SegmentPlan:
        """What shows of the plan, as it is by now."""
        return replace(self._plan, window_length=self.pace.length).in_the_picture

    @torch.inference_mode()
    def restore(self, part: Part[Picture], *, check: Callable[[], None]) -> Generator[Made]:
        """Yields the part's own pictures restored."""
        shot = Shot(self._tools, part, check=check)
        try:
            yield from shot.restored()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Out of the handler, so that the error is gone with its frames and their tensors. The transformer's windows
        # shrink by themselves: it was the VAE, or the weights on their return.
        del shot
        free(self._device)
        self._limit.num_bytes = self._plan.peak_bytes * _LESS_PERCENT // 100
        raise PlanFailed(f"out of memory: {self._plan} does not fit")

    def _remember_length(self, length: int) -> None:
        self._limit.length = length


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """One model's networks on a device."""

    model: str
    networks: Networks
    transformer: Evictable
    num_bytes: int

    @classmethod
    def load(cls, model: str, weights: Path | None, device: torch.device, cold: ColdStart) -> _Loaded:
        preset = PRESETS.get(model)
        if preset is None:
            raise WorkerError(
                ErrorCode.INVALID_REQUEST, f"model is {model!r}; accepted are {', '.join(sorted(PRESETS))}"
            )
        if preset.weights is None:
            logger.warning("%s has random weights: its result is for tests only, not a restoration", model)
        # CPUs have no fast 16-bit arithmetic.
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            with _out_of_memory("the weights do not fit"):
                networks = load_networks(preset, weights, device=device, dtype=dtype, cold=cold)
        except (FileNotFoundError, CheckpointError, ValueError) as error:
            raise WorkerError(ErrorCode.ENGINE_FAILED, str(error)) from error
        tensors = [
            *networks.transformer.parameters(),
            *networks.transformer.buffers(),
            *networks.vae.parameters(),
            *networks.vae.buffers(),
            networks.prompt,
        ]
        return cls(
            model=model,
            networks=networks,
            transformer=Evictable(networks.transformer, device),
            num_bytes=sum(tensor.untyped_storage().nbytes() for tensor in tensors),
        )


def free_memory(device: torch.device) -> int:
    """Bytes that a job may use on a device, loaded weights included."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        # What this process holds is weights, and blocks that PyTorch keeps for its next tensors.
        free_bytes += torch.cuda.memory_reserved(device)
    else:
        free_bytes = _available_on_host()
    return free_bytes * _USABLE_PERCENT // 100


def _available_on_host() -> int:
    """Bytes of the host's memory that nobody needs; files that the system keeps in it do not count as needed."""
    table = Path("/proc/meminfo")
    for line in table.read_text().splitlines() if table.exists() else []:
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    # The first tensor makes the context.
    torch.zeros(1, device=device)
    return device


def _check_device(device: torch.device) -> None:
    """Raises `WorkerError` when convolutions are wrong here; what it took is given back."""
    try:
        check_convolution(device, torch.bfloat16)
    except ConvolutionBroken as error:
        raise WorkerError(ErrorCode.ENGINE_FAILED, str(error)) from error
    free(device)


def _look(job: EngineJob, result_format: ResultFormat) -> Look:
    if not 0 <= job.seed <= MAX_SEED:
        raise WorkerError(ErrorCode.INVALID_REQUEST, f"seed is {job.seed}; accepted are 0 to {MAX_SEED}")
    try:
        return Look(
            width=job.width,
            height=job.height,
            seed=job.seed,
            strength=job.strength,
            color_fix=job.color_fix,
            is_deep=result_format.wants_deep,
        )
    except ValueError as error:
        raise WorkerError(ErrorCode.INVALID_REQUEST, str(error)) from error


@contextmanager
def _out_of_memory(what: str) -> Iterator[None]:
    """Turns PyTorch's own errors into `OUT_OF_MEMORY`, and leaves their frames and tensors behind."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    raise WorkerError(ErrorCode.OUT_OF_MEMORY, what)
