"""Check what a norm forgets of a token and a bounded function does not."""

from typing import Any

import torch

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import make

CHANNELS = 16
FACTORS = (0.1, 10.0)


@theorem("layer-forgets-scale")
@torch.no_grad()
def layer_forgets_scale() -> Finding:
    """layer_position and rms are the same for every positive multiple of a token.

    Sequences in float64, with eps 1e-18, are multiplied by 0.1 and by 10. The controls
    are dyt and derf, whose outputs change.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, CHANNELS, 9, generator=generator, dtype=torch.float64) + 0.5

    def changes(name: str, **options: Any) -> dict[str, float]:
        norm = make(name, CHANNELS, **options).double()
        y = norm(x)
        return {f"{name}, times {a:g}": difference(norm(a * x), y) for a in FACTORS}

    return finding(
        changes("layer_position", eps=1e-18) | changes("rms", eps=1e-18),
        changes("dyt") | changes("derf"),
        "outputs change by {deviation:.1g} at most ({worst}), those of the controls by "
        "{control:.2g} at least ({weakest})",
    )
