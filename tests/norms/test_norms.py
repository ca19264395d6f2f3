"""The contract suite: what every norm promises, and each norm against a reference.

Every registered norm goes through all tests of `every_case`, with no edit here. An
entry in ORACLES or FORMULAS adds a reference, one in VARIANTS further options.
"""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Ghost, Norm, make, names
from normbench.norms.layers.group_permuted import draw

C = 16
SHAPES = [(5, C), (5, C, 7), (5, C, 4, 3)]
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml"))

VARIANTS: dict[str, list[dict[str, object]]] = {
    "group": [{"num_groups": 4}],
    "group_permuted": [
        {"order": order}
        for order in (
            "contiguous",
            "strided",
            "random_each_layer",
            "random_each_forward",
        )
    ],
}
"""Options that go through the suite beside a norm's defaults."""

Case = tuple[str, dict[str, object]]


def cases() -> list[Case]:
    return [(name, o) for name in names() for o in ({}, *VARIANTS.get(name, []))]


def identifier(case: Case) -> str:
    name, options = case
    return "-".join([name, *map(str, options.values())])


every_norm = pytest.mark.parametrize("name", names())
every_case = pytest.mark.parametrize("case", cases(), ids=identifier)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=len)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def made(case: Case | str, shape: tuple[int, ...], **options: object) -> Norm:
    """A float64 norm for `shape`, in training, with random parameters.

    They are positive and below 1, away from the ends of any gate.
    """
    if isinstance(case, str):
        case = (case, options)
    norm = make(case[0], shape[1], **case[1]).double()
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        norm(torch.zeros(shape, dtype=torch.float64))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.4, 0.9)
    return norm.train()


def sample(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64) * 2 + 1


def padded(shape: tuple[int, ...]) -> Tensor:
    """A mask (N, T): sample i has i + 2 real positions."""
    return torch.arange(shape[2]) < torch.arange(2, shape[0] + 2)[:, None]


def once(norm: Norm, *args: Tensor) -> Tensor:
    """One forward of a copy: `norm` is as it was."""
    return deepcopy(norm)(*args)


def gradients(
    module: nn.Module, x: Tensor, *args: Tensor, grad: Tensor | None = None
) -> list[Tensor]:
    """Output, then gradients of input and parameters for one output gradient."""
    x = x.detach().requires_grad_()
    y = module(x, *args)
    if grad is None:
        grad = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).cos().view(y.shape)
    inputs = [x, *module.parameters()]
    found = torch.autograd.grad(y, inputs, grad, materialize_grads=True)
    return [y.detach(), *found]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def same_state(ours: nn.Module, theirs: nn.Module) -> bool:
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Inputs without values.


@every_case
@every_mode
def test_an_input_without_values_passes_through(case: Case, training: bool) -> None:
    """As a detector has them where it finds no object: torch's own norms take them."""
    norm = made(case, (5, C, 4, 3))
    once_before = norm(sample(5, C, 4, 3))  # leaves statistics, counters and a penalty
    assert once_before.shape == (5, C, 4, 3)
    norm.train(training)
    modules = [norm, Ghost(norm, 2)]
    for shape in [(0, C), (0, C, 7), (0, C, 4, 3), (0, C, 4, 3, 2), (6, C, 0)]:
        mask = torch.ones(shape[0], *shape[2:], dtype=torch.bool)
        condition = torch.zeros(shape[0], dtype=torch.int64)
        for module in modules:
            for arguments in ([], [mask], [mask, condition]):
                before = deepcopy(norm.state_dict())
                y, *found = gradients(module, sample(*shape), *arguments)
                assert y.shape == shape
                assert y.dtype == torch.float64
                assert all(bool((gradient == 0).all()) for gradient in found), shape
                after = norm.state_dict()
                assert before.keys() == after.keys()
                assert all(torch.equal(before[key], after[key]) for key in before)
        assert not training or norm.penalty is None
        narrow = norm(torch.zeros(shape, dtype=torch.bfloat16))
        assert narrow.dtype == torch.bfloat16
    y = once(norm, sample(5, C, 4, 3))
    assert y.isfinite().all()


