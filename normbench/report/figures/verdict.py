"""The figures of a verdict: the means of its cells, and its contrasts."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp2, log2
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.report import words
from normbench.report.figures.drawing import COLUMN, INK, PAGE, SMALL, figure, style
from normbench.report.figures.forest import forest
from normbench.report.figures.palette import LOOKS, look
from normbench.report.figures.series import (
    STEPS,
    Point,
    Series,
    axis_label,
    curves,
    dots,
    dressed,
    label_ends,
    level_axis,
    measured,
    name_rows,
    numeric,
    rows,
    span,
    within_possible,
)
from normbench.report.published import Published, beside
from normbench.verdicts.registration import Claim, Design, arm_of, level_of
from normbench.verdicts.verdict import CellSummary, DesignVerdict, Verdict

Panels = dict[str, list[Series]]
"""The series of each metric."""


@dataclass(frozen=True)
class _Drawn:
    """What is drawn of a design, and what its axes and text are made from."""

    design: DesignVerdict
    registered: Design | None
    panels: Panels
    published: Sequence[Published]
    levels: Sequence[str]
    title: str
    description: str


def verdict_figures(verdict: Verdict, claim: Claim | None = None) -> dict[str, Figure]:
    """For each design a figure NAME of its cells and one NAME-contrasts.

    Leaves out those with nothing to draw. `claim`, as registered, gives the norm of
    each arm and the key of the levels; without it, arms are known by their names.
    """
    registered = claim.designs() if claim else {}
    figures = {}
    with style():
        for design in verdict.designs:
            title = f"{verdict.claim}, {design.name}"
            if cells := _cells(design, registered.get(design.name), verdict, title):
                figures[design.name] = cells
            if any(contrast.effect is not None for contrast in design.contrasts):
                contrasts = forest(design, verdict.alpha, title)
                figures[f"{design.name}-contrasts"] = contrasts
    return figures


def norm_of(arm: str, design: Design | None) -> str:
    """The norm that an arm of a design is about."""
    if design is not None and arm in design.arms:
        overrides = f"{design.common} {design.arms[arm]}".split()
        norms = [word[5:] for word in overrides if word.startswith("norm=")]
        if norms:
            sequences = norms[-1] == "layer" and "task=transformer" in overrides
            return "layer_position" if sequences else norms[-1]
    known = arm
    while known not in LOOKS and "_" in known:
        known = known.rpartition("_")[0]
    return known if known in LOOKS else arm


def _cells(
    design: DesignVerdict, registered: Design | None, verdict: Verdict, title: str
) -> Figure | None:
    primary_first = sorted(design.contrasts, key=lambda contrast: not contrast.primary)
    panels = {
        metric: series
        for metric in dict.fromkeys(contrast.metric for contrast in primary_first)
        if (series := _series(design, registered, metric, verdict.alpha))
    }
    if not panels:
        return None
    notes = list(_notes(design, verdict))
    drawn = _Drawn(
        design,
        registered,
        panels,
        beside(verdict.claim, design.name),
        _parts(design.cells, level_of),
        title,
        "\n".join([design.question, *_in_words(panels), *notes]),
    )
    made = _curves(drawn) if numeric(drawn.levels) else _dots(drawn)
    width = 60 if len(panels) == 1 else 120
    note = "\n".join(textwrap.fill(line, width) for line in notes)
    made.supxlabel(note, x=0.01, ha="left", fontsize=SMALL)
    return made


def _series(
    design: DesignVerdict, registered: Design | None, metric: str, alpha: float
) -> list[Series]:
    arms = [*(registered.arms if registered else ()), *_parts(design.cells, arm_of)]
    points: dict[str, dict[str, Point]] = {arm: {} for arm in arms}
    for cell in design.cells:
        if metric in cell.mean:
            point = _point(cell, metric, alpha)
            points[arm_of(cell.cell)][level_of(cell.cell)] = point
    series = dressed(points, {arm: norm_of(arm, registered) for arm in points})
    return [each for each in series if each.points]


def _point(cell: CellSummary, metric: str, alpha: float) -> Point:
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    if sd is None or cell.n < 2:
        return Point(mean)
    half = stats.half_width(sd, cell.n, 1 - alpha)
    return Point(mean, mean - half, mean + half)


def _parts(cells: Sequence[CellSummary], part: Callable[[str], str]) -> list[str]:
    return list(dict.fromkeys(part(cell.cell) for cell in cells))


def _published(source: Published, ours: Sequence[Series], line: str) -> list[Series]:
    """Its series, hollow, with the look of our series of the same name."""
    looks = {each.label: each.look for each in ours}
    return [
        Series(
            name,
            looks.get(name, look(name))._replace(line=line),
            {level: Point(value) for level, value in values.items()},
            hollow=True,
        )
        for name, values in source.series.items()
    ]


def _notes(design: DesignVerdict, verdict: Verdict) -> Iterator[str]:
    """What a reader must know about the figure: intervals, and what is missing."""
    if verdict.budget != "full":
        yield f"a {verdict.budget} check, not the registered one"
    for reason, contrasts in design.reasons.items():
        what = f" ({'; '.join(contrasts)})" * bool(contrasts)
        yield f"withdrawn{what}: {reason}"
    counts = [cell.n for cell in design.cells if cell.n]
    if counts and max(counts) > 1:
        yield f"mean and {1 - verdict.alpha:.0%} interval over {span(counts)} seeds"
    for status in ("diverged", "failed"):
        ended = [(cell.cell, getattr(cell, status)) for cell in design.cells]
        counted = [f"{_short(cell)} {count}" for cell, count in ended if count]
        if counted:
            yield f"runs that {status}: {', '.join(counted)}"
    if skipped := [_short(cell.cell) for cell in design.cells if cell.skipped]:
        yield f"skipped: {', '.join(skipped)}"
    if untrained := [arm for arm, passed in design.gate.items() if not passed]:
        yield f"did not train: {', '.join(untrained)}"
    for crossing in design.crossovers:
        yield f"grey: {crossing.name}: {words.crossover(crossing)}"


def _short(cell: str) -> str:
    return cell.removesuffix("@-")


def _in_words(panels: Panels) -> Iterator[str]:
    for metric, series in panels.items():
        cells = (
            f"{_short(f'{each.label}@{level}')} {point.mean:.4g}"
            + ("" if point.low is None else f" [{point.low:.4g}, {point.high:.4g}]")
            for each in series
            for level, point in each.points.items()
        )
        yield f"{measured(metric)}: {', '.join(cells)}"


def _axis(registered: Design | None) -> str:
    """The config key whose values are the levels."""
    if registered is None:
        return "level"
    keys = [
        {word.partition("=")[0] for word in text.split() if word.endswith(f"={level}")}
        for level, text in registered.levels.items()
    ]
    return min(set.intersection(*keys), default="level")


def _curves(drawn: _Drawn) -> Figure:
    columns = min(2, len(drawn.panels))
    lines = -(-len(drawn.panels) // columns)
    heights = [2.2 + (0.5 + 0.8) * bool(drawn.published), *[2.2] * (lines - 1)]
    width = COLUMN if columns == 1 else PAGE
    made = figure(width, sum(heights), drawn.title, drawn.description)
    grid = made.add_gridspec(lines, columns, height_ratios=heights)
    for place, (metric, series) in enumerate(drawn.panels.items()):
        cell = grid[place // columns, place % columns]
        with_published = bool(drawn.published) and place == 0
        if with_published:
            parts = cell.subgridspec(2, 1, height_ratios=(0.8, 1.4))
            axes = made.add_subplot(parts[1])
            above = made.add_subplot(parts[0], sharex=axes)
            _published_curves(above, drawn.published, series)
        else:
            axes = made.add_subplot(cell)
        curves(axes, series)
        level_axis(axes, series)
        _crossings(axes, metric, drawn.design)
        _expected_slopes(axes, metric, series, drawn.registered)
        within_possible(axes, metric, "y")
        label_ends(axes, series, height=1.4 if with_published else 1.7)
        axes.set_ylabel(measured(metric))
        axes.set_xlabel(axis_label(_axis(drawn.registered)))
    return made


def _crossings(axes: Axes, metric: str, design: DesignVerdict) -> None:
    """Shade the interval in which curves cross."""
    left, right = axes.get_xlim()
    for crossing in design.crossovers:
        if crossing.metric == metric:
            ends = {"before": left, "after": right}
            low, high = (
                ends[end] if isinstance(end, str) else end
                for end in (crossing.low, crossing.high)
            )
            axes.axvspan(low, high, color=INK, alpha=0.1, lw=0, zorder=0)
            axes.set_xlim(left, right)


def _expected_slopes(
    axes: Axes, metric: str, series: Sequence[Series], registered: Design | None
) -> None:
    """Draw the slope that a contrast expects, on logarithmic axes."""
    for contrast in registered.contrasts if registered else ():
        if contrast.metric != metric or not contrast.log2 or contrast.slope is None:
            continue
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for each in series:
            if each.label == contrast.slope and contrast.expected:
                x = [float(level) for level in each.points]
                middle = exp2(fmean(log2(value) for value in x))
                height = exp2(fmean(log2(p.mean) for p in each.points.values()))
                y = [height * (value / middle) ** contrast.expected for value in x]
                axes.plot(x, y, color=INK, linestyle="--", linewidth=0.8)
                axes.set_title(f"dashed: slope {contrast.expected:g}", fontsize=SMALL)


def _published_curves(
    axes: Axes, sources: Sequence[Published], ours: Sequence[Series]
) -> None:
    lines = (":", "--", "-.")
    series = [
        replace(each, label=f"{each.label}, {source.source}")
        for rank, source in enumerate(sources)
        for each in _published(source, ours, lines[rank % len(lines)])
    ]
    curves(axes, series)
    level_axis(axes, series)
    label_ends(axes, series, height=0.8)
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_ylabel("published")
    titles = (textwrap.fill(_source(source), 62) for source in sources)
    axes.set_title("\n".join(titles), fontsize=SMALL)


def _source(published: Published) -> str:
    return f"published: {published.source}, {published.what}"


def _dots(drawn: _Drawn) -> Figure:
    ours = next(iter(drawn.panels.values()))
    several = len(drawn.levels) > 1
    places = rows(ours, drawn.levels)
    count = len(drawn.panels) + len(drawn.published)
    columns = min(3, count)
    lines = -(-count // columns)
    parts = [(series, measured(metric)) for metric, series in drawn.panels.items()]
    for source in drawn.published:
        label = textwrap.fill(_source(source), 40 if columns < 3 else 28)
        parts.append((_published(source, ours, ":"), label))
    height = (0.11 if several else 0.2) * (max(places.values()) + 2) + 0.75
    width = COLUMN if columns == 1 else PAGE
    size = (width, height * lines + 0.3 * several)
    made = figure(*size, drawn.title, drawn.description)
    grid = made.subplots(lines, columns, squeeze=False, sharey=True)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    for axes, (series, label) in zip(grid.flat, parts, strict=False):
        dots(axes, series, places)
        within_possible(axes, label, "x")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5 if columns == 1 else 4, steps=STEPS))
    for axes in grid[:, 0]:
        name_rows(axes, places)
    if several and len(ours) > 1:
        handles = [each.key() for each in ours]
        columns = 6 if columns > 1 else 3
        made.legend(handles=handles, loc="outside upper center", ncols=columns)
    return made
