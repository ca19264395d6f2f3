"""The figures of a verdict: means of cells, and forest plots of contrasts."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp2, log2
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.report.figures.drawing import (
    COLUMN_WIDTH,
    NOTE_SIZE,
    PAGE_WIDTH,
    TEXT_COLOUR,
    figure,
    style,
)
from normbench.report.figures.forest import forest
from normbench.report.figures.notes import in_words, notes
from normbench.report.figures.palette import LOOKS, look
from normbench.report.figures.series import (
    TICK_STEPS,
    Point,
    Series,
    axis_label,
    draw_curves,
    draw_dots,
    label_ends,
    level_axis,
    limit_to_possible,
    metric_label,
    name_rows,
    numeric,
    row_places,
    rows_height,
    styled_series,
)
from normbench.report.published import Published, published_for
from normbench.verdicts.design import Design, arm_of, level_of
from normbench.verdicts.registration import Claim
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import DesignVerdict, Verdict

Panels = dict[str, list[Series]]
"""The series of each metric."""


@dataclass(frozen=True)
class _Content:
    """The content of a figure of cells."""

    design: DesignVerdict
    registered: Design | None
    panels: Panels
    published: Sequence[Published]
    levels: Sequence[str]
    title: str
    description: str


def verdict_figures(verdict: Verdict, claim: Claim | None = None) -> dict[str, Figure]:
    """Draw two figures of each design: NAME with its cells, and NAME-contrasts.

    Leaves out figures that would be empty. The registered `claim` gives the norm of
    each arm and the config key of the levels. Without it, the name of an arm determines
    its colour.
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
    """Return the norm of an arm: its last override `norm=NAME`.

    Without such an override, the norm is the longest beginning of the arm's name that
    is a norm, such as "group" for "group_ws"; otherwise the whole name.
    """
    if design is not None and arm in design.arms:
        overrides = f"{design.common} {design.arms[arm]}".split()
        values = [word.partition("=")[2] for word in overrides if word[:5] == "norm="]
        if values:
            return values[-1]
    name = arm
    while name not in LOOKS and "_" in name:
        name = name.rpartition("_")[0]
    return name if name in LOOKS else arm


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
    lines = list(notes(design, verdict))
    content = _Content(
        design=design,
        registered=registered,
        panels=panels,
        published=published_for(
            verdict.claim, design.name.removesuffix(f"-{design.data}")
        ),
        levels=_unique(design.cells, level_of),
        title=title,
        description="\n".join([design.question, *in_words(panels), *lines]),
    )
    drawn = _curves(content) if numeric(content.levels) else _dots(content)
    width = 60 if len(panels) == 1 else 120
    note = "\n".join(textwrap.fill(line, width) for line in lines)
    drawn.supxlabel(note, x=0.01, ha="left", fontsize=NOTE_SIZE)
    return drawn


def _series(
    design: DesignVerdict, registered: Design | None, metric: str, alpha: float
) -> list[Series]:
    """Return a series of the means of `metric` for each arm that has any."""
    arms = [*(registered.arms if registered else ()), *_unique(design.cells, arm_of)]
    points: dict[str, dict[str, Point]] = {arm: {} for arm in arms}
    for cell in design.cells:
        if metric in cell.mean:
            point = _point(cell, metric, alpha)
            points[arm_of(cell.cell)][level_of(cell.cell)] = point
    all_series = styled_series(points, {arm: norm_of(arm, registered) for arm in arms})
    return [series for series in all_series if series.points]


def _point(cell: CellSummary, metric: str, alpha: float) -> Point:
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    if sd is None or cell.n < 2:
        return Point(mean)
    half_width = stats.half_width(sd, cell.n, 1 - alpha)
    return Point(mean, mean - half_width, mean + half_width)


def _unique(cells: Sequence[CellSummary], part: Callable[[str], str]) -> list[str]:
    """Return the arms or the levels of cells, each once, in their order."""
    return list(dict.fromkeys(part(cell.cell) for cell in cells))


def _published(source: Published, ours: Sequence[Series], line: str) -> list[Series]:
    """Return the series of a published source, with hollow markers.

    A series has the look of our series with the same label, except for the line.
    """
    looks = {series.label: series.look for series in ours}
    return [
        Series(
            name,
            looks.get(name, look(name))._replace(line=line),
            {level: Point(value) for level, value in values.items()},
            hollow=True,
        )
        for name, values in source.series.items()
    ]


def _level_key(registered: Design | None) -> str:
    """Return the config key whose values are the levels; "level" if there is none."""
    if registered is None:
        return "level"
    # For each level, the keys that its overrides set to the level itself.
    keys_by_level = [
        {word.partition("=")[0] for word in text.split() if word.endswith(f"={level}")}
        for level, text in registered.levels.items()
    ]
    return min(set.intersection(*keys_by_level), default="level")


