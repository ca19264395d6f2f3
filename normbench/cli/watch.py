"""The command `watch`, which shows the progress of a sweep in another terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from normbench.cli.options import RESULTS, Json, Results, exit_codes
from normbench.cli.tables import PIPE_WIDTH, number, print_json
from normbench.system.interrupts import INTERRUPTED
from normbench.system.signals import stop_signals_raise
from normbench.system.streams import lost_output

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from normbench.sweeps.snapshot import Cell, Snapshot
    from normbench.sweeps.watch import Watch

INTERVAL = 1.0
"""The minimum number of seconds between two updates of the view."""
MAX_BUSY_SHARE = 0.05
"""The maximum share of the time spent on updates. Slow updates are therefore rarer."""
MAX_CELL_MARKS = 8
"""The maximum number of marks in a cell. In larger cells, runs share a mark."""
MAX_BAR_MARKS = 80
"""The maximum number of marks in the bar that shows all runs."""
GAP = 2
"""Blanks between columns."""
MAX_LISTED = 4
"""The number of running runs, and of failures, that are listed."""


class Mark(NamedTuple):
    """How a state of a run is shown: a symbol, its ASCII form and a style of rich."""

    symbol: str
    ascii: str
    style: str


MARKS = {
    "ok": Mark("■", "#", "green"),
    "diverged": Mark("▲", "!", "magenta"),
    "failed": Mark("✗", "x", "bold red"),
    "skipped": Mark("-", "-", "dim"),
    "running": Mark("▶", ">", "bold cyan"),
    "interrupted": Mark("◦", "o", "yellow"),
    "missing": Mark("·", ".", "dim"),
}
"""The mark of each state, in the order of the bar over all runs."""


def watch(
    results: Results = RESULTS,
    once: Annotated[
        bool, typer.Option("--once", help="Print the progress once and exit.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the progress of a sweep, check or comparison.

    Start this command in another terminal. It shows each cell of the grid, with a mark
    for each run, the best and the worst cell, and the time left. Of a check or a
    comparison, no metrics are shown before the verdict. The view ends when the sweep
    ends. Ctrl-C ends this command, but not the sweep.

    If no sweep is running, or the output is not a terminal, the command prints the
    progress of the last sweep once and exits.
    """
    with exit_codes():
        from normbench.cli.console import Terminal
        from normbench.sweeps.watch import Watch

        watched = Watch(results)
        if json:
            print_json(watched.look().plain())
            return
        console = Terminal()
        if not sys.stdout.isatty():
            console = Terminal(width=PIPE_WIDTH, force_terminal=False)
        elif not once and not console.is_dumb_terminal:
            # This returns when the sweep ends; its last state is printed below.
            try:
                with stop_signals_raise():
                    _follow(watched, console)
            except KeyboardInterrupt:
                console.print()  # The terminal has printed ^C on this line.
                console.print(view(watched.look(), console, max_lines=None))
                raise typer.Exit(INTERRUPTED) from None
        console.print(view(watched.look(), console, max_lines=None))


def _follow(watched: "Watch", console: "Console") -> None:
    """Show the sweep until no process runs it."""
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            start_time = time.monotonic()
            snapshot = watched.look()
            live.update(view(snapshot, console, max_lines=console.height), refresh=True)
            if not snapshot.active or lost_output():
                return
            busy = time.monotonic() - start_time
            time.sleep(max(INTERVAL, busy / MAX_BUSY_SHARE))


def view(snapshot: "Snapshot", console: "Console", max_lines: int | None) -> "Group":
    """Return the whole view, with at most `max_lines` lines if possible."""
    from rich.console import Group

    header = list(_header(snapshot, console))
    footer = list(_footer(snapshot, console))
    max_rows = None
    if max_lines is not None:
        other_lines = len(console.render_lines(Group(*header, *footer)))
        # Four lines of the table are no rows: names, a rule, two counts of hidden rows.
        max_rows = max(1, max_lines - other_lines - 4)
    return Group(*header, *_table(snapshot, console, max_rows), *footer)


