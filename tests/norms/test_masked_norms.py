"""The norms that take statistics over the real positions of a batch."""

from copy import deepcopy

import pytest
import torch
from layers_made import (
    MODES,
    affine,
    assert_close,
    assert_same,
    by_channel,
    like,
    made,
    moments,
    padded,
    results,
    rows,
    sample,
)
from torch import Tensor, nn

from normbench.norms import Ghost

C = 6
SEQUENCE = (5, C, 7)

masked_or_not = pytest.mark.parametrize("masked", [False, True])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def c(values: Tensor, x: Tensor) -> Tensor:
    return by_channel(values, x.dim())


# The masked batch norm.


def test_masked_batch_equals_batch_on_the_real_positions():
    shape = (5, C, 7)
    norm, x, mask = made("batch_masked", shape), sample(*shape), padded(shape)
    theirs = nn.BatchNorm1d(C).double()
    theirs.load_state_dict(norm.state_dict())
    grad = sample(*shape).where(mask[:, None], 0)
    for training in MODES:
        norm.train(training), theirs.train(training)
        y, x_grad, *gradients = results(norm, x, mask, grad=grad)
        y, x_real, real_grad, theirs_x = (
            t.movedim(1, -1)[mask] for t in (y, x_grad, grad, x)
        )
        expected = results(theirs, theirs_x, grad=real_grad)
        assert_close([y, x_real, *gradients], expected, training)
        assert x_grad.movedim(1, -1)[~mask].eq(0).all()
        assert_close(dict(norm.state_dict()), dict(theirs.state_dict()))


def test_masked_batch_maps_pads_as_it_maps_real_positions():
    norm, x = made("batch_masked", (2, C, 4)), sample(2, C, 4)
    x[:, :, 3] = x[:, :, 0]
    y = norm(x, torch.tensor([[True, True, True, False]]).expand(2, 4))
    assert_close(y[:, :, 3], y[:, :, 0])


def test_masked_batch_gradient_is_exact_at_pads_too():
    norm, mask = made("batch_masked", (3, C, 3)), padded((3, C, 3))
    x = sample(3, C, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, mask), x)


def test_masked_batch_stays_finite_where_asking_would_wait(monkeypatch):
    for real in (0, 1):
        norm, mask = made("batch_masked", (1, C, 4)), torch.arange(4)[None] < real
        before = deepcopy([norm.running_mean, norm.running_var])
        # What a device other than the CPU does.
        monkeypatch.setattr(norm, "count", lambda x, mask: mask.sum().clamp(min=1))
        y, *gradients = results(norm, sample(1, C, 4), mask)
        assert all(t.isfinite().all() for t in (y, *gradients))
        assert_close(y[:, :, :real], norm.bias.view(1, C, 1)[:, :, :real])
        assert_close([norm.running_mean, norm.running_var], before)


# Regularized batch normalization.


@masked_or_not
def test_batch_regularized_leaves_the_penalty_of_the_paper(masked):
    norm = made("batch_regularized", SEQUENCE, penalty_mean=0.7, penalty_std=0.3)
    x = sample(*SEQUENCE).requires_grad_()
    mask = padded(x.shape) if masked else None
    mean, var = moments(x, mask)
    std, running_std = ((v + norm.eps).sqrt() for v in (var, norm.running_var))
    expected = (
        norm.penalty_mean * (mean - norm.running_mean).square().sum()
        + norm.penalty_std * (std - running_std).square().sum()
    )
    (gradient,) = torch.autograd.grad(expected, x)
    norm(x, mask)
    torch.testing.assert_close(norm.penalty, expected.detach(), check_stride=False)
    (ours,) = torch.autograd.grad(norm.penalty, x)
    assert_close(ours, gradient)
    assert ours.abs().sum() > 0


@masked_or_not
def test_batch_regularized_is_batch_masked_and_a_penalty(masked):
    x = sample(*SEQUENCE)
    for mean, std in ((0.0, 0.0), (0.7, 0.3)):
        options = {"penalty_mean": mean, "penalty_std": std}
        norm = made("batch_regularized", SEQUENCE, **options)
        mask = [padded(x.shape)] if masked else []
        assert_same(norm, like("batch_masked", norm), x, *mask)
        assert (norm.penalty == 0) == (mean == 0)


def test_batch_regularized_penalty_has_a_gradient_where_a_channel_is_constant():
    norm = made("batch_regularized", SEQUENCE)
    x = torch.ones(SEQUENCE, dtype=torch.float64, requires_grad=True)
    norm(x)
    norm.penalty.backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_batch_regularized_is_copied_without_its_penalty():
    norm, x = made("batch_regularized", (5, C)), sample(5, C).requires_grad_()
    norm(x)
    twin = deepcopy(norm)
    assert twin.penalty is None and norm.penalty is not None
    assert_close(twin(x), norm(x))


def test_batch_regularized_ghost_means_the_penalties_of_its_chunks():
    norm, x = made("batch_regularized", (6, C, 4)), sample(6, C, 4)
    alone, penalties = deepcopy(norm), []
    for chunk in x.split(2):
        alone(chunk)
        penalties.append(alone.penalty)
    Ghost(norm, 2)(x)
    assert_close(norm.penalty, torch.stack(penalties).mean())


# Power normalization.


@masked_or_not
@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_power_follows_the_paper_forward_and_backward(warmup_steps, masked):
    """Algorithm 2 of the paper, by hand, over four steps."""
    norm = made("power", SEQUENCE, warmup_steps=warmup_steps, momentum=0.3)
    square, nu = norm.running_square.clone(), norm.nu.clone()
    m, eps = norm.momentum, norm.eps
    for step in range(4):
        x, y_grad = sample(*SEQUENCE), torch.randn(SEQUENCE, dtype=torch.float64)
        mask = padded(x.shape) if masked else torch.ones(5, 7, dtype=torch.bool)
        real = mask.unsqueeze(1)
        batch_square = rows(x, mask).square().mean(0)
        psi = ((batch_square if step < warmup_steps else square) + eps).sqrt()
        z = x / c(psi, x)
        g = y_grad * c(norm.weight, x)
        x_grad = (g - c(nu, x) * z * real) / c(psi, x)
        gamma = rows(z * z, mask).mean(0)
        lam = rows(g * z, mask).mean(0)
        square = (1 - m) * square + m * batch_square
        nu = nu * (1 - m * gamma) + m * lam

        ours = results(norm, x, mask if masked else None, grad=y_grad)
        weight_grad, bias_grad = rows(y_grad * z).sum(0), rows(y_grad).sum(0)
        expected = [affine(norm, z).detach(), x_grad, weight_grad, bias_grad]
        assert_close(ours, expected, step)
        assert_close([norm.running_square, norm.nu], [square, nu], step)
    norm.eval()
    assert_close(norm(x), affine(norm, x / c((square + eps).sqrt(), x)))
    assert_close([norm.running_square, norm.nu], [square, nu])


def test_power_leaves_a_forward_without_backward_out_of_nu():
    norm = made("power", SEQUENCE)
    nu = norm.nu.clone()
    with torch.no_grad():
        norm(sample(*SEQUENCE))
    assert torch.equal(norm.nu, nu)
