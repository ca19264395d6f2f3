"""The norms that take statistics over a batch, each against its paper's formulas."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from normbench.errors import Incompatible
from normbench.norms import Ghost, Norm, make

C = 6
SHAPES = [(5, C), (5, C, 7), (4, C, 3, 5)]
SPATIAL = SHAPES[1:]
FAMILY = """
batch_renorm batch_regularized power frozen_batch extended_batch
batch_group batch_instance ibn switchable evonorm_b0
""".split()

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=len)
every_spatial = pytest.mark.parametrize("shape", SPATIAL, ids=len)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def made(name: str, channels: int = C, **options: object) -> Norm:
    """A float64 norm in training, its parameters and running statistics random."""
    norm = make(name, channels, **options).double()
    for tensor in [*norm.parameters(), *norm.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.3, 0.9)
    return norm


def like(name: str, other: Norm, **options: object) -> Norm:
    """The norm `name` with those parameters and buffers of `other` that it has."""
    norm = make(name, other.channels, **options).double()
    theirs = other.state_dict()
    norm.load_state_dict({key: theirs[key] for key in norm.state_dict()})
    return norm.train(other.training)


def sample(*shape: int) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64) * 2
    return x + torch.arange(shape[1]).view(-1, *(1,) * (len(shape) - 2))


def padded(shape: tuple[int, ...]) -> Tensor:
    """A mask (N, T): sample i has i + 1 real positions."""
    return torch.arange(shape[2]) < torch.arange(1, shape[0] + 1)[:, None]


def c(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (x.dim() - 2))


def rows(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """(values per channel, C), of real positions only."""
    last = x.movedim(1, -1)
    return last.flatten(0, -2) if mask is None else last[mask]


def affine(norm: Norm, z: Tensor) -> Tensor:
    return c(norm.weight, z) * z + c(norm.bias, z)


def results(
    norm: Norm, f: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor | None = None
) -> list[Tensor]:
    """f(x), then the gradients of x and of the norm's parameters."""
    x = x.detach().requires_grad_()
    y = f(x)
    if grad is None:
        grad = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).cos().view(y.shape)
    inputs = [x, *norm.parameters()]
    found = torch.autograd.grad(y, inputs, grad, materialize_grads=True)
    return [y.detach(), *found]


def close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs)


def floating(norm: Norm) -> list[Tensor]:
    return [b.clone() for b in norm.buffers() if b.is_floating_point()]


def same_buffers(ours: Norm, theirs: Norm) -> None:
    for key, value in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(key), value)


def moved(norm: Norm, mean: Tensor | None, var: Tensor, count: int) -> list[Tensor]:
    """What the running statistics become, by torch's formula."""
    m, unbiased = norm.momentum, var * count / (count - 1)
    new = [] if mean is None else [(1 - m) * norm.running_mean + m * mean]
    return [*new, (1 - m) * norm.running_var + m * unbiased]


# Batch renormalization.


@pytest.mark.parametrize("forwards", [0, 2, 4, 6, 9, 20])
@every_shape
def test_batch_renorm_follows_the_paper_and_its_schedule(shape, forwards):
    options = {"warmup_steps": 3, "r_max_steps": 13, "d_max_steps": 8}
    norm, x = made("batch_renorm", r_max=1.8, d_max=2.0, **options), sample(*shape)
    x[:, ::2] = x[:, ::2] / 20 - 3  # r and d meet their lower limits, elsewhere upper
    norm.num_batches_tracked.fill_(forwards)
    forward = forwards + 1
    r_max = {1: 1, 3: 1, 5: 1.16, 7: 1.32, 10: 1.56, 21: 1.8}[forward]
    d_max = {1: 0, 3: 0, 5: 0.8, 7: 1.6, 10: 2, 21: 2}[forward]
    mean0, std0 = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()

    def paper(x: Tensor) -> Tensor:
        mean = rows(x).mean(0)
        std = (rows(x).var(0, correction=0) + norm.eps).sqrt()
        r = (std / std0).clamp(1 / r_max, r_max).detach()
        d = ((mean - mean0) / std0).clamp(-d_max, d_max).detach()
        return affine(norm, (x - c(mean, x)) / c(std, x) * c(r, x) + c(d, x))

    expected = results(norm, paper, x)
    flat = rows(x)
    running = moved(norm, flat.mean(0), flat.var(0, correction=0), len(flat))
    close(results(norm, norm, x), expected)
    close(floating(norm), running)
    assert norm.num_batches_tracked == forward
    close([norm.eval()(x)], [like("batch", norm)(x)])