def _header(snapshot: "Snapshot", console: "Console") -> "Iterator[Text]":
    """Yield the lines above the table: titles, a bar over all runs, time, legend."""
    from rich.text import Text

    from normbench.cli.progress import duration

    counts = snapshot.states()
    ended = counts.total() - snapshot.pending()
    title = Text(", ".join(snapshot.titles), style="bold")
    title.append(f"  {ended} of {counts.total()} runs have ended", style="not bold")
    yield title
    states = [state for state in MARKS for _ in range(counts[state])]
    yield _marks(states, min(console.width, MAX_BAR_MARKS), console)
    parts = []
    if snapshot.rate is not None:
        rate = snapshot.rate
        runs = f"{rate:.1f} runs/min" if rate >= 1 else f"{60 * rate:.1f} runs/h"
        parts.append(f"{runs} in {duration(snapshot.seconds)}")
    if not snapshot.pending():
        parts.append("all have ended")
    elif not snapshot.active:
        parts.append("stopped; the same command continues it")
    elif snapshot.left is not None:
        parts.append(f"about {duration(snapshot.left)} left")
    yield Text(", ".join(parts))
    entries = []
    for state, mark in MARKS.items():
        if counts[state]:
            word = "to come" if state == "missing" else state
            entry = Text().append(_symbol(mark, console), style=mark.style)
            entries.append(entry.append(f" {counts[state]} {word}"))
    yield Text("  ").join(entries)
    yield Text()


def _footer(snapshot: "Snapshot", console: "Console") -> "Iterator[Text]":
    """Yield the lines below the table: extremes, running runs, failures."""
    from rich.text import Text

    extremes = snapshot.extremes()
    listed = snapshot.running or snapshot.failures or snapshot.left_out
    if extremes or listed or snapshot.blind:
        yield Text()
    if snapshot.blind:
        yield Text("no metrics are shown before the verdict", style="dim")
    for text in snapshot.left_out[:MAX_LISTED]:
        yield Text(f"left out {text}", style=MARKS["failed"].style)
    for metric, (best, worst) in extremes.items():
        for word, cell in (("best", best), ("worst", worst)):
            line = Text(f"{word:<8} {metric} {number(cell.mean)} (n {cell.n})  ")
            yield line.append(cell.name(), style="bold")
    for title in snapshot.running[:MAX_LISTED]:
        yield Text(f"{'running':<8} {title}", style=MARKS["running"].style)
    for run_id, reason in list(snapshot.failures.items())[:MAX_LISTED]:
        line = Text(f"{'failed':<8} {run_id[:8]}  {reason}", MARKS["failed"].style)
        line.truncate(console.width, overflow="ellipsis")
        yield line
    hidden_failures = len(snapshot.failures) - MAX_LISTED
    if hidden_failures > 0:
        yield Text(f"{'':<8} and {hidden_failures} more; see `normbench results`")


Rows = Sequence[tuple[str, "Sequence[Cell | None]"]]
"""The label of each row, and its cells; None if a combination has no run."""


def _table(
    snapshot: "Snapshot", console: "Console", max_rows: int | None
) -> "Iterator[Table | Text]":
    """Yield the cells as a table that fits the console, if possible.

    If the grid is too wide, it gets fewer details. If it is still too wide, the table
    has one cell per row. Not more than `max_rows` rows are shown. A line above and a
    line below the table count the hidden rows.
    """
    from rich.text import Text

    grid, cell_list = _grid(snapshot), _cell_list(snapshot)
    # Use the first layout that is narrow enough, or the last.
    for (names, rows), detail in ((grid, 2), (grid, 1), (grid, 0), (cell_list, 2)):
        above, below = _hidden_rows([cells for _, cells in rows], max_rows)
        lines = [
            [Text(label), *(_cell(cell, console, detail) for cell in cells)]
            for label, cells in rows[above : len(rows) - below]
        ]
        columns = zip(map(Text, names), *lines, strict=True)
        width = sum(GAP + max(map(len, texts)) for texts in columns)
        if width <= console.width:
            break
    if above:
        yield Text(f"{above} rows above, all ended", style="dim")
    yield _rich_table(names, lines)
    if below:
        yield Text(f"{below} rows below", style="dim")