@every_norm
def test_a_first_input_without_values_fixes_nothing(name: str) -> None:
    norm = make(name, C)
    assert norm(torch.zeros(0, C, 2, 2)).shape == (0, C, 2, 2)
    assert norm(torch.randn(5, C, 4, 3)).shape == (5, C, 4, 3)


def test_a_mask_for_an_input_without_values_is_checked() -> None:
    with pytest.raises(RequestError, match=r"needs \(0, 7\), bool"):
        make("batch", C)(torch.zeros(0, C, 7), torch.ones(1, 7, dtype=torch.bool))


# Each norm against torch's or timm's own.


class Viewed(nn.Module):
    """A norm of torch or timm on another view of the input."""

    def __init__(
        self,
        norm: nn.Module,
        there: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.norm, self.there, self.back = norm, there, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.norm(self.there(x))).reshape(x.shape)


def channels_last(norm: nn.Module) -> nn.Module:
    return Viewed(norm, lambda x: x.movedim(1, -1), lambda y: y.movedim(-1, 1))


def as_image(norm: nn.Module) -> nn.Module:
    return Viewed(norm, lambda x: x.reshape(*x.shape[:2], -1, 1), lambda y: y)


def torch_batch(shape: tuple[int, ...]) -> nn.Module:
    return [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d][len(shape) - 2](C)


def torch_instance(shape: tuple[int, ...]) -> nn.Module:
    return [nn.InstanceNorm1d, nn.InstanceNorm2d][len(shape) - 3](C, affine=True)


def timm_filter_response(shape: tuple[int, ...]) -> nn.Module:
    from timm.layers import FilterResponseNormTlu2d

    return as_image(FilterResponseNormTlu2d(C, eps=1e-6))


def timm_evonorm_s0(shape: tuple[int, ...]) -> nn.Module:
    from timm.layers import EvoNorm2dS0

    return as_image(EvoNorm2dS0(C, groups=8))


ORACLES: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "none": lambda shape: nn.Identity(),
    "batch": torch_batch,
    "batch_masked": torch_batch,
    "layer_sample": lambda shape: nn.GroupNorm(1, C),
    "layer_shape": lambda shape: nn.LayerNorm(shape[1:]),
    "layer_position": lambda shape: channels_last(nn.LayerNorm(C)),
    "instance": torch_instance,
    "group": lambda shape: nn.GroupNorm(8, C),
    "rms": lambda shape: channels_last(nn.RMSNorm(C, eps=1e-5)),
    # torch divides alpha by the size, the paper does not.
    "local_response": lambda shape: as_image(nn.LocalResponseNorm(5, 5e-4, 0.75, 2)),
    "filter_response": timm_filter_response,
    "evonorm_s0": timm_evonorm_s0,
}
SINGLE_PRECISION = {"filter_response", "evonorm_s0"}
"""Whose reference takes its statistics in float32, whatever the input is."""


def oracle_pairs() -> list[tuple[str, tuple[int, ...]]]:
    per_channel = ("instance", "filter_response")
    pairs = [(name, shape) for name in ORACLES for shape in SHAPES]
    return [p for p in pairs if not (p[0] in per_channel and len(p[1]) == 2)]


@pytest.mark.parametrize(("name", "shape"), oracle_pairs())
def test_equals_its_reference_forward_backward_and_state_dict(name, shape):
    dtype = torch.float32 if name in SINGLE_PRECISION else torch.float64
    ours = made(name, shape).to(dtype)
    theirs = ORACLES[name](shape).to(dtype)
    inner = theirs.norm if isinstance(theirs, Viewed) else theirs
    inner.load_state_dict(ours.state_dict())

    x = sample(*shape).to(dtype)
    for _ in range(2):
        assert_close(gradients(ours, x), gradients(theirs, x))
    for key, value in inner.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    assert_close(gradients(ours.eval(), x), gradients(theirs.eval(), x))

    loaded = make(name, C).to(dtype)
    loaded.load_state_dict(inner.state_dict())
    assert_close(gradients(loaded.eval(), x), gradients(theirs, x))


# Each norm against the formula of its paper, entry by entry where that says more.


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, C, *(1,) * (x.dim() - 2))


