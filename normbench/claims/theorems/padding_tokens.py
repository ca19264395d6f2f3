"""Check the effect of padding on statistics, on evaluation and on training."""

import math
from typing import Any

import torch
from torch import Tensor

from normbench.claims.theorems.base import (
    Finding,
    difference,
    finding,
    largest,
    theorem,
)
from normbench.claims.theorems.networks import Trained, small, trained, with_norm
from normbench.config.schema import RunConfig
from normbench.norms.base import Norm, make
from normbench.norms.evaluation import use_batch_statistics
from normbench.tasks.base import Task
from normbench.training.network import Network, make_task

FIXED_MAP_NORMS = ("batch", "batch_masked", "batch_regularized", "power")
"""Norms that apply a fixed map to each position in evaluation."""
PER_TOKEN_NORMS = ("layer_position", "rms")
POOLING_NORMS = ("instance", "group", "layer_sample")
"""Norms whose statistics are over several positions of a sample."""


@theorem("moments-with-pads")
def moments_with_pads() -> Finding:
    """With a share p of pads, the moments of batch are a mixture of pads' and tokens'.

    mean = (1 - p) * mean_v + p * mean_p and var = (1 - p) * var_v + p * var_p
    + p * (1 - p) * (mean_v - mean_p)**2. The index v stands for real tokens, p for
    pads.
    """
    x, mask = _padded(mean=0.7, pads=-1.5)
    p = float((~mask).double().mean())
    tokens, pads = x.movedim(1, -1)[mask], x.movedim(1, -1)[~mask]
    between = p * (1 - p) * (tokens.mean(0) - pads.mean(0)).square()
    mean = (1 - p) * tokens.mean(0) + p * pads.mean(0)
    var = (1 - p) * _var(tokens) + p * _var(pads) + between
    share_of_pads = float(((var - (1 - p) * _var(tokens)) / var).mean())

    def errors(name: str) -> dict[str, float]:
        norm = _at_momentum_1(name)
        norm(x, mask)
        count = int(mask.sum()) if norm.honours_mask else mask.numel()
        # running_var has Bessel's correction, `var` has not.
        uncorrected = norm.running_var * (count - 1) / count
        return {
            "mean": difference(norm.running_mean, mean),
            "variance": difference(uncorrected, var),
        }

    return finding(
        errors("batch"),
        {"batch_masked": largest(errors("batch_masked"))[1]},
        "with p = {p:.2f} the statistics are off the mixture by {deviation:.1g}; pads "
        "and their distance make {share_of_pads:.0%} of the variance, and without them "
        "(batch_masked) the statistics are off by {control:.2g}",
        p=p,
        share_of_pads=share_of_pads,
    )


@theorem("zeroed-pads")
def zeroed_pads() -> Finding:
    """With a share p of zeros, tokens of mean 0 leave batch 1/sqrt(1-p) too big.

    The size of the tokens is their root mean square in the output of the norm. The
    shares p are 0.25, 0.5 and 0.9, and eps is 1e-18.
    """
    differences: dict[str, dict[float, float]] = {"batch": {}, "batch_masked": {}}
    sizes = {}
    for p in (0.25, 0.5, 0.9):
        x, mask = _padded(mean=0.0, pads=0.0, share=p)
        for name, by_share in differences.items():
            y = _at_momentum_1(name, eps=1e-18)(x, mask).movedim(1, -1)[mask]
            size = y.square().mean(0).sqrt()
            by_share[p] = difference(size, torch.full_like(size, 1 / math.sqrt(1 - p)))
            sizes[name, p] = float(size.mean())
    return finding(
        differences["batch"],
        differences["batch_masked"],
        "at p = 0.5 tokens leave batch with size {half:.4f}, at p = 0.9 with "
        "{most:.4f}, off by {deviation:.1g} at most (p = {worst}); batch_masked leaves "
        "them at {masked:.4f}",
        half=sizes["batch", 0.5],
        most=sizes["batch", 0.9],
        masked=sizes["batch_masked", 0.9],
    )


@theorem("pads-in-evaluation")
def pads_in_evaluation() -> Finding:
    """With running statistics, appended right pads change no token's output.

    The Transformer, pre- and post-norm, is trained for 3 steps in float64. It then gets
    the same samples twice: padded to the longest of them, and padded to max_length. The
    outputs of every norm at real tokens and the logits are compared.
    """
    changes: dict[str, float] = {}
    controls: dict[str, float] = {}
    for position in ("post", "pre"):
        config, config_with_more_pads = _paddings(position)
        padded_more = make_task(config_with_more_pads, torch.device("cpu"))
        for name in (*FIXED_MAP_NORMS, *PER_TOKEN_NORMS):
            run = trained(with_norm(config, name), steps=3)
            changes[f"{name}, {position}-norm"] = _change_by_pads(run, padded_more)
            if name == "batch":
                use_batch_statistics(run.network.norms.modules)
                controls[f"batch with the batch's statistics, {position}-norm"] = (
                    _change_by_pads(run, padded_more)
                )
        for name in POOLING_NORMS:
            run = trained(with_norm(config, name), steps=3)
            controls[f"{name}, {position}-norm"] = _change_by_pads(run, padded_more)
    return finding(
        changes,
        controls,
        "outputs at tokens move by {deviation:.1g} at most ({worst}); in the controls "
        "by {control:.2g} at least ({weakest})",
    )


