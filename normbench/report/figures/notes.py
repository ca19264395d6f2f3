"""The text of a figure of cells: its notes, and its numbers for a screen reader."""

from collections.abc import Iterator, Mapping, Sequence

from normbench.report import words
from normbench.report.figures.series import Series
from normbench.report.figures.units import Quantity
from normbench.verdicts.verdict import DesignVerdict, Verdict


def notes(
    design: DesignVerdict, verdict: Verdict, names: Mapping[str, str]
) -> Iterator[str]:
    """Yield notes on runs that are missing from the means, and on grey areas.

    `names` has each cell in words.
    """
    if verdict.budget != "full":
        yield f"A {verdict.budget} check, not the registered one"
    for status, runs in (
        ("diverged", {cell.cell: cell.diverged for cell in design.cells}),
        ("failed", {cell.cell: cell.failed for cell in design.cells}),
    ):
        cells = [f"{names[cell]}: {count}" for cell, count in runs.items() if count]
        if cells:
            counted = " (error 100 %)" if status == "diverged" else ""
            yield f"Runs that {status}{counted}: {', '.join(cells)}"
    if skipped := [names[cell.cell] for cell in design.cells if cell.skipped]:
        yield f"Skipped: {', '.join(skipped)}"
    if untrained := [arm for arm, passed in design.gate.items() if not passed]:
        yield f"Did not train: {', '.join(untrained)}"
    for crossing in design.crossovers:
        yield f"Grey: {crossing.name}: {words.crossover(crossing)}"


def in_words(panels: Sequence[tuple[Quantity, Sequence[Series]]]) -> Iterator[str]:
    """Yield a line with all means and intervals of each metric."""
    for quantity, all_series in panels:
        cells = []
        for series in all_series:
            for level, point in series.points.items():
                where = "" if level == "-" else f" at {level}"
                text = f"{series.label}{where} {quantity.text(point.mean)}"
                if point.low is not None and point.high is not None:
                    ends = (quantity.text(point.low), quantity.text(point.high))
                    text += f" [{', '.join(ends)}]"
                cells.append(text)
        yield f"{quantity.words}: {', '.join(cells)}"
