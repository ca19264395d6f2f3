"""The norms that take statistics over a batch, each against its paper's formulas."""

from copy import deepcopy

import pytest
import torch
from layers_made import (
    affine,
    assert_close,
    assert_same,
    assert_same_buffers,
    by_channel,
    like,
    made,
    moments,
    results,
    rows,
    running,
    sample,
)
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms import Ghost, Norm, make

C = 6
SEQUENCE, IMAGE = (5, C, 7), (4, C, 3, 5)
SHAPES = [(5, C), SEQUENCE, IMAGE]

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=len)
every_spatial = pytest.mark.parametrize("shape", SHAPES[1:], ids=len)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def c(values: Tensor, x: Tensor) -> Tensor:
    return by_channel(values, x.dim())


def moved(norm: Norm, mean: Tensor | None, var: Tensor, count: int) -> list[Tensor]:
    """The running statistics after one forward, by torch's formula."""
    m, unbiased = norm.momentum, var * count / (count - 1)
    new = [] if mean is None else [(1 - m) * norm.running_mean + m * mean]
    return [*new, (1 - m) * norm.running_var + m * unbiased]


# Each norm against the formula of its paper, in training and evaluation.


def tracked(norm: Norm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the batch in training, else the running ones."""
    return moments(x) if norm.training else (norm.running_mean, norm.running_var)


def instance_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each sample and channel."""
    return torch.var_mean(x, tuple(range(2, x.dim())), correction=0, keepdim=True)


def extended_batch(norm: Norm, x: Tensor) -> Tensor:
    mean, var = norm.running_mean, norm.running_var
    if norm.training:
        mean, var = moments(x)[0], (x - x.mean()).square().mean()
    return affine(norm, (x - c(mean, x)) / (var + norm.eps).sqrt())


def batch_instance(norm: Norm, x: Tensor) -> Tensor:
    mean, var = tracked(norm, x)
    by_batch = (x - c(mean, x)) / (c(var, x) + norm.eps).sqrt()
    var, mean = instance_moments(x)
    by_instance = (x - mean) / (var + norm.eps).sqrt()
    gate = c(norm.gate, x)
    return affine(norm, gate * by_batch + (1 - gate) * by_instance)


def switchable(norm: Norm, x: Tensor) -> Tensor:
    over = tuple(range(1, x.dim()))
    layer_var, layer_mean = torch.var_mean(x, over, correction=0, keepdim=True)
    var, mean = instance_moments(x)
    batch_mean, batch_var = (c(values, x) for values in tracked(norm, x))
    mixed_mean, mixed_var = (
        sum(w * v for w, v in zip(e.exp() / e.exp().sum(), values, strict=True))
        for e, values in (
            (norm.mean_logits, (mean, layer_mean, batch_mean)),
            (norm.var_logits, (var, layer_var, batch_var)),
        )
    )
    return affine(norm, (x - mixed_mean) / (mixed_var + norm.eps).sqrt())


def evonorm_b0(norm: Norm, x: Tensor) -> Tensor:
    by_instance = (instance_moments(x)[0] + norm.eps).sqrt()
    var = moments(x)[1] if norm.training else norm.running_var
    by_batch = c((var + norm.eps).sqrt(), x).expand_as(x)
    return affine(norm, x / by_batch.max(c(norm.v, x) * x + by_instance))


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("extended_batch", extended_batch),
        ("batch_instance", batch_instance),
        ("switchable", switchable),
        ("evonorm_b0", evonorm_b0),
    ],
)
def test_follows_its_paper_and_moves_its_statistics(name, paper):
    for shape in SHAPES if name == "extended_batch" else SHAPES[1:]:
        norm, x = made(name, shape), sample(*shape)
        mean, var = moments(x)
        count = len(rows(x))
        if name == "extended_batch":
            var, count = x.var(correction=0), x.numel()
        after = moved(norm, None if name == "evonorm_b0" else mean, var, count)

        def formula(x: Tensor, norm: Norm = norm) -> Tensor:
            return paper(norm, x)

        expected = results(formula, x, of=norm)
        assert_close(results(norm, x), expected, shape)
        assert_close(running(norm), after, shape)
        norm.eval()
        assert_close(results(norm, x), results(formula, x, of=norm), shape)


# Batch renormalization.


