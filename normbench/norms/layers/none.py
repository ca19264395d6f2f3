"""No normalization: y = x.

No statistics, no parameters. A network built with it differs from one built with a norm
in two things, the statistics and the affine map; `affine` has only the second.
"""

from torch import Tensor

from normbench.norms.base import Norm


class NoNorm(Norm, name="none"):
    source = "folklore"
    axes = "one sample, one channel, one position"
    honours_mask = True

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return x
