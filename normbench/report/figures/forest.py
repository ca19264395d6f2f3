"""Contrasts as a forest: effects with their intervals against their margins."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench.report.figures.drawing import INK, PAGE, PAPER, figure
from normbench.report.figures.palette import DECISIONS
from normbench.report.figures.series import measured
from normbench.report.words import headline
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict

MOST_MARGINS = 10.0
"""Where the axis ends: what is beyond has an arrow, and its number."""
EXPECTED = {"greater": "> 0", "less": "< 0", "equal": "= 0", "not_greater": "not > 0"}


def forest(design: DesignVerdict, alpha: float, title: str) -> Figure:
    """Effects of contrasts in units of their margins, with their intervals."""
    shown = [each for each in design.contrasts if each.effect is not None]
    names = [balanced(contrast.name, 38) for contrast in shown]
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
            f"{measured(contrast.metric)}, expected {EXPECTED[contrast.says]}: "
            f"{headline(contrast.headline)}\n{_numbers(contrast, alpha)}",
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


def balanced(text: str, width: int) -> str:
    """As many lines as it takes, of about one length."""
    lines = textwrap.wrap(text, width)
    for narrower in range(width - 1, width // 2, -1):
        again = textwrap.wrap(text, narrower)
        if len(again) > len(lines):
            break
        lines = again
    return "\n".join(lines)


def _reach(contrasts: Sequence[ContrastVerdict]) -> tuple[float, float]:
    """Both ends of the axis: all intervals are on it, but for what is far away."""
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


def _numbers(contrast: ContrastVerdict, alpha: float) -> str:
    assert contrast.interval is not None
    low, high, wide = contrast.interval
    share = 1 - alpha if wide else 1 - 2 * alpha
    return (
        f"{contrast.effect:+.4f}, {share:.0%} [{low:+.4f}, {high:+.4f}], "
        f"n {contrast.n}, p {contrast.p_shown}"
    ).replace("-", "\N{MINUS SIGN}")


def _effects(contrasts: Sequence[ContrastVerdict], alpha: float) -> str:
    return "\n".join(
        f"{contrast.name}: {headline(contrast.headline)}, {measured(contrast.metric)} "
        f"{_numbers(contrast, alpha)}, margin {contrast.margin:g}"
        for contrast in contrasts
    )