def test_batch_renorm_is_in_training_what_it_is_in_evaluation_within_its_limits():
    norm = made("batch_renorm", r_max=1e6, d_max=1e6, warmup_steps=0, d_max_steps=0)
    norm.r_max_steps = 0
    x = sample(5, C, 7)
    evaluated = deepcopy(norm).eval()(x)
    close([norm(x)], [evaluated])


@pytest.mark.parametrize(
    "options", [{"r_max": 1.0, "d_max": 0.0, "warmup_steps": 0}, {"momentum": 1.0}]
)
@every_shape
def test_batch_renorm_without_room_is_batch(shape, options):
    norm = made("batch_renorm", **options)
    norm.num_batches_tracked.fill_(1000)
    momentum = {"momentum": norm.momentum}
    theirs, x = like("batch", norm, **momentum), sample(*shape)
    close(results(norm, norm, x), results(theirs, theirs, x))
    same_buffers(norm, theirs)
    close([norm.eval()(x)], [theirs.eval()(x)])


def test_batch_renorm_without_an_affine_map():
    options = {"warmup_steps": 0, "r_max_steps": 0, "d_max_steps": 0}
    norm = make("batch_renorm", C, affine=False, **options).double()
    twin = make("batch_renorm", C, **options).double()
    assert not list(norm.parameters())
    x = sample(5, C, 7)
    close([norm(x)], [twin(x)])


# Regularized batch normalization.


def rbn_penalty(norm: Norm, x: Tensor, mask: Tensor | None) -> Tensor:
    real = rows(x, mask)
    std = (real.var(0, correction=0) + norm.eps).sqrt()
    running_std = (norm.running_var + norm.eps).sqrt()
    return (
        norm.penalty_mean * (real.mean(0) - norm.running_mean).square().sum()
        + norm.penalty_std * (std - running_std).square().sum()
    )


@pytest.mark.parametrize("masked", [False, True])
def test_batch_regularized_leaves_the_penalty_of_the_paper(masked):
    norm = made("batch_regularized", penalty_mean=0.7, penalty_std=0.3)
    x = sample(5, C, 7).requires_grad_()
    mask = padded(x.shape) if masked else None
    expected = rbn_penalty(norm, x, mask)
    (of_x,) = torch.autograd.grad(expected, x)
    norm(x, mask)
    torch.testing.assert_close(norm.penalty, expected.detach(), check_stride=False)
    (ours,) = torch.autograd.grad(norm.penalty, x)
    close([ours], [of_x])
    assert ours.abs().sum() > 0


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.7, 0.3)])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_regularized_is_batch_masked_and_a_penalty(weights, masked):
    mean, std = weights
    norm = made("batch_regularized", penalty_mean=mean, penalty_std=std)
    theirs, x = like("batch_masked", norm), sample(5, C, 7)
    args = [padded(x.shape)] if masked else []
    for _ in range(2):
        ours = results(norm, lambda x: norm(x, *args), x)
        close(ours, results(theirs, lambda x: theirs(x, *args), x))
    same_buffers(norm, theirs)
    assert (norm.penalty == 0) == (weights == (0, 0))
    norm.eval(), theirs.eval()
    ours = results(norm, lambda x: norm(x, *args), x)
    close(ours, results(theirs, lambda x: theirs(x, *args), x))