def affine(norm: Norm, x: Tensor) -> Tensor:
    return x * by_channel(norm.weight, x) + by_channel(norm.bias, x)


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
    return torch.where(y > by_channel(norm.tau, x), y, by_channel(norm.tau, x))


def conditional_instance(norm: Norm, x: Tensor) -> Tensor:
    rows = []
    for row, c in zip(x, CONDITION, strict=True):
        flat = row.flatten(1)
        y = (flat - flat.mean(1, keepdim=True)) / (
            flat.var(1, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        y = y * norm.weight[c][:, None] + norm.bias[c][:, None]
        rows.append(y.view(row.shape))
    return torch.stack(rows)


def group_permuted(norm: Norm, x: Tensor) -> Tensor:
    groups = norm.permutation.view(norm.num_groups, -1)
    y = torch.zeros_like(x)
    for group in groups:
        part = x[:, group]
        over = tuple(range(1, x.dim()))
        var, mean = torch.var_mean(part, over, correction=0, keepdim=True)
        y = y.index_copy(1, group, (part - mean) / (var + 1e-5).sqrt())
    return affine(norm, y)


CONDITION = torch.tensor([2, 0, 3, 3, 1])
FORMULAS: list[tuple[str, dict[str, object], Callable[[Norm, Tensor], Tensor]]] = [
    ("affine", {}, affine),
    ("dyt", {}, dyt),
    ("derf", {}, derf),
    ("scale", {}, scale),
    ("filter_response", {}, filter_response),
    ("filter_response", {"learnable_eps": True}, filter_response),
    ("conditional_instance", {}, conditional_instance),
    ("group_permuted", {"order": "strided", "num_groups": 4}, group_permuted),
    ("group_permuted", {"order": "random_fixed", "num_groups": 4}, group_permuted),
]


@pytest.mark.parametrize(("name", "options", "formula"), FORMULAS)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=len)
@every_mode
def test_equals_the_formula_of_its_paper(name, options, formula, shape, training):
    norm, x = made(name, shape, **options).train(training), sample(*shape)
    x.requires_grad_()
    ours, theirs = norm(x, None, CONDITION), formula(norm, x)
    grad = sample(*shape)
    inputs = [x, *norm.parameters()]
    assert_close(
        [ours, *torch.autograd.grad(ours, inputs, grad)],
        [theirs, *torch.autograd.grad(theirs, inputs, grad)],
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dyt", {"alpha": 0.5, "weight": 1, "bias": 0}),
        ("derf", {"alpha": 0.5, "shift": 0, "weight": 1, "bias": 0}),
        ("scale", {"g": C**0.5}),
        ("filter_response", {"weight": 1, "bias": 0, "tau": 0}),
        ("evonorm_s0", {"weight": 1, "bias": 0, "v": 1}),
        ("conditional_instance", {"weight": 1, "bias": 0}),
    ],
)
def test_starts_as_its_paper_does(name, parameters):
    found = dict(make(name, C).named_parameters())
    assert found.keys() == parameters.keys()
    for key, value in parameters.items():
        assert torch.equal(found[key], torch.full_like(found[key], value)), key


def test_without_conditions_every_sample_has_the_first():
    norm, x = made("conditional_instance", (5, C, 7)), sample(5, C, 7)
    first = torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(norm(x), norm(x, None, first))


def test_filter_response_at_one_position_needs_its_learned_eps():
    x = torch.full((2, C), 0.01)
    with pytest.raises(Incompatible, match=r"gives it 1; .* norm.learnable_eps"):
        make("filter_response", C)(x)
    y = make("filter_response", C, learnable_eps=True)(x)
    torch.testing.assert_close(y, x / (1e-4 + 1e-4 + 1e-6) ** 0.5)


@pytest.mark.parametrize("order", ["random_fixed", "random_each_forward"])
def test_permutations_are_of_the_seed_alone(order):
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


# The masked batch norm.