def _curves(content: _Content) -> Figure:
    """Draw a panel of curves per metric; published curves are above the first panel."""
    columns = min(2, len(content.panels))
    rows = ceil(len(content.panels) / columns)
    heights = [2.2] * rows
    if content.published:
        heights[0] += 0.5 + 0.8  # the title, and the axes of the published curves
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    drawn = figure(width, sum(heights), content.title, content.description)
    grid = drawn.add_gridspec(rows, columns, height_ratios=heights)
    for index, (metric, all_series) in enumerate(content.panels.items()):
        place = grid[index // columns, index % columns]
        with_published = bool(content.published) and index == 0
        if with_published:
            halves = place.subgridspec(2, 1, height_ratios=(0.8, 1.4))
            axes = drawn.add_subplot(halves[1])
            upper_axes = drawn.add_subplot(halves[0], sharex=axes)
            _published_curves(upper_axes, content.published, all_series)
        else:
            axes = drawn.add_subplot(place)
        draw_curves(axes, all_series)
        level_axis(axes, all_series)
        _crossings(axes, metric, content.design)
        _expected_slopes(axes, metric, all_series, content.registered)
        limit_to_possible(axes, metric, "y")
        label_ends(axes, all_series, height=1.4 if with_published else 1.7)
        axes.set_ylabel(metric_label(metric))
        axes.set_xlabel(axis_label(_level_key(content.registered)))
    return drawn


def _crossings(axes: Axes, metric: str, design: DesignVerdict) -> None:
    """Shade the interval of each crossover of `metric`."""
    left, right = axes.get_xlim()
    limits = {"before": left, "after": right}
    for crossing in design.crossovers:
        if crossing.metric == metric:
            low, high = (
                limits[level] if isinstance(level, str) else level
                for level in (crossing.low, crossing.high)
            )
            axes.axvspan(low, high, color=TEXT_COLOUR, alpha=0.1, lw=0, zorder=0)
            axes.set_xlim(left, right)


def _expected_slopes(
    axes: Axes, metric: str, all_series: Sequence[Series], registered: Design | None
) -> None:
    """Draw the slopes that contrasts of `metric` expect, on logarithmic axes."""
    for contrast in registered.contrasts if registered else ():
        if (
            contrast.metric != metric
            or contrast.scale != "log2"
            or contrast.slope is None
        ):
            continue
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for series in all_series:
            if series.label == contrast.slope and contrast.expected:
                x = [float(level) for level in series.points]
                # The line goes through the geometric mean of the points.
                mean_x = exp2(fmean(log2(value) for value in x))
                mean_y = exp2(fmean(log2(p.mean) for p in series.points.values()))
                y = [mean_y * (value / mean_x) ** contrast.expected for value in x]
                axes.plot(x, y, color=TEXT_COLOUR, linestyle="--", linewidth=0.8)
                title = f"dashed: slope {contrast.expected:g}"
                axes.set_title(title, fontsize=NOTE_SIZE)


def _published_curves(
    axes: Axes, sources: Sequence[Published], ours: Sequence[Series]
) -> None:
    lines = (":", "--", "-.")
    all_series = [
        replace(series, label=f"{series.label}, {source.source}")
        for index, source in enumerate(sources)
        for series in _published(source, ours, lines[index % len(lines)])
    ]
    draw_curves(axes, all_series)
    level_axis(axes, all_series)
    label_ends(axes, all_series, height=0.8)
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_ylabel("published")
    titles = (textwrap.fill(_source(source), 62) for source in sources)
    axes.set_title("\n".join(titles), fontsize=NOTE_SIZE)


def _source(published: Published) -> str:
    return f"published: {published.source}, {published.what}"


def _dots(content: _Content) -> Figure:
    """Draw a panel of dots for each metric and for each published source."""
    ours = next(iter(content.panels.values()))
    several = len(content.levels) > 1
    places = row_places(ours, content.levels)
    count = len(content.panels) + len(content.published)
    columns = min(3, count)
    rows = ceil(count / columns)
    panels = [
        (all_series, metric_label(metric))
        for metric, all_series in content.panels.items()
    ]
    for source in content.published:
        label = textwrap.fill(_source(source), 40 if columns < 3 else 28)
        panels.append((_published(source, ours, ":"), label))
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    height = rows_height(places) * rows + (0.3 if several else 0.0)
    drawn = figure(width, height, content.title, content.description)
    grid = drawn.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    ticks = 5 if columns == 1 else 4
    for axes, (all_series, label) in zip(grid.flat, panels, strict=False):
        draw_dots(axes, all_series, places)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=TICK_STEPS))
    for axes in grid[:, 0]:
        name_rows(axes, places)
    if several and len(ours) > 1:
        handles = [series.legend_handle() for series in ours]
        legend_columns = 6 if columns > 1 else 3
        drawn.legend(handles=handles, loc="outside upper center", ncols=legend_columns)
    return drawn
