"""The text of a figure of cells: its notes, and its numbers for a screen reader."""

from collections.abc import Iterator, Mapping, Sequence

from normbench.report import words
from normbench.report.figures.series import Series, count_range, metric_label
from normbench.verdicts.verdict import DesignVerdict, Verdict


def notes(design: DesignVerdict, verdict: Verdict) -> Iterator[str]:
    """Yield notes on the intervals and on runs that are missing from the means."""
    if verdict.budget != "full":
        yield f"a {verdict.budget} check, not the registered one"
    counts = [cell.n for cell in design.cells if cell.n]
    if counts and max(counts) > 1:
        seeds = count_range(counts)
        yield f"mean and {1 - verdict.alpha:.0%} interval over {seeds} seeds"
    for status, runs in (
        ("diverged", {cell.cell: cell.diverged for cell in design.cells}),
        ("failed", {cell.cell: cell.failed for cell in design.cells}),
    ):
        cells = [f"{short(cell)} {count}" for cell, count in runs.items() if count]
        if cells:
            yield f"runs that {status}: {', '.join(cells)}"
    if skipped := [short(cell.cell) for cell in design.cells if cell.skipped]:
        yield f"skipped: {', '.join(skipped)}"
    if untrained := [arm for arm, passed in design.gate.items() if not passed]:
        yield f"did not train: {', '.join(untrained)}"
    for crossing in design.crossovers:
        yield f"grey: {crossing.name}: {words.crossover(crossing)}"


def short(cell: str) -> str:
    """Return the name of a cell without the level "-" of a design without levels."""
    return cell.removesuffix("@-")


def in_words(panels: Mapping[str, Sequence[Series]]) -> Iterator[str]:
    """Yield a line with all means and intervals of each metric."""
    for metric, all_series in panels.items():
        cells = []
        for series in all_series:
            for level, point in series.points.items():
                text = f"{short(f'{series.label}@{level}')} {point.mean:.4g}"
                if point.low is not None:
                    text += f" [{point.low:.4g}, {point.high:.4g}]"
                cells.append(text)
        yield f"{metric_label(metric)}: {', '.join(cells)}"
