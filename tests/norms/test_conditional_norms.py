"""Norms with an affine map per condition, each against the formula of its paper."""

from collections.abc import Callable

import pytest
import torch
from layers_made import CHANNELS as C
from layers_made import MODES, SHAPES, assert_close, made, results, sample
from torch import Tensor

from normbench.norms import Norm, make

CONDITION = torch.tensor([2, 0, 3, 3, 1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Each formula gets one sample (C, T) and its condition.


def conditional_instance(norm: Norm, row: Tensor, c: Tensor) -> Tensor:
    var, mean = torch.var_mean(row, 1, correction=0, keepdim=True)
    y = (row - mean) / (var + 1e-5).sqrt()
    return y * norm.weight[c][:, None] + norm.bias[c][:, None]


def film(norm: Norm, row: Tensor, c: Tensor) -> Tensor:
    return norm.weight[c][:, None] * row + norm.bias[c][:, None]


def ada_layer(norm: Norm, row: Tensor, c: Tensor) -> Tensor:
    var, mean = torch.var_mean(row, 0, correction=0, keepdim=True)
    y = (row - mean) / (var + 1e-6).sqrt()
    return y * (1 + norm.scale[c][:, None]) + norm.shift[c][:, None]


FORMULAS: dict[str, Callable[[Norm, Tensor, Tensor], Tensor]] = {
    "conditional_instance": conditional_instance,
    "film": film,
    "ada_layer": ada_layer,
}
every_conditional_norm = pytest.mark.parametrize("name", FORMULAS)


@every_conditional_norm
def test_equals_the_formula_of_its_paper(name: str) -> None:
    for shape in SHAPES[name == "conditional_instance" :]:
        norm, x, grad = made(name, shape), sample(*shape), sample(*shape)

        def paper(x: Tensor, norm: Norm = norm) -> Tensor:
            pairs = zip(x.reshape(*x.shape[:2], -1), CONDITION, strict=True)
            rows = [FORMULAS[name](norm, row, c) for row, c in pairs]
            return torch.stack(rows).view_as(x)

        expected = results(paper, x, of=norm, grad=grad)
        for training in MODES:
            ours = results(norm.train(training), x, None, CONDITION, grad=grad)
            assert_close(ours, expected, (shape, training))


@every_conditional_norm
def test_without_conditions_every_sample_has_the_first(name: str) -> None:
    norm, x = made(name, (5, C, 7)), sample(5, C, 7)
    assert_close(norm(x), norm(x, None, torch.zeros(5, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("name", "other", "starts"),
    [
        ("conditional_instance", "instance", {"weight": 1, "bias": 0}),
        ("film", "affine", {"weight": 1, "bias": 0}),
        ("ada_layer", "layer_position", {"scale": 0, "shift": 0}),
    ],
)
def test_starts_as_the_norm_without_conditions(
    name: str, other: str, starts: dict[str, int]
) -> None:
    eps = {} if name == "film" else {"eps": 1e-5}
    norm, x = make(name, C, conditions=4, **eps), sample(5, C, 7).float()
    parameters = dict(norm.named_parameters())
    assert parameters.keys() == starts.keys()
    for key, value in starts.items():
        assert parameters[key].shape == (4, C) and bool(
            (parameters[key] == value).all()
        )
    assert_close(norm(x, None, CONDITION), make(other, C)(x))
