"""Answers of `compare` on made-up records."""

from collections.abc import Sequence
from typing import Any

from verdicts_made import a_run, grids

from normbench.claims.comparison import comparison
from normbench.verdicts import judging
from normbench.verdicts.comparisons import Comparison
from normbench.verdicts.ranking import Ranking

ARMS = ("norm=batch", "norm=group norm.num_groups=4")


def a_comparison(
    *differences: Sequence[float],
    levels: str = "",
    arms: Sequence[str] = ARMS,
    ranking: Ranking | None = None,
    **changes: Any,
) -> Comparison:
    """Return a comparison whose errors have the given differences, seed by seed.

    `differences` has one sequence for each contrast: the later arm minus the first arm.
    """
    options: dict[str, Any] = {"margin": 0.01, "rates": [0.1, 0.2], "gate": 0.5}
    options |= {"metric": "test/error", "seeds": [8]}
    overrides = [levels] if levels else []
    claim = comparison(arms, overrides, **(options | changes))
    (design,) = claim.outcomes.values()
    if ranking is not None:
        return Comparison(claim=claim, ranking=ranking)
    cells = {}
    for contrast, values in zip(design.contrasts, differences, strict=True):
        assert contrast.weights is not None
        other, first = contrast.weights
        errors = [0.15 + 0.001 * seed for seed in range(len(values))]
        cells[first] = [a_run(error) for error in errors]
        cells[other] = [a_run(e + d) for e, d in zip(errors, values, strict=True)]
    judged = judging.judge_design("comparison", design, grids(cells), {}, claim.alpha)
    verdict = judging.make_verdict(
        claim,
        budget="full",
        designs=[judged],
        theorems=[],
        caveats=[],
        census=[],
        records=[a_run(0.1)],
        registered=None,
        command="normbench compare --arm norm=batch ..",
        started="2026-01-01T00:00:00+00:00",
        environment={},
    )
    return Comparison(claim=claim, verdict=verdict)
