"""The figures of a verdict: what each cell came to, and what each contrast says."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import exp2, log2
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.report.figures.drawing import (
    COLUMN,
    INK,
    PAGE,
    SMALL,
    figure,
    save,
    style,
    svg,
)
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
    measured,
    name_rows,
    numeric,
    rows,
    within_possible,
)
from normbench.report.published import Published, beside
from normbench.report.words import crossover
from normbench.verdicts.registration import Claim, Design, arm_of, level_of
from normbench.verdicts.verdict import CellSummary, DesignVerdict, Verdict

__all__ = ["of_verdict", "save", "svg"]


def of_verdict(verdict: Verdict, claim: Claim | None = None) -> dict[str, Figure]:
    """A figure of its cells for each design, under the design's name, and one of its
    contrasts, under NAME-contrasts, where there is something to draw.

    `claim`, as registered, tells the norm of each arm and what the levels are; without
    it, arms are known by their names.
    """
    designs = claim.designs() if claim else {}
    made = {}
    with style():
        for design in (*verdict.mechanisms, *verdict.outcomes):
            title = f"{verdict.claim}, {design.name}"
            registered = designs.get(design.name)
            drawn = _cells(design, registered, verdict, title)
            if drawn is not None:
                made[design.name] = drawn
            if any(contrast.effect is not None for contrast in design.contrasts):
                contrasts = forest(design, verdict.alpha, title)
                made[f"{design.name}-contrasts"] = contrasts
    return made


def norm_of(arm: str, design: Design | None) -> str:
    """The norm that an arm of a design is about."""
    if design is not None and arm in design.arms:
        words = f"{design.common} {design.arms[arm]}".split()
        named = [word.removeprefix("norm=") for word in words if word[:5] == "norm="]
        if named:
            sequences = named[-1] == "layer" and "task=transformer" in words
            return "layer_position" if sequences else named[-1]
    known = arm
    while known not in LOOKS and "_" in known:
        known = known.rpartition("_")[0]
    return known if known in LOOKS else arm


def _metrics(design: DesignVerdict) -> list[str]:
    """Those of its contrasts, the primary ones first."""
    ordered = sorted(design.contrasts, key=lambda contrast: not contrast.primary)
    return list(dict.fromkeys(contrast.metric for contrast in ordered))


def _point(cell: CellSummary, metric: str, alpha: float) -> Point:
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    if sd is None or cell.n < 2:
        return Point(mean)
    half = stats.half_width(sd, cell.n, 1 - alpha)
    return Point(mean, mean - half, mean + half)


def _series(
    design: DesignVerdict, registered: Design | None, metric: str, alpha: float
) -> list[Series]:
    arms = dict.fromkeys(
        (*(registered.arms if registered else ()), *_parts(design.cells, arm_of))
    )
    points: dict[str, dict[str, Point]] = {arm: {} for arm in arms}
    for cell in design.cells:
        if metric in cell.mean:
            its = points[arm_of(cell.cell)]
            its[level_of(cell.cell)] = _point(cell, metric, alpha)
    every = dressed(points, {arm: norm_of(arm, registered) for arm in arms})
    return [each for each in every if each.points]


def _parts(cells: Sequence[CellSummary], part: Callable[[str], str]) -> list[str]:
    return list(dict.fromkeys(part(cell.cell) for cell in cells))


def _published(of: Published, ours: Sequence[Series], line: str = ":") -> list[Series]:
    """Its series, each in the look of ours with that name, but hollow and dotted."""
    looks = {each.label: each.look for each in ours}
    return [
        Series(
            name,
            looks.get(name, look(name))._replace(line=line),
            {level: Point(value) for level, value in its.items()},
            hollow=True,
        )
        for name, its in of.series.items()
    ]


def _cells(
    design: DesignVerdict, registered: Design | None, verdict: Verdict, title: str
) -> Figure | None:
    panels = {
        metric: series
        for metric in _metrics(design)
        if (series := _series(design, registered, metric, verdict.alpha))
    }
    if not panels:
        return None
    others = beside(verdict.claim, design.name)
    levels = _parts(design.cells, level_of)
    told = list(_told(design, verdict))
    description = "\n".join([design.question, *_in_words(panels), *told])
    if numeric(levels):
        made = _curves(panels, others, design, registered, title, description)
    else:
        made = _dots(panels, others, levels, title, description)
    note = "\n".join(
        textwrap.fill(line, 60 if len(panels) == 1 else 120) for line in told
    )
    made.supxlabel(note, x=0.01, ha="left", fontsize=SMALL)
    return made


def _told(design: DesignVerdict, verdict: Verdict) -> Iterator[str]:
    """What a reader must know of the picture: its intervals, and what is not in it."""
    if verdict.budget != "full":
        yield f"a {verdict.budget} check, not the registered one"
    for reason, contrasts in design.reasons.items():
        what = f" ({'; '.join(contrasts)})" * bool(contrasts)
        yield f"withdrawn{what}: {reason}"
    sizes = sorted({cell.n for cell in design.cells if cell.n})
    if sizes and sizes[-1] > 1:
        n = "-".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
        yield f"mean and {1 - verdict.alpha:.0%} interval over {n} seeds"
    ends = (
        ("diverged", [(c.cell, c.diverged) for c in design.cells if c.diverged]),
        ("failed", [(c.cell, c.failed) for c in design.cells if c.failed]),
    )
    for end, cells in ends:
        if cells:
            counts = ", ".join(f"{_short(cell)} {count}" for cell, count in cells)
            yield f"runs that {end}: {counts}"
    skipped = [_short(cell.cell) for cell in design.cells if cell.skipped]
    if skipped:
        yield f"skipped: {', '.join(skipped)}"
    untrained = [arm for arm, passed in design.gate.items() if not passed]
    if untrained:
        yield f"did not train: {', '.join(untrained)}"
    for crossing in design.crossovers:
        yield f"grey: {crossing.name}: {crossover(crossing)}"


def _short(cell: str) -> str:
    return cell.removesuffix("@-")


def _in_words(panels: dict[str, list[Series]]) -> Iterator[str]:
    for metric, series in panels.items():
        cells = (
            f"{_short(f'{each.label}@{level}')} {point.mean:.4g}"
            + ("" if point.low is None else f" [{point.low:.4g}, {point.high:.4g}]")
            for each in series
            for level, point in each.points.items()
        )
        yield f"{measured(metric)}: {', '.join(cells)}"


def _axis(registered: Design | None) -> str:
    """The key that the levels are the values of."""
    if registered is None:
        return "level"
    keys = [
        {word.partition("=")[0] for word in text.split() if word.endswith(f"={level}")}
        for level, text in registered.levels.items()
    ]
    return min(set.intersection(*keys), default="level")


def _curves(
    panels: dict[str, list[Series]],
    others: Sequence[Published],
    design: DesignVerdict,
    registered: Design | None,
    title: str,
    description: str,
) -> Figure:
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    heights = [2.2 + (0.5 + 0.8) * bool(others), *[2.2] * (lines - 1)]
    width = COLUMN if columns == 1 else PAGE
    made = figure(width, sum(heights), title, description)
    grid = made.add_gridspec(lines, columns, height_ratios=heights)
    for place, (metric, series) in enumerate(panels.items()):
        cell = grid[place // columns, place % columns]
        if others and place == 0:
            parts = cell.subgridspec(2, 1, height_ratios=(0.8, 1.4))
            axes = made.add_subplot(parts[1])
            above = made.add_subplot(parts[0], sharex=axes)
            _curves_of_others(above, others, series)
        else:
            axes = made.add_subplot(cell)
        curves(axes, series)
        _guides(axes, metric, series, design, registered)
        within_possible(axes, metric, "y")
        label_ends(axes, series, height=1.4 if others and place == 0 else 1.7)
        axes.set_ylabel(measured(metric))
        axes.set_xlabel(axis_label(_axis(registered)))
    return made


def _guides(
    axes: Axes,
    metric: str,
    series: Sequence[Series],
    design: DesignVerdict,
    registered: Design | None,
) -> None:
    """Where curves cross, and for a slope on logarithmic axes the one expected."""
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


def _curves_of_others(
    axes: Axes, others: Sequence[Published], ours: Sequence[Series]
) -> None:
    lines = (":", "--", "-.")
    series = [
        replace(each, label=f"{each.label}, {of.source}")
        for rank, of in enumerate(others)
        for each in _published(of, ours, lines[rank % len(lines)])
    ]
    curves(axes, series)
    label_ends(axes, series, height=0.8)
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_ylabel("published")
    what = "\n".join(textwrap.fill(_source(of), 62) for of in others)
    axes.set_title(what, fontsize=SMALL)


def _source(of: Published) -> str:
    return f"published: {of.source}, {of.what}"


def _dots(
    panels: dict[str, list[Series]],
    others: Sequence[Published],
    levels: Sequence[str],
    title: str,
    description: str,
) -> Figure:
    every = next(iter(panels.values()))
    several = len(levels) > 1
    places = rows(every, levels)
    beside_ours = [(of, _published(of, every)) for of in others]
    count = len(panels) + len(beside_ours)
    columns = min(3, count)
    lines = -(-count // columns)
    step = 0.11 if several else 0.2
    height = step * (max(places.values()) + 2) + 0.75
    width = COLUMN if columns == 1 else PAGE
    made = figure(width, height * lines + 0.3 * several, title, description)
    grid = made.subplots(lines, columns, squeeze=False, sharey=True)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    drawn = [
        *((series, measured(metric)) for metric, series in panels.items()),
        *(
            (series, textwrap.fill(_source(of), 40 if columns < 3 else 28))
            for of, series in beside_ours
        ),
    ]
    for axes, (series, label) in zip(grid.flat, drawn, strict=False):
        dots(axes, series, places)
        within_possible(axes, label, "x")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5 if columns == 1 else 4, steps=STEPS))
    for axes in grid[:, 0]:
        name_rows(axes, places)
    if several and len(every) > 1:
        handles = [each.key() for each in every]
        made.legend(
            handles=handles, loc="outside upper center", ncols=6 if columns > 1 else 3
        )
    return made
