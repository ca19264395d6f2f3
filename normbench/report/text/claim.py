"""A registered claim as text for a terminal: the evidence that a check will count."""

from collections.abc import Iterator, Mapping, Sequence

from normbench.report import words
from normbench.report.published import published_line
from normbench.report.text.paragraph import paragraph
from normbench.verdicts.counting import CensusRule
from normbench.verdicts.design import Contrast, DataSet, Design
from normbench.verdicts.registration import Claim
from normbench.verdicts.wording import contradiction_text, rule_text

RELATIONS = {
    "greater": "is above {}",
    "less": "is below {}",
    "equal": "is {} within the margin",
    "not_greater": "is not above {} by the margin",
}
SCALES = {"ratio": "logarithm of the mean", "log2": "log2"}


def claim_text(
    claim: Claim,
    statements: Mapping[str, str],
    costs: Sequence[str],
    width: int,
) -> str:
    """Return the whole claim as lines of at most `width` characters.

    `statements` maps the check of a theorem to the sentence of the theorem. `costs` are
    lines on the cost of a check.
    """
    return "\n".join(_lines(claim, statements, costs, width))


def _lines(
    claim: Claim,
    statements: Mapping[str, str],
    costs: Sequence[str],
    width: int,
) -> Iterator[str]:
    yield paragraph(f"{claim.name}: ", claim.statement, width)
    yield "parts:"
    for name, part in claim.parts.items():
        text = f"{name}: {part.sentence} (for {part.scope})"
        yield paragraph("- ", text, width, indent=2)
    yield paragraph("source: ", claim.source, width)
    theorems = [
        f"{statements[theorem.check]} (within {theorem.tolerance:g})"
        + ("" if theorem.part is None else f"; bears {theorem.bears} {theorem.part}")
        for theorem in claim.theorems
    ]
    for title, items in (
        ("published", [published_line(line) for line in claim.published]),
        ("confounds", claim.confounds),
        ("seen before", claim.seen),
        ("theorems", theorems),
        ("census, of a full check only", list(map(_rule, claim.census))),
    ):
        if items:
            yield f"{title}:"
            yield from (paragraph("- ", item, width, indent=2) for item in items)
    for kind, designs in (
        ("mechanism", claim.mechanisms),
        ("outcome", claim.outcomes),
    ):
        for name, design in designs.items():
            yield ""
            yield paragraph(f"{kind} {name}: ", design.question, width)
            yield from _design(design, width)
    yield ""
    yield "* primary: the headlines rest on these contrasts, adjusted by Holm"
    yield from costs


def _rule(rule: CensusRule) -> str:
    bears = "" if rule.part is None else f"; bears {rule.bears} {rule.part}"
    return (
        f"{rule.name}: {rule_text(rule)}; contradicted by {contradiction_text(rule)} "
        f"({rule.reason}{bears})"
    )


def _design(design: Design, width: int) -> Iterator[str]:
    def row(label: str, text: str) -> str:
        return paragraph(f"{label:<9}", text, width, indent=2)

    yield row("common", design.common)
    for name, data in design.data.items():
        yield row("data", f"{name}: {data.overrides}{_instead(data, design)}")
    for arm, overrides in design.arms.items():
        yield row("arm", f"{arm}: {overrides}")
    for level, overrides in design.levels.items():
        if overrides:
            yield row("level", f"{level}: {overrides}")
    cells = design.all_cells()
    if design.cells is not None:
        yield row("cells", ", ".join(cells))
    choice = "not tuned"
    if len(design.rates) > 1:
        choice = f"all on every seed, chosen by {design.validation}"
    rates = ", ".join(f"{lr:g}" for lr in design.rates)
    seeds = f"{design.seeds} seeds"
    if design.looks:
        seeds = words.registered_looks(design.looks, design.spending)
    yield row("runs", f"{len(cells)} cells, {seeds}; lr {rates}, {choice}")
    yield row(
        "gate",
        f"an arm counts as trained if {design.gate.metric} < {design.gate.below:g}",
    )
    if design.probes:
        yield row("probes", ", ".join(design.probes))
    for contrast in design.contrasts:
        yield row("expected", _contrast(contrast))
    for crossing in design.crossovers:
        cross = f"level at which curves of {crossing.metric} cross, not judged"
        yield row("reported", f"{crossing.name}: {cross}")


def _instead(data: DataSet, design: Design) -> str:
    """Return what a data set has instead of the gate and the rates of its design."""
    text = ""
    if data.below is not None:
        text += f"; gate {design.gate.metric} < {data.below:g}"
    if data.rates is not None:
        text += f"; lr {', '.join(f'{lr:g}' for lr in data.rates)}"
    return text


def _contrast(contrast: Contrast) -> str:
    name = f"{contrast.name}*" if contrast.primary else contrast.name
    metric = " and ".join([contrast.metric, *contrast.also])
    if contrast.scale != "difference":
        metric = f"{SCALES[contrast.scale]} of {metric}"
    if contrast.weights is None:
        quantity = f"slope of {metric} on log2 level of {contrast.slope}"
    else:
        quantity = f"{metric}, {_weighted_sum(contrast.weights)},"
    relation = RELATIONS[contrast.says].format(f"{contrast.expected:g}")
    size = (
        f"{contrast.margin:.0%}"
        if contrast.scale == "ratio"
        else f"{contrast.margin:g}"
    )
    margin = f"margin {size}: {contrast.reason}"
    if contrast.part is not None:
        margin += f"; bears {contrast.bears} {contrast.part}"
    return f"{name}: {quantity} {relation} ({margin})"


def _weighted_sum(weights: Mapping[str, float]) -> str:
    """Write weights as a sum of cells, such as "a@2 - 0.5 b@2"."""
    terms = []
    for cell, weight in weights.items():
        sign = "-" if weight < 0 else "+"
        # A design without levels has one level, which is named "-".
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} "
        terms.append(f"{sign} {factor}{cell.removesuffix('@-')}")
    return " ".join(terms).removeprefix("+ ")
