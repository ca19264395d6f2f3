"""A verdict as text: theorem, mechanism and outcome apart."""

import math
from collections.abc import Iterator, Sequence

from normbench.claims import ContrastVerdict, DesignVerdict, TheoremVerdict, Verdict

WIDTH = 41
"""Characters of a plotted interval; odd, so that 0 is in the middle."""


def text(verdict: Verdict) -> str:
    """The whole verdict, for a terminal."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.claim}: {verdict.statement}"
    yield f"source: {verdict.source}"
    for caveat in verdict.caveats:
        yield f"note: {caveat}"
    yield ""
    yield f"THEOREM    {verdict.theorem}"
    for theorem in verdict.theorems:
        yield from _theorem(theorem)
    for title, decision, designs in (
        ("MECHANISM", verdict.mechanism, verdict.mechanisms),
        ("OUTCOME", verdict.outcome, verdict.outcomes),
    ):
        yield ""
        yield f"{title:<10} {decision}"
        for design in designs:
            yield from _design(design)
    if verdict.census:
        yield ""
        for zoo, counts in verdict.census.items():
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            yield f"  {zoo}: {shown}"
    for published in verdict.published:
        yield f"published: {published}"
    yield ""
    yield f"reproduce: {verdict.command}"


def _theorem(theorem: TheoremVerdict) -> Iterator[str]:
    control = "" if theorem.control is None else f"; control {theorem.control:.2g}"
    yield f"  {theorem.decision:<13} {theorem.statement}"
    yield (
        f"  {'':<13} deviation {theorem.deviation:.2g} "
        f"(tolerance {theorem.tolerance:.2g}){control}"
    )


def _design(design: DesignVerdict) -> Iterator[str]:
    failed = [arm for arm, passed in design.gate.items() if not passed]
    yield f"  {design.name}: {design.question}"
    if failed:
        yield f"    did not train: {', '.join(failed)}"
    for cell in design.cells:
        if cell.skipped:
            yield f"    skipped {cell.cell}: {cell.skipped}"
        elif cell.diverged or cell.failed:
            yield f"    {cell.cell}: {cell.diverged} diverged, {cell.failed} failed"
    shown = [c for c in design.contrasts if c.effect is not None]
    scale = max((_reach(c) for c in shown), default=0.0)
    for contrast in design.contrasts:
        yield from _contrast(contrast, scale)
    for crossing in design.crossovers:
        at, low, high = (
            "beyond the levels" if x is None else f"{x:.3g}"
            for x in (crossing.at, crossing.low, crossing.high)
        )
        yield (
            f"    {'crossover':<13} {crossing.name}: at {at} [{low}, {high}], "
            f"n {crossing.n}"
        )


def _contrast(contrast: ContrastVerdict, scale: float) -> Iterator[str]:
    marks = "*" * contrast.primary + " (exploratory)" * contrast.exploratory
    yield f"    {contrast.decision:<13} {contrast.name}{marks}"
    if contrast.effect is None:
        yield f"    {'':<13} {contrast.because}"
        return
    yield f"    {'':<13} {numbers(contrast)}"
    if scale > 0:
        yield f"    {'':<13} {plot(contrast, scale)}"
    needed = contrast.seeds_needed
    settle = f"; about {needed} seeds would settle it" if needed else ""
    yield f"    {'':<13} {contrast.because}{settle}"


def numbers(contrast: ContrastVerdict) -> str:
    """Effect, interval, n and margin of a contrast that has them."""
    p = contrast.p if contrast.p_adjusted is None else contrast.p_adjusted
    assert contrast.effect is not None and contrast.low is not None
    assert contrast.high is not None and p is not None
    return (
        f"{contrast.metric} {contrast.effect:+.4f} "
        f"[{contrast.low:+.4f}, {contrast.high:+.4f}], n {contrast.n}, "
        f"p {p:.2g}, margin {contrast.margin:g}"
    )


def plot(contrast: ContrastVerdict, scale: float) -> str:
    """The interval on a line from -scale to scale: `(` `)` the margins, `o` the effect.

    "  (  |  ) --o--" says: above the margin.
    """
    assert contrast.effect is not None and contrast.low is not None
    assert contrast.high is not None

    def place(value: float) -> int:
        share = (value / scale + 1) / 2
        return min(WIDTH - 1, max(0, round(share * (WIDTH - 1))))

    line = [" "] * WIDTH
    for i in range(place(contrast.low), place(contrast.high) + 1):
        line[i] = "-"
    line[place(0.0)] = "|"
    line[place(-contrast.margin)] = "("
    line[place(contrast.margin)] = ")"
    line[place(contrast.effect)] = "o"
    return "".join(line).rstrip()


def _reach(contrast: ContrastVerdict) -> float:
    ends: Sequence[float | None] = (contrast.low, contrast.high, contrast.margin)
    finite = [abs(e) for e in ends if e is not None and math.isfinite(e)]
    return 1.05 * max(finite)
