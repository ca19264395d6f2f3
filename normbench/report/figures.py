"""The figures of a verdict: what each cell came to, and what each contrast says."""

import textwrap
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.registration import Claim, Design, arm_of, level_of
from normbench.report.drawing import COLUMN, INK, PAGE, PAPER, figure, save, style, svg
from normbench.report.palette import DECISIONS, LOOKS
from normbench.report.published import Published, beside
from normbench.report.series import (
    Point,
    Series,
    curves,
    dots,
    dressed,
    name_rows,
    numeric,
    rows,
    theirs,
    within_possible,
)
from normbench.report.verdicts import interval
from normbench.verdict import CellSummary, ContrastVerdict, DesignVerdict, Verdict

__all__ = ["of_verdict", "save", "svg"]

MOST_MARGINS = 8.0
"""Where the axis of a forest ends: what is beyond has an arrow, and its number."""
AXES = {
    "norm_batch": "norm batch (samples that share statistics)",
    "batch_size": "batch size",
}
SAID = {"greater": "> 0", "less": "< 0", "equal": "= 0", "not_greater": "not > 0"}


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
                contrasts = _forest(design, verdict.alpha, title)
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


def measured(metric: str) -> str:
    """A metric in words: "test error"."""
    split, _, name = metric.partition("/")
    return f"{split} {name}".replace("_", " ")


def _metrics(design: DesignVerdict) -> list[str]:
    """Those of its contrasts, the primary ones first."""
    ordered = sorted(design.contrasts, key=lambda contrast: not contrast.primary)
    return list(dict.fromkeys(contrast.metric for contrast in ordered))


def _points(cell: CellSummary, metric: str, alpha: float) -> Point:
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    if sd is None or cell.n < 2:
        return Point(mean)
    half = stats.half_width(sd, cell.n, 1 - alpha)
    return Point(mean, mean - half, mean + half)


def _series(
    design: DesignVerdict, registered: Design | None, metric: str, alpha: float
) -> list[Series]:
    points: dict[str, dict[str, Point]] = {}
    for cell in design.cells:
        if metric in cell.mean:
            its = points.setdefault(arm_of(cell.cell), {})
            its[level_of(cell.cell)] = _points(cell, metric, alpha)
    arms = dict.fromkeys(arm_of(cell.cell) for cell in design.cells)
    return dressed(
        {arm: points[arm] for arm in arms if arm in points},
        {arm: norm_of(arm, registered) for arm in arms},
    )


def _published(of: Published, ours: Sequence[Series]) -> list[Series]:
    looks = {each.label: each.look for each in ours}
    made = []
    for name, its in of.series.items():
        points = {level: Point(value) for level, value in its.items()}
        (own,) = dressed({name: points}, {})
        if name in looks:
            own = Series(name, looks[name], points)
        made.append(theirs(own))
    return made


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
    levels = dict.fromkeys(level_of(cell.cell) for cell in design.cells)
    told = list(_told(design, verdict.alpha))
    description = "\n".join([design.question, *_in_words(panels), *told])
    if numeric(list(levels)):
        made = _curves(panels, others, _axis(registered), title, description)
    else:
        made = _dots(panels, others, list(levels), title, description)
    note = "\n".join(
        textwrap.fill(line, 60 if len(panels) == 1 else 120) for line in told
    )
    made.supxlabel(note, x=0.01, ha="left", fontsize=6.5)
    return made


def _told(design: DesignVerdict, alpha: float) -> Iterator[str]:
    """What a reader must know of the picture: its intervals, and what is not in it."""
    sizes = sorted({cell.n for cell in design.cells if cell.n})
    if sizes and sizes[-1] > 1:
        n = "-".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
        yield f"mean and {1 - alpha:.0%} interval over {n} seeds"
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
    """What the levels are the values of."""
    if registered is None:
        return "level"
    keys = [
        {
            key
            for word in text.split()
            for key, _, value in [word.partition("=")]
            if value == level
        }
        for level, text in registered.levels.items()
    ]
    shared = set.intersection(*keys)
    return next((AXES.get(key, key) for key in sorted(shared)), "level")