@every_mode
def test_masked_batch_equals_batch_on_the_real_positions(training):
    shape = (5, C, 7)
    norm, x, mask = made("batch_masked", shape), sample(*shape), padded(shape)
    theirs = nn.BatchNorm1d(C).double()
    theirs.load_state_dict(norm.state_dict())
    norm.train(training)
    theirs.train(training)

    grad = sample(*shape).where(mask[:, None], 0)
    y, dx, *dparameters = gradients(norm, x, mask, grad=grad)
    real_grad = grad.movedim(1, -1)[mask]
    expected = gradients(theirs, x.movedim(1, -1)[mask], grad=real_grad)
    real = [t.movedim(1, -1)[mask] for t in (y, dx)]
    assert_close([*real, *dparameters], expected)
    assert dx.movedim(1, -1)[~mask].eq(0).all()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value)


def test_masked_batch_maps_pads_as_it_maps_real_positions():
    norm, x = made("batch_masked", (2, C, 4)), sample(2, C, 4)
    x[:, :, 3] = x[:, :, 0]
    mask = torch.tensor([[True, True, True, False]]).expand(2, 4)
    y = norm(x, mask)
    torch.testing.assert_close(y[:, :, 3], y[:, :, 0])


def test_masked_batch_gradient_is_exact_at_pads_too():
    norm, mask = made("batch_masked", (3, C, 3)), padded((3, C, 3))
    x = sample(3, C, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, mask), x)


def test_masked_batch_keeps_parameters_finite_when_pads_are_not():
    norm, x, mask = made("batch_masked", (3, C, 5)), sample(3, C, 5), padded((3, C, 5))
    grad = sample(3, C, 5).where(mask[:, None], 0)
    clean = gradients(norm, x.where(mask[:, None], 0), mask, grad=grad)
    dirty = gradients(norm, x.where(mask[:, None], torch.nan), mask, grad=grad)
    assert_close(dirty, clean)


@pytest.mark.parametrize("real", [0, 1])
def test_masked_batch_refuses_a_statistic_of_one_value(real):
    norm, mask = made("batch_masked", (1, C, 4)), torch.arange(4)[None] < real
    before = deepcopy(norm.state_dict())
    with pytest.raises(Incompatible, match=rf"batch_masked .* \(1, 4\) has {real};"):
        norm(sample(1, C, 4), mask)
    assert_close(list(norm.state_dict().values()), list(before.values()))


@pytest.mark.parametrize("real", [0, 1])
def test_masked_batch_stays_finite_where_asking_would_wait(real, monkeypatch):
    norm, mask = made("batch_masked", (1, C, 4)), torch.arange(4)[None] < real
    before = deepcopy([norm.running_mean, norm.running_var])
    # What a device other than the CPU does.
    monkeypatch.setattr(norm, "count", lambda x, mask: mask.sum().clamp(min=1))
    y, *grads = gradients(norm, sample(1, C, 4), mask)
    assert all(t.isfinite().all() for t in (y, *grads))
    torch.testing.assert_close(y[:, :, :real], norm.bias.view(1, C, 1)[:, :, :real])
    assert_close([norm.running_mean, norm.running_var], before)


# What every norm promises.


@every_norm
def test_says_where_it_comes_from_and_what_it_depends_on(name):
    norm = REGISTRY.get(name)
    assert re.fullmatch(r"(.+ (19|20)\d\d|folklore)(; .+)?", norm.source)
    footprints = norm.axes.split("; ")  # several where channels differ
    for footprint in footprints:
        samples, channels, positions = footprint.split(", ")
        assert samples in ("one sample", "all samples")
        assert re.fullmatch("(one|all|one group of|a window of) channels?", channels)
        assert positions in ("one position", "all positions")
    assert norm.uses_other_samples == ("all samples" in norm.axes)


