"""Check what samples of different kinds in one batch do to norms."""

import torch
from torch import Tensor

from normbench.claims.theorems.base import (
    Finding,
    difference,
    finding,
    largest,
    theorem,
)
from normbench.claims.theorems.batch_size_dependence import (
    left_out_text,
    per_sample_networks,
)
from normbench.claims.theorems.networks import small, trained, with_norm
from normbench.config.schema import Choice, RunConfig
from normbench.norms.base import make

SHAPE = (8, 16, 6, 6)
LOW = 3
"""Number of samples of low contrast, of the 8 samples of a batch."""
GAIN, OFFSET = 0.3, 0.4
"""A sample x of low contrast is GAIN * x + OFFSET."""
EPS = 1e-18


@theorem("mixed-moments")
@torch.no_grad()
def mixed_moments() -> Finding:
    """In a batch of two kinds, no kind leaves batch with mean 0 and deviation 1.

    With a share p of samples of low contrast, the statistics are those of the mixture:
    mean = (1 - p) mean_h + p mean_l and var = (1 - p) var_h + p var_l
    + p (1 - p) (mean_h - mean_l)**2. So kind k leaves the norm with the mean
    (mean_k - mean) / sqrt(var) and the deviation sqrt(var_k / var). eps is 1e-18.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    x[:LOW] = GAIN * x[:LOW] + OFFSET
    p = LOW / SHAPE[0]
    mean_l, var_l = _moments(x[:LOW])
    mean_h, var_h = _moments(x[LOW:])
    mean = (1 - p) * mean_h + p * mean_l
    var = (1 - p) * var_h + p * var_l + p * (1 - p) * (mean_h - mean_l).square()
    expected = {
        "low": torch.stack([(mean_l - mean) / var.sqrt(), (var_l / var).sqrt()]),
        "high": torch.stack([(mean_h - mean) / var.sqrt(), (var_h / var).sqrt()]),
    }

    def errors(name: str) -> dict[str, float]:
        y = make(name, SHAPE[1], eps=EPS).double().train()(x)
        outputs = {"low": y[:LOW], "high": y[LOW:]}
        return {
            kind: difference(_mean_and_deviation(outputs[kind]), moments)
            for kind, moments in expected.items()
        }

    per_sample = {
        name: largest(errors(name))[1] for name in ("instance", "group", "layer_sample")
    }
    return finding(
        errors("batch"),
        per_sample,
        "with p = {p:.3f} the outputs of batch are off the mixture by {deviation:.1g}; "
        "the deviation is {low:.2f} for samples of low contrast and {high:.2f} for the "
        "others; norms of one sample are off the mixture by {control:.2g} at least "
        "({weakest})",
        p=p,
        low=float(expected["low"][1].mean()),
        high=float(expected["high"][1].mean()),
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance (C,) of the channels of (N, C, H, W)."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return mean, var


def _mean_and_deviation(x: Tensor) -> Tensor:
    """Return the means and the deviations of the channels: (N, C, H, W) -> (2, C)."""
    mean, var = _moments(x)
    return torch.stack([mean, var.sqrt()])


@theorem("batch-composition")
def batch_composition() -> Finding:
    """Training of a per-sample norm is the same whichever samples share a norm batch.

    The CNN does 3 steps of 16 samples in float64, with norm batches of 4 random samples
    and with norm batches of as few classes as possible. An optimizer step has the same
    samples in both cases. Losses and weights are compared.
    """

    def apart(config: RunConfig) -> dict[str, float]:
        """Return kind of number -> largest relative difference of the two trainings."""
        config = config.model_copy(update={"norm_batch": 4, "warmup": 0.0})
        random, by_class = (
            trained(config.model_copy(update={"task": task}), steps=3)
            for task in (config.task, _sorted_by_class(config.task))
        )
        differences = by_class.differences(random)
        return {kind: differences[kind] for kind in ("losses", "weights")}

    per_sample, unfit = per_sample_networks(apart)
    return finding(
        per_sample,
        apart(with_norm(small("cnn"), "batch")),
        "{networks} networks differ by {deviation:.1g} at most ({worst}) in any loss "
        "or weight after 3 steps; with batch the {weakest} differ by {control:.2g}"
        "{left_out}",
        networks=len(per_sample),
        left_out=left_out_text(unfit),
    )


def _sorted_by_class(task: Choice) -> Choice:
    return task.model_copy(update={"batching": "class", "batching_scope": "norm_batch"})