def test_batch_regularized_penalty_has_a_gradient_where_a_channel_is_constant():
    norm = made("batch_regularized")
    x = torch.ones(5, C, 7, dtype=torch.float64, requires_grad=True)
    norm(x)
    norm.penalty.backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_batch_regularized_is_copied_without_its_penalty():
    norm, x = made("batch_regularized"), sample(5, C).requires_grad_()
    norm(x)
    twin = deepcopy(norm)
    assert twin.penalty is None and norm.penalty is not None
    close([twin(x)], [norm(x)])


def test_batch_regularized_ghost_means_the_penalties_of_its_chunks():
    norm, x = made("batch_regularized"), sample(6, C, 4)
    alone, expected = deepcopy(norm), []
    for chunk in x.split(2):
        alone(chunk)
        expected.append(alone.penalty)
    Ghost(norm, 2)(x)
    torch.testing.assert_close(norm.penalty, torch.stack(expected).mean())


# Power normalization.


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_power_follows_the_paper_forward_and_backward(warmup_steps, masked):
    """Algorithm 2 of the paper, by hand, over four steps."""
    norm = made("power", warmup_steps=warmup_steps, momentum=0.3)
    square, nu = norm.running_square.clone(), norm.nu.clone()
    m, eps = norm.momentum, norm.eps
    for step in range(4):
        x, g_y = sample(5, C, 7), torch.randn(5, C, 7, dtype=torch.float64)
        mask = padded(x.shape) if masked else torch.ones(5, 7, dtype=torch.bool)
        real = mask.unsqueeze(1)
        of_batch = rows(x, mask).square().mean(0)
        psi = ((of_batch if step < warmup_steps else square) + eps).sqrt()
        z = x / c(psi, x)
        g = g_y * c(norm.weight, x)
        of_x = (g - c(nu, x) * z * real) / c(psi, x)
        gamma = rows(z * z, mask).mean(0)
        lam = rows(g * z, mask).mean(0)
        square = (1 - m) * square + m * of_batch
        nu = nu * (1 - m * gamma) + m * lam

        def forward(x: Tensor, mask: Tensor = mask) -> Tensor:
            return norm(x, mask if masked else None)

        found = results(norm, forward, x, g_y)
        of_weight, of_bias = rows(g_y * z).sum(0), rows(g_y).sum(0)
        close(found, [affine(norm, z).detach(), of_x, of_weight, of_bias])
        close([norm.running_square, norm.nu], [square, nu])
    norm.eval()
    z = x / c((square + eps).sqrt(), x)
    close([norm(x)], [affine(norm, z)])
    close([norm.running_square, norm.nu], [square, nu])


def test_power_approximates_the_gradient_through_the_mean_square():
    """At a steady state nu makes it the gradient of x / sqrt(mean square + eps)."""
    norm = made("power", momentum=0.05, affine=False)
    x, g = sample(5, C, 7), torch.randn(5, C, 7, dtype=torch.float64)
    for _ in range(600):
        found = results(norm, norm, x, g)

    def exact(x: Tensor) -> Tensor:
        return x / c((rows(x).square().mean(0) + norm.eps).sqrt(), x)

    torch.testing.assert_close(found, results(norm, exact, x, g), rtol=1e-3, atol=1e-3)


def test_power_leaves_a_forward_without_backward_out_of_nu():
    norm, x = made("power"), sample(5, C, 7)
    nu = norm.nu.clone()
    with torch.no_grad():
        norm(x)
    assert torch.equal(norm.nu, nu)


@pytest.mark.parametrize("name", ["power", "batch_regularized"])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_finite_at_a_pad_goes_nowhere(name, training):
    norm, x = made(name).train(training), sample(5, C, 7)
    twin, mask = deepcopy(norm), padded(x.shape)
    real = mask[:, None].expand_as(x)
    grad = torch.randn_like(x).where(real, 0)
    clean = results(norm, lambda x: norm(x, mask), x.where(real, 0), grad)
    dirty = results(twin, lambda x: twin(x, mask), x.where(real, torch.nan), grad)
    close(dirty[1:], clean[1:])
    close([dirty[0][real]], [clean[0][real]])
    same_buffers(twin, norm)


