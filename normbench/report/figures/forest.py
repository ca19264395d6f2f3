"""Forest plots: the effects of contrasts with their intervals, in natural units.

Ratios share an axis of per cent (on a log scale), differences of errors one of points,
and each other metric has an axis of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from normbench.report import words
from normbench.report.figures import titles
from normbench.report.figures.directions import Ends, ends_of
from normbench.report.figures.drawing import BACKGROUND, PAGE_WIDTH, TEXT_COLOUR
from normbench.report.figures.layout import (
    LINE_SPACING,
    MARGIN,
    Texts,
    balanced,
    body_top,
    framed,
    text_height,
    text_width,
    wrapped,
)
from normbench.report.figures.palette import DECISIONS
from normbench.report.figures.rows import hide_y_axis
from normbench.report.figures.series import TICK_STEPS
from normbench.report.figures.titles import Head
from normbench.report.figures.units import metric_words
from normbench.verdicts.design import Design
from normbench.verdicts.verdict import ContrastVerdict, Decision, DesignVerdict
from normbench.verdicts.wording import margin_text, unit

NAMES, AXIS, GAP = 1.9, 2.35, 0.1
"""Widths in inches: the names of contrasts, the axis, and the gaps beside it."""
NAME_SIZE, TEXT_SIZE, END_SIZE = 7.5, 6.8, 6.3
"""Font sizes in points."""
ROW_GAP = 0.13
"""Space between two rows in inches."""
TICKS = (0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
"""Ratios that may have a tick on a log scale, beside 1 and powers of ten."""
TICK_GAP = 0.42
"""Smallest distance between two ticks of a log scale, in inches."""


@dataclass(frozen=True)
class _Row:
    """The texts of a contrast in lines; `height` is in inches."""

    contrast: ContrastVerdict
    decision: Decision
    name: Sequence[str]
    text: Sequence[str]
    label: str
    ends: Ends
    wide_ends: bool

    @property
    def height(self) -> float:
        """The height of the row without the gap to the next row."""
        ends = text_height([""] * (2 if self.wide_ends else 1), END_SIZE)
        return max(
            text_height(self.name, NAME_SIZE),
            text_height(self.text, TEXT_SIZE),
            0.16 + ends,
        )


def forest(
    design: DesignVerdict, registered: Design | None, alpha: float, head: Head
) -> Figure:
    """Draw the effect of each contrast of a design with its intervals and its seeds.

    The margins of a contrast are shaded. Contrasts of one unit share an axis.
    """
    shown = [c for c in design.contrasts if words.numbers(c, alpha)]
    margins = {margin_text(contrast) for contrast in shown}
    rows = [
        _row(contrast, registered, alpha, head, margin=len(margins) > 1)
        for contrast in shown
    ]
    blocks: dict[str, list[_Row]] = {}
    for row in rows:
        blocks.setdefault(axis_label(row.contrast), []).append(row)
    heights = [
        sum(row.height + ROW_GAP for row in block) + 0.1 for block in blocks.values()
    ]
    labels = [balanced(label, AXIS + 0.6, 8) for label in blocks]
    feet = [0.24 + text_height(label, 8) + 0.1 for label in labels]
    texts = Texts(
        name=f"{head.name}: contrasts",
        title=head.title,
        lead=head.lead,
        subtitle=f"{head.scope}\n{titles.contrasts_legend(shown, alpha, head)}".strip(),
        notes=head.source,
        description="\n".join(f"{r.contrast.name}: {r.label}" for r in rows),
    )
    body = sum(heights) + sum(feet)
    drawn = framed(texts, body)
    total = float(drawn.get_size_inches()[1])
    top = body_top(drawn)
    drawn.set_layout_engine("none")
    for block, height, foot, label in zip(
        blocks.values(), heights, feet, labels, strict=True
    ):
        place = (
            (MARGIN + NAMES + GAP) / PAGE_WIDTH,
            top - height / total,
            AXIS / PAGE_WIDTH,
            height / total,
        )
        _block(drawn.add_axes(place), block, height)
        drawn.axes[-1].set_xlabel("\n".join(label))
        top -= (height + foot) / total
    return drawn


def axis_label(contrast: ContrastVerdict) -> str:
    """Return the label of the axis of a contrast; equal labels share an axis."""
    which = unit(contrast.scale, contrast.metric)
    if which == "%":
        return "change in per cent (log scale)"
    if which == "points":
        return "difference in points (percentage points)"
    scale = ", log2" if contrast.scale == "log2" else ""
    return f"difference: {metric_words(contrast.metric)}{scale}"


def _row(
    contrast: ContrastVerdict,
    registered: Design | None,
    alpha: float,
    head: Head,
    *,
    margin: bool,
) -> _Row:
    """Return the texts of a contrast, with its margin if `margin`."""
    numbers = str(words.numbers(contrast, alpha)).replace("-", "\N{MINUS SIGN}")
    if head.answers:  # nothing is stated that a p value could be against
        numbers = numbers.replace(" against", "")
    first = head.answer(contrast)
    last = f"\nmargin {margin_text(contrast)}" if margin else ""
    last = last.replace("-", "\N{MINUS SIGN}")
    width = PAGE_WIDTH - 2 * MARGIN - NAMES - AXIS - 2 * GAP
    ends = ends_of(contrast, registered)
    if max(text_width(end, END_SIZE) for end in ends) > AXIS:  # beside the axis is text
        ends = ends_of(contrast, None)
    needed = sum(text_width(end, END_SIZE) for end in ends) + 0.15
    return _Row(
        contrast=contrast,
        decision=head.decision(contrast),
        name=balanced(contrast.name, NAMES, NAME_SIZE, bold=contrast.primary),
        text=wrapped(f"{first}\n{titles.unbroken(numbers)}{last}", width, TEXT_SIZE),
        label=f"{first}\n{numbers}",
        ends=ends,
        wide_ends=needed > AXIS,
    )


def _block(axes: Axes, rows: Sequence[_Row], height: float) -> None:
    """Draw the contrasts of one unit; y is in inches from the top of the axes."""
    low, high = _limits([row.contrast for row in rows])
    axes.set_xlim(low, high)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.6)
    top = ROW_GAP
    places = []
    shown: Ends | None = None
    for row in rows:
        _row_of(axes, row, top, ends=row.ends != shown)
        shown = row.ends
        places.append(top + text_height(row.name, NAME_SIZE) / 2)
        top += row.height + ROW_GAP
    axes.set_yticks(places, ["\n".join(row.name) for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.contrast.primary else "normal")
        label.set_fontsize(NAME_SIZE)
    axes.set_ylim(height, 0)
    hide_y_axis(axes)
    if unit(rows[0].contrast.scale, rows[0].contrast.metric) == "%":
        ticks = list(_ratio_ticks(low, high))
        axes.set_xticks([log(ratio) for ratio in ticks], map(_per_cent, ticks))
    else:
        shares = unit(rows[0].contrast.scale, rows[0].contrast.metric) == "points"
        factor = 100 if shares else 1
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        axes.xaxis.set_major_formatter(
            lambda value, _: (
                f"{factor * value:+.4g}".replace("-", "\N{MINUS SIGN}")
                if value
                else "0"
            )
        )


def _row_of(axes: Axes, row: _Row, top: float, *, ends: bool) -> None:
    """Draw a row whose upper edge is at `top`, with its `ends` if these are new."""
    contrast = row.contrast
    middle = top + 0.08
    axes.add_patch(
        Rectangle(
            (-contrast.margin, top - ROW_GAP / 2),
            2 * contrast.margin,
            row.height + ROW_GAP,
            facecolor=TEXT_COLOUR,
            alpha=0.09,
            linewidth=0,
        )
    )
    _contrast(axes, contrast, row.decision, middle)
    text = axes.text(
        1 + GAP / AXIS,
        top,
        "\n".join(row.text),
        transform=axes.get_yaxis_transform(),
        va="top",
        fontsize=TEXT_SIZE,
        linespacing=LINE_SPACING,
    )
    text.set_label(row.label)
    if not ends:
        return
    below = top + 0.17
    for index, (end, side) in enumerate(zip(row.ends, ("left", "right"), strict=True)):
        line = index * text_height([""], END_SIZE) if row.wide_ends else 0.0
        axes.text(
            0.0 if side == "left" else 1.0,
            below + line,
            end,
            transform=axes.get_yaxis_transform(),
            ha=side,
            va="top",
            fontsize=END_SIZE,
            alpha=0.75,
        )


def _contrast(
    axes: Axes, contrast: ContrastVerdict, decision: Decision, place: float
) -> None:
    """Draw the values of the seeds, both intervals and the effect in one row."""
    assert contrast.effect is not None
    axes.plot(
        list(contrast.values.values()),
        [place] * len(contrast.values),
        linestyle="none",
        marker="|",
        color=TEXT_COLOUR,
        alpha=0.4,
        markersize=7,
        markeredgewidth=0.7,
    )
    for low, high, width in (
        (contrast.low, contrast.high, 1.0),
        (contrast.low_margin, contrast.high_margin, 2.4),
    ):
        if low is not None and high is not None:
            axes.plot(
                [low, high],
                [place, place],
                color=TEXT_COLOUR,
                linewidth=width,
                solid_capstyle="butt",
            )
    axes.plot(
        [contrast.effect],
        [place],
        marker=DECISIONS[decision],
        color=TEXT_COLOUR,
        markerfacecolor=TEXT_COLOUR if contrast.primary else BACKGROUND,
        markersize=5.5,
    )


def _limits(contrasts: Sequence[ContrastVerdict]) -> tuple[float, float]:
    """Return limits that contain all margins, intervals and seeds."""
    values = [
        value
        for contrast in contrasts
        for value in (
            *(-contrast.margin, contrast.margin, contrast.effect),
            *(contrast.low, contrast.high, contrast.low_margin, contrast.high_margin),
            *contrast.values.values(),
        )
        if value is not None
    ]
    room = 0.05 * (max(values) - min(values))
    return min(values) - room, max(values) + room


def _ratio_ticks(low: float, high: float) -> Iterator[float]:
    """Yield ratios for ticks between two log ratios, the most useful ones first."""
    inch = AXIS / (high - low)
    powers = (10.0**power for power in (1, -1, 2, -2, 3, -3, 4))
    chosen: list[float] = []
    for ratio in (1.0, 2.0, 0.5, 1.5, 0.67, 1.25, 0.8, *TICKS, *powers):
        place = log(ratio)
        if low <= place <= high and all(
            abs(place - log(other)) * inch >= TICK_GAP for other in chosen
        ):
            chosen.append(ratio)
            yield ratio


def _per_cent(ratio: float) -> str:
    change = 100 * (ratio - 1)
    text = f"{change:+,.0f}" if round(change) else "0"
    return text.replace("-", "\N{MINUS SIGN}")
