"""Prints values, tables and JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

WIDTH = 200
"""Columns of a table that is not printed to a terminal."""


def print_json(value: Any) -> None:
    """Print a value of dicts, lists, texts and numbers as indented JSON."""
    typer.echo(json.dumps(value, indent=2))


def number(value: Any) -> str:
    """A float with four digits, "-" for None, and any other value as its text."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def width() -> int:
    """The columns of the terminal, or WIDTH if the output goes elsewhere."""
    from normbench.cli.console import Terminal

    console = Terminal()
    return console.width if console.is_terminal else WIDTH


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print a table whose cells break between words, or blocks if words do not fit."""
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
    """The width of each column, at most `most` in sum; None if that is too little.

    No column is narrower than its longest word; the widest columns are cut first.
    """
    texts = list(zip(columns, *cells, strict=True))
    words = [max(map(len, " ".join(text).split()), default=0) for text in texts]
    longest = [max(map(len, values), default=0) for _, *values in texts]
    for limit in range(max(longest, default=0), -1, -1):
        widths = [
            max(word, min(cell, limit))
            for word, cell in zip(words, longest, strict=True)
        ]
        if sum(widths) <= most:
            return widths
    return None


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> str:
    """Every row as a block: its first cell, then one line for each other cell."""
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
