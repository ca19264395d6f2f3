"""How values and tables look."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

WIDTH = 200
"""Columns of a table that goes to no terminal."""


def number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def width() -> int:
    """The columns of the terminal, or those that output has elsewhere."""
    from normbench.cli.console import Terminal

    console = Terminal()
    return console.width if console.is_terminal else WIDTH


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table whose lines break between words; where words do not fit, blocks."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from normbench.cli.console import Terminal
    from normbench.system.streams import clean

    if not rows:
        typer.echo(title)
        return
    console = Terminal(width=width())
    columns = list(rows[0])
    cells = [[clean(str(row[column])) for column in columns] for row in rows]
    for gap in (2, 1):
        widths = _widths(columns, cells, console.width - gap * len(columns))
        if widths is not None:
            break
    else:
        typer.echo(_blocks(columns, cells, title))
        return
    table = Table(
        title=Text(clean(title), style="table.title") if title else None,
        box=box.SIMPLE_HEAD,  # a blank between columns
        show_edge=False,
        title_justify="left",
        padding=(0, gap - 1, 0, 0),
    )
    for column, characters in zip(columns, widths, strict=True):
        table.add_column(Text(clean(column)), width=characters)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], most: int
) -> list[int] | None:
    """Of each column, `most` in sum: the widest cut first, none below its words.

    None where the words alone take more than that.
    """
    lines = list(zip(columns, *cells, strict=True))
    words = [
        max(len(w) for cell in line for w in [*cell.split(), ""]) for line in lines
    ]
    longest = [max(map(len, cells), default=0) for _, *cells in lines]
    for limit in range(max(longest, default=0), -1, -1):
        widths = [
            max(least, min(wanted, limit))
            for least, wanted in zip(words, longest, strict=True)
        ]
        if sum(widths) <= most:
            return widths
    return None


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> str:
    """Each row under its first cell, a line for each of the others."""
    first, *others = columns
    margin = max(map(len, others), default=0)
    lines = [title] if title else []
    for name, *values in cells:
        lines += ["", f"{first} {name}"]
        lines += [
            f"  {column:<{margin}}  {value}".rstrip()
            for column, value in zip(others, values, strict=True)
        ]
    return "\n".join(lines)
