"""Prints JSON, tables and numbers to standard output."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

PIPE_WIDTH = 200
"""Characters in a line of a table if standard output is not a terminal."""
MAX_TEXT_WIDTH = 120
"""Characters in a line of text that is still easy to read."""


def print_json(value: Any) -> None:
    """Print dicts, lists, strings and numbers as indented JSON."""
    typer.echo(json.dumps(value, indent=2))


def number(value: Any) -> str:
    """Return a float with four decimals, "-" for None, and `str(value)` otherwise."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def output_width() -> int:
    """Return the width of the terminal in characters, PIPE_WIDTH if there is none."""
    from normbench.cli.console import Terminal

    console = Terminal()
    return console.width if console.is_terminal else PIPE_WIDTH


def text_width(maximum: int = MAX_TEXT_WIDTH) -> int:
    """Return the characters in a line of text: the width of the output, limited."""
    return min(output_width(), maximum)


def two_columns(rows: Mapping[str, str], maximum: int = 100) -> Iterator[str]:
    """Yield the lines of two columns, of which the second is wrapped between words.

    The lines are indented by two characters and at most `maximum` characters long, if
    the longest words allow it.
    """
    indent = max(map(len, rows), default=0) + 4
    width = max(text_width(maximum), indent + 20)
    for key, value in rows.items():
        yield textwrap.fill(
            f"  {key:<{indent - 2}}{value}".rstrip(),
            width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print `rows`, whose keys are the columns, as a table that fits the output.

    Long cells are wrapped between words. If the longest words do not fit side by side,
    each row becomes a block of lines. Without rows, only the title is printed.
    """
    from normbench.system.streams import clean

    if not rows:
        typer.echo(title)
        return
    columns = list(rows[0])
    cells = [[clean(str(row[column])) for column in columns] for row in rows]
    for gap in (2, 1):
        available = output_width() - gap * len(columns)
        column_widths = _column_widths(columns, cells, available)
        if column_widths is not None:
            _print_aligned(columns, cells, column_widths, gap, title)
            return
    typer.echo(_blocks(columns, cells, title))


def _column_widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], available: int
) -> list[int] | None:
    """Return the width of each column, or None if the sum would exceed `available`.

    No column is narrower than its longest word. If the longest cells do not fit, the
    widest columns are narrowed first.
    """
    longest_words, longest_cells = [], []
    for column, *values in zip(columns, *cells, strict=True):
        words = " ".join([column, *values]).split()
        longest_words.append(max(map(len, words), default=0))
        longest_cells.append(max(map(len, values), default=0))
    for limit in range(max(longest_cells, default=0), -1, -1):
        widths = [
            max(word, min(cell, limit))
            for word, cell in zip(longest_words, longest_cells, strict=True)
        ]
        if sum(widths) <= available:
            return widths
    return None


def _print_aligned(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    column_widths: Sequence[int],
    gap: int,
    title: str,
) -> None:
    """Print a table with `gap` blanks between columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from normbench.cli.console import Terminal
    from normbench.system.streams import clean

    table = Table(
        title=Text(clean(title), style="table.title") if title else None,
        box=box.SIMPLE_HEAD,  # has one blank between columns
        show_edge=False,
        title_justify="left",
        padding=(0, gap - 1, 0, 0),
    )
    for column, width in zip(columns, column_widths, strict=True):
        table.add_column(Text(clean(column)), width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    Terminal(width=output_width()).print(table)


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> str:
    """Return a block for each row: its first cell, then a line for each other cell."""
    first_column, *other_columns = columns
    lines = [title] if title else []
    for first_cell, *other_cells in cells:
        lines += ["", f"{first_column} {first_cell}"]
        values = dict(zip(other_columns, other_cells, strict=True))
        lines += two_columns(values, maximum=output_width())
    return "\n".join(lines)
