"""Internal covariate shift: against formulas of linear networks, and for every norm."""

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from normbench.norms.base import Norm, make, names
from normbench.norms.ghost import Ghost
from normbench.norms.noise import Noise, NoisyNorm
from normbench.norms.reparam import weight_std
from normbench.probes.base import Trained
from normbench.probes.covariate_shift import MAX_BATCHES, covariate_shift

SAMPLES = 12


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def regression(
    model: nn.Module, x: Tensor, target: Tensor, optimizer: Optimizer, batch: int = 12
) -> Trained:
    """Return `model`, trained on half the mean squared distance to `target`."""

    def loss(model: nn.Module, index: Tensor) -> Tensor:
        error: Tensor = model(x[index]) - target[index]
        return error.square().sum() / (2 * len(index))

    task: Any = SimpleNamespace(loss=loss)
    norms = [m for m in model.modules() if isinstance(m, Norm | Ghost)]
    batches = torch.arange(SAMPLES).split(batch)
    return Trained(task, model, norms, batches, batch, optimizer)


def expected(before: Tensor, after: Tensor) -> dict[str, float]:
    l2 = (before - after).norm()
    return {
        "l2": l2.item(),
        "relative_l2": (l2 / before.norm()).item(),
        "cosine": F.cosine_similarity(before.flatten(), after.flatten(), 0).item(),
    }


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_two_linear_layers_have_the_shift_of_the_formula(momentum: float) -> None:
    """G_2 = E[(W_2 W_1 x - t) (W_1 x)'], and G'_2 has the updated W_1."""
    x, target = normal(SAMPLES, 3), normal(SAMPLES, 2, seed=1)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    model.double()
    w1, w2 = (p.detach().clone() for p in model.parameters())
    optimizer = SGD(model.parameters(), lr=0.3, momentum=momentum)
    velocity = torch.zeros_like(w1)
    if momentum:  # the state of the optimizer after some steps
        velocity = normal(4, 3, seed=2)
        optimizer.state[model[0].weight]["momentum_buffer"] = velocity.clone()

    def gradients(w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
        hidden = x @ w1.T
        error = (hidden @ w2.T - target) / SAMPLES
        return w2.T @ error.T @ x, error.T @ hidden

    g1, before = gradients(w1, w2)
    _, after = gradients(w1 - 0.3 * (momentum * velocity + g1), w2)
    trained = regression(model, x, target, optimizer)
    measured = covariate_shift(trained)
    assert measured == pytest.approx(expected(before, after), rel=1e-9)
    assert measured["l2"] > 0.01
    assert torch.equal(model[0].weight, w1)
    again = copy.deepcopy((model, optimizer))  # as in a run
    assert covariate_shift(regression(again[0], x, target, again[1])) == measured


def test_numbers_are_means_over_layers_and_batches() -> None:
    """Each layer sees the updates of the layers before it only, with their norms."""
    x, target = normal(SAMPLES, 3, 5), normal(SAMPLES, 2, 5, seed=1)
    model = nn.Sequential(
        nn.Conv1d(3, 4, 1), Ghost(make("batch", 4), 3), nn.Conv1d(4, 4, 1),
        make("layer_sample", 4), nn.Conv1d(4, 2, 1),
    ).double()  # fmt: skip
    optimizer = SGD(model.parameters(), lr=0.5)
    trained = regression(model, x, target, optimizer, batch=6)
    rows = []
    for batch in trained.batches:
        old = {name: p.detach() for name, p in model.named_parameters()}

        def gradients(
            weights: dict[str, Tensor], batch: Tensor = batch
        ) -> dict[str, Tensor]:
            leaves = {k: w.clone().requires_grad_() for k, w in weights.items()}
            call: Any = lambda values: functional_call(  # noqa: E731 - one line for a closure
                copy.deepcopy(model), leaves, (values,)
            )
            loss = trained.task.loss(call, batch)
            computed = torch.autograd.grad(loss, [*leaves.values()])
            return dict(zip(leaves, computed, strict=True))

        before = gradients(old)
        new = {name: w - 0.5 * before[name] for name, w in old.items()}
        for layer, preceding in (("2", "01"), ("4", "0123")):
            mixed = {name: (new if name[0] in preceding else old)[name] for name in old}
            after = gradients(mixed)
            pair = [
                torch.cat([g[f"{layer}.weight"].flatten(), g[f"{layer}.bias"]])
                for g in (before, after)
            ]
            rows.append(expected(*pair))
    means = {key: sum(row[key] for row in rows) / 4 for key in rows[0]}
    assert covariate_shift(trained) == pytest.approx(means, rel=1e-6)
    assert means["cosine"] < 0.999


def network(norm: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(channels, channels, 1), norm, nn.Conv1d(channels, 2, 1)
    )


@pytest.mark.parametrize("name", names())
def test_without_an_update_no_norm_has_a_shift(name: str) -> None:
    """Running statistics and random numbers of a norm do not change the gradients."""
    options = {"order": "random_each_forward"} if name == "group_permuted" else {}
    model = network(make(name, 8, **options), 8)
    x, target = normal(SAMPLES, 8, 6).float(), normal(SAMPLES, 2, 6).float()
    model.eval()(x)  # some norms make their parameters in the first forward
    before = torch.get_rng_state()
    shift = covariate_shift(regression(model, x, target, SGD(model.parameters(), 0.0)))
    assert torch.equal(torch.get_rng_state(), before)
    assert shift["l2"] == 0
    assert shift["cosine"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["activation", "statistic"])
def test_the_layers_before_have_the_noise_of_the_next_step(kind: Any) -> None:
    """Without an update, only the noise before a layer changes its gradient."""
    noise = Noise(kind, 0.5, 0.25, 0.1, seed=0)
    model = nn.Sequential(
        nn.Conv1d(3, 4, 1), NoisyNorm(make("batch", 4), noise, SAMPLES, 0),
        nn.Conv1d(4, 2, 1), NoisyNorm(make("affine", 2), noise, SAMPLES, 1),
    ).double()  # fmt: skip
    x, target = normal(SAMPLES, 3, 5), normal(SAMPLES, 2, 5, seed=1)
    optimizer = SGD(model.parameters(), 0.0)
    trained = regression(model, x, target, optimizer)

    def gradient(first: int, last: int) -> Tensor:
        """Return dL/dW_2 with the noise after these numbers of forwards."""
        changed = copy.deepcopy(model).train()
        changed[1].forwards, changed[3].forwards = first, last
        with torch.random.fork_rng():
            torch.manual_seed(0)  # as in the probe, for the noise of single values
            trained.task.loss(changed, trained.batches[0]).backward()
        return torch.cat([p.grad.flatten() for p in changed[2].parameters()])

    # The first forward of the probe gives the order of the layers.
    same, both = expected(gradient(1, 1), gradient(2, 1)), gradient(2, 2)
    assert covariate_shift(trained) == pytest.approx(same, rel=1e-9)
    assert same["cosine"] < 0.999
    assert same != pytest.approx(expected(gradient(1, 1), both), rel=1e-3)


def test_one_layer_has_no_number_and_a_layer_without_gradient_no_cosine() -> None:
    x, target = normal(SAMPLES, 3), normal(SAMPLES, 2, seed=1)
    single = nn.Linear(3, 2).double()
    trained = regression(single, x, target, SGD(single.parameters(), 0.1))
    assert all(math.isnan(value) for value in covariate_shift(trained).values())
    dead = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        dead[0].weight.zero_()
    trained = regression(dead.double(), x, target, SGD(dead.parameters(), 0.1))
    shift = covariate_shift(trained)
    assert shift["l2"] > 0
    assert math.isnan(shift["relative_l2"])
    assert math.isnan(shift["cosine"])


def test_a_reparametrized_convolution_is_one_layer_and_batches_are_limited() -> None:
    model = network(make("batch", 8), 8).double()
    weight_std(model[0])
    calls: list[int] = []
    x, target = normal(SAMPLES, 8, 6), normal(SAMPLES, 2, 6)
    trained = regression(model, x, target, SGD(model.parameters(), 0.1), batch=2)
    loss = trained.task.loss

    def counted(model: nn.Module, index: Sequence[int]) -> Tensor:
        calls.append(len(index))
        return loss(model, index)

    trained.task.loss = counted
    assert covariate_shift(trained)["l2"] > 0
    assert len(calls) == 1 + 2 * MAX_BATCHES  # the second convolution only