@theorem("pads-in-training")
def pads_in_training() -> Finding:
    """Appended right pads change nothing of the training of norms that skip them.

    The Transformer, pre- and post-norm, is trained for 3 steps in float64, with
    padding=longest and with padding=max_length; losses, gradients, weights and running
    statistics are compared. Differences can exceed 1e-15: if a gradient is only
    rounding error, AdamW divides it by its eps, 1e-8.
    """
    immune = (*PER_TOKEN_NORMS, "batch_masked", "batch_regularized", "power")
    differences: dict[str, float] = {}
    controls: dict[str, float] = {}
    for position in ("post", "pre"):
        configs = _paddings(position)
        for name in (*immune, "batch"):
            longest, fixed = (trained(with_norm(c, name), steps=3) for c in configs)
            by_quantity = fixed.differences(longest)
            if name == "batch":
                controls |= {
                    f"{quantity}, {position}-norm": value
                    for quantity, value in by_quantity.items()
                }
            else:
                differences[f"{name}, {position}-norm"] = largest(by_quantity)[1]
    return finding(
        differences,
        controls,
        "losses, gradients, weights and running statistics differ by {deviation:.1g} "
        "at most ({worst}); each of batch's by {control:.2g} at least ({weakest})",
    )


def _paddings(position: str) -> tuple[RunConfig, RunConfig]:
    """Return the Transformer's configs with padding=longest and padding=max_length."""
    longest, fixed = (
        small(
            "transformer", f"task.norm_position={position}", f"task.padding={padding}"
        )
        for padding in ("longest", "max_length")
    )
    return longest, fixed


def _padded(mean: float, pads: float, share: float = 0.4) -> tuple[Tensor, Tensor]:
    """Return sequences (8, 6, 40) in float64 and their mask (8, 40).

    On average, a `share` of each sequence is right pads. Tokens have a mean of exactly
    `mean`. Pads vary around `pads`, or are all 0 if `pads` is 0.
    """
    generator = torch.Generator().manual_seed(3)
    count, length = 8, 40
    lengths = torch.full((count,), round(length * (1 - share)))
    lengths += torch.tensor([-2, 2]).repeat(count // 2)
    mask = torch.arange(length) < lengths[:, None]
    x = torch.randn(count, 6, length, generator=generator, dtype=torch.float64)
    real = mask[:, None]
    mean_of_tokens = torch.where(real, x, 0).sum((0, 2), keepdim=True) / mask.sum()
    x = x - mean_of_tokens
    at_pads = x * 0.5 + pads if pads else torch.zeros_like(x)
    return torch.where(real, 2 * x + mean, at_pads), mask


def _var(values: Tensor) -> Tensor:
    return values.var(0, correction=0)


def _at_momentum_1(name: str, **options: Any) -> Norm:
    """Return a norm whose running statistics are those of its last batch."""
    return make(name, 6, momentum=1.0, affine=False, **options).double().train()


@torch.no_grad()
def _change_by_pads(run: Trained, padded_more: Task) -> float:
    """Return how much more pads change the norms' outputs at tokens, and the logits."""
    samples = run.task.splits["test"][:16]
    tokens, mask = run.task.inputs(samples)
    short = _outputs(run.network, tokens, mask)
    long = _outputs(run.network, *padded_more.inputs(samples))
    return largest(
        {
            index: difference(_at_tokens(b, mask), _at_tokens(a, mask))
            for index, (a, b) in enumerate(zip(short, long, strict=True))
        }
    )[1]


def _outputs(network: Network, tokens: Tensor, mask: Tensor) -> list[Tensor]:
    """Return the outputs of every norm (N, C, T), then the logits (N, classes)."""
    outputs: list[Tensor] = []
    hooks = [
        norm.register_forward_hook(lambda module, inputs, y: outputs.append(y))
        for norm in network.norms.modules
    ]
    logits = network.model(tokens, mask)
    for hook in hooks:
        hook.remove()
    return [*outputs, logits]


def _at_tokens(y: Tensor, mask: Tensor) -> Tensor:
    """Return `y` at the positions of `mask`, with 0 at its pads.

    Positions after the end of `mask` are cut off. Logits are returned unchanged.
    """
    if y.dim() < 3:
        return y
    return torch.where(mask[:, None], y[..., : mask.shape[1]], 0)