def _grid(snapshot: "Snapshot") -> tuple[list[str], Rows]:
    """Return the column names and the rows of a grid.

    A column stands for a value of the key `snapshot.column`. A row stands for a
    combination of values of the other keys. If `snapshot.column` is None, the table
    has one cell per row.
    """
    column_key = snapshot.column
    if column_key is None:
        return _cell_list(snapshot)
    values = list(dict.fromkeys(cell.by[column_key] for cell in snapshot.cells))
    with suppress(TypeError):  # text and numbers cannot be compared
        values.sort()
    rows: dict[str, list[Cell | None]] = {}
    for cell in snapshot.cells:
        row_by = {key: value for key, value in cell.by.items() if key != column_key}
        row = rows.setdefault(_label(row_by), [None] * len(values))
        row[values.index(cell.by[column_key])] = cell
    row_names = " ".join(key for key in snapshot.by if key != column_key)
    names = [f"{row_names}, by {column_key}", *map(str, values)]
    return names, list(rows.items())


def _cell_list(snapshot: "Snapshot") -> tuple[list[str], Rows]:
    """Return the column names and the rows of a table with one cell per row."""
    rows = [(_label(cell.by), [cell]) for cell in snapshot.cells]
    return [" ".join(snapshot.by), "runs"], rows


def _label(by: dict[str, object]) -> str:
    """Join values as "key=value", or as "value" for a task, a data set and a norm."""
    return " ".join(
        str(value) if key in {"task", "data", "norm"} else f"{key}={value}"
        for key, value in by.items()
        if value is not None
    )


def _hidden_rows(
    rows: "Sequence[Sequence[Cell | None]]", max_rows: int | None
) -> tuple[int, int]:
    """Return how many rows are hidden above and below the rows that are shown.

    If not all rows fit, the rows above the first row with a pending run are hidden
    first. Then the last rows are hidden.
    """
    from normbench.sweeps.snapshot import OPEN

    if max_rows is None or len(rows) <= max_rows:
        return 0, 0
    pending = [
        any(cell and OPEN.intersection(cell.states) for cell in row) for row in rows
    ]
    first_pending = pending.index(True) if any(pending) else 0
    hidden = len(rows) - max_rows
    above = min(first_pending, hidden)
    return above, hidden - above


def _rich_table(names: Sequence[str], lines: "Sequence[Sequence[Text]]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for name in names:
        table.add_column(Text(name), no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _cell(cell: "Cell | None", console: "Console", detail: int) -> "Text":
    """Return the marks of a cell, and details.

    If `detail` is 1 or 2, the mean follows the marks. If `detail` is 2, a large cell
    also shows how many of its runs have ended.
    """
    from rich.text import Text

    from normbench.sweeps.snapshot import OPEN

    if cell is None:
        return Text()
    text = _marks(cell.states, MAX_CELL_MARKS, console)
    if detail == 2 and len(cell.states) > MAX_CELL_MARKS:
        ended = sum(state not in OPEN for state in cell.states)
        text.append(f" {ended}/{len(cell.states)}")
    if detail and cell.mean is not None:
        text.append(f" {number(cell.mean)}")
    return text


def _marks(states: Sequence[str], max_marks: int, console: "Console") -> "Text":
    """Return a mark for each run, or `max_marks` marks if there are more runs."""
    from rich.text import Text

    if len(states) > max_marks:
        states = _shares(states, max_marks)
    text = Text()
    for state, group in groupby(states):
        mark = MARKS[state]
        text.append(_symbol(mark, console) * len(list(group)), style=mark.style)
    return text


def _shares(states: Sequence[str], marks: int) -> list[str]:
    """Return `marks` states: each state has its share in `states`, but at least one."""
    counts = {state: states.count(state) for state in MARKS if state in states}
    shares = {
        state: max(1, round(count * marks / len(states)))
        for state, count in counts.items()
    }
    # Rounding may give too many or too few marks. The largest share absorbs this.
    while (excess := sum(shares.values()) - marks) != 0:
        largest = max(shares, key=lambda state: shares[state])
        shares[largest] -= 1 if excess > 0 else -1
    return [state for state, share in shares.items() for _ in range(share)]


def _symbol(mark: Mark, console: "Console") -> str:
    return mark.ascii if console.options.ascii_only else mark.symbol
