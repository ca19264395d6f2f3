"""Forest plots: the effects of contrasts with their intervals, in units of margins."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench.report import words
from normbench.report.figures.drawing import BACKGROUND, PAGE_WIDTH, TEXT_COLOUR, figure
from normbench.report.figures.palette import DECISIONS
from normbench.report.figures.series import hide_y_axis, metric_label
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict
from normbench.verdicts.wording import margin_text


def forest(design: DesignVerdict, alpha: float, title: str) -> Figure:
    """Draw the effect of each contrast of a design with its intervals.

    The axis is in units of each contrast's margin. An arrow marks an effect beyond it.
    """
    rows = [
        (contrast, str(formatted).replace("-", "\N{MINUS SIGN}"))
        for contrast in design.contrasts
        if (formatted := words.numbers(contrast, alpha))
    ]
    description = "\n".join(
        f"{contrast.name}: {words.decision(contrast)}, "
        f"{metric_label(contrast.metric)} {numbers}, margin {margin_text(contrast)}"
        for contrast, numbers in rows
    )
    names = [balanced(contrast.name, 38) for contrast, _ in rows]
    places = []  # the middle of each row, in lines of text from the top
    bottom = 0.0
    for name in names:
        height = max(2, name.count("\n") + 1)
        places.append(bottom + height / 2)
        bottom += height + 0.7
    drawn = figure(PAGE_WIDTH, 0.135 * bottom + 0.6, f"{title}: contrasts", description)
    axes = drawn.subplots()
    limits = _limits([contrast for contrast, _ in rows])
    axes.set_xlim(*limits)
    axes.axvspan(-1, 1, color=TEXT_COLOUR, alpha=0.08, lw=0)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.6)
    for place, (contrast, numbers) in zip(places, rows, strict=True):
        _contrast(axes, contrast, place, limits)
        axes.text(
            1.02,
            place,
            f"{metric_label(contrast.metric)}, expected "
            f"{words.SHORT_EXPECTATIONS[contrast.says]}: "
            f"{words.decision(contrast)}\n{numbers}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            linespacing=1.35,
        )
    axes.set_yticks(places, names)
    for label, (contrast, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if contrast.primary else "normal")
    axes.set_ylim(bottom - 0.3, -0.4)
    hide_y_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("effect, in margins (shaded: within the margin)")
    return drawn


def balanced(text: str, width: int) -> str:
    """Wrap `text` into as few lines as possible, of similar lengths up to `width`."""
    lines = textwrap.wrap(text, width)
    for narrower_width in range(width - 1, width // 2, -1):
        narrower_lines = textwrap.wrap(text, narrower_width)
        if len(narrower_lines) > len(lines):
            break
        lines = narrower_lines
    return "\n".join(lines)


def _limits(contrasts: Sequence[ContrastVerdict]) -> tuple[float, float]:
    """Return the limits of the axis in margins, at most `words.MAX_MARGINS` from 0."""
    values = [
        value / contrast.margin
        for contrast in contrasts
        for value in (contrast.low, contrast.high, *contrast.values.values())
        if value is not None
    ]
    room = 0.04 * (max(values) - min(values))
    return (
        max(-words.MAX_MARGINS, min(-1.6, min(values) - room)),
        min(words.MAX_MARGINS, max(1.6, max(values) + room)),
    )


def _contrast(
    axes: Axes, contrast: ContrastVerdict, place: float, limits: tuple[float, float]
) -> None:
    """Draw the values of the seeds, both intervals and the effect in one row."""
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
    room = 0.015 * (limits[1] - limits[0])
    x = min(limits[1] - room, max(limits[0] + room, effect))
    if effect == x:
        marker = look.marker
    else:
        marker = ">" if effect > x else "<"
    axes.plot(
        [x],
        [place],
        marker=marker,
        color=look.colour,
        markerfacecolor=look.colour if contrast.primary else BACKGROUND,
        markersize=5.5,
        clip_on=False,
    )
