"""A chain of ffmpeg filters that frames run through one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av.error
from av.filter import Graph
from av.video.frame import VideoFrame

from gpu_worker.contract import ErrorCode, WorkerError
from gpu_worker.engine.side_data import Orientation

#: A filter's name and its arguments, as in ffmpeg's `-vf name=arguments`.
Filter = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a chain is built for; another shape needs a new chain."""

    width: int
    height: int
    pixel_format: str
    rotation: int
    color_range: int
    colorspace: int
    is_rgb: bool
    is_deep: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> Shape:
        """Describes a frame."""
        return cls(
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            rotation=round(frame.rotation) % 360,
            color_range=int(frame.color_range),
            colorspace=int(frame.colorspace),
            is_rgb=frame.format.is_rgb or frame.format.has_palette,
            is_deep=max(component.bits for component in frame.format.components) > 8,
        )


class FilterChain:
    """Filters frames one for one and in order; some filters hold frames back until `finish`.

    ffmpeg's fieldmatch never gives its last frame out. `num_repeats` pushes the last frame so many times more.
    """

    def __init__(self, describe: Callable[[Shape], list[Filter]], *, num_repeats: int = 0) -> None:
        self._describe = describe
        self._num_repeats = num_repeats
        self._shape: Shape | None = None
        self._graph: Graph | None = None
        self._last: VideoFrame | None = None
        self._num_held = 0

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Takes a frame and yields those that are ready."""
        shape = Shape.of(frame)
        if shape != self._shape or self._graph is None:
            yield from self.finish()
            self._shape, self._graph = shape, _build(shape, self._describe(shape))
        self._num_held += 1
        if self._num_repeats:
            self._last = frame
        self._graph.vpush(frame)
        yield from self._pull(self._graph)

    def finish(self) -> Iterator[VideoFrame]:
        """Yields the frames that were held back. Raises `ENGINE_FAILED` when some are not given out."""
        graph, self._graph = self._graph, None
        if graph is None:
            return
        for _ in range(self._num_repeats):
            graph.vpush(self._last)
        graph.vpush(None)
        yield from self._pull(graph)
        if self._num_held:
            raise WorkerError(ErrorCode.ENGINE_FAILED, f"the filters kept {self._num_held} frames")

    def _pull(self, graph: Graph) -> Iterator[VideoFrame]:
        while self._num_held:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._num_held -= 1
            yield frame


def upright(orientation: Orientation) -> list[Filter]:
    """Returns the filters that turn a frame the way it is to be seen."""
    a, b, c, d = orientation
    if not b and not c:
        flips: list[Filter] = []
        if a < 0:
            flips.append(("hflip", ""))
        if d < 0:
            flips.append(("vflip", ""))
        return flips
    turns = {(1, -1): "clock", (1, 1): "cclock_flip", (-1, -1): "clock_flip", (-1, 1): "cclock"}
    return [("transpose", turns[b, c])]


def _build(shape: Shape, filters: list[Filter]) -> Graph:
    graph = Graph()
    # Frames come out as they went in, one for one and in order: the caller knows their moments, and the
    # filters need any rate at all.
    described = {
        "video_size": f"{shape.width}x{shape.height}",
        "pix_fmt": shape.pixel_format,
        "time_base": "1/25",
        "frame_rate": "25/1",
        "pixel_aspect": "1/1",
        "colorspace": str(shape.colorspace),
        "range": str(shape.color_range),
    }
    last = graph.add("buffer", ":".join(f"{key}={value}" for key, value in described.items()))
    for name, arguments in [*filters, ("buffersink", "")]:
        context = graph.add(name, arguments or None)
        last.link_to(context)
        last = context
    graph.configure()
    return graph