@pytest.mark.parametrize("name", ["power", "batch_regularized"])
@pytest.mark.parametrize("real", [0, 1])
def test_a_statistic_of_one_real_value_is_refused(name, real):
    norm, mask = make(name, C), torch.arange(4)[None] < real
    before = floating(norm)
    with pytest.raises(Incompatible, match=rf"{name} .* \(1, 4\) has {real};"):
        norm(torch.randn(1, C, 4), mask)
    assert all(map(torch.equal, floating(norm), before))


# Frozen batch normalization.


@every_shape
def test_frozen_batch_is_a_trained_batch_in_evaluation(shape):
    trained = made("batch")
    trained(sample(*shape))
    frozen = make("frozen_batch", C).double()
    frozen.load_state_dict(trained.state_dict())
    before = floating(frozen)
    x = sample(*shape)
    expected = trained.eval()(x)
    for training in (True, False):
        close([frozen.train(training)(x)], [expected])
    assert all(map(torch.equal, floating(frozen), before))
    assert not list(frozen.parameters())


def test_frozen_batch_equals_torchvision():
    ours = made("frozen_batch")
    theirs = FrozenBatchNorm2d(C).double()
    theirs.load_state_dict(ours.state_dict())
    x = sample(*SHAPES[2])
    close(results(ours, ours, x), results(ours, theirs, x))


# Extended batch normalization.


@every_shape
def test_extended_batch_follows_the_paper(shape):
    norm, x = made("extended_batch"), sample(*shape)

    def paper(x: Tensor) -> Tensor:
        var = (x - x.mean()).square().mean()
        return affine(norm, (x - c(rows(x).mean(0), x)) / (var + norm.eps).sqrt())

    expected = results(norm, paper, x)
    running = moved(norm, rows(x).mean(0), x.var(correction=0), x.numel())
    close(results(norm, norm, x), expected)
    close(floating(norm), running)
    z = (x - c(running[0], x)) / (running[1] + norm.eps).sqrt()
    close([norm.eval()(x)], [affine(norm, z)])


def test_extended_batch_of_one_channel_is_batch():
    norm, x = made("extended_batch", 1), sample(5, 1, 7)
    theirs = make("batch", 1).double()
    state = norm.state_dict()
    theirs.load_state_dict(state | {"running_var": state["running_var"].view(1)})
    for training in (True, True, False):
        norm.train(training), theirs.train(training)
        close(results(norm, norm, x), results(theirs, theirs, x))


# Batch, then group normalization.


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@every_spatial
def test_batch_group_is_batch_then_group(shape, num_groups):
    norm, x = made("batch_group", num_groups=num_groups), sample(*shape)
    batch = like("batch", norm)
    group = make("group", C, num_groups=num_groups, affine=False).double()

    def composed(x: Tensor) -> Tensor:
        by_group = group(batch(affine_free(x))).unflatten(1, (num_groups, -1))
        ones = (1,) * (by_group.dim() - 2)
        weight = norm.group_weight.view(1, -1, *ones)
        bias = norm.group_bias.view(1, -1, *ones)
        return (weight * by_group + bias).flatten(1, 2)

    def affine_free(x: Tensor) -> Tensor:
        # The batch part must be differentiated by the parameters of `norm`.
        batch.weight, batch.bias = norm.weight, norm.bias
        return x

    for training in (True, True, False):
        twin = deepcopy(norm).train(training)
        batch.train(training)
        close(results(twin, twin, x), results(norm, composed, x))
        same_buffers(twin, batch)
        norm.load_state_dict(twin.state_dict())


# Batch-instance normalization.