@every_case
@every_shape
def test_keeps_shape_and_type(case, shape):
    norm = make(case[0], C, **case[1])
    x = torch.randn(shape)
    try:
        y = norm(x)
    except Incompatible as reason:
        assert len(shape) == 2 and "gives it 1;" in str(reason)
        return
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@every_case
@every_mode
def test_gradient_is_exact_where_the_norm_says_so(case, training):
    norm = made(case, (3, C, 2)).train(training)
    x = sample(3, C, 2).requires_grad_()

    def forward(x: Tensor, *parameters: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        return torch.func.functional_call(norm, buffers, x)

    exact = torch.autograd.gradcheck(
        forward, (x, *norm.parameters()), raise_exception=False
    )
    assert exact or not norm.exact_gradient


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every_other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "samples_inside": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_matter(case, layout):
    shape = SHAPES[2] if layout == "channels_last" else SHAPES[1]
    norm, x = made(case, shape), sample(*shape)
    other = LAYOUTS[layout](x)
    assert other.stride() != x.stride() and torch.equal(other, x)
    twin = deepcopy(norm)
    assert_close(gradients(norm, other), gradients(twin, x))
    assert_close(list(norm.buffers()), list(twin.buffers()))


@every_case
@every_mode
def test_number_of_dimensions_does_not_matter(case, training):
    if REGISTRY.get(case[0]).fixed_spatial:
        pytest.skip("its parameters have the shape of the input")
    x = sample(4, C, 6)
    norm = made(case, x.shape).train(training)
    for shape in [(4, C, 2, 3), (4, C, 1, 3, 2)]:
        torch.testing.assert_close(once(norm, x.view(shape)).view_as(x), once(norm, x))


@every_case
@every_mode
def test_a_sample_alone(case, training):
    x = sample(4, C, 5)
    norm = made(case, x.shape).train(training)
    alone = once(norm, x[:1])
    assert alone.isfinite().all()
    if not (training and norm.uses_other_samples):
        torch.testing.assert_close(alone, once(norm, x)[:1])


@every_case
@every_mode
def test_a_mask_of_ones_is_no_mask(case, training):
    x, ones = sample(5, C, 7), torch.ones(5, 7, dtype=torch.bool)
    norm = made(case, x.shape).train(training)
    twin = deepcopy(norm)
    assert_close(gradients(norm, x, ones), gradients(twin, x))
    assert_close(list(norm.buffers()), list(twin.buffers()))


@every_case
@every_mode
@pytest.mark.parametrize("pad", [1e3, torch.nan])
def test_what_stands_at_pads_matters_unless_the_mask_is_honoured(case, training, pad):
    x, mask = sample(5, C, 7), padded((5, C, 7))
    real = mask[:, None].expand_as(x)
    norm = made(case, x.shape).train(training)
    if norm.differs_in_eval and not norm.honours_mask and not training:
        pytest.skip("evaluation need not take statistics")
    grad = sample(5, C, 7).where(real, 0)
    twin = deepcopy(norm)
    y, dx, *_ = gradients(norm, x, mask, grad=grad)
    other_y, other_dx, *_ = gradients(twin, x.where(real, pad), mask, grad=grad)
    same = torch.equal(y[real], other_y[real]) and torch.equal(dx[real], other_dx[real])
    if norm.differs_in_eval:
        same = same and same_state(norm, twin)
    assert same == norm.honours_mask


@every_case
def test_other_samples_matter_only_where_the_norm_says_so(case):
    x = sample(4, C, 5)
    changed = torch.cat([x[:1], sample(3, C, 5)])
    norm = made(case, x.shape)
    same = torch.equal(once(norm, x)[0], once(norm, changed)[0])
    assert same != norm.uses_other_samples
    norm.eval()
    assert torch.equal(once(norm, x)[0], once(norm, changed)[0])


@every_case
def test_evaluation_differs_only_where_the_norm_says_so(case):
    x = sample(4, C, 5)
    norm = made(case, x.shape)
    # Random permutations go by the number of the forward, in either mode.
    if norm.deterministic:
        same = torch.equal(once(norm, x), once(norm.eval(), x))
        assert same != norm.differs_in_eval


@every_case
def test_is_odd_at_first_unless_it_says_that_it_contains_an_activation(case):
    x = sample(4, C, 5)
    norm = make(case[0], C, **case[1]).double()
    odd = torch.allclose(once(norm, -x), -once(norm, x))
    assert odd != norm.contains_activation


@every_norm
def test_works_on_one_spatial_shape_only_where_it_says_so(name):
    norm = make(name, C)
    norm(torch.randn(2, C, 4, 3))
    try:
        norm(torch.randn(2, C, 5, 3))
    except Incompatible:
        assert norm.fixed_spatial
    else:
        assert not norm.fixed_spatial


@every_case
def test_evaluation_is_a_function_unless_the_norm_says_no(case):
    norm, x = made(case, (4, C, 5)), sample(4, C, 5)
    with torch.no_grad():
        norm(sample(4, C, 5))
    stream = torch.get_rng_state()
    before = deepcopy(norm.eval())
    first, second = norm(x), norm(x)
    assert torch.equal(first, second) == norm.deterministic
    assert same_state(norm, before) == norm.deterministic
    assert torch.equal(torch.get_rng_state(), stream)


@every_case
def test_training_forwards_leave_the_global_random_stream_alone(case):
    norm, x = made(case, (4, C, 5)), sample(4, C, 5)
    stream = torch.get_rng_state()
    norm(x)
    assert torch.equal(torch.get_rng_state(), stream)


@every_case
@every_mode
def test_state_dict_and_copy_carry_all_that_decides(case, training):
    norm, x = made(case, (4, C, 5)), sample(4, C, 5)
    with torch.no_grad():
        norm(sample(4, C, 5))
        norm(sample(4, C, 5))
    loaded = make(case[0], C, **case[1]).double()
    loaded.load_state_dict(norm.state_dict())
    copied = deepcopy(norm)
    assert {id(t) for t in copied.state_dict(keep_vars=True).values()}.isdisjoint(
        {id(t) for t in norm.state_dict(keep_vars=True).values()}
    )
    expected = gradients(norm.train(training), x)
    for other in (loaded, copied):
        found = gradients(other.train(training), x)
        assert all(map(torch.equal, found, expected))
        assert same_state(other, norm)


@every_case
@every_mode
@pytest.mark.parametrize("shift", [0, 300])
def test_bfloat16_stays_finite(case, training, shift):
    norm = made(case, (4, C, 9)).bfloat16().train(training)
    x = (sample(4, C, 9) * 50 + shift).bfloat16()
    y, *grads = gradients(norm, x, padded((4, C, 9)))
    assert y.dtype == torch.bfloat16
    assert all(t.isfinite().all() for t in (y, *grads))


@every_case
@every_mode
def test_constant_and_zero_inputs_stay_finite(case, training):
    norm = made(case, (4, C, 9)).train(training)
    for value in (0.0, 3.0):
        x = torch.full((4, C, 9), value, dtype=torch.float64)
        assert all(t.isfinite().all() for t in gradients(norm, x))


@every_norm
def test_at_momentum_one_running_statistics_are_those_of_the_last_forward(name):
    norm = made(name, (4, C, 5))
    if not norm.differs_in_eval:
        pytest.skip("no running statistics")
    fresh = deepcopy(norm)
    norm.momentum = fresh.momentum = 1.0
    norm(sample(4, C, 5))
    x = sample(4, C, 5)
    norm(x), fresh(x)
    pairs = [
        (a, b)
        for a, b in zip(norm.buffers(), fresh.buffers(), strict=True)
        if a.is_floating_point()
    ]
    assert pairs
    for a, b in pairs:
        torch.testing.assert_close(a, b)


@every_case
def test_works_without_an_affine_map(case):
    name, options = case
    if "affine" not in REGISTRY.options(name, {}):
        pytest.skip("no such option")
    norm, x = make(name, C, **options, affine=False).double(), sample(5, C, 7)
    torch.manual_seed(0)  # what a norm draws once, it draws again
    default = make(name, C, **options).double()
    assert len(list(norm.parameters())) < len(list(default.parameters()))
    torch.testing.assert_close(norm(x), default(x))
    mask = padded(x.shape)
    torch.testing.assert_close(norm(x, mask), default(x, mask))


@every_case
def test_works_on_the_meta_device(case):
    with torch.device("meta"):
        norm = make(case[0], C, **case[1])
        mask = torch.ones(5, 7, dtype=torch.bool)
        condition = torch.zeros(5, dtype=torch.int64)
        y = norm(torch.randn(5, C, 7), mask, condition)
    assert y.shape == (5, C, 7) and y.is_meta
    assert all(t.is_meta for t in norm.state_dict().values())


@pytest.mark.parametrize("name", ["layer_position", "rms", "dyt", "derf", "scale"])
def test_per_token_norms_answer_the_transformer_without_a_copy(name):
    y = make(name, C)(torch.randn(5, 7, C).transpose(1, 2))
    assert y.shape == (5, C, 7)
    assert y.transpose(1, 2).is_contiguous()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about its own code
@every_case
@every_mode
def test_compiled_it_computes_the_same(case, training):
    shape = (4, C, 6)
    norm, mask = made(case, shape).train(training), padded(shape)
    twin = deepcopy(norm)
    torch._dynamo.reset()
    compiled = torch.compile(norm)
    for _ in range(2):
        x = sample(*shape)
        assert_close(gradients(compiled, x, mask), gradients(twin, x, mask))
        assert_close(list(norm.buffers()), list(twin.buffers()))


# Bad input.


def with_fewest_channels(name: str, options: dict[str, object]) -> Norm:
    try:
        return make(name, 1, **options)
    except Incompatible:
        return make(name, 2, **options)


@every_case
@pytest.mark.parametrize("spatial", [(), (1,), (1, 1)], ids=len)
@every_mode
def test_never_takes_a_statistic_of_one_value_in_silence(case, spatial, training):
    """It is refused, or the output still tells inputs apart."""
    name, options = case
    if "num_groups" in REGISTRY.options(name, {}):
        options = options | {"num_groups": 1}
    norm = with_fewest_channels(name, options).train(training)
    shape = (1, norm.channels, *spatial)
    try:
        outputs = [once(norm, torch.full(shape, value)) for value in (1.0, 2.0, 3.0)]
    except Incompatible as reason:
        assert re.search(rf"norm={name} .*\(1, .*1;", str(reason))
        return
    for a, b in [outputs[:2], outputs[1:]]:
        assert not torch.allclose(a, b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "modes"),
    [
        ("instance", (3, 8, 1, 1), [True, False]),
        ("instance", (3, 8), [True, False]),
        ("conditional_instance", (3, 8, 1), [True, False]),
        ("filter_response", (3, 8, 1), [True, False]),
        ("group", (3, 8, 1), [True, False]),
        ("group_permuted", (3, 8, 1), [True, False]),
        ("evonorm_s0", (3, 8), [True, False]),
        ("batch", (1, 8, 1, 1), [True]),
        ("batch_masked", (1, 8, 1), [True]),
    ],
)
def test_one_value_per_statistic_is_refused_whatever_the_channels(name, shape, modes):
    for training in (True, False):
        norm = make(name, 8).train(training)
        if training not in modes:
            assert norm(torch.ones(shape)).isfinite().all()
            continue
        with pytest.raises(Incompatible, match=f"norm={name} .* gives it 1;"):
            norm(torch.ones(shape))