@pytest.mark.parametrize("forwards", [0, 2, 4, 6, 9, 20])
@every_shape
def test_batch_renorm_follows_the_paper_and_its_schedule(shape, forwards):
    options = {"warmup_steps": 3, "r_max_steps": 13, "d_max_steps": 8}
    norm = made("batch_renorm", shape, r_max=1.8, d_max=2.0, **options)
    x = sample(*shape)
    x[:, ::2] = x[:, ::2] / 20 - 3  # r and d meet their lower limits, elsewhere upper
    norm.num_batches_tracked.fill_(forwards)
    forward = forwards + 1
    r_max = {1: 1, 3: 1, 5: 1.16, 7: 1.32, 10: 1.56, 21: 1.8}[forward]
    d_max = {1: 0, 3: 0, 5: 0.8, 7: 1.6, 10: 2, 21: 2}[forward]
    mean0, std0 = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()

    def paper(x: Tensor) -> Tensor:
        mean, var = moments(x)
        std = (var + norm.eps).sqrt()
        r = (std / std0).clamp(1 / r_max, r_max).detach()
        d = ((mean - mean0) / std0).clamp(-d_max, d_max).detach()
        return affine(norm, (x - c(mean, x)) / c(std, x) * c(r, x) + c(d, x))

    after = moved(norm, *moments(x), len(rows(x)))
    assert_close(results(norm, x), results(paper, x, of=norm))
    assert_close(running(norm), after)
    assert norm.num_batches_tracked == forward
    assert_close(norm.eval()(x), like("batch", norm)(x))


@every_shape
def test_batch_renorm_without_room_is_batch(shape):
    at_limit = {"r_max": 1.0, "d_max": 0.0, "warmup_steps": 0}
    for options in (at_limit, {"momentum": 1.0}):
        norm = made("batch_renorm", shape, **options)
        norm.num_batches_tracked.fill_(1000)
        batch = like("batch", norm, momentum=norm.momentum)
        assert_same(norm, batch, sample(*shape))


def test_batch_renorm_without_an_affine_map():
    options = {"warmup_steps": 0, "r_max_steps": 0, "d_max_steps": 0}
    norm = make("batch_renorm", C, affine=False, **options).double()
    twin = make("batch_renorm", C, **options).double()
    assert not list(norm.parameters())
    x = sample(*SEQUENCE)
    assert_close(norm(x), twin(x))


# Frozen batch normalization.


@every_shape
def test_frozen_batch_is_a_trained_batch_in_evaluation(shape):
    trained = made("batch", shape)
    trained(sample(*shape))
    frozen = make("frozen_batch", C).double()
    frozen.load_state_dict(trained.state_dict())
    before, x = running(frozen), sample(*shape)
    expected = trained.eval()(x)
    for training in (True, False):
        assert_close(frozen.train(training)(x), expected)
    assert all(map(torch.equal, running(frozen), before))
    assert not list(frozen.parameters())


# Batch, then group normalization.


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@every_spatial
def test_batch_group_is_batch_then_group(shape, num_groups):
    norm, x = made("batch_group", shape, num_groups=num_groups), sample(*shape)
    batch = like("batch", norm)
    batch.weight, batch.bias = norm.weight, norm.bias  # whose gradients are compared
    group = make("group", C, num_groups=num_groups, affine=False).double()

    def composed(x: Tensor) -> Tensor:
        by_group = group(batch(x)).unflatten(1, (num_groups, -1))
        weight, bias = c(norm.group_weight, by_group), c(norm.group_bias, by_group)
        return (weight * by_group + bias).flatten(1, 2)

    for training in (True, True, False):
        norm.train(training), batch.train(training)
        assert_close(results(norm, x), results(composed, x, of=norm), training)
        assert_same_buffers(norm, batch)


# Batch-instance normalization.


def test_batch_instance_clips_its_gate_and_lets_it_come_back():
    norm, x = made("batch_instance", (6, C, 7)), sample(6, C, 7)
    with torch.no_grad():
        norm.gate.copy_(torch.tensor([-1.0, 0, 0.5, 1, 2, 9]))
    before = deepcopy(norm).eval()
    evaluated = before(x)
    inside = torch.tensor([0, 0, 0.5, 1, 1, 1], dtype=torch.float64)
    before.gate.data.copy_(inside)
    ghost = Ghost(norm, 2)  # three forwards before the backward
    (ghost(x) * torch.randn_like(x)).sum().backward()
    assert torch.equal(norm.gate.detach(), inside)
    assert norm.gate.grad is not None and norm.gate.grad.ne(0).all()
    assert_close(before(x), evaluated)


# Instance-batch normalization.


@every_spatial
def test_ibn_is_instance_beside_batch(shape):
    norm, x = made("ibn", shape), sample(*shape)
    half, state = C // 2, norm.state_dict()
    instance, batch = (make(n, half).double() for n in ("instance", "batch"))
    affines = {key: state.pop(key).split(half) for key in ("weight", "bias")}
    instance.load_state_dict({k: first for k, (first, _) in affines.items()})
    batch.load_state_dict(state | {k: second for k, (_, second) in affines.items()})
    ones = torch.ones_like(x)
    for training in (True, True, False):
        norm.train(training), batch.train(training)
        pairs = zip(
            results(instance, x[:, :half], grad=ones[:, :half]),
            results(batch, x[:, half:], grad=ones[:, half:]),
            strict=True,
        )
        joined = [torch.cat(pair, int(pair[0].dim() > 1)) for pair in pairs]
        assert_close(results(norm, x, grad=ones), joined, training)
        assert_same_buffers(norm, batch)


def test_ibn_refuses_odd_channels():
    with pytest.raises(Incompatible, match=r"norm=ibn .* 7 channels"):
        make("ibn", 7)
