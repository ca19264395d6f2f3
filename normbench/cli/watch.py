"""The command that shows the progress of a sweep in another terminal: watch."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.options import RESULTS, Json, Results, exit_codes
from normbench.cli.tables import WIDTH, number, print_json
from normbench.system.interrupts import INTERRUPTED
from normbench.system.signals import stop_signals_raise
from normbench.system.streams import lost_output

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from normbench.sweeps.watch import Cell, Snapshot, Watch

EVERY = 1.0
"""Seconds between looks."""
SHARE = 0.05
"""The maximum share of time spent on looking: looks at many runs are rarer."""
MARKS = 8
"""Runs of a cell that have a mark each; in larger cells a mark stands for several."""
GAP = 2
"""Blanks between columns."""
SHOWN = 4
"""Running runs, and failures, that are named."""

LOOKS = {
    "ok": ("■", "#", "green"),
    "diverged": ("▲", "!", "magenta"),
    "failed": ("✗", "x", "bold red"),
    "skipped": ("-", "-", "dim"),
    "running": ("▶", ">", "bold cyan"),
    "interrupted": ("◦", "o", "yellow"),
    "missing": ("·", ".", "dim"),
}
"""By state of a run: its mark, its mark in ASCII, its style."""


def watch(
    results: Results = RESULTS,
    once: Annotated[
        bool, typer.Option("--once", help="Print the progress once.")
    ] = False,
    json: Json = False,
) -> None:
    """Watch the sweep that is running, or a claim's check, from another terminal.

    Shows every cell of the grid with a mark for each run, the best and the worst cell,
    and the time left; ends when the sweep does. Reads only files: any number may watch.
    Where output goes to no terminal, and where no sweep is running, it prints how far
    the last one is. Ctrl-C ends watching, not the sweep.
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
            console = Terminal(width=WIDTH, force_terminal=False)
        elif not once and not console.is_dumb_terminal:
            try:
                with stop_signals_raise():
                    _follow(watched, console)
            except KeyboardInterrupt:
                console.print()  # below the ^C
                console.print(_view(watched.look(), console, rows=None))
                raise typer.Exit(INTERRUPTED) from None
        console.print(_view(watched.look(), console, rows=None))


def _follow(watched: "Watch", console: "Console") -> None:
    """Show the sweep until no process runs it."""
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            snapshot = watched.look()
            live.update(_view(snapshot, console, rows=console.height), refresh=True)
            if not snapshot.active or lost_output():
                return
            time.sleep(max(EVERY, (time.monotonic() - began) / SHARE))


def _view(snapshot: "Snapshot", console: "Console", rows: int | None) -> "Group":
    """The whole view, in at most `rows` lines if possible."""
    from rich.console import Group

    above = list(_head(snapshot, console))
    below = list(_foot(snapshot, console))
    if rows is not None:
        # The table has a head and a rule, and a line for rows left out at either side.
        lines = len(console.render_lines(Group(*above, *below)))
        rows = max(1, rows - lines - 4)
    return Group(*above, *_table(snapshot, console, rows), *below)


def _head(snapshot: "Snapshot", console: "Console") -> "Iterator[Text]":
    from rich.text import Text

    from normbench.cli.progress import duration

    counts = snapshot.states()
    ended = counts.total() - snapshot.pending()
    title = Text(", ".join(snapshot.titles), style="bold")
    title.append(f"  {ended} of {counts.total()} runs have ended", style="not bold")
    yield title
    width = min(console.width, 80)
    states = [state for state in LOOKS for _ in range(counts[state])]
    yield _marks(states, width, console)
    line = []
    if snapshot.rate is not None:
        rate = snapshot.rate
        runs = f"{rate:.1f} runs/min" if rate >= 1 else f"{60 * rate:.1f} runs/h"
        line.append(f"{runs} in {duration(snapshot.seconds)}")
    if not snapshot.pending():
        line.append("all have ended")
    elif not snapshot.active:
        line.append("stopped; the same command takes it up again")
    elif snapshot.left is not None:
        line.append(f"about {duration(snapshot.left)} left")
    yield Text(", ".join(line))
    legend = Text()
    for state in LOOKS:
        if counts[state]:
            legend.append("  " * bool(legend))
            legend.append(_mark(state, console), style=LOOKS[state][2])
            word = "to come" if state == "missing" else state
            legend.append(f" {counts[state]} {word}")
    yield legend
    yield Text()


def _foot(snapshot: "Snapshot", console: "Console") -> "Iterator[Text]":
    from rich.text import Text

    extremes = snapshot.extremes()
    if extremes or snapshot.running or snapshot.failures or snapshot.left_out:
        yield Text()
    for text in snapshot.left_out[:SHOWN]:
        yield Text(f"left out {text}", style=LOOKS["failed"][2])
    for metric, (best, worst) in extremes.items():
        for word, cell in (("best", best), ("worst", worst)):
            yield Text(f"{word:<8} {metric} {number(cell.mean)} (n {cell.n})  ").append(
                cell.name(), style="bold"
            )
    for title in snapshot.running[:SHOWN]:
        yield Text(f"{'running':<8} {title}", style=LOOKS["running"][2])
    for run_id, reason in list(snapshot.failures.items())[:SHOWN]:
        line = Text(f"{'failed':<8} {run_id[:8]}  {reason}", style=LOOKS["failed"][2])
        line.truncate(console.width, overflow="ellipsis")
        yield line
    if (more := len(snapshot.failures) - SHOWN) > 0:
        yield Text(f"{'':<8} and {more} more; `normbench results` lists them")


