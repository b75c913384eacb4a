"""The SeedVR2 engine: a video file in, a restored video file out, however long it is.

It knows files, shots and moments; `shots.py` has what happens to one shot, `planner.py` how much of it the
transformer sees at once. docs/engine.md explains the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from gpu_worker.contract import Output
from gpu_worker.engine.cuts import number_shots
from gpu_worker.engine.errors import writing
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.join import join
from gpu_worker.engine.phases import Evictable
from gpu_worker.engine.pictures import Picture, Pixels, read_pictures
from gpu_worker.engine.planner import Plan
from gpu_worker.engine.presets import Networks
from gpu_worker.engine.report import Restored
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.shots import Look, Pace, Shot
from gpu_worker.engine.video import VideoSource


class Restorer:
    """Restores videos with one set of networks; the networks stay loaded from one video to the next."""

    def __init__(self, networks: Networks, plan: Plan) -> None:
        """Takes loaded networks, and how they go through the memory."""
        self._networks = networks
        self._pace = Pace(length=plan.window_length, mode=plan.mode, tiles=plan.tiles)
        self._transformer = Evictable(networks.transformer, networks.prompt.device)
        networks.vae.execution = replace(networks.vae.execution, frames_per_call=plan.frames_per_call)
        with torch.inference_mode():
            # The released sampler's one step starts from pure noise, at 1000.
            self._condition = networks.transformer.condition(
                networks.prompt, [len(networks.prompt)], torch.tensor([1000.0])
            )

    @property
    def window_length(self) -> int:
        """The window's length in latents; shorter than at the start once memory ran out."""
        return self._pace.length

    @torch.inference_mode()
    def restore(
        self,
        source_path: Path,
        result_path: Path,
        look: Look,
        *,
        on_frame: Callable[[int], None],
        output: Output = Output.H264,
    ) -> Restored:
        """Restores a file; `on_frame` hears the number of frames done. Raises `WorkerError`."""
        segment = result_path.with_name(result_path.name + ".segment")
        with closing(VideoSource(source_path)) as source:
            result_format = ResultFormat.of(source, output, width=look.width, height=look.height)
            # The networks' picture has 8 bits still.
            pictures = read_pictures(source.frames(), source.colors)
            try:
                with writing(), closing(SegmentWriter(segment, result_format)) as writer:
                    restored = self.pictures(number_shots(pictures), look)
                    for num_done, (pixels, ticks) in enumerate(restored, start=1):
                        writer.write(pixels, ticks)
                        on_frame(num_done)
                    writer.finish()
                joined = join([segment], result_path, source=source, result_format=result_format)
            finally:
                segment.unlink(missing_ok=True)
        return Restored(measured=joined.measured, num_audio_tracks_lost=joined.num_audio_tracks_lost)

    @torch.inference_mode()
    def pictures(self, numbered: Iterator[tuple[Picture, int]], look: Look) -> Iterator[tuple[Pixels, int]]:
        """Restores pictures that carry the numbers of their shots; yields pixels and moments.

        Each shot has streams and windows of its own, so nothing crosses a cut.
        """
        num_latents = 0
        # A picture of another size cannot share a shot; a cut is found there anyway unless it looks the same.
        for _, group in itertools.groupby(numbered, key=lambda one: (one[1], one[0].size)):
            shot = Shot(
                networks=self._networks,
                transformer=self._transformer,
                condition=self._condition,
                look=look,
                pace=self._pace,
                first_latent=num_latents,
            )
            yield from shot.restored(picture for picture, _ in group)
            num_latents += shot.num_latents
