"""A rich console with text that cannot control the terminal; writes never raise."""

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from normbench.system.streams import Stream, clean


class Terminal(Console):
    """A console for tables and bars on standard output or error.

    `options` are the other arguments of rich's Console.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        # The console cleans its text. A stream that cleans would remove its colours.
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
        """Print nothing more; rich's own method would exit."""
        self.quiet = True
