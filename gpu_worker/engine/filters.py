"""A chain of ffmpeg filters that frames run through one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av.error
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

#: A filter's name and its arguments, as in ffmpeg's `-vf name=arguments`.
Filter = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a chain is built for; another shape needs a new chain. `rotation` is counter-clockwise."""

    width: int
    height: int
    pixel_format: str
    rotation: int
    is_interlaced: bool
    color_range: int
    colorspace: int
    is_rgb: bool

    @classmethod
    def of(cls, frame: VideoFrame, *, was_interlaced: bool) -> Shape:
        """Describes a frame. A stream that was interlaced once is treated so to its end."""
        return cls(
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            rotation=frame.rotation % 360,
            is_interlaced=was_interlaced or bool(frame.interlaced_frame),
            color_range=int(frame.color_range),
            colorspace=int(frame.colorspace),
            is_rgb=frame.format.is_rgb,
        )


class FilterChain:
    """Filters frames one for one and in order; some filters hold frames back until `finish`."""

    def __init__(self, describe: Callable[[Shape], list[Filter]]) -> None:
        self._describe = describe
        self._shape: Shape | None = None
        self._graph: Graph | None = None

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Takes a frame and yields those that are ready."""
        shape = Shape.of(frame, was_interlaced=self._shape is not None and self._shape.is_interlaced)
        if shape != self._shape or self._graph is None:
            yield from self.finish()
            self._shape, self._graph = shape, _build(shape, self._describe(shape))
        self._graph.vpush(frame)
        yield from _pull(self._graph)

    def finish(self) -> Iterator[VideoFrame]:
        """Yields the frames that were held back."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from _pull(self._graph)
            self._graph = None


def upright(shape: Shape) -> list[Filter]:
    """Returns the filters that turn a frame the way its file says it is to be seen."""
    quarter_turns = round(shape.rotation / 90) % 4
    turns: list[list[Filter]] = [
        [],
        [("transpose", "cclock")],
        [("hflip", ""), ("vflip", "")],
        [("transpose", "clock")],
    ]
    return turns[quarter_turns]


def _build(shape: Shape, filters: list[Filter]) -> Graph:
    graph = Graph()
    last: FilterContext = graph.add_buffer(
        width=shape.width,
        height=shape.height,
        format=VideoFormat(shape.pixel_format),
        # Frames come out as they went in, one for one: the caller knows their moments.
        time_base=Fraction(1, 1000),
    )
    for name, arguments in [*filters, ("buffersink", "")]:
        context = graph.add(name, arguments or None)
        last.link_to(context)
        last = context
    graph.configure()
    return graph


def _pull(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