def wrong(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


@every_norm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [wrong((5, C, 7), torch.int64)],
            r"\(5, 16, 7\) and type torch.int64; .*float",
        ),
        ([wrong((5, C + 1, 7))], r"input of shape \(5, 17, 7\) .* \(N, 16, \.\.\.\)"),
        ([wrong((C,))], r"input of shape \(16,\)"),
        ([wrong((5, C, 7)), wrong((5, 6), torch.bool)], r"mask .*\(5, 6\).* \(5, 7\)"),
        ([wrong((5, C, 7)), wrong((1, 7), torch.bool)], r"mask .*\(1, 7\).* \(5, 7\)"),
        ([wrong((5, C, 7)), wrong((5, 7))], r"mask .*torch.float32; .*\(5, 7\), bool"),
        ([wrong((5, C, 7)), wrong((5, 7), torch.int64)], r"mask .*torch.int64; .*bool"),
        (
            [wrong((5, C, 7)), None, wrong((4,), torch.int64)],
            r"condition .*\(5,\), int",
        ),
        (
            [wrong((5, C, 7)), None, wrong((5,))],
            r"condition .*float32; .*\(5,\), int64",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused_with_norm_argument_and_shape(name, arguments, message):
    norm = make(name, C)
    before = deepcopy(norm)
    with pytest.raises(RequestError, match=f"norm={name} .*{message}"):
        norm(*arguments)
    if not any(is_lazy(parameter) for parameter in norm.parameters()):
        assert same_state(norm, before)


@every_case
@every_mode
def test_a_fully_masked_batch_is_refused_or_stays_finite(case, training):
    norm = made(case, (3, C, 5)).train(training)
    before = deepcopy(norm)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    try:
        found = gradients(norm, sample(3, C, 5), mask)
    except Incompatible as reason:
        assert f"norm={case[0]} " in str(reason)
        assert same_state(norm, before)
        return
    assert all(t.isfinite().all() for t in (*found, *norm.buffers()))


# Identities between norms.


@given(
    groups=st.integers(1, 5),
    per_group=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 4), max_size=2),
)
@settings(max_examples=30, deadline=None)
def test_group_is_the_standardised_group(groups, per_group, spatial):
    channels = groups * per_group
    x = sample(2, channels, *spatial)
    norm = make("group", channels, num_groups=groups).double()
    if x[0].numel() == groups:
        with pytest.raises(Incompatible, match="use fewer groups"):
            norm(x)
        return
    by_group = x.view(2, groups, -1)
    var, mean = torch.var_mean(by_group, 2, correction=0, keepdim=True)
    expected = ((by_group - mean) / (var + 1e-5).sqrt()).view_as(x)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    ("name", "options", "other", "samples"),
    [
        ("group", {"num_groups": 1}, "layer_sample", 3),
        ("group", {"num_groups": C}, "instance", 3),
        ("layer_shape", {}, "layer_sample", 3),
        ("batch", {}, "instance", 1),
        ("batch_masked", {}, "instance", 1),
        ("group_permuted", {"order": "contiguous"}, "group", 3),
        ("group_permuted", {"num_groups": 1}, "layer_sample", 3),
        ("group_permuted", {"num_groups": C}, "instance", 3),
        ("group_permuted", {"num_groups": C, "order": "strided"}, "instance", 3),
        ("conditional_instance", {"conditions": 1}, "instance", 3),
    ],
)
def test_identity(name, options, other, samples):
    x = sample(samples, C, 4, 3)
    ours, theirs = make(name, C, **options).double(), make(other, C).double()
    torch.testing.assert_close(ours(x), theirs(x))


