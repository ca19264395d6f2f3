"""A verdict as text: theorem, mechanism and outcome apart."""

from collections.abc import Iterator

from normbench.report import words
from normbench.report.published import published_line
from normbench.report.text.paragraph import paragraph
from normbench.verdicts.verdict import (
    CellSummary,
    ContrastVerdict,
    DesignVerdict,
    TheoremVerdict,
    Verdict,
)

PLOT = 41
"""Characters of a plotted interval; odd, so that 0 is in the middle."""
LABEL = 2 + max(map(len, words.HEADLINES.values()))
"""Columns of a decision, before what it is of."""
DETAIL = 4 + LABEL
"""Columns before the details of a contrast."""


def text(verdict: Verdict, width: int = 88) -> str:
    """The whole verdict, for a terminal; what limits it comes first."""
    return "\n".join(_lines(verdict, width))


def _lines(verdict: Verdict, width: int) -> Iterator[str]:
    shown = words.row(verdict)
    if withdrawn := words.notice([verdict]):
        yield paragraph("note: ", withdrawn, width)
    for caveat in verdict.caveats:
        yield paragraph("note: ", caveat, width)
    yield paragraph(f"{verdict.claim}: ", shown.statement, width)
    yield paragraph("source: ", verdict.source, width)
    yield ""
    yield paragraph(f"{'THEOREM':<11}", shown.theorem, width)
    for theorem in verdict.theorems:
        yield from _theorem(theorem, width)
    for title, headline, designs in (
        ("MECHANISM", shown.mechanism, verdict.mechanisms),
        ("OUTCOME", shown.outcome, verdict.outcomes),
    ):
        yield ""
        yield paragraph(f"{title:<11}", headline, width)
        for design in designs:
            yield from _design(design, verdict.alpha, width)
    if verdict.census:
        yield ""
        yield "CENSUS     default norms of the models in"
        for zoo, counts in verdict.census.items():
            counted = ", ".join(f"{name} {count}" for name, count in counts.items())
            yield paragraph(f"{zoo}: ", counted, width, indent=2)
            yield paragraph("", words.census_built(verdict, zoo), width, indent=4)
    if verdict.published:
        yield ""
    for published in verdict.published:
        yield paragraph("published: ", published_line(published), width)
    yield ""
    yield f"reproduce: {verdict.command}"


def _theorem(theorem: TheoremVerdict, width: int) -> Iterator[str]:
    deviation, tolerance, control = words.theorem_numbers(theorem)
    label = f"{words.headline(theorem.decision):<{LABEL}}"
    yield paragraph(label, theorem.statement, width, indent=2)
    detail = f"deviation {deviation} (tolerance {tolerance})"
    detail += f"; control {control}" if control else ""
    yield paragraph("", detail, width, indent=DETAIL - 2)


def _design(design: DesignVerdict, alpha: float, width: int) -> Iterator[str]:
    failed = [arm for arm, passed in design.gate.items() if not passed]
    yield paragraph(f"{design.name}: ", design.question, width, indent=2)
    if failed:
        yield paragraph("did not train: ", ", ".join(failed), width, indent=4)
    metric = next(iter(words.metrics(design)), None)
    for cell in design.cells:
        yield paragraph(f"{cell.cell}: ", _cell(cell, metric), width, indent=4)
    for contrast in design.contrasts:
        yield from _contrast(contrast, words.reach(design), alpha, width)
    for crossing in design.crossovers:
        what = f"{crossing.name}: {words.crossover(crossing)}"
        yield paragraph(f"{'crossover':<{LABEL}}", what, width, indent=4)


def _cell(cell: CellSummary, metric: str | None) -> str:
    if cell.skipped:
        return words.cell_end(cell)
    parts = [f"n {cell.n}", words.cell_end(cell)]
    if metric in cell.mean:
        sd = cell.sd.get(metric)
        spread = "" if sd is None else f" sd {sd:.4f}"
        parts.insert(0, f"{metric} {cell.mean[metric]:.4f}{spread}")
    rate = cell.rate
    parts.append(f"lr {rate.lr:g}" + " (of a full check)" * rate.frozen)
    if len(rate.validation) > 1:
        tried = ", ".join(
            f"{lr}: {'-' if value is None else f'{value:.4f}'}"
            for lr, value in rate.validation.items()
        )
        edge = ", at the edge" * rate.at_edge
        parts.append(f"good {words.good_rates(cell)}{edge}; validation by lr {tried}")
    return ", ".join(filter(None, parts))


def _contrast(
    contrast: ContrastVerdict, reach: float, alpha: float, width: int
) -> Iterator[str]:
    marks = "*" * contrast.primary + " (exploratory)" * contrast.exploratory
    label = f"{words.headline(contrast.headline):<{LABEL}}"
    yield paragraph(label, f"{contrast.name}{marks}", width, indent=4)
    if numbers := words.numbers(contrast, alpha):
        line = f"{contrast.metric} {numbers}, margin {contrast.margin:g}"
        yield paragraph("", line, width, indent=DETAIL)
        yield " " * DETAIL + plot(contrast, reach)
    if contrast.above is not None:
        ends = f"{contrast.above_low:.0%}, {contrast.above_high:.0%}"
        line = f"above 0 on {contrast.above:.0%} of seeds [{ends}]"
        yield paragraph("", line, width, indent=DETAIL)
    if contrast.at_one_rate:
        effects = (
            f"{lr}: {effect:+.4f}" for lr, effect in contrast.at_one_rate.items()
        )
        line = f"on tuning seeds, every cell at one lr {', '.join(effects)}"
        yield paragraph("", line, width, indent=DETAIL)
    yield paragraph("", words.because(contrast), width, indent=DETAIL)


def plot(contrast: ContrastVerdict, reach: float) -> str:
    """The interval on a line from -reach to reach; `(` `)`: margins, `o`: effect.

    "  (  |  ) --o--" means: above the margin.
    """
    assert contrast.effect is not None and contrast.interval is not None
    low, high, _ = contrast.interval

    def place(value: float) -> int:
        share = (value / reach + 1) / 2
        return min(PLOT - 1, max(0, round(share * (PLOT - 1))))

    line = [" "] * PLOT
    for i in range(place(low), place(high) + 1):
        line[i] = "-"
    line[place(0.0)] = "|"
    line[place(-contrast.margin)] = "("
    line[place(contrast.margin)] = ")"
    line[place(contrast.effect)] = "o"
    return "".join(line).rstrip()
