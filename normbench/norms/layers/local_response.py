"""Local response normalization (Krizhevsky et al. 2012).

y = x / (k + alpha * sum(x**2)) ** beta. The sum is over a window of `size` channels
around the channel, at the same position. Channels beyond the first and the last count
as zeros.
No parameters. As torch.nn.LocalResponseNorm, except that torch divides alpha by `size`.
The defaults are those of the paper (torch: alpha = 1e-4 / size, k = 1).
"""

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Norm


class LocalResponseNorm(Norm, name="local_response"):
    source = "Krizhevsky et al. 2012"
    axes = "one sample, a window of channels, one position"
    honours_mask = True

    def __init__(
        self,
        channels: int,
        *,
        size: PositiveInt = 5,
        alpha: PositiveFloat = 1e-4,
        beta: PositiveFloat = 0.75,
        k: PositiveFloat = 2.0,
    ) -> None:
        super().__init__(channels)
        self.size = size
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        positions = x.unsqueeze(2) if x.dim() == 2 else x.flatten(2)
        alpha = self.alpha * self.size
        y = F.local_response_norm(positions, self.size, alpha, self.beta, self.k)
        return y.view(x.shape)
