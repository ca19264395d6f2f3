"""Check that batch norm can be folded into a convolution in evaluation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import Norm, make
from normbench.norms.measure.subject import Mode, subject

CHANNELS = 16


@theorem("batch-folds")
@torch.no_grad()
def batch_folds() -> Finding:
    """batch in evaluation is a fixed affine map that folds into the convolution before.

    On one batch, least squares gives the gain and bias of each channel that come
    closest to the output of the norm. A new convolution has the old weights times this
    gain, and this bias. On another batch, it is compared with the old convolution
    followed by the norm.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 4, 3, 9, 9, generator=generator, dtype=torch.float64)
    second = second * 2 + 1
    weights = torch.randn(CHANNELS, 3, 3, 3, generator=generator, dtype=torch.float64)

    def error(name: str, mode: Mode = Mode.eval) -> float:
        # The norm of a subject has random parameters and running statistics.
        norm = subject(make(name, CHANNELS), (2, CHANNELS, 7, 7), mode, seed=1).norm
        gain, bias = _affine_fit(norm, F.conv2d(first, weights))
        folded = F.conv2d(second, weights * gain[:, None, None, None], bias)
        return difference(folded, norm(F.conv2d(second, weights)))

    foldable = {name: error(name) for name in ("batch", "frozen_batch", "affine")}
    controls = {name: error(name) for name in ("group", "layer_sample", "instance")}
    controls["batch in training"] = error("batch", Mode.train)
    return finding(
        foldable,
        controls,
        "one convolution gives what convolution and norm give, to {deviation:.1g} "
        "({worst} the worst); in the controls the best fixed affine map is off by "
        "{control:.2g} at least ({weakest})",
    )


def _affine_fit(norm: Norm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Fit gain and bias (C,) to `norm` on `x` (N, C, H, W) by least squares."""
    axes = (0, 2, 3)
    y = norm(x)
    mean_x, mean_y = x.mean(axes, keepdim=True), y.mean(axes, keepdim=True)
    gain = ((x - mean_x) * (y - mean_y)).sum(axes) / (x - mean_x).square().sum(axes)
    return gain, mean_y.flatten() - gain * mean_x.flatten()
