"""A registered claim as text: what will be counted as evidence, before any run."""

from collections.abc import Iterator, Mapping, Sequence

from normbench.report.published import published_line
from normbench.report.text.paragraph import paragraph
from normbench.report.words import with_finding
from normbench.verdicts.registration import Claim, Contrast, Design

SAYS = {
    "greater": "is above {}",
    "less": "is below {}",
    "equal": "is {} within the margin",
    "not_greater": "is not above {} by the margin",
}


def text(
    claim: Claim,
    statements: Mapping[str, str],
    costs: Sequence[str],
    width: int,
    finding: str | None = None,
) -> str:
    """The whole claim, with the `statements` of its theorems and a line for each cost.

    `finding` is what a check found about its sentence.
    """
    return "\n".join(_lines(claim, statements, costs, width, finding))


def _lines(
    claim: Claim,
    statements: Mapping[str, str],
    costs: Sequence[str],
    width: int,
    finding: str | None,
) -> Iterator[str]:
    yield paragraph(f"{claim.name}: ", with_finding(claim.statement, finding), width)
    yield paragraph("source: ", claim.source, width)
    theorems = [
        f"{statements[theorem.check]} (within {theorem.tolerance:g})"
        for theorem in claim.theorems
    ]
    for title, items in (
        ("published", [published_line(line) for line in claim.published]),
        ("confounds", claim.confounds),
        ("theorems", theorems),
    ):
        if items:
            yield f"{title}:"
            yield from (paragraph("- ", item, width, indent=2) for item in items)
    if claim.census:
        yield "census: the default norms of torchvision's and timm's models"
    for kind, designs in (
        ("mechanism", claim.mechanisms),
        ("outcome", claim.outcomes),
    ):
        for name, design in designs.items():
            yield ""
            yield paragraph(f"{kind} {name}: ", design.question, width)
            yield from _design(design, width)
    yield ""
    yield "* primary: the verdict rests on these, adjusted by Holm"
    yield from costs


def _design(design: Design, width: int) -> Iterator[str]:
    def row(label: str, text: str) -> str:
        return paragraph(f"{label:<9}", text, width, indent=2)

    yield row("common", design.common)
    for arm, overrides in design.arms.items():
        yield row("arm", f"{arm}: {overrides}")
    for level, overrides in design.levels.items():
        if overrides:
            yield row("level", f"{level}: {overrides}")
    cells = design.all_cells()
    if design.cells is not None:
        yield row("cells", ", ".join(cells))
    tuned = "not tuned"
    if len(design.rates) > 1:
        tuned = f"chosen on {design.tuning_seeds} other seeds by {design.validation}"
    rates = ", ".join(f"{lr:g}" for lr in design.rates)
    yield row("runs", f"{len(cells)} cells, {design.seeds} seeds; lr {rates}, {tuned}")
    yield row("gate", f"an arm trained if {design.gate.metric} < {design.gate.below:g}")
    if design.probes:
        yield row("probes", ", ".join(design.probes))
    for contrast in design.contrasts:
        yield row("expected", _contrast(contrast))
    for crossing in design.crossovers:
        yield row("reports", f"{crossing.name}: where {crossing.metric} crosses")


def _contrast(contrast: Contrast) -> str:
    metric = f"log2 of {contrast.metric}" if contrast.log2 else contrast.metric
    if contrast.weights is None:
        what = f"slope of {metric} on log2 level of {contrast.slope}"
    else:
        what = f"{metric}, {_sum(contrast.weights)},"
    says = SAYS[contrast.says].format(f"{contrast.expected:g}")
    return (
        f"{contrast.name}{'*' * contrast.primary}: {what} {says} "
        f"(margin {contrast.margin:g}: {contrast.reason})"
    )


def _sum(weights: Mapping[str, float]) -> str:
    terms = [
        f"{'-' if weight < 0 else '+'} "
        + (f"{abs(weight):g} " * (abs(weight) != 1))
        + cell.removesuffix("@-")
        for cell, weight in weights.items()
    ]
    return " ".join(terms).removeprefix("+ ")
