"""A rich console: its text cannot control the terminal, its writes never raise."""

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from normbench.system.streams import Stream, clean


class Terminal(Console):
    """Standard output or error, for tables and bars; `options` are those of rich."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        # Colours and bars control the terminal: they must not be cleaned.
        file: Any = stream.styled() if isinstance(stream, Stream) else None
        super().__init__(file=file, stderr=stderr, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        self.quiet = True  # rich would exit
