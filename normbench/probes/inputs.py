"""The inputs of the norms while a trained network normalises as in training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm
from normbench.probes.base import Trained

NORM_BATCHES = 64
"""The largest number of norm batches that a probe uses."""

Visit = Callable[[int, Tensor, Tensor | None], None]


@torch.no_grad()
def forward_as_trained(trained: Trained) -> None:
    """Forward training batches, the norms in training mode, all else in evaluation.

    So dropout is off. NORM_BATCHES of statistics at most, in whole micro-batches, but
    one micro-batch at least. Running statistics move.
    """
    trained.model.eval()
    for module in trained.norms:
        module.train()
    micro_batch = len(trained.batches[0])
    count = max(1, NORM_BATCHES * trained.norm_batch // micro_batch)
    for batch in trained.batches[:count]:
        trained.model(*trained.task.training_inputs(batch))


def visit_norm_batches(trained: Trained, visit: Visit) -> None:
    """Call `visit(layer, values, real)` for each norm batch of each norm, in order.

    `values` (n, T, C) float64 are what the norm was given, position by position, n the
    `norm_batch`, whether or not it is a norm that uses other samples; `real` (n, T)
    bool where it was given a mask.
    """

    def hook(layer: int) -> Callable[..., None]:
        def before(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
        ) -> None:
            x = args[0]
            mask = args[1] if len(args) > 1 else kwargs.get("mask")
            values = x.flatten(2).transpose(1, 2).double()
            for start in range(0, len(x), trained.norm_batch):
                chunk = slice(start, start + trained.norm_batch)
                real = None if mask is None else mask[chunk].flatten(1)
                visit(layer, values[chunk], real)

        return before

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
    """Return the norm that `module` of `Trained.norms` is or wraps."""
    return next(m for m in module.modules() if isinstance(m, Norm))


def mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (C,) of (n, C); nan where n is too small for it."""
    count = len(values)
    mean = values.sum(0) / count
    centred = (values - mean).square().sum(0)
    return mean, centred / (count - 1) if count > 1 else centred * torch.nan


def variance_between_batches(values: Tensor) -> Tensor:
    """Unbiased variance (C,) over the rows of (batches, C), without those that are nan.

    nan where fewer than two are left.
    """
    count = values.isfinite().sum(0)
    squares = (values - values.nanmean(0)).square().nansum(0)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), torch.nan)