@every_spatial
def test_batch_instance_follows_the_paper(shape):
    norm, x = made("batch_instance"), sample(*shape)

    def mixed(mean: Tensor, var: Tensor) -> Callable[[Tensor], Tensor]:
        def paper(x: Tensor) -> Tensor:
            over = tuple(range(2, x.dim()))
            var_i, mean_i = torch.var_mean(x, over, correction=0, keepdim=True)
            m, v = (mean, var) if not norm.training else batch_statistics(x)
            by_batch = (x - c(m, x)) / (c(v, x) + norm.eps).sqrt()
            by_instance = (x - mean_i) / (var_i + norm.eps).sqrt()
            gate = c(norm.gate, x)
            return affine(norm, gate * by_batch + (1 - gate) * by_instance)

        return paper

    def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        return rows(x).mean(0), rows(x).var(0, correction=0)

    expected = results(norm, mixed(norm.running_mean, norm.running_var), x)
    running = moved(norm, *batch_statistics(x), len(rows(x)))
    close(results(norm, norm, x), expected)
    close(floating(norm), running)
    norm.eval()
    close(results(norm, norm, x), results(norm, mixed(*running), x))


@pytest.mark.parametrize(("gate", "name"), [(0.0, "instance"), (1.0, "batch")])
@every_spatial
def test_batch_instance_at_the_ends_of_its_gate(shape, gate, name):
    norm, x = made("batch_instance"), sample(*shape)
    nn.init.constant_(norm.gate, gate)
    theirs = like(name, norm)
    for training in (True, False):
        norm.train(training), theirs.train(training)
        ours = results(norm, norm, x)
        close(ours[:4], results(theirs, theirs, x))


def test_batch_instance_clips_its_gate_and_lets_it_come_back():
    norm, x = made("batch_instance"), sample(6, C, 7)
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
    close([before(x)], [evaluated])


# Instance-batch normalization.


