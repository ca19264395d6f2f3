"""Each norm compared with another implementation or with the formula of its paper.

An entry in ORACLES or FORMULAS adds a reference.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_made import (
    CHANNELS as C,
)
from layers_made import (
    MODES,
    SHAPES,
    Options,
    affine,
    assert_close,
    by_channel,
    made,
    results,
    sample,
)
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible
from normbench.norms import Norm, make
from normbench.norms.layers.group_permuted import draw


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Each norm against torch's or timm's own.


class Viewed(nn.Module):
    """A norm of torch or timm on another view of the input."""

    def __init__(
        self,
        norm: nn.Module,
        there: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor] = lambda y: y,
    ) -> None:
        super().__init__()
        self.norm, self.there, self.back = norm, there, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.norm(self.there(x))).reshape(x.shape)


def channels_last(norm: nn.Module) -> nn.Module:
    return Viewed(norm, lambda x: x.movedim(1, -1), lambda y: y.movedim(-1, 1))


def as_image(norm: nn.Module) -> nn.Module:
    return Viewed(norm, lambda x: x.reshape(*x.shape[:2], -1, 1))


def of_torch(kind: str, shape: tuple[int, ...], **options: object) -> nn.Module:
    return getattr(nn, f"{kind}{max(1, len(shape) - 2)}d")(C, **options)


def of_timm(kind: str, **options: object) -> nn.Module:
    import timm.layers
    from timm.layers.grn import GlobalResponseNorm  # timm.layers does not export it

    cls = getattr(timm.layers, kind, GlobalResponseNorm)
    return as_image(cls(C, **options))


ORACLES: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "none": lambda shape: nn.Identity(),
    "batch": lambda shape: of_torch("BatchNorm", shape),
    "batch_masked": lambda shape: of_torch("BatchNorm", shape),
    "layer_sample": lambda shape: nn.GroupNorm(1, C),
    "layer_shape": lambda shape: nn.LayerNorm(shape[1:]),
    "layer_position": lambda shape: channels_last(nn.LayerNorm(C)),
    "instance": lambda shape: of_torch("InstanceNorm", shape, affine=True),
    "group": lambda shape: nn.GroupNorm(8, C),
    "rms": lambda shape: channels_last(nn.RMSNorm(C, eps=1e-5)),
    # torch divides alpha by the size, the paper does not.
    "local_response": lambda shape: as_image(nn.LocalResponseNorm(5, 5e-4, 0.75, 2)),
    "filter_response": lambda shape: of_timm("FilterResponseNormTlu2d", eps=1e-6),
    "evonorm_s0": lambda shape: of_timm("EvoNorm2dS0", groups=8),
    "grn": lambda shape: of_timm("GlobalResponseNorm", channels_last=False),
}
SINGLE_PRECISION = {"filter_response", "evonorm_s0"}
"""Norms whose reference takes its statistics in float32, whatever the input is."""


@pytest.mark.parametrize("name", ORACLES)
def test_equals_its_reference_forward_backward_and_state_dict(name):
    dtype = torch.float32 if name in SINGLE_PRECISION else torch.float64
    for shape in SHAPES[name in {"instance", "filter_response"} :]:
        ours = made(name, shape).to(dtype)
        theirs = ORACLES[name](shape).to(dtype)
        inner = theirs.norm if isinstance(theirs, Viewed) else theirs
        inner.load_state_dict(ours.state_dict())

        x = sample(*shape).to(dtype)
        for _ in range(2):
            assert_close(results(ours, x), results(theirs, x), shape)
        state = ours.state_dict()
        assert_close({k: state[k] for k in inner.state_dict()}, inner.state_dict())
        assert_close(results(ours.eval(), x), results(theirs.eval(), x), shape)

        loaded = make(name, C).to(dtype)
        loaded.load_state_dict(inner.state_dict())
        assert_close(results(loaded.eval(), x), results(theirs, x), shape)


# Each norm against the formula of its paper, entry by entry where that says more.


def dyt(norm: Norm, x: Tensor) -> Tensor:
    up, down = (norm.alpha * x).exp(), (-norm.alpha * x).exp()
    return affine(norm, (up - down) / (up + down))


def derf(norm: Norm, x: Tensor) -> Tensor:
    # The normal distribution function: erf(z) = 2 * ndtr(sqrt(2) * z) - 1.
    z = norm.alpha * x + norm.shift
    return affine(norm, 2 * torch.special.ndtr(2**0.5 * z) - 1)


def scale(norm: Norm, x: Tensor) -> Tensor:
    return norm.g * x / (x * x).sum(1, keepdim=True).sqrt()


def filter_response(norm: Norm, x: Tensor) -> Tensor:
    eps = 1e-6 + (0 if norm.eps_learned is None else norm.eps_learned.abs())
    mean_square = (x.flatten(2) ** 2).mean(2).view(*x.shape[:2], *(1,) * (x.dim() - 2))
    y = affine(norm, x / (mean_square + eps).sqrt())
    tau = by_channel(norm.tau, x.dim())
    return torch.where(y > tau, y, tau)


def group_permuted(norm: Norm, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for group in norm.permutation.view(norm.num_groups, -1):
        part = x[:, group]
        over = tuple(range(1, x.dim()))
        var, mean = torch.var_mean(part, over, correction=0, keepdim=True)
        y = y.index_copy(1, group, (part - mean) / (var + 1e-5).sqrt())
    return affine(norm, y)


def frozen_batch(norm: Norm, x: Tensor) -> Tensor:
    std = (by_channel(norm.running_var, x.dim()) + 1e-5).sqrt()
    return affine(norm, (x - by_channel(norm.running_mean, x.dim())) / std)


def grn(norm: Norm, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    g = (flat * flat).sum(2).sqrt()
    n = g / (g.mean(1, keepdim=True) + 1e-6)
    return affine(norm, x * n.view(*n.shape, *(1,) * (x.dim() - 2))) + x


def pixel(norm: Norm, x: Tensor) -> Tensor:
    return x / ((x * x).sum(1, keepdim=True) / C + 1e-8).sqrt()


FORMULAS: list[tuple[str, Options, Callable[[Norm, Tensor], Tensor]]] = [
    ("affine", {}, affine),
    ("dyt", {}, dyt),
    ("derf", {}, derf),
    ("scale", {}, scale),
    ("frozen_batch", {}, frozen_batch),
    ("grn", {}, grn),
    ("pixel", {}, pixel),
    ("filter_response", {}, filter_response),
    ("filter_response", {"learnable_eps": True}, filter_response),
    ("group_permuted", {"order": "strided", "num_groups": 4}, group_permuted),
    ("group_permuted", {"order": "random_fixed", "num_groups": 4}, group_permuted),
]


@pytest.mark.parametrize(("name", "options", "formula"), FORMULAS)
def test_equals_the_formula_of_its_paper(name, options, formula):
    for shape in SHAPES[1:]:
        norm, x, grad = made(name, shape, **options), sample(*shape), sample(*shape)

        def paper(x: Tensor, norm: Norm = norm) -> Tensor:
            return formula(norm, x)

        expected = results(paper, x, of=norm, grad=grad)
        for training in MODES:
            ours = results(norm.train(training), x, grad=grad)
            assert_close(ours, expected, (shape, training))


def test_parameters_start_as_in_the_paper():
    for name, values in {
        "dyt": {"alpha": 0.5, "weight": 1, "bias": 0},
        "derf": {"alpha": 0.5, "shift": 0, "weight": 1, "bias": 0},
        "scale": {"g": C**0.5},
        "filter_response": {"weight": 1, "bias": 0, "tau": 0},
        "evonorm_s0": {"weight": 1, "bias": 0, "v": 1},
        "grn": {"weight": 0, "bias": 0},
        "pixel": {},
    }.items():
        parameters = dict(make(name, C).named_parameters())
        assert list(parameters) == list(values)
        for key, value in values.items():
            assert bool((parameters[key] == torch.tensor(value)).all()), (name, key)


def test_filter_response_at_one_position_needs_its_learned_eps():
    x = torch.full((2, C), 0.01)
    with pytest.raises(Incompatible, match=r"gives it 1; .* norm.learnable_eps"):
        make("filter_response", C)(x)
    y = make("filter_response", C, learnable_eps=True)(x)
    assert_close(y, x / (1e-4 + 1e-4 + 1e-6) ** 0.5)


@pytest.mark.parametrize("order", ["random_fixed", "random_each_forward"])
def test_permutations_depend_on_the_seed_alone(order):
    x = sample(3, C, 5)

    def outputs(seed: int) -> list[Tensor]:
        norm = make("group_permuted", C, order=order, permutation_seed=seed).double()
        return [norm(x) for _ in range(3)]

    stream = torch.get_rng_state()
    first, other = outputs(0), outputs(1)
    assert torch.equal(torch.get_rng_state(), stream)
    torch.manual_seed(1)
    assert all(map(torch.equal, outputs(0), first))
    assert not any(map(torch.equal, other, first))
    assert torch.equal(first[1], first[2]) == (order == "random_fixed")


def test_random_permutations_are_uniform():
    drawn = torch.stack([draw(4, 0, torch.tensor(i)) for i in range(2400)])
    assert torch.equal(drawn.sort(1).values, torch.arange(4).expand(2400, 4))
    _, counts = drawn.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert 60 < counts.min() and counts.max() < 140  # 4 standard deviations


def test_evaluations_do_not_change_the_permutations_of_training():
    watched = make("group_permuted", C, order="random_each_forward").double()
    alone = deepcopy(watched)
    x = sample(3, C, 5)
    for evaluations in range(3):
        assert torch.equal(watched.train()(x), alone.train()(x))
        watched.eval()
        for _ in range(evaluations):
            watched(x)
    assert torch.equal(watched.train()(x), alone.train()(x))
    assert torch.equal(watched.eval()(x), alone.eval()(x))


# Identities between norms.


@given(
    groups=st.integers(1, 5),
    per_group=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 4), max_size=2),
)
@settings(max_examples=30, deadline=None)
def test_group_is_the_standardized_group(groups, per_group, spatial):
    channels = groups * per_group
    x = torch.randn(2, channels, *spatial, dtype=torch.float64)
    norm = make("group", channels, num_groups=groups).double()
    if x[0].numel() == groups:
        with pytest.raises(Incompatible, match="use fewer groups"):
            norm(x)
        return
    by_group = x.view(2, groups, -1)
    var, mean = torch.var_mean(by_group, 2, correction=0, keepdim=True)
    assert_close(norm(x), ((by_group - mean) / (var + 1e-5).sqrt()).view_as(x))


def test_identities_between_norms():
    for name, options, other, samples in [
        ("batch", {}, "instance", 1),
        ("group_permuted", {"order": "contiguous"}, "group", 3),
        ("pixel", {"eps": 1e-5}, "rms", 3),
        ("grn", {}, "none", 3),  # at first
    ]:
        x = sample(samples, C, 4, 3)
        ours, theirs = make(name, C, **options).double(), make(other, C).double()
        assert_close(ours(x), theirs(x), name)


def test_layer_shape_takes_its_shape_from_the_first_input():
    norm = make("layer_shape", C).double()
    assert all(is_lazy(p) for p in norm.parameters())
    twin = deepcopy(norm)
    before = list(norm.parameters())
    norm(sample(2, C, 4, 3))
    assert [id(p) for p in norm.parameters()] == [id(p) for p in before]
    assert norm.weight.dtype == torch.float64
    assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    assert norm.weight.shape == norm.bias.shape == (C, 4, 3)
    assert is_lazy(twin.weight)
