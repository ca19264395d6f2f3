"""Probe `discrepancy`: batch statistics against running statistics.

This is the train/inference discrepancy of Wang et al. 2022 (arXiv 2210.05153):

    mean  |mu_running - mu_batch| / sigma_batch
    std   |sigma_running / sigma_batch - 1|

Both are means over channels, norm batches and layers. sigma = sqrt(var + eps) is the
number that a norm divides by.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm
from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import forward_as_trained, inner_norm

SECOND_MOMENT_BUFFERS = ("running_var", "running_square")
"""Names of the buffer with the running variance or the running mean square."""


@PROBES("discrepancy")
def discrepancy(trained: Trained) -> dict[str, float]:
    """Train/inference discrepancy: running statistics against those of batches.

    The batch statistics are those that the norm computes in the forward of a training
    batch. They include padding tokens if the norm includes padding tokens. The result
    is empty for a norm without running statistics. For a norm without a running mean
    (`power`), the result has no "mean", and sigma is the root mean square.
    """
    distances: dict[str, list[Tensor]] = {"mean": [], "std": []}

    def measure_with(norm: Norm) -> Callable[..., None]:
        running = _statistics(norm)  # before the first forward overwrites the buffers

        def hook(module: nn.Module, args: object, output: object) -> None:
            batch = _statistics(norm)
            if "std" in running:
                distance = (running["std"] / batch["std"] - 1).abs()
                distances["std"].append(distance.mean())
            if "mean" in running:
                distance = (running["mean"] - batch["mean"]).abs() / batch["std"]
                distances["mean"].append(distance.mean())

        return hook

    norms = [norm for norm in map(inner_norm, trained.norms) if norm.differs_in_eval]
    handles = []
    for norm in norms:
        handles.append(norm.register_forward_hook(measure_with(norm)))
        # So the buffers hold the statistics of the last norm batch.
        norm.momentum, norm.one_call = 1.0, False
    if norms:
        forward_as_trained(trained)
    for handle in handles:
        handle.remove()
    return {
        name: torch.stack(values).mean().item()
        for name, values in distances.items()
        if values
    }


def _statistics(norm: Norm) -> dict[str, Tensor]:
    """Return "mean" and "std" from the buffers of `norm`, if it has them.

    The values are float64 tensors of shape (C,) or scalars.
    """
    buffers = dict(norm.named_buffers(recurse=False))
    statistics: dict[str, Tensor] = {}
    for name in SECOND_MOMENT_BUFFERS:
        if name in buffers:
            statistics["std"] = (buffers[name].double() + norm.eps).sqrt()
    if statistics and "running_mean" in buffers:
        statistics["mean"] = buffers["running_mean"].double().clone()
    return statistics
