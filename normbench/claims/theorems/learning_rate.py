"""Check what a step of SGD does to weights whose scale a norm removes."""

import torch

from normbench.claims.theorems.base import Finding, finding, theorem
from normbench.claims.theorems.networks import built, fitted, small, with_norm
from normbench.training.decay import scale_invariant_weights

LR = 1.0
SGD = (
    f"lr={LR}",
    "optimizer.nesterov=false",
    "optimizer.momentum=0.0",
    "optimizer.weight_decay=0.0",
)
NORMS = ("batch", "group", "layer_sample")


@theorem("weights-grow")
def weights_grow() -> Finding:
    """Under a norm, each step of SGD makes weights longer: by lr**2 times gradient**2.

    A gradient g is orthogonal to the weights w of a convolution, so that
    |w - lr * g|**2 = |w|**2 + lr**2 * |g|**2. A step turns w by lr * |g| / |w|, and |g|
    falls as 1 / |w| (`weight-decay-scale`). So a learning rate that is too large makes
    the weights so long that the next steps turn them less: van Laarhoven 2017; Arora
    et al. 2019, "Theoretical Analysis of Auto Rate-Tuning by Batch Normalization".
    Measured for each convolution of the CNN, for a step without momentum and weight
    decay in float64; eps is 1e-18. The control is the same network without a norm.
    """
    return finding(
        {norm: max(_excess(norm)) for norm in NORMS},
        {"none": max(_excess("none"))},
        "the growth of |w|**2 differs from (lr * |g|)**2 by {deviation:.1g} of it at "
        "most ({worst}), without a norm by {control:.2g}",
    )


def _excess(norm: str) -> list[float]:
    """Return |growth of |w|**2 - lr**2 |g|**2| / (lr**2 |g|**2) of each convolution."""
    options = {} if norm == "none" else {"eps": 1e-18}
    config = with_norm(small("cnn", *SGD), norm, **options)
    task, network = built(config, torch.float64)
    weights = scale_invariant_weights(network.model)
    before = [weight.detach().square().sum().item() for weight in weights]
    fitted(config, task, network, 1)
    excess = []
    for weight, length in zip(weights, before, strict=True):
        assert weight.grad is not None
        step = LR**2 * weight.grad.square().sum().item()
        grown = weight.detach().square().sum().item() - length
        excess.append(abs(grown - step) / step)
    return excess
