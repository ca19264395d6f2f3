"""No normalization: y = x.

No statistics, no parameters. A network with this norm lacks both the statistics and the
affine map of other norms; a network with `affine` lacks the statistics only.
"""

from torch import Tensor

from normbench.norms.base import Norm


class NoNorm(Norm, name="none"):
    also_called = ("Identity",)
    source = "folklore"
    axes = "one sample, one channel, one position"
    honours_mask = True

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return x
