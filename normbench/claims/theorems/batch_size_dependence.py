"""Check which norms depend on the other samples of a batch, and how noisy they are."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from normbench.claims.theorems.base import (
    Finding,
    K,
    difference,
    finding,
    largest,
    theorem,
)
from normbench.claims.theorems.networks import built, small, trained, with_norm
from normbench.config.schema import RunConfig
from normbench.errors import Incompatible
from normbench.norms.base import REGISTRY, make
from normbench.norms.measure.subject import Mode, Subject, modes, subject
from normbench.norms.statistics import batch_moments

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
        left_out=left_out_text(unfit),
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

    per_sample, unfit = per_sample_networks(apart)
    batch = apart(with_norm(small("cnn"), "batch"))
    return finding(
        per_sample,
        batch,
        "the gradients of {networks} networks differ by {deviation:.1g} at most "
        "({worst}); with batch, 2 micro-batches move them by {batch[2]:.2g}, "
        "16 by {batch[16]:.2g}{left_out}",
        networks=len(per_sample),
        batch=batch,
        left_out=left_out_text(unfit),
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

    per_sample, unfit = per_sample_networks(apart)
    return finding(
        per_sample,
        apart(with_norm(small("cnn"), "batch")),
        "{networks} networks after 3 steps differ by {deviation:.1g} in any loss, "
        "weight or metric; with batch some number is off by {control:.2g} at "
        "least{left_out}",
        networks=len(per_sample),
        left_out=left_out_text(unfit),
    )


def per_sample_networks(
    apart: Callable[[RunConfig], Mapping[K, float]],
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


CLASSES, PER_CLASS = 3, 2
"""The samples whose batches `noise-slope` lists: so many classes, so many of each."""
BATCH_SIZES = (1, 2, 4)


@theorem("noise-slope")
def noise_slope() -> Finding:
    """The noise of batch means has slope -1/2 on a log-log scale, however pixels vary.

    The network is fixed: a CNN in evaluation, with 6 pictures. The noise is the root
    mean square over channels of the standard deviation of a channel's mean between norm
    batches of n independent samples. Samples are drawn with replacement, so all 6**n
    batches are equally likely, and the check computes the noise from all of them: it is
    exact. The least-squares slope of log noise on log n, for n = 1, 2 and 4, is -1/2
    for the input of every norm, and also for other correlations of its pixels, which
    change only the intercept. The control are batches whose samples are dependent: all
    from one class, which is drawn at random.
    """
    samples = torch.arange(CLASSES * PER_CLASS)
    independent = {n: _all_batches(samples, n) for n in BATCH_SIZES}
    of_one_class = {
        n: torch.cat([_all_batches(c, n) for c in samples.split(PER_CLASS)])
        for n in BATCH_SIZES
    }
    layers = _norm_inputs()
    noises = {
        (layer, pixels): _noises(values, independent)
        for layer, x in layers.items()
        for pixels, values in _rearranged(x).items()
    }
    equal, uncorrelated = (
        sum(float(noises[layer, pixels][0]) for layer in layers)
        for pixels in ("equal", "shuffled")
    )
    return finding(
        {case: abs(_slope(noise) + 0.5) for case, noise in noises.items()},
        {
            layer: abs(_slope(_noises(x, of_one_class)) + 0.5)
            for layer, x in layers.items()
        },
        "the slopes of the inputs of {layers} norms, with pixels as they are, shuffled "
        "or equal in a sample, differ from -1/2 by {deviation:.1g} at most; equal "
        "pixels multiply the noise of shuffled pixels by {ratio:.2g} at every norm "
        "batch; in batches of one class, the slope is off by {control:.2g} at least "
        "({weakest})",
        layers=len(layers),
        ratio=equal / uncorrelated,
    )


@torch.no_grad()
def _norm_inputs() -> dict[str, Tensor]:
    """Return the input (6, C, H, W) float64 of every norm of a fixed CNN, by "norm 1".

    The samples are sorted by class.
    """
    task, network = built(small("cnn"), torch.float64)
    train = task.splits["train"]
    labels = task.labels[train]  # type: ignore[attr-defined]  # a classifier has them
    samples = [train[labels == label][:PER_CLASS] for label in range(CLASSES)]
    inputs: dict[str, Tensor] = {}
    for number, norm in enumerate(network.norms.modules, 1):
        norm.register_forward_pre_hook(
            lambda module, args, name=f"norm {number}": inputs.update({name: args[0]})
        )
    network.model.eval()(*task.inputs(torch.cat(samples)))
    return inputs


def _rearranged(x: Tensor) -> dict[str, Tensor]:
    """Return `x` (N, C, H, W) itself and with two other correlations of its pixels.

    "shuffled" has the values of each channel shuffled over samples and positions, so
    that the correlation is 0 on average. "equal" has the value at the centre of a
    sample at all its positions, so that the correlation is 1.
    """
    by_channel = x.transpose(0, 1)
    values = by_channel.flatten(1)
    shuffled = values.gather(1, torch.rand(values.shape).argsort(1))
    rows, columns = x.shape[2:]
    centre = x[:, :, rows // 2, columns // 2, None, None]
    return {
        "as they are": x,
        "shuffled": shuffled.view(by_channel.shape).transpose(0, 1),
        "equal": centre.expand_as(x),
    }


def _all_batches(samples: Tensor, n: int) -> Tensor:
    """Return all ordered batches of n of `samples` with replacement: (batches, n)."""
    return torch.cartesian_prod(*[samples] * n).view(-1, n)


def _noises(x: Tensor, batches: Mapping[int, Tensor]) -> Tensor:
    """Return the noise of the batch mean of `x` for every norm batch: (sizes,).

    `batches` has all equally likely batches (batches, n) of each norm batch n.
    """
    noises = []
    for n, index in batches.items():
        count = n * x.shape[2:].numel()
        mean, _ = batch_moments(x[index.flatten()], None, count, chunks=len(index))
        noises.append(mean.var(0, correction=0).mean().sqrt())
    return torch.stack(noises)


def _slope(noises: Tensor) -> float:
    """Return the least-squares slope of log noise on the log of BATCH_SIZES."""
    log_sizes = torch.tensor(BATCH_SIZES, dtype=noises.dtype).log()
    centred = log_sizes - log_sizes.mean()
    return float((centred * noises.log()).sum() / centred.square().sum())


def left_out_text(unfit: Sequence[str]) -> str:
    return f"; left out, since they do not fit: {', '.join(unfit)}" if unfit else ""
