"""Reparametrizations of the convolutions of a model."""

from copy import deepcopy

import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normbench.errors import Incompatible, RequestError
from normbench.norms import reparam


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 2, 1))
        self.output_layers = [self.last]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.first(x)))


@pytest.fixture
def model() -> Network:
    torch.manual_seed(0)
    return Network().double()


def test_weight_std_is_the_formula_on_all_but_output_layers(model):
    before, original = deepcopy(model.state_dict()), model.first.weight
    reparam.apply(model, "weight_std")
    for name in ("first", "grouped"):
        w = before[f"{name}.weight"]
        var, mean = torch.var_mean(w, (1, 2, 3), correction=0, keepdim=True)
        weight = getattr(model, name).weight
        torch.testing.assert_close(weight, (w - mean) / (var + 1e-5).sqrt())
    assert torch.equal(model.last[1].weight, before["last.1.weight"])

    assert model.first.parametrizations.weight.original is original
    model(torch.randn(2, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
    assert original.grad is not None
    projection = original.grad.sum((1, 2, 3))
    torch.testing.assert_close(projection, torch.zeros_like(projection))


def test_scaled_weight_std_equals_timm(model):
    from timm.layers import ScaledStdConv2d

    reparam.apply(model, "scaled_weight_std")
    for ours in (model.first, model.grouped):
        assert ours.parametrizations.weight[0].gain.eq(1).all()
        nn.init.uniform_(ours.parametrizations.weight[0].gain, 0.5, 1.5)
        theirs = ScaledStdConv2d(
            ours.in_channels, 8, 3, padding=0, groups=ours.groups
        ).double()
        with torch.no_grad():
            theirs.weight.copy_(ours.parametrizations.weight.original)
            theirs.gain.copy_(ours.parametrizations.weight[0].gain.view(8, 1, 1, 1))
            theirs.bias.copy_(ours.bias)
        x = torch.randn(2, ours.in_channels, 8, 8, dtype=torch.float64)
        y, expected = ours(x), theirs(x)
        torch.testing.assert_close(y, expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        found = ours.parametrizations.weight
        torch.testing.assert_close(found.original.grad, theirs.weight.grad)
        torch.testing.assert_close(found[0].gain.grad, theirs.gain.grad.flatten())


def test_scaled_weight_std_keeps_the_variance():
    conv = nn.Sequential(nn.Conv2d(64, 32, 3, bias=False))
    conv.output_layers = []
    reparam.apply(conv, "scaled_weight_std")
    with torch.no_grad():
        y = conv(torch.randn(4, 64, 12, 12))
    assert y.var().item() == pytest.approx(1, abs=0.1)


def test_weight_norm_starts_at_the_weight_and_learns_its_length(model):
    before = deepcopy(model)
    reparam.apply(model, "weight_norm")
    for name in ("first", "grouped"):
        conv = getattr(model, name)
        w = getattr(before, name).weight
        torch.testing.assert_close(conv.weight, w)
        with torch.no_grad():
            conv.parametrizations.weight.original0.mul_(3)
            conv.parametrizations.weight.original1.mul_(5)
        torch.testing.assert_close(conv.weight, 3 * w)


def test_spectral_norm_iterates_in_training_and_not_in_evaluation(model):
    reparam.apply(model, "spectral_norm")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for _ in range(100):
        model(x)
    for conv in (model.first, model.grouped):
        largest = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.ones_like(largest))
    vectors = model.first.parametrizations.weight[0]._u
    nn.init.normal_(model.first.parametrizations.weight.original)
    before = vectors.clone()
    model.eval()
    assert torch.equal(model(x), model(x))
    assert torch.equal(vectors, before)
    model.train()(x)
    assert not torch.equal(vectors, before)


# What every reparametrization promises.

every_reparam = pytest.mark.parametrize(
    "name", [name for name in reparam.REPARAMS.names() if name != "none"]
)


@every_reparam
def test_it_reaches_every_kind_of_convolution(name):
    for dim, conv in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1):
        model = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 4, 3))
        model.output_layers = [model[2]]
        reparam.apply(model, name)
        assert parametrize.is_parametrized(model[0], "weight")
        assert not parametrize.is_parametrized(model[2])
        model(torch.randn(2, 3, *(6,) * dim)).sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, (dim, key)


@every_reparam
def test_it_draws_the_same_for_one_seed_and_leaves_the_stream_alone(name):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Network()
        stream = torch.get_rng_state()
        reparam.apply(model, name)
        assert torch.equal(torch.get_rng_state(), stream)
        model(torch.zeros(1, 3, 8, 8))
        assert torch.equal(torch.get_rng_state(), stream)
        states.append(dict(model.state_dict()))
    torch.testing.assert_close(*states, rtol=0, atol=0)


@every_reparam
def test_it_survives_a_copy_and_a_state_dict(name, model):
    reparam.apply(model, name)
    model.eval()
    twin = deepcopy(model)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(twin(x), model(x))
    for parameter in twin.first.parametrizations.parameters():
        nn.init.normal_(parameter)
    assert not torch.equal(twin(x), model(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize("task", ["cnn", "style"])
@every_reparam
def test_every_task_with_convolutions_runs_with_it(name, task, run):
    overrides = [*SMALL[task], f"reparam={name}", "norm=group", "norm.num_groups=4"]
    record = run(*overrides, "batch_size=4", "budget.max_steps=2")
    assert record.status == "ok", record.error
    assert all(value is not None for value in record.metrics.values())


def test_none_leaves_the_model_alone(model):
    before = model.state_dict().keys()
    reparam.apply(model, "none")
    assert model.state_dict().keys() == before


def test_what_cannot_have_it_is_refused(model):
    for head in (nn.Linear(4, 2), nn.Conv1d(4, 2, 3)):
        plain = nn.Sequential(head)
        plain.output_layers = [head]
        with pytest.raises(Incompatible, match="weight_std needs convolutions; "):
            reparam.apply(plain, "weight_std")
    for name in ("weight_std", "scaled_weight_std"):
        depthwise = nn.Sequential(nn.Conv2d(8, 8, 1, groups=8))
        depthwise.output_layers = []
        message = rf"reparam={name} .*more than one weight .* \(8, 1, 1, 1\)"
        with pytest.raises(Incompatible, match=message):
            reparam.apply(depthwise, name)
    with pytest.raises(RequestError, match="did you mean 'weight_std'"):
        reparam.apply(model, "weight_sdt")
