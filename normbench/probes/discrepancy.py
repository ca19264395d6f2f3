"""How far a batch's statistics are from the running ones (Wang et al. 2022).

The train/inference discrepancy of arXiv 2210.05153: of each norm batch,
|mu_running - mu_batch| / sigma_batch ("mean") and |sigma_running / sigma_batch - 1|
("std"), each the mean over channels, norm batches and layers; sigma = sqrt(var + eps),
what a norm divides by.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm
from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import forward_as_trained, inner_norm

SQUARES = ("running_var", "running_square")
"""What a norm may call its running second moment; the latter is about zero."""


@PROBES("discrepancy")
def discrepancy(trained: Trained) -> dict[str, float]:
    """Train/inference discrepancy: running statistics against those of batches.

    The batches' statistics are the norm's own, with or without pads as it takes them,
    while the network normalises with them. A norm without running statistics has no
    quantity: 0 by definition, not by measurement. One that keeps no mean (`power`) has
    no "mean", and its sigma is the root mean square.
    """
    of_mean: list[Tensor] = []
    of_std: list[Tensor] = []

    def hook(norm: Norm) -> Callable[..., None]:
        kept = _statistics(norm)

        def after(module: nn.Module, args: object, output: object) -> None:
            batch = _statistics(norm)
            if "std" in kept:
                of_std.append((kept["std"] / batch["std"] - 1).abs().mean())
            if "mean" in kept:
                distance = (kept["mean"] - batch["mean"]).abs() / batch["std"]
                of_mean.append(distance.mean())

        return after

    norms = [norm for norm in map(inner_norm, trained.norms) if norm.differs_in_eval]
    handles = []
    for norm in norms:
        handles.append(norm.register_forward_hook(hook(norm)))
        norm.momentum = 1.0  # its buffers then hold the last batch's statistics
    if norms:
        forward_as_trained(trained)
    for handle in handles:
        handle.remove()
    found = {"mean": of_mean, "std": of_std}
    return {
        name: torch.stack(values).mean().item()
        for name, values in found.items()
        if values
    }


def _statistics(norm: Norm) -> dict[str, Tensor]:
    """The running "mean" and "std", (C,) or scalar, float64, of those it has."""
    buffers = dict(norm.named_buffers(recurse=False))
    found: dict[str, Tensor] = {}
    for name in SQUARES:
        if name in buffers:
            found["std"] = (buffers[name].double() + norm.eps).sqrt()
    if found and "running_mean" in buffers:
        found["mean"] = buffers["running_mean"].double().clone()
    return found
