"""Choose the cells, contrasts and seeds of a claim that each budget keeps."""

from collections.abc import Sequence

from normbench.verdicts.design import Contrast, Design, arm_of
from normbench.verdicts.registration import BudgetName, Claim
from normbench.verdicts.values import weights_of

QUICK_SEEDS = 6
SMOKE_OVERRIDES = "budget.epochs=1 budget.max_steps=10 evaluations=1"


def designs_for(claim: Claim, budget: BudgetName) -> dict[str, Design]:
    """Return the designs of `claim`, reduced to what `budget` runs.

    A full check runs all designs as they are registered. A quick check runs what
    `claim.quick` names. A smoke check trains the cells of one contrast of each design
    for ten steps.
    """
    if budget == "full":
        return dict(claim.designs())
    designs = {}
    for name, design in claim.designs().items():
        data = next(iter(design.data), None)
        reduction = claim.quick.get(name.removesuffix(f"-{data}"))
        # An empty list of cells leaves the design out.
        if reduction is not None and reduction.cells == []:
            continue
        if reduction and reduction.data is not None and data not in reduction.data:
            continue
        cells = reduction.cells if reduction else None
        overrides = reduction.overrides if reduction else ""
        if budget == "smoke":
            # The first contrast is a primary contrast, if the design has one.
            first, *_ = sorted(design.contrasts, key=lambda c: not c.primary)
            cells = list(weights_of(first, design))
            if first.weights is None:
                cells = cells[:2]  # two levels give a slope
            overrides = f"{overrides} {SMOKE_OVERRIDES}"
            design = design.model_copy(update={"crossovers": []})
        designs[name] = _reduced(design, cells, overrides)
    return designs


def _reduced(design: Design, cells: Sequence[str] | None, overrides: str) -> Design:
    """Keep only `cells` of `design`, and add `overrides` to each level.

    If `cells` is None, all cells stay. A contrast with weights stays if all its cells
    stay. A contrast with a slope stays if two or more levels of its arm stay.
    """
    trained = set(design.all_cells() if cells is None else cells)

    def stays(contrast: Contrast) -> bool:
        if contrast.slope is not None:
            return sum(arm_of(cell) == contrast.slope for cell in trained) > 1
        return set(contrast.weights or {}) <= trained

    changes = {
        "cells": [cell for cell in design.all_cells() if cell in trained],
        "contrasts": [c for c in design.contrasts if stays(c)],
        "levels": {
            level: f"{text} {overrides}".strip()
            for level, text in design.levels.items()
        },
    }
    return design.model_copy(update=changes)


def looks_for(design: Design, budget: BudgetName) -> tuple[int, ...]:
    """Return the numbers of test seeds at which the contrasts are judged."""
    if budget == "full":
        return tuple(design.planned_looks())
    return (QUICK_SEEDS if budget == "quick" else 1,)
