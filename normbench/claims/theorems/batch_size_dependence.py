"""Check which norms depend on the other samples of a batch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from normbench.claims.theorems.base import (
    Finding,
    difference,
    finding,
    largest,
    theorem,
)
from normbench.claims.theorems.networks import small, trained, with_norm
from normbench.config.schema import RunConfig
from normbench.errors import Incompatible
from normbench.norms.base import REGISTRY, make
from normbench.norms.measure.subject import Mode, Subject, modes, subject

SHAPE = (4, 16, 4, 4)
RANDOM_STATES = 4
TINY = torch.finfo(torch.float64).tiny


@theorem("other-samples")
def other_samples() -> Finding:
    """In training, the output of a per-sample norm depends on no other sample.

    The check measures two numbers for every registered norm: how much the output of the
    first sample changes when the other samples are replaced, and how large the gradient
    of this output is with respect to the other samples. A norm that declares
    `uses_other_samples` is a control in training. In evaluation, running statistics are
    used, and the output of no norm may depend on other samples.
    """
    dependence: dict[tuple[str, Mode], float] = {}
    unfit = []
    for name in REGISTRY.names():
        try:
            norm = make(name, SHAPE[1])
        except Incompatible:
            unfit.append(name)
            continue
        for mode in modes(norm):
            # In a single random state, a rectifier or a clip may hide the dependence.
            dependence[name, mode] = largest(
                {
                    i: _dependence_on_others(subject(norm, SHAPE, mode, seed=i))
                    for i in range(RANDOM_STATES)
                }
            )[1]
    declared = {name for name, _ in dependence if REGISTRY.get(name).uses_other_samples}
    independent = {
        (name, mode): value
        for (name, mode), value in dependence.items()
        if name not in declared or mode is Mode.eval
    }
    # A declared norm may have several training modes; the largest value counts.
    controls = {
        name: largest(
            {m: v for (n, m), v in dependence.items() if n == name and m != Mode.eval}
        )[1]
        for name in declared
    }
    return finding(
        independent,
        controls,
        "of {independent} norms in training, and {dependent} more in evaluation, the "
        "largest dependence is {deviation:.1g} ({worst[0]}, {worst[1]}); of these "
        "{dependent} in training, the smallest is {control:.2g} ({weakest}){left_out}",
        independent=len({name for name, _ in dependence} - declared),
        dependent=len(declared),
        left_out=_left_out(unfit),
    )


def _dependence_on_others(tested: Subject) -> float:
    """Return how much the output of the first sample depends on the other samples.

    It is the larger of two relative numbers: the change of the output when the other
    samples are replaced, and the gradient of the output with respect to the other
    samples.
    """
    generator = torch.Generator().manual_seed(2)
    x = tested.x.clone().requires_grad_()
    y = tested(x)
    replaced = torch.randn(x.shape, generator=generator, dtype=x.dtype) * 2
    replaced[0] = tested.x[0]
    changed = difference(tested(replaced)[0].detach(), y[0].detach())
    if not y.requires_grad:
        return changed
    cotangent = torch.randn(y[0].shape, generator=generator, dtype=y.dtype)
    (gradient,) = torch.autograd.grad(y[0], x, cotangent, materialize_grads=True)
    by_sample = gradient.abs().amax((1, 2, 3))
    relative_gradient = float(by_sample[1:].max() / by_sample.max().clamp(min=TINY))
    return largest({"value": changed, "gradient": relative_gradient})[1]


@theorem("accumulation")
def accumulation() -> Finding:
    """Accumulated micro-batches have the gradient of the full batch: per-sample norms.

    The CNN does one step in float64 with 16 samples at once, and the same step in 2 and
    in 16 micro-batches. The gradients are compared.
    """

    def apart(config: RunConfig) -> dict[int, float]:
        """Return number of micro-batches -> difference of the gradients."""
        full = trained(config, steps=1)
        parts = (
            config.model_copy(update={"accumulate": 16 // size, "norm_batch": size})
            for size in (8, 1)
        )
        return {
            part.accumulate: trained(part, steps=1).differences(full)["gradients"]
            for part in parts
        }

    per_sample, unfit = _per_sample(apart)
    batch = apart(with_norm(small("cnn"), "batch"))
    return finding(
        per_sample,
        batch,
        "the gradients of {networks} networks differ by {deviation:.1g} at most "
        "({worst}); with batch, 2 micro-batches move them by {batch[2]:.2g}, "
        "16 by {batch[16]:.2g}{left_out}",
        networks=len(per_sample),
        batch=batch,
        left_out=_left_out(unfit),
    )


@theorem("every-norm-batch")
def every_norm_batch() -> Finding:
    """Training and metrics of a per-sample norm are the same bits at every norm_batch.

    The CNN is trained for 3 steps of 16 samples in float32, as in real runs. The
    losses, weights, running statistics and validation metrics with a norm_batch of 1,
    2, 4 and 8 are compared with the same numbers for a norm_batch of 16.
    """

    def apart(config: RunConfig) -> dict[int, float]:
        """Return norm_batch -> largest difference of a number."""
        numbers = {
            size: _numbers(config.model_copy(update={"norm_batch": size}))
            for size in (16, 8, 4, 2, 1)
        }
        full = numbers.pop(16)
        return {size: float((n - full).abs().max()) for size, n in numbers.items()}

    per_sample, unfit = _per_sample(apart)
    return finding(
        per_sample,
        apart(with_norm(small("cnn"), "batch")),
        "{networks} networks after 3 steps differ by {deviation:.1g} in any loss, "
        "weight or metric; with batch some number is off by {control:.2g} at "
        "least{left_out}",
        networks=len(per_sample),
        left_out=_left_out(unfit),
    )


def _per_sample(
    apart: Callable[[RunConfig], Mapping[int, float]],
) -> tuple[dict[str, float], list[str]]:
    """Measure the CNN with each per-sample norm.

    Returns norm -> the largest value of `apart`, and the norms that do not fit.
    """
    config = small("cnn")
    differences, unfit = {}, []
    for name in REGISTRY.names():
        if not REGISTRY.get(name).uses_other_samples:
            try:
                differences[name] = largest(apart(with_norm(config, name)))[1]
            except Incompatible:
                unfit.append(name)
    return differences, unfit


def _numbers(config: RunConfig) -> Tensor:
    """Return all results of 3 steps as one vector (n,) in float64.

    The vector has the losses, weights, running statistics and metrics of 64 samples.
    """
    run = trained(config, steps=3, dtype=torch.float32)
    task = run.task
    samples = task.splits["val"][:64]
    metrics = task.evaluate(run.network.model.eval(), samples, 64)
    tensors = [run.losses, torch.tensor([*metrics.values()]), *run.state.values()]
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def _left_out(unfit: Sequence[str]) -> str:
    return f"; left out, since they do not fit: {', '.join(unfit)}" if unfit else ""
