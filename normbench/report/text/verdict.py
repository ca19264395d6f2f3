"""A verdict as text for a terminal: theorem, mechanism and outcome separately."""

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

PLOT_WIDTH = 41
"""Characters of a plotted interval; an odd number, so that 0 is in the middle."""
DECISION_WIDTH = 2 + max(map(len, words.HEADLINES.values()))
"""Characters of the longest decision, and two spaces after it."""
DETAIL_INDENT = 4 + DECISION_WIDTH
"""Number of spaces before the details of a contrast."""


def verdict_text(verdict: Verdict, width: int = 88) -> str:
    """Return the whole verdict as lines of at most `width` characters; caveats first.

    Only the plot of an interval may be wider than `width`.
    """
    return "\n".join(_lines(verdict, width))


def _lines(verdict: Verdict, width: int) -> Iterator[str]:
    row = words.table_row(verdict)
    if withdrawals := words.withdrawals([verdict]):
        yield paragraph("note: ", withdrawals, width)
    for caveat in verdict.caveats:
        yield paragraph("note: ", caveat, width)
    yield paragraph(f"{verdict.claim}: ", row.statement, width)
    yield paragraph("source: ", verdict.source, width)
    yield ""
    yield paragraph(f"{'THEOREM':<11}", row.theorem, width)
    for theorem in verdict.theorems:
        yield from _theorem(theorem, width)
    for title, decision, designs in (
        ("MECHANISM", row.mechanism, verdict.mechanisms),
        ("OUTCOME", row.outcome, verdict.outcomes),
    ):
        yield ""
        yield paragraph(f"{title:<11}", decision, width)
        for design in designs:
            yield from _design(design, verdict.alpha, width)
    if verdict.census:
        yield ""
        yield "CENSUS     default norms of the models in"
        for library, counts in verdict.census.items():
            norms = ", ".join(f"{name} {count}" for name, count in counts.items())
            yield paragraph(f"{library}: ", norms, width, indent=2)
            coverage = words.census_coverage(verdict, library)
            yield paragraph("", coverage, width, indent=4)
    if verdict.published:
        yield ""
    for line in verdict.published:
        yield paragraph("published: ", published_line(line), width)
    yield ""
    yield f"reproduce: {verdict.command}"


def _theorem(theorem: TheoremVerdict, width: int) -> Iterator[str]:
    deviation, tolerance, control = words.theorem_numbers(theorem)
    label = f"{words.headline(theorem.decision):<{DECISION_WIDTH}}"
    yield paragraph(label, theorem.statement, width, indent=2)
    detail = f"deviation {deviation} (tolerance {tolerance})"
    if control:
        detail += f"; control {control}"
    yield paragraph("", detail, width, indent=2 + DECISION_WIDTH)


def _design(design: DesignVerdict, alpha: float, width: int) -> Iterator[str]:
    untrained = [arm for arm, passed in design.gate.items() if not passed]
    yield paragraph(f"{design.name}: ", design.question, width, indent=2)
    if untrained:
        yield paragraph("did not train: ", ", ".join(untrained), width, indent=4)
    # The text of a cell shows one metric: the metric of the first contrast.
    metric = next(iter(words.metrics(design)), None)
    for cell in design.cells:
        yield paragraph(f"{cell.cell}: ", _cell(cell, metric), width, indent=4)
    for contrast in design.contrasts:
        yield from _contrast(contrast, words.axis_limit(design), alpha, width)
    for crossing in design.crossovers:
        text = f"{crossing.name}: {words.crossover(crossing)}"
        yield paragraph(f"{'crossover':<{DECISION_WIDTH}}", text, width, indent=4)


def _cell(cell: CellSummary, metric: str | None) -> str:
    if cell.skipped:
        return words.cell_problems(cell)
    parts = [f"n {cell.n}", words.cell_problems(cell)]
    if metric in cell.mean:
        sd = cell.sd.get(metric)
        deviation = "" if sd is None else f" sd {sd:.4f}"
        parts.insert(0, f"{metric} {cell.mean[metric]:.4f}{deviation}")
    rate = cell.rate
    origin = " (chosen by a full check)" if rate.frozen else ""
    parts.append(f"lr {rate.lr:g}{origin}")
    if len(rate.validation) > 1:
        validation = ", ".join(
            f"{lr}: {'-' if value is None else f'{value:.4f}'}"
            for lr, value in rate.validation.items()
        )
        edge = ", at the edge" if rate.at_edge else ""
        parts.append(
            f"good {words.good_rates(cell)}{edge}; validation by lr {validation}"
        )
    return ", ".join(filter(None, parts))


def _contrast(
    contrast: ContrastVerdict, limit: float, alpha: float, width: int
) -> Iterator[str]:
    name = f"{contrast.name}*" if contrast.primary else contrast.name
    if contrast.exploratory:
        name += " (exploratory)"
    label = f"{words.headline(contrast.headline):<{DECISION_WIDTH}}"
    yield paragraph(label, name, width, indent=4)
    if numbers := words.numbers(contrast, alpha):
        line = f"{contrast.metric} {numbers}, margin {contrast.margin:g}"
        yield paragraph("", line, width, indent=DETAIL_INDENT)
        yield " " * DETAIL_INDENT + plot(contrast, limit)
    if contrast.above is not None:
        interval = f"{contrast.above_low:.0%}, {contrast.above_high:.0%}"
        line = f"above 0 on {contrast.above:.0%} of seeds [{interval}]"
        yield paragraph("", line, width, indent=DETAIL_INDENT)
    if contrast.at_one_rate:
        effects = (
            f"{lr}: {effect:+.4f}" for lr, effect in contrast.at_one_rate.items()
        )
        line = f"on tuning seeds, every cell at one lr {', '.join(effects)}"
        yield paragraph("", line, width, indent=DETAIL_INDENT)
    yield paragraph("", words.explanation(contrast), width, indent=DETAIL_INDENT)


def plot(contrast: ContrastVerdict, limit: float) -> str:
    """Return the interval of a contrast as a line of text from -limit to limit.

    `-` is the interval, `o` the effect, `|` zero; `(` and `)` are the margins. For
    example, "  (  |  ) --o--" is an interval above the margin.
    """
    assert contrast.effect is not None and contrast.interval is not None

    def column(value: float) -> int:
        share = (value / limit + 1) / 2
        return min(PLOT_WIDTH - 1, max(0, round(share * (PLOT_WIDTH - 1))))

    line = [" "] * PLOT_WIDTH
    for i in range(column(contrast.interval.low), column(contrast.interval.high) + 1):
        line[i] = "-"
    line[column(0.0)] = "|"
    line[column(-contrast.margin)] = "("
    line[column(contrast.margin)] = ")"
    line[column(contrast.effect)] = "o"
    return "".join(line).rstrip()