def _table(
    snapshot: "Snapshot", console: "Console", most: int | None
) -> "Iterator[Table | Text]":
    """Rows by columns if they fit the console, else a row for each cell."""
    from rich.text import Text

    grid, listed = _grid(snapshot), _list(snapshot)
    for head, rows, detail in ((*grid, 2), (*grid, 1), (*grid, 0), (*listed, 2)):
        before, shown, after = _window([row for _, row in rows], most)
        lines = [
            [Text(name), *(_cell(cell, console, detail) for cell in row)]
            for name, row in rows[before : before + shown]
        ]
        columns = zip(map(Text, head), *lines, strict=True)
        if sum(GAP + max(map(len, column)) for column in columns) <= console.width:
            break
    if before:
        yield Text(f"{before} rows above, all ended", style="dim")
    yield _columns(head, lines)
    if after:
        yield Text(f"{after} rows below", style="dim")


Rows = Sequence[tuple[str, "Sequence[Cell | None]"]]


def _grid(snapshot: "Snapshot") -> tuple[list[str], Rows]:
    """The values of one key as columns, the others as rows; else a list."""
    across = snapshot.column
    if across is None:
        return _list(snapshot)
    values = list(dict.fromkeys(cell.by[across] for cell in snapshot.cells))
    with suppress(TypeError):  # text and numbers have no order
        values.sort()
    rows: dict[str, list[Cell | None]] = {}
    for cell in snapshot.cells:
        rest = {key: value for key, value in cell.by.items() if key != across}
        row = rows.setdefault(_label(rest), [None] * len(values))
        row[values.index(cell.by[across])] = cell
    beside = " ".join(key for key in snapshot.by if key != across)
    head = [f"{beside}, by {across}", *map(str, values)]
    return head, list(rows.items())


def _list(snapshot: "Snapshot") -> tuple[list[str], Rows]:
    rows = [(_label(cell.by), [cell]) for cell in snapshot.cells]
    return [" ".join(snapshot.by), "runs"], rows


def _label(by: dict[str, object]) -> str:
    """Values, with their keys unless the value alone is clear."""
    return " ".join(
        str(value) if key in {"task", "data", "norm"} else f"{key}={value}"
        for key, value in by.items()
        if value is not None
    )


def _window(
    rows: "Sequence[Sequence[Cell | None]]", most: int | None
) -> tuple[int, int, int]:
    """How many rows are before, in and after the part that is shown.

    If not all fit, the part begins with the first row that has runs to come.
    """
    from normbench.sweeps.watch import OPEN

    if most is None or len(rows) <= most:
        return 0, len(rows), 0
    pending = [
        any(cell and OPEN.intersection(cell.states) for cell in row) for row in rows
    ]
    first = pending.index(True) if any(pending) else 0
    before = min(first, len(rows) - most)
    return before, most, len(rows) - most - before


def _columns(head: Sequence[str], lines: "Sequence[Sequence[Text]]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for name in head:
        table.add_column(Text(name), no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _cell(cell: "Cell | None", console: "Console", detail: int) -> "Text":
    """Marks; with `detail` 1 also the mean, with 2 also the count of a large cell."""
    from rich.text import Text

    from normbench.sweeps.watch import OPEN

    if cell is None:
        return Text()
    text = _marks(cell.states, MARKS, console)
    if detail == 2 and (runs := len(cell.states)) > MARKS:
        ended = sum(state not in OPEN for state in cell.states)
        text.append(f" {ended}/{runs}")
    if detail and cell.mean is not None:
        text.append(f" {number(cell.mean)}")
    return text


def _marks(states: Sequence[str], width: int, console: "Console") -> "Text":
    """At most `width` marks: one for each run, or for equal parts of the runs.

    Every state has a mark, even if it is rare.
    """
    from rich.text import Text

    if len(states) > width:
        states = _shares(states, width)
    text = Text()
    for state, some in groupby(states):
        mark = _mark(state, console)
        text.append(mark * sum(1 for _ in some), style=LOOKS[state][2])
    return text


def _shares(states: Sequence[str], width: int) -> list[str]:
    counts = {state: states.count(state) for state in LOOKS if state in states}
    marks = {s: max(1, round(n * width / len(states))) for s, n in counts.items()}
    while (over := sum(marks.values()) - width) != 0:
        most = max(marks, key=lambda state: marks[state])
        marks[most] -= 1 if over > 0 else -1
    return [state for state, n in marks.items() for _ in range(n)]


def _mark(state: str, console: "Console") -> str:
    mark, plain, _ = LOOKS[state]
    return plain if console.options.ascii_only else mark
