"""Which contrasts the looks so far have settled, and which cells still need seeds."""

from collections.abc import Collection, Iterable

from normbench.verdicts.design import Design
from normbench.verdicts.judging import adjusted
from normbench.verdicts.values import weights_of
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict

Settled = dict[str, dict[str, ContrastVerdict]]
"""Design -> name of a contrast -> its verdict before Holm's adjustment."""


def settled_contrasts(designs: Iterable[DesignVerdict], alpha: float) -> Settled:
    """Return the contrasts that need no further look.

    `designs` have the latest judgement of every contrast, before Holm's adjustment. A
    primary contrast is settled if its decision holds after this adjustment over the
    primary contrasts of all designs. It stays settled: whatever the later looks show,
    its adjusted p cannot rise to `alpha` (group-sequential Holm procedure: Maurer &
    Bretz 2013, with the present look only).
    """
    designs = list(designs)
    return {
        before.name: {
            contrast.name: contrast
            for contrast, after_holm in zip(
                before.contrasts, after.contrasts, strict=True
            )
            if after_holm.settled
        }
        for before, after in zip(designs, adjusted(designs, alpha), strict=True)
    }


def cells_in_use(design: Design, settled: Collection[str]) -> list[str]:
    """Return the cells that need seeds at the next look.

    These are the cells of the contrasts that are not `settled`, and the cells that no
    contrast has; none if all contrasts are settled.
    """
    weights = {c.name: weights_of(c, design) for c in design.contrasts}
    still_open = {cell for name in weights.keys() - settled for cell in weights[name]}
    used = {cell for cells in weights.values() for cell in cells}
    if not still_open:
        return []
    return [c for c in design.all_cells() if c in still_open or c not in used]