def _curves(
    panels: dict[str, list[Series]],
    others: Sequence[Published],
    axis: str,
    title: str,
    description: str,
) -> Figure:
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    height = 2.3 + 1.2 * bool(others)
    width = COLUMN if columns == 1 else PAGE
    made = figure(width, height * lines, title, description)
    grid = made.add_gridspec(lines, columns)
    for place, (metric, series) in enumerate(panels.items()):
        cell = grid[place // columns, place % columns]
        if others and place == 0:
            parts = cell.subgridspec(2, 1, height_ratios=(2, 3))
            axes = made.add_subplot(parts[1])
            above = made.add_subplot(parts[0], sharex=axes)
            _curves_of_others(above, others, series)
        else:
            axes = made.add_subplot(cell)
        curves(axes, series, height=1.7)
        within_possible(axes, metric, "y")
        axes.set_ylabel(measured(metric))
        axes.set_xlabel(axis if columns == 1 else axis.partition(" (")[0])
    return made


def _curves_of_others(
    axes: Axes, others: Sequence[Published], ours: Sequence[Series]
) -> None:
    series = [
        Series(f"{each.label}, {of.source}", each.look, each.points, each.hollow)
        for of in others
        for each in _published(of, ours)
    ]
    curves(axes, series, height=1.0)
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_ylabel("theirs")
    axes.set_title(textwrap.fill(f"theirs: {others[0].what}", 60), fontsize=6.5)


def _theirs(of: Published) -> str:
    return textwrap.fill(f"theirs: {of.source}, {of.what}", 36)


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
        *((series, _theirs(of)) for of, series in beside_ours),
    ]
    for axes, (series, label) in zip(grid.flat, drawn, strict=False):
        dots(axes, series, places)
        within_possible(axes, label, "x")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5 if columns == 1 else 4))
    for axes in grid[:, 0]:
        name_rows(axes, places, {"-": ""})
    if several and len(every) > 1:
        handles = [
            axes.plot(
                [],
                [],
                ls="none",
                color=each.look.colour,
                marker=each.look.marker,
                mfc=each.face(),
                label=each.label,
            )[0]
            for each in every
        ]
        made.legend(
            handles=handles, loc="outside upper center", ncols=6 if columns > 1 else 3
        )
    return made


def _forest(design: DesignVerdict, alpha: float, title: str) -> Figure:
    """Effects of contrasts in units of their margins, with their intervals."""
    shown = [each for each in design.contrasts if each.effect is not None]
    names = [textwrap.fill(contrast.name, 38) for contrast in shown]
    heights = [max(2, name.count("\n") + 1) for name in names]
    places, line = [], 0.0
    for height in heights:
        places.append(line + height / 2)
        line += height + 0.7
    made = figure(
        PAGE, 0.135 * line + 0.6, f"{title}: contrasts", _effects(shown, alpha)
    )
    axes = made.subplots()
    left, right = _reach(shown)
    axes.set_xlim(left, right)
    axes.axvspan(-1, 1, color=INK, alpha=0.08, lw=0)
    axes.axvline(0, color=INK, linewidth=0.6)
    for place, contrast in zip(places, shown, strict=True):
        _contrast(axes, contrast, place, (left, right))
        axes.text(
            1.02,
            place,
            f"{measured(contrast.metric)}, said {SAID[contrast.says]}: "
            f"{contrast.decision}\n{_numbers(contrast, alpha)}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            linespacing=1.35,
        )
    axes.set_yticks(places, names)
    for label, contrast in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if contrast.primary else "normal")
    axes.set_ylim(line - 0.3, -0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("effect, in margins (shaded: within the margin)")
    return made


def _reach(contrasts: Sequence[ContrastVerdict]) -> tuple[float, float]:
    """Both ends of the axis: all intervals are on it, but for what is far away."""
    ends = [
        end / contrast.margin
        for contrast in contrasts
        for end in (contrast.low, contrast.high)
        if end is not None
    ]
    room = 0.04 * (max(ends) - min(ends))
    return (
        max(-MOST_MARGINS, min(-1.6, min(ends) - room)),
        min(MOST_MARGINS, max(1.6, max(ends) + room)),
    )


def _contrast(
    axes: Axes, contrast: ContrastVerdict, place: float, ends: tuple[float, float]
) -> None:
    look = DECISIONS[contrast.decision]
    assert contrast.effect is not None
    axes.plot(
        [value / contrast.margin for value in contrast.values.values()],
        [place] * len(contrast.values),
        linestyle="none",
        marker="|",
        color=look.colour,
        alpha=0.4,
        markersize=7,
        markeredgewidth=0.7,
    )
    for low, high, width in (
        (contrast.low, contrast.high, 1.1),
        (contrast.low_margin, contrast.high_margin, 2.6),
    ):
        if low is not None and high is not None:
            axes.plot(
                [low / contrast.margin, high / contrast.margin],
                [place, place],
                color=look.colour,
                linewidth=width,
                solid_capstyle="butt",
            )
    effect = contrast.effect / contrast.margin
    inside = min(ends[1], max(ends[0], effect))
    beyond = ">" if effect > inside else "<"
    axes.plot(
        [inside],
        [place],
        marker=look.marker if effect == inside else beyond,
        color=look.colour,
        markerfacecolor=look.colour if contrast.primary else PAPER,
        markersize=5.5,
        clip_on=False,
    )


def _numbers(contrast: ContrastVerdict, alpha: float) -> str:
    low, high, wide = interval(contrast)
    share = 1 - alpha if wide else 1 - 2 * alpha
    return (
        f"{contrast.effect:+.4f}, {share:.0%} [{low:+.4f}, {high:+.4f}], n {contrast.n}"
    ).replace("-", "\N{MINUS SIGN}")


def _effects(contrasts: Sequence[ContrastVerdict], alpha: float) -> str:
    return "\n".join(
        f"{contrast.name}: {contrast.decision}, {measured(contrast.metric)} "
        f"{_numbers(contrast, alpha)}, margin {contrast.margin:g}"
        for contrast in contrasts
    )
