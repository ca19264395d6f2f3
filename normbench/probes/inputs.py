"""Forward passes of a trained network whose norms work as in training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm
from normbench.probes.base import Trained

MAX_NORM_BATCHES = 64
"""Maximum number of norm batches that a probe uses."""

Visit = Callable[[int, Tensor, Tensor | None], None]


@torch.no_grad()
def forward_as_trained(trained: Trained) -> None:
    """Forward training batches with the norms, and only the norms, in training mode.

    So dropout is off, and running statistics change. Each batch is a whole micro-batch.
    All batches together have at most MAX_NORM_BATCHES norm batches, but there is always
    at least one batch.
    """
    trained.model.eval()
    for module in trained.norms:
        module.train()
    micro_batch_size = len(trained.batches[0])
    count = max(1, MAX_NORM_BATCHES * trained.norm_batch // micro_batch_size)
    for batch in trained.batches[:count]:
        trained.model(*trained.task.training_inputs(batch))


def visit_norm_batches(trained: Trained, visit: Visit) -> None:
    """Forward training batches and pass the inputs of the norms to `visit`.

    The function calls `visit(layer, values, real)` for every norm and every norm batch.
    `layer` is the index of the norm in `trained.norms`. `values` (n, T, C) float64 are
    the input of the norm, for n = `norm_batch` samples and T positions. A norm that
    uses each sample alone is visited in the same way. `real` (n, T) bool is the mask,
    or None without a mask.
    """

    def hook(layer: int) -> Callable[..., None]:
        def visit_input(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
        ) -> None:
            x = args[0].movedim(inner_norm(module).channel_axis, 1)
            mask = args[1] if len(args) > 1 else kwargs.get("mask")
            values = x.flatten(2).transpose(1, 2).double()
            for start in range(0, len(x), trained.norm_batch):
                norm_batch = slice(start, start + trained.norm_batch)
                real = None if mask is None else mask[norm_batch].flatten(1)
                visit(layer, values[norm_batch], real)

        return visit_input

    handles = [
        module.register_forward_pre_hook(hook(layer), with_kwargs=True)
        for layer, module in enumerate(trained.norms)
    ]
    try:
        forward_as_trained(trained)
    finally:
        for handle in handles:
            handle.remove()


def inner_norm(module: nn.Module) -> Norm:
    """Return the norm in `module`, a member of `Trained.norms`: itself or its child."""
    return next(m for m in module.modules() if isinstance(m, Norm))


def mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the unbiased variance, both (C,), over the rows of (n, C).

    The variance is nan if n is 1; both are nan if n is 0.
    """
    count = len(values)
    mean = values.sum(0) / count
    squares = (values - mean).square().sum(0)
    variance = squares / (count - 1) if count > 1 else squares * torch.nan
    return mean, variance


def variance_between_batches(values: Tensor) -> Tensor:
    """Return the unbiased variance (C,) over the rows of (batches, C); ignore nans.

    The variance of a channel with fewer than two finite values is nan.
    """
    count = values.isfinite().sum(0)
    squares = (values - values.nanmean(0)).square().nansum(0)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), torch.nan)