# Parameters shaped by the first input.


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


def test_layer_shape_refuses_another_shape():
    norm = make("layer_shape", C)
    norm(torch.randn(2, C, 4, 3))
    with pytest.raises(Incompatible, match=r"\(16, 4, 3\).*\(16, 5, 3\)"):
        norm(torch.randn(2, C, 5, 3))


# Names and options.


def test_a_norm_is_made_by_name():
    norm = make("group", channels=32, num_groups=4)
    assert (norm.name, norm.channels, norm.num_groups) == ("group", 32, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grup", {}, "norm.name='grup' is unknown; did you mean 'group'"),
        ("group", {"groups": 4}, "norm.groups is not an option .* 'num_groups'"),
        ("group", {"num_groups": 0}, "norm.num_groups=0: .*greater than 0"),
        ("group", {"num_groups": 2.0}, "norm.num_groups=2.0: "),
        ("batch", {"eps": 0.0}, "norm.eps=0.0: .*greater than 0"),
        ("batch", {"momentum": 1.5}, "norm.momentum=1.5: .*less than or equal to 1"),
        (
            "group",
            {"num_groups": 5},
            "num_groups=5 does not divide 12 channels; these do: 1, 2, 3, 4, 6, 12",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_right(name, options, message):
    with pytest.raises(RequestError, match=message):
        make(name, 12, **options)


# Their files in configs/norm.


@every_norm
def test_has_a_yaml(name):
    assert name in [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_yaml_repeats_the_defaults_and_comments_each(path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    content = yaml.safe_load(path.read_text())
    name = content.pop("name")
    assert name == path.stem
    assert all("  # " in line for line in lines if not line.startswith("name:"))
    for year in re.findall(
        r"\d{4}", REGISTRY.get(name).source if name != "layer" else ""
    ):
        assert year in first
    aliased = ["layer_sample", "layer_position"] if name == "layer" else [name]
    for real in aliased:
        assert content == REGISTRY.options(real, {})
