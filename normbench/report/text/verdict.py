"""A verdict as text for a terminal: the parts first, then the details."""

from collections.abc import Iterator
from typing import get_args

from normbench.report import words
from normbench.report.published import published_line
from normbench.report.text.paragraph import paragraph
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import (
    ContrastVerdict,
    Decision,
    DesignVerdict,
    TheoremVerdict,
    Verdict,
)
from normbench.verdicts.wording import margin_text

PLOT_WIDTH = 41
"""Characters of a plotted interval; an odd number, so that 0 is in the middle."""
DECISION_WIDTH = 2 + max(map(len, get_args(Decision)))
"""Characters of the longest decision, and two spaces after it."""
DETAIL_INDENT = 4 + DECISION_WIDTH
"""Number of spaces before the details of a contrast."""


def verdict_text(verdict: Verdict, width: int = 88, *, details: bool = False) -> str:
    """Return a verdict as lines of at most `width` characters.

    The text has the headline and the finding of each part. With `details`, it also has
    all theorems, cells, contrasts and rates. Only the plot of an interval may be wider
    than `width`.
    """
    lines = [*_parts(verdict, width)]
    if details:
        lines += _details(verdict, width)
    lines += ["", f"reproduce: {verdict.command}"]
    return "\n".join(lines)


def details_text(verdict: Verdict, width: int) -> str:
    """Return all cells, contrasts and rates of the designs of a verdict, as lines."""
    return "\n".join(
        line
        for design in verdict.designs
        for line in _design(design, verdict.alpha, width)
    )


def _parts(verdict: Verdict, width: int) -> Iterator[str]:
    for caveat in verdict.caveats:
        yield paragraph("note: ", caveat, width)
    yield paragraph(f"{verdict.claim}: ", verdict.statement, width)
    yield paragraph("Is it right? ", words.short_answer(verdict), width)
    for part in verdict.parts:
        yield ""
        headline = words.headline(part, capitals=True)
        yield paragraph("", f"{headline}: {part.sentence}", width)
        label = "" if part.finding else "- "
        for line in words.findings(part, verdict):
            yield paragraph(label, line, width, indent=2)
        yield paragraph("for ", part.scope, width, indent=2)


def _details(verdict: Verdict, width: int) -> Iterator[str]:
    yield ""
    yield paragraph("source: ", verdict.source, width)
    yield paragraph("registered: ", words.registration(verdict), width)
    for line in verdict.seen:
        yield paragraph("seen before: ", line, width)
    if verdict.theorems:
        yield ""
        yield "THEOREM"
    for theorem in verdict.theorems:
        yield from _theorem(theorem, width)
    if verdict.census:
        yield ""
        yield "CENSUS"
    for rule in verdict.census:
        label = f"{rule.decision:<{DECISION_WIDTH}}"
        yield paragraph(label, words.census_line(rule), width, indent=2)
        counts = words.census_counts(rule)
        yield paragraph("", counts, width, indent=2 + DECISION_WIDTH)
    for title, designs in (
        ("MECHANISM", verdict.mechanisms),
        ("OUTCOME", verdict.outcomes),
    ):
        if designs:
            yield ""
            yield title
        for design in designs:
            yield from _design(design, verdict.alpha, width)
    if verdict.published:
        yield ""
    for line in verdict.published:
        yield paragraph("published: ", published_line(line), width)


def _theorem(theorem: TheoremVerdict, width: int) -> Iterator[str]:
    deviation, tolerance, control = words.theorem_numbers(theorem)
    label = f"{theorem.decision:<{DECISION_WIDTH}}"
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
    parts.append(words.rates(cell))
    return ", ".join(filter(None, parts))


def _contrast(
    contrast: ContrastVerdict, limit: float, alpha: float, width: int
) -> Iterator[str]:
    name = f"{contrast.name}*" if contrast.primary else contrast.name
    if contrast.exploratory:
        name += " (exploratory)"
    label = f"{words.decision(contrast):<{DECISION_WIDTH}}"
    yield paragraph(label, name, width, indent=4)
    if numbers := words.numbers(contrast, alpha):
        line = f"{contrast.metric} {numbers}, margin {margin_text(contrast)}"
        yield paragraph("", line, width, indent=DETAIL_INDENT)
        yield " " * DETAIL_INDENT + plot(contrast, limit)
    if contrast.above is not None:
        interval = f"{contrast.above_low:.0%}, {contrast.above_high:.0%}"
        line = f"above 0 on {contrast.above:.0%} of seeds [{interval}]"
        yield paragraph("", line, width, indent=DETAIL_INDENT)
    for line in words.other_estimates(contrast):
        yield paragraph("", line, width, indent=DETAIL_INDENT)
    yield paragraph("", words.explanation(contrast), width, indent=DETAIL_INDENT)


def plot(contrast: ContrastVerdict, limit: float) -> str:
    """Return the interval of a contrast as a line of text.

    The line goes from -`limit` to `limit`, in margins of the contrast. `-` is the
    interval, `o` the effect, `|` zero; `(` and `)` are the margins. For example,
    "  (  |  ) --o--" is an interval above the margin. `<` or `>` is an effect beyond
    the line.
    """
    assert contrast.effect is not None and contrast.interval is not None

    def column(value: float) -> int:
        share = (value / (limit * contrast.margin) + 1) / 2
        return min(PLOT_WIDTH - 1, max(0, round(share * (PLOT_WIDTH - 1))))

    line = [" "] * PLOT_WIDTH
    for i in range(column(contrast.interval.low), column(contrast.interval.high) + 1):
        line[i] = "-"
    line[column(0.0)] = "|"
    line[column(-contrast.margin)] = "("
    line[column(contrast.margin)] = ")"
    beyond = abs(contrast.effect) > limit * contrast.margin
    line[column(contrast.effect)] = "<>"[contrast.effect > 0] if beyond else "o"
    return "".join(line).rstrip()
