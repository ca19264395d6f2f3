"""Weight standardization on the convolutions of a model."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from normbench import reparam
from normbench.errors import Incompatible, RequestError


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
    before = deepcopy(model.state_dict())
    stream = torch.get_rng_state()
    reparam.apply(model, "weight_std")
    assert torch.equal(torch.get_rng_state(), stream)
    for name in ("first", "grouped"):
        w = before[f"{name}.weight"]
        var, mean = torch.var_mean(w, (1, 2, 3), correction=0, keepdim=True)
        weight = getattr(model, name).weight
        torch.testing.assert_close(weight, (w - mean) / (var + 1e-5).sqrt())
        var, mean = torch.var_mean(weight, (1, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean))
        torch.testing.assert_close(var, torch.ones_like(var), rtol=0, atol=1e-2)
    assert torch.equal(model.last[1].weight, before["last.1.weight"])


def test_weight_std_trains_the_weight_it_was_given(model):
    original = model.first.weight
    reparam.apply(model, "weight_std")
    assert model.first.parametrizations.weight.original is original
    model(torch.randn(2, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
    assert original.grad is not None
    projection = original.grad.sum((1, 2, 3))
    torch.testing.assert_close(projection, torch.zeros_like(projection))


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_weight_std_reaches_every_kind_of_convolution(conv):
    model = nn.Sequential(conv(3, 4, 3))
    model.output_layers = []
    reparam.apply(model, "weight_std")
    means = model[0].weight.flatten(1).mean(1)
    torch.testing.assert_close(means, torch.zeros(4), rtol=0, atol=1e-6)


def test_weight_std_survives_a_copy_and_a_state_dict(model):
    reparam.apply(model, "weight_std")
    twin = deepcopy(model)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(twin(x), model(x))
    nn.init.normal_(twin.first.parametrizations.weight.original)
    assert not torch.equal(twin(x), model(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))


def test_none_leaves_the_model_alone(model):
    before = model.state_dict().keys()
    reparam.apply(model, "none")
    assert model.state_dict().keys() == before


@pytest.mark.parametrize("head", [nn.Linear(4, 2), nn.Conv1d(4, 2, 3)])
def test_a_model_without_inner_convolutions_is_refused(head):
    model = nn.Sequential(head)
    model.output_layers = [head]
    with pytest.raises(Incompatible, match="reparam=weight_std needs convolutions; "):
        reparam.apply(model, "weight_std")


def test_a_convolution_with_one_weight_per_channel_is_refused():
    model = nn.Sequential(nn.Conv2d(8, 8, 1, groups=8))
    model.output_layers = []
    with pytest.raises(Incompatible, match=r"more than one weight .* \(8, 1, 1, 1\)"):
        reparam.apply(model, "weight_std")


def test_an_unknown_name_is_refused(model):
    with pytest.raises(RequestError, match="did you mean 'weight_std'"):
        reparam.apply(model, "weight_sdt")
