"""Colours of single words on a terminal, without the import of rich, which is slow."""

import os
import sys

import typer

from normbench.system.streams import Stream, clean

BOLD, DIM = "1", "2"
RED, GREEN, YELLOW, CYAN = "1;31", "32", "1;33", "36"


def has_colours() -> bool:
    """Return whether standard output is a terminal whose user wants colours."""
    return (
        isinstance(sys.stdout, Stream)
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") not in {"dumb", "unknown"}
        and sys.platform != "win32"
    )


def styled(text: str, style: str, colours: bool) -> str:
    """Return `text` in a style of a terminal if `colours`, without control characters.

    Such a text must be printed by `echo`.
    """
    text = clean(text)
    return f"\x1b[{style}m{text}\x1b[0m" if colours and text else text


def echo(text: str, *, colours: bool) -> None:
    """Print a text to standard output; with `colours`, it may contain styles.

    `colours` is the result of `has_colours`.
    """
    if colours and isinstance(sys.stdout, Stream):
        # The stream escapes control characters, except those of a styled stream.
        sys.stdout.styled().write(f"{text}\n")
    else:
        typer.echo(text)
