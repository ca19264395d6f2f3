"""Redundant biases: each answer about a network is compared with what training does."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from normbench.models.forward import observe
from normbench.norms import make

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """A convolution and a batch norm, called as a function says."""

    def __init__(self, forward: Callable[["Network", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.called = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.called(self, x)


class Activated(nn.Conv2d):
    """Is a convolution by its class, but does more."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


def both_ways(net: Network, x: Tensor) -> Tensor:
    y: Tensor = net.first(x)
    output: Tensor = net.bn(y) + y.chunk(2)[0].sum()
    return output


def indices(net: Network, x: Tensor) -> Tensor:
    y = net.first(x)
    output: Tensor = net.bn(y).sum() + net.pool(y)[0]
    return output


def assigned(net: Network, x: Tensor) -> Tensor:
    y = net.first(x)
    z = torch.zeros(2, *y.shape)
    z[0] = y
    output: Tensor = net.bn(y) + z[0]
    return output


def twice(net: Network, x: Tensor) -> Tensor:
    output: Tensor = net.bn(net.first(x)) + net.first(x).relu()
    return output


def sizes(net: Network, x: Tensor) -> Tensor:
    y = net.first(x)
    output: Tensor = net.bn(y) * y.size(0) / y.shape[1]
    return output


def conv(*layers: nn.Module, first: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(first or nn.Conv2d(3, 8, 3), *layers)


def bn() -> nn.Module:
    return nn.BatchNorm2d(8)


FOUND = {
    "batch norm": conv(bn()),
    "instance norm": conv(nn.InstanceNorm2d(8)),
    "one channel per group": conv(nn.GroupNorm(8, 8)),
    "norm of this package": conv(make("batch", 8)),
    "identity": conv(nn.Identity(), bn()),
    "nested": conv(nn.Identity(), nn.Sequential(nn.Identity(), bn())),
    "dropout that is off": conv(nn.Dropout(0.0), nn.Dropout2d().eval(), bn()),
    "padding by values": conv(nn.ReflectionPad2d(1), nn.CircularPad2d(1), bn()),
    "pooling": conv(
        nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2), bn()
    ),
    "a divisor": conv(nn.AvgPool2d(2, divisor_override=3), bn()),
    "weight norm": conv(bn(), first=weight_norm(nn.Conv2d(3, 8, 3))),
    "transposed": conv(bn(), first=nn.ConvTranspose2d(3, 8, 3)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8)),
    "sizes are read": Network(sizes),
    "evaluation": conv(bn()).eval(),
}
NOT_FOUND = {
    "no bias": conv(bn(), first=nn.Conv2d(3, 8, 3, bias=False)),
    "one group": conv(nn.GroupNorm(1, 8)),
    "two channels per group": conv(nn.GroupNorm(4, 8)),
    "layer norm": conv(nn.LayerNorm([8, 6, 6])),
    "activation": conv(nn.ReLU(), bn()),
    "activation in the class": conv(bn(), first=Activated(3, 8, 3)),
    "dropout": conv(nn.Dropout(), bn()),
    "dropout in evaluation": conv(nn.Dropout(), bn()).eval(),
    "padding by zeros": conv(nn.ZeroPad2d(1), bn()),
    "pooling with zeros": conv(nn.AvgPool2d(2, padding=1), bn()),
    "frozen norm": conv(bn().eval()),
    "bias along positions": nn.Sequential(
        nn.Flatten(2), nn.Linear(64, 3), nn.BatchNorm1d(3)
    ),
    "other use": Network(both_ways),
    "other use of a pooled value": Network(indices),
    "assignment": Network(assigned),
    "two calls": Network(twice),
}


def moves(model: nn.Module) -> bool:
    """Return whether the biases of convolutions and linear layers change the output."""
    torch.manual_seed(0)
    before = model(X)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if module.bias is not None:
                nn.init.normal_(module.bias, 5.0)
    torch.manual_seed(0)
    return not torch.allclose(before, model(X), atol=1e-3)


def test_a_bias_is_redundant_if_it_moves_no_output_in_training() -> None:
    for case, model in {**FOUND, **NOT_FOUND}.items():
        redundant = observe(model, X).redundant
        assert len(redundant) == (case in FOUND), (case, redundant)
        trained = copy.deepcopy(model)
        if case.endswith("evaluation"):
            trained.train()
        has_bias = case != "no bias"
        assert moves(trained) == (case in NOT_FOUND and has_bias), case


class NeedsTargets(nn.Sequential):
    """Fails in training without targets, as detectors do."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("targets should not be None")
        for layer in self:
            x = layer(x)
        return x


def test_the_modes_are_those_of_the_network_if_its_training_forward_fails() -> None:
    layers = (nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), bn(), nn.Conv2d(8, 8, 1))
    model = NeedsTargets(*layers, nn.Dropout(), bn(), nn.Conv2d(8, 8, 1), bn().eval())
    observation = observe(model, X)
    assert observation.training_error and observation.redundant == ["1"]