@every_spatial
def test_ibn_is_instance_beside_batch(shape):
    norm, x = made("ibn"), sample(*shape)
    instance, batch = (make(n, C // 2).double() for n in ("instance", "batch"))
    halves = {
        k: v.split(C // 2) for k, v in norm.state_dict().items() if v.numel() == C
    }
    assert halves.keys() == {"weight", "bias"}
    own = {k: v for k, v in norm.state_dict().items() if k not in halves}
    instance.load_state_dict({k: v[0] for k, v in halves.items()})
    batch.load_state_dict({k: v[1] for k, v in halves.items()} | own)
    for training in (True, True, False):
        norm.train(training), batch.train(training)
        first = results(instance, instance, x[:, : C // 2], torch.ones_like(x[:, :3]))
        second = results(batch, batch, x[:, C // 2 :], torch.ones_like(x[:, :3]))
        y, of_x, *of_parameters = results(norm, norm, x, torch.ones_like(x))
        pairs = zip(first, second, strict=True)
        wide = [torch.cat(pair, int(pair[0].dim() > 1)) for pair in pairs]
        close([y, of_x, *of_parameters], wide)
        same_buffers(norm, batch)


def test_ibn_refuses_odd_channels():
    with pytest.raises(Incompatible, match=r"norm=ibn .* 7 channels"):
        make("ibn", 7)


# Switchable normalization.


@every_spatial
def test_switchable_follows_the_paper(shape):
    norm, x = made("switchable"), sample(*shape)

    def paper(x: Tensor) -> Tensor:
        over = tuple(range(2, x.dim()))
        sets = [over, (1, *over), (0, *over)]
        moments = [torch.var_mean(x, s, correction=0, keepdim=True) for s in sets]
        var, mean = ([m[i] for m in moments] for i in (0, 1))
        if not norm.training:
            var[2], mean[2] = c(norm.running_var, x), c(norm.running_mean, x)
        of_mean = norm.mean_logits.exp() / norm.mean_logits.exp().sum()
        of_var = norm.var_logits.exp() / norm.var_logits.exp().sum()
        mixed_mean = sum(w * m for w, m in zip(of_mean, mean, strict=True))
        mixed_var = sum(w * v for w, v in zip(of_var, var, strict=True))
        return affine(norm, (x - mixed_mean) / (mixed_var + norm.eps).sqrt())

    expected = results(norm, paper, x)
    flat = rows(x)
    running = moved(norm, flat.mean(0), flat.var(0, correction=0), len(flat))
    close(results(norm, norm, x), expected)
    close(floating(norm), running)
    norm.eval()
    close(results(norm, norm, x), results(norm, paper, x))


@pytest.mark.parametrize(
    ("chosen", "name"), [(0, "instance"), (1, "layer_sample"), (2, "batch")]
)
@every_spatial
def test_switchable_with_one_weight_is_that_norm(shape, chosen, name):
    norm, x = made("switchable"), sample(*shape)
    for logits in (norm.mean_logits, norm.var_logits):
        nn.init.zeros_(logits)
        logits.data[chosen] = 1e4
    theirs = like(name, norm)
    for training in (True, False):
        norm.train(training), theirs.train(training)
        close(results(norm, norm, x)[:4], results(theirs, theirs, x))


# EvoNorm-B0.


def test_evonorm_b0_equals_timm():
    norm, x = made("evonorm_b0"), sample(*SHAPES[2])
    theirs = EvoNorm2dB0(C).double()
    theirs.load_state_dict(
        {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    )
    for training in (True, True, False):
        norm.train(training), theirs.train(training)
        theirs.weight, theirs.bias, theirs.v = norm.weight, norm.bias, norm.v
        ours, other = results(norm, norm, x), results(norm, theirs, x)
        # timm's variance is a float32 whatever the input.
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            norm.running_var, theirs.running_var, rtol=1e-6, atol=0
        )


@every_spatial
def test_evonorm_b0_follows_the_paper(shape):
    norm, x = made("evonorm_b0"), sample(*shape)

    def paper(x: Tensor) -> Tensor:
        over = tuple(range(2, x.dim()))
        by_instance = (x.var(over, correction=0, keepdim=True) + norm.eps).sqrt()
        var = rows(x).var(0, correction=0) if norm.training else norm.running_var
        by_batch = c((var + norm.eps).sqrt(), x).expand_as(x)
        return affine(norm, x / by_batch.max(c(norm.v, x) * x + by_instance))

    expected = results(norm, paper, x)
    running = moved(norm, None, rows(x).var(0, correction=0), len(rows(x)))
    close(results(norm, norm, x), expected)
    close(floating(norm), running)
    norm.eval()
    close(results(norm, norm, x), results(norm, paper, x))


# Where a statistic would be of one value.


@pytest.mark.parametrize(
    ("name", "shape", "modes"),
    [
        ("batch_renorm", (1, C, 1), [True]),
        ("batch_regularized", (1, C), [True]),
        ("power", (1, C, 1, 1), [True]),
        ("extended_batch", (1, C), [True]),
        ("batch_group", (4, C, 1), [True, False]),
        ("batch_instance", (4, C, 1), [True, False]),
        ("ibn", (4, C), [True, False]),
        ("switchable", (4, C, 1, 1), [True, False]),
        ("evonorm_b0", (4, C), [True, False]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_statistic_of_one_value_is_refused(name, shape, modes, training):
    options = {"num_groups": C} if name == "batch_group" else {}
    norm = make(name, C, **options).train(training)
    before = deepcopy(norm.state_dict())
    if training in modes:
        with pytest.raises(Incompatible, match=rf"norm={name} .*gives it 1;"):
            norm(torch.ones(shape))
    else:
        assert norm(torch.ones(shape)).isfinite().all()
    for key, value in before.items():
        assert torch.equal(norm.state_dict()[key], value)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("whole", [False, True])
def test_bfloat16_is_finite_and_stays_bfloat16(name, whole):
    options = {"num_groups": 2} if name == "batch_group" else {}
    norm = make(name, C, **options)
    if whole:
        norm.bfloat16()
    x = (sample(5, C, 7) * 100).bfloat16().requires_grad_()
    for training in (True, True, False):
        y = norm.train(training)(x, padded(x.shape))
        y.float().square().mean().backward()
        assert y.dtype == torch.bfloat16 and y.isfinite().all()
    tensors = [x, *norm.parameters()]
    assert all(t.grad is not None and t.grad.isfinite().all() for t in tensors)
    assert all(b.isfinite().all() for b in norm.buffers())
