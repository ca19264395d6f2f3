"""Contrasts as a forest: effects with their intervals against their margins."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench.report import words
from normbench.report.figures.drawing import INK, PAGE, PAPER, figure
from normbench.report.figures.palette import DECISIONS
from normbench.report.figures.series import hide_y_axis, measured
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict

MOST_MARGINS = 10.0
"""The end of the axis; an arrow and a number stand for an effect beyond it."""


def forest(design: DesignVerdict, alpha: float, title: str) -> Figure:
    """Effects of contrasts in units of their margins, with their intervals."""
    shown = [
        (contrast, str(numbers).replace("-", "\N{MINUS SIGN}"))
        for contrast in design.contrasts
        if (numbers := words.numbers(contrast, alpha))
    ]
    description = "\n".join(
        f"{contrast.name}: {words.headline(contrast.headline)}, "
        f"{measured(contrast.metric)} {numbers}, margin {contrast.margin:g}"
        for contrast, numbers in shown
    )
    names = [balanced(contrast.name, 38) for contrast, _ in shown]
    places, line = [], 0.0
    for name in names:
        height = max(2, name.count("\n") + 1)
        places.append(line + height / 2)
        line += height + 0.7
    made = figure(PAGE, 0.135 * line + 0.6, f"{title}: contrasts", description)
    axes = made.subplots()
    ends = _ends([contrast for contrast, _ in shown])
    axes.set_xlim(*ends)
    axes.axvspan(-1, 1, color=INK, alpha=0.08, lw=0)
    axes.axvline(0, color=INK, linewidth=0.6)
    for place, (contrast, line_of_numbers) in zip(places, shown, strict=True):
        _contrast(axes, contrast, place, ends)
        axes.text(
            1.02,
            place,
            f"{measured(contrast.metric)}, expected "
            f"{words.EXPECTED_SHORT[contrast.says]}: "
            f"{words.headline(contrast.headline)}\n{line_of_numbers}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            linespacing=1.35,
        )
    axes.set_yticks(places, names)
    for label, (contrast, _) in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if contrast.primary else "normal")
    axes.set_ylim(line - 0.3, -0.4)
    hide_y_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("effect, in margins (shaded: within the margin)")
    return made


def balanced(text: str, width: int) -> str:
    """`text` in the fewest lines of at most `width`, all of about one length."""
    lines = textwrap.wrap(text, width)
    for narrower in range(width - 1, width // 2, -1):
        again = textwrap.wrap(text, narrower)
        if len(again) > len(lines):
            break
        lines = again
    return "\n".join(lines)


def _ends(contrasts: Sequence[ContrastVerdict]) -> tuple[float, float]:
    """Both ends of the axis, in margins: it has all intervals up to MOST_MARGINS."""
    ends = [
        end / contrast.margin
        for contrast in contrasts
        for end in (contrast.low, contrast.high, *contrast.values.values())
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
    look = DECISIONS[contrast.headline]
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
    room = 0.015 * (ends[1] - ends[0])
    inside = min(ends[1] - room, max(ends[0] + room, effect))
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
