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
from layers_made import (
    affine,
    assert_close,
    by_channel,
    made,
    once,
    padded,
    results,
    same_state,
    sample,
)
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Ghost, Norm, make, names
from normbench.norms.layers.group_permuted import draw

C = 16
SHAPES = [(5, C), (5, C, 7), (5, C, 4, 3)]
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml"))
MODES = (True, False)

ORDERS = ("contiguous", "strided", "random_each_layer", "random_each_forward")
VARIANTS: dict[str, list[dict[str, object]]] = {
    "group": [{"num_groups": 4}],
    "group_permuted": [{"order": order} for order in ORDERS],
}
"""Options that go through the suite beside a norm's defaults."""

Options = dict[str, object]
CASES = [(name, o) for name in names() for o in ({}, *VARIANTS.get(name, []))]

every_norm = pytest.mark.parametrize("name", names())
every_case = pytest.mark.parametrize(
    ("name", "options"),
    CASES,
    ids=["-".join([name, *map(str, o.values())]) for name, o in CASES],
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Inputs without values.


@every_case
def test_an_input_without_values_passes_through(name: str, options: Options) -> None:
    """As a detector has them where it finds no object: torch's own norms take them."""
    norm = made(name, (5, C, 4, 3), **options)
    norm(sample(5, C, 4, 3))  # leaves statistics, counters and a penalty
    before = deepcopy(norm)
    for training in MODES:
        norm.train(training)
        for shape in [(0, C), (0, C, 7), (0, C, 4, 3), (0, C, 4, 3, 2), (6, C, 0)]:
            mask = torch.ones(shape[0], *shape[2:], dtype=torch.bool)
            condition = torch.zeros(shape[0], dtype=torch.int64)
            for module in (norm, Ghost(norm, 2)):
                for arguments in ([], [mask], [mask, condition]):
                    y, *gradients = results(module, sample(*shape), *arguments)
                    assert (y.shape, y.dtype) == (shape, torch.float64)
                    assert all(bool((g == 0).all()) for g in gradients), shape
                    assert same_state(norm, before), shape
            assert not training or norm.penalty is None
            narrow = norm(torch.zeros(shape, dtype=torch.bfloat16))
            assert narrow.dtype == torch.bfloat16
    assert norm(sample(5, C, 4, 3)).isfinite().all()


def test_a_first_input_without_values_fixes_nothing() -> None:
    for name in names():
        norm = make(name, C)
        assert norm(torch.zeros(0, C, 2, 2)).shape == (0, C, 2, 2), name
        assert norm(torch.randn(5, C, 4, 3)).shape == (5, C, 4, 3), name


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

    return as_image(getattr(timm.layers, kind)(C, **options))


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


def conditional_instance(norm: Norm, x: Tensor) -> Tensor:
    rows = []
    for row, c in zip(x, CONDITION, strict=True):
        flat = row.flatten(1)
        var, mean = torch.var_mean(flat, 1, correction=0, keepdim=True)
        y = (flat - mean) / (var + 1e-5).sqrt()
        y = y * norm.weight[c][:, None] + norm.bias[c][:, None]
        rows.append(y.view(row.shape))
    return torch.stack(rows)


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


CONDITION = torch.tensor([2, 0, 3, 3, 1])
FORMULAS: list[tuple[str, Options, Callable[[Norm, Tensor], Tensor]]] = [
    ("affine", {}, affine),
    ("dyt", {}, dyt),
    ("derf", {}, derf),
    ("scale", {}, scale),
    ("frozen_batch", {}, frozen_batch),
    ("filter_response", {}, filter_response),
    ("filter_response", {"learnable_eps": True}, filter_response),
    ("conditional_instance", {}, conditional_instance),
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
            ours = results(norm.train(training), x, None, CONDITION, grad=grad)
            assert_close(ours, expected, (shape, training))


def test_parameters_start_as_in_the_paper():
    for name, values in {
        "dyt": {"alpha": 0.5, "weight": 1, "bias": 0},
        "derf": {"alpha": 0.5, "shift": 0, "weight": 1, "bias": 0},
        "scale": {"g": C**0.5},
        "filter_response": {"weight": 1, "bias": 0, "tau": 0},
        "evonorm_s0": {"weight": 1, "bias": 0, "v": 1},
        "conditional_instance": {"weight": 1, "bias": 0},
    }.items():
        parameters = dict(make(name, C).named_parameters())
        assert list(parameters) == list(values)
        for key, value in values.items():
            assert bool((parameters[key] == torch.tensor(value)).all()), (name, key)


def test_without_conditions_every_sample_has_the_first():
    norm, x = made("conditional_instance", (5, C, 7)), sample(5, C, 7)
    assert_close(norm(x), norm(x, None, torch.zeros(5, dtype=torch.int64)))


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


# What every norm promises.


@every_norm
def test_declares_its_source_and_the_inputs_it_depends_on(name):
    norm = REGISTRY.get(name)
    assert re.fullmatch(r"(.+ (19|20)\d\d|folklore)(; .+)?", norm.source)
    for footprint in norm.axes.split("; "):  # several where channels differ
        samples, channels, positions = footprint.split(", ")
        assert samples in ("one sample", "all samples")
        assert re.fullmatch("(one|all|one group of|a window of) channels?", channels)
        assert positions in ("one position", "all positions")
    assert norm.uses_other_samples == ("all samples" in norm.axes)


@every_case
def test_keeps_shape_and_type(name, options):
    for shape in SHAPES:
        x = torch.randn(shape)
        try:
            y = make(name, C, **options)(x)
        except Incompatible as reason:
            assert len(shape) == 2 and "gives it 1;" in str(reason)
        else:
            assert (y.shape, y.dtype) == (x.shape, x.dtype)


@every_case
def test_gradient_is_exact_where_the_norm_says_so(name, options):
    for training in MODES:
        norm = made(name, (3, C, 2), **options).train(training)
        x = sample(3, C, 2).requires_grad_()

        def forward(x: Tensor, *parameters: Tensor, norm: Norm = norm) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
            return torch.func.functional_call(norm, buffers, x)

        inputs = (x, *norm.parameters())
        exact = torch.autograd.gradcheck(forward, inputs, raise_exception=False)
        assert exact or not norm.exact_gradient, training


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every_other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "samples_inside": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


@every_case
def test_strides_do_not_matter(name, options):
    for layout, change in LAYOUTS.items():
        shape = SHAPES[2] if layout == "channels_last" else SHAPES[1]
        norm, x = made(name, shape, **options), sample(*shape)
        other = change(x)
        assert other.stride() != x.stride() and torch.equal(other, x)
        twin = deepcopy(norm)
        assert_close(results(norm, other), results(twin, x), layout)
        assert_close(list(norm.buffers()), list(twin.buffers()), layout)


@every_case
def test_number_of_dimensions_does_not_matter(name, options):
    if REGISTRY.get(name).fixed_spatial:
        pytest.skip("its parameters have the shape of the input")
    x = sample(4, C, 6)
    for training in MODES:
        norm = made(name, x.shape, **options).train(training)
        for shape in [(4, C, 2, 3), (4, C, 1, 3, 2)]:
            assert_close(once(norm, x.view(shape)).view_as(x), once(norm, x), shape)


@every_case
def test_a_sample_alone(name, options):
    x = sample(4, C, 5)
    for training in MODES:
        norm = made(name, x.shape, **options).train(training)
        alone = once(norm, x[:1])
        assert alone.isfinite().all()
        if not (training and norm.uses_other_samples):
            assert_close(alone, once(norm, x)[:1], training)


@every_case
def test_a_mask_of_ones_is_no_mask(name, options):
    x, ones = sample(5, C, 7), torch.ones(5, 7, dtype=torch.bool)
    for training in MODES:
        norm = made(name, x.shape, **options).train(training)
        twin = deepcopy(norm)
        assert_close(results(norm, x, ones), results(twin, x), training)
        assert_close(list(norm.buffers()), list(twin.buffers()), training)


@every_case
def test_values_at_pads_matter_unless_the_mask_is_honoured(name, options):
    x, mask = sample(5, C, 7), padded((5, C, 7))
    real = mask[:, None].expand_as(x)
    grad = sample(5, C, 7).where(real, 0)
    for training in MODES:
        norm = made(name, x.shape, **options).train(training)
        if norm.differs_in_eval and not norm.honours_mask and not training:
            continue  # evaluation need not take statistics
        for pad in (1e3, torch.nan):
            ours, twin = deepcopy(norm), deepcopy(norm)
            y, x_grad, *_ = results(ours, x, mask, grad=grad)
            other = results(twin, x.where(real, pad), mask, grad=grad)
            same = torch.equal(y[real], other[0][real])
            same = same and torch.equal(x_grad[real], other[1][real])
            if norm.differs_in_eval:
                same = same and same_state(ours, twin)
            assert same == norm.honours_mask, (training, pad)
            if norm.honours_mask and norm.differs_in_eval:
                clean = results(deepcopy(norm), x.where(real, 0), mask, grad=grad)
                assert_close(other[2:], clean[2:], (training, pad))


@every_case
def test_other_samples_matter_only_where_the_norm_says_so(name, options):
    x = sample(4, C, 5)
    changed = torch.cat([x[:1], sample(3, C, 5)])
    norm = made(name, x.shape, **options)
    same = torch.equal(once(norm, x)[0], once(norm, changed)[0])
    assert same != norm.uses_other_samples
    norm.eval()
    assert torch.equal(once(norm, x)[0], once(norm, changed)[0])


@every_case
def test_evaluation_differs_only_where_the_norm_says_so(name, options):
    x = sample(4, C, 5)
    norm = made(name, x.shape, **options)
    # Random permutations go by the number of the forward, in either mode.
    if norm.deterministic:
        same = torch.equal(once(norm, x), once(norm.eval(), x))
        assert same != norm.differs_in_eval


@every_case
def test_is_odd_at_first_unless_it_contains_an_activation(name, options):
    x = sample(4, C, 5)
    norm = make(name, C, **options).double()
    odd = torch.allclose(once(norm, -x), -once(norm, x))
    assert odd != norm.contains_activation


@every_norm
def test_works_on_one_spatial_shape_only_where_it_says_so(name):
    norm = make(name, C)
    norm(torch.randn(2, C, 4, 3))
    try:
        norm(torch.randn(2, C, 5, 3))
    except Incompatible as reason:
        assert norm.fixed_spatial
        assert re.search(r"\(16, 4, 3\).*\(16, 5, 3\)", str(reason))
    else:
        assert not norm.fixed_spatial


@every_case
def test_evaluation_is_a_function_and_draws_no_global_random_number(name, options):
    norm, x = made(name, (4, C, 5), **options), sample(4, C, 5)
    stream = torch.get_rng_state()
    with torch.no_grad():
        norm(x)
    before = deepcopy(norm.eval())
    first, second = norm(x), norm(x)
    assert torch.equal(first, second) == norm.deterministic
    assert same_state(norm, before) == norm.deterministic
    assert torch.equal(torch.get_rng_state(), stream)


@every_case
def test_state_dict_and_copy_have_all_that_decides(name, options):
    x = sample(4, C, 5)
    for training in MODES:
        norm = made(name, x.shape, **options)
        with torch.no_grad():
            norm(sample(4, C, 5))
        loaded = make(name, C, **options).double()
        loaded.load_state_dict(norm.state_dict())
        copied = deepcopy(norm)
        theirs = {id(t) for t in norm.state_dict(keep_vars=True).values()}
        ours = {id(t) for t in copied.state_dict(keep_vars=True).values()}
        assert ours.isdisjoint(theirs)
        expected = results(norm.train(training), x)
        for other in (loaded, copied):
            assert all(map(torch.equal, results(other.train(training), x), expected))
            assert same_state(other, norm)


@every_case
def test_bfloat16_and_constant_inputs_stay_finite(name, options):
    mask = padded((4, C, 9))
    for training in MODES:
        norm = made(name, (4, C, 9), **options).train(training)
        for value in (0.0, 3.0):
            x = torch.full((4, C, 9), value, dtype=torch.float64)
            assert all(t.isfinite().all() for t in results(norm, x)), value
        whole = made(name, (4, C, 9), **options).bfloat16().train(training)
        single = made(name, (4, C, 9), **options).float().train(training)
        for module in (whole, single):
            for shift in (0, 300):
                x = (sample(4, C, 9) * 50 + shift).bfloat16()
                y, *gradients = results(module, x, mask)
                assert y.dtype == torch.bfloat16
                tensors = (y, *gradients, *module.buffers())
                assert all(t.isfinite().all() for t in tensors), shift


@every_norm
def test_at_momentum_one_running_statistics_are_those_of_the_last_forward(name):
    norm = made(name, (4, C, 5))
    if not norm.differs_in_eval:
        pytest.skip("no running statistics")
    norm.momentum = 1.0
    fresh = deepcopy(norm)
    norm(sample(4, C, 5))
    x = sample(4, C, 5)
    norm(x), fresh(x)
    ours, theirs = (
        [b for b in module.buffers() if b.is_floating_point()]
        for module in (norm, fresh)
    )
    assert ours
    assert_close(ours, theirs)


@every_case
def test_works_without_an_affine_map(name, options):
    if "affine" not in REGISTRY.options(name, {}):
        pytest.skip("no such option")
    norm, x = make(name, C, **options, affine=False).double(), sample(5, C, 7)
    torch.manual_seed(0)  # what a norm draws once, it draws again
    default = make(name, C, **options).double()
    assert len(list(norm.parameters())) < len(list(default.parameters()))
    for arguments in ((x,), (x, padded(x.shape))):
        assert_close(norm(*arguments), default(*arguments))


@every_case
def test_works_on_the_meta_device(name, options):
    with torch.device("meta"):
        norm = make(name, C, **options)
        mask = torch.ones(5, 7, dtype=torch.bool)
        condition = torch.zeros(5, dtype=torch.int64)
        y = norm(torch.randn(5, C, 7), mask, condition)
    assert y.shape == (5, C, 7) and y.is_meta
    assert all(t.is_meta for t in norm.state_dict().values())


def test_per_token_norms_answer_the_transformer_without_a_copy():
    for name in ("layer_position", "rms", "dyt", "derf", "scale"):
        y = make(name, C)(torch.randn(5, 7, C).transpose(1, 2))
        assert y.shape == (5, C, 7)
        assert y.transpose(1, 2).is_contiguous(), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about its own code
@every_case
@pytest.mark.parametrize("training", MODES)
def test_compiled_it_computes_the_same(name, options, training):
    shape = (4, C, 6)
    norm, mask = made(name, shape, **options).train(training), padded(shape)
    twin = deepcopy(norm)
    torch._dynamo.reset()
    compiled = torch.compile(norm)
    for _ in range(2):
        x = sample(*shape)
        assert_close(results(compiled, x, mask), results(twin, x, mask))
        assert_close(list(norm.buffers()), list(twin.buffers()))


# Bad input.


@every_case
def test_never_takes_a_statistic_of_one_value_in_silence(name, options):
    """It is refused, or the output still tells inputs apart."""
    if "num_groups" in REGISTRY.options(name, {}):
        options = options | {"num_groups": 1}
    try:
        norm = make(name, 1, **options)
    except Incompatible:
        norm = make(name, 2, **options)
    for training in MODES:
        norm.train(training)
        for spatial in ((), (1,), (1, 1)):
            inputs = [
                torch.full((1, norm.channels, *spatial), v) for v in (1.0, 2.0, 3.0)
            ]
            try:
                a, b, c = (once(norm, x) for x in inputs)
            except Incompatible as reason:
                assert re.search(rf"norm={name} .*\(1, .*1;", str(reason))
                continue
            for pair in ((a, b), (b, c)):
                assert not torch.allclose(*pair, rtol=1e-2, atol=1e-3), spatial


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("instance", (3, 8, 1, 1), {}),
        ("instance", (3, 8), {}),
        ("conditional_instance", (3, 8, 1), {}),
        ("filter_response", (3, 8, 1), {}),
        ("group", (3, 8, 1), {}),
        ("group_permuted", (3, 8, 1), {}),
        ("evonorm_s0", (3, 8), {}),
        ("batch_group", (4, 8, 1), {"num_groups": 8}),
        ("batch_instance", (4, 8, 1), {}),
        ("ibn", (4, 8), {}),
        ("switchable", (4, 8, 1, 1), {}),
        ("evonorm_b0", (4, 8), {}),
        # Of the batch: refused in training only.
        ("batch", (1, 8, 1, 1), None),
        ("batch_masked", (1, 8, 1), None),
        ("batch_renorm", (1, 8, 1), None),
        ("batch_regularized", (1, 8), None),
        ("power", (1, 8, 1, 1), None),
        ("extended_batch", (1, 8), None),
    ],
)
def test_a_statistic_of_one_value_is_refused(name, shape, options):
    norm = make(name, 8, **(options or {}))
    before = deepcopy(norm)
    for training in MODES:
        norm.train(training)
        if options is None and not training:
            assert norm(torch.ones(shape)).isfinite().all()
        else:
            with pytest.raises(Incompatible, match=f"norm={name} .* gives it 1;"):
                norm(torch.ones(shape))
        assert same_state(norm, before)


@pytest.mark.parametrize("name", ["batch_masked", "power", "batch_regularized"])
def test_a_statistic_of_one_real_value_is_refused(name):
    norm = make(name, C)
    before = deepcopy(norm)
    for real in (0, 1):
        mask = torch.arange(4)[None] < real
        with pytest.raises(Incompatible, match=rf"{name} .* \(1, 4\) has {real};"):
            norm(torch.randn(1, C, 4), mask)
        assert same_state(norm, before)


def wrong(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


X = wrong((5, C, 7))
BAD_INPUTS: list[tuple[list[Tensor | None], str]] = [
    ([wrong((5, C, 7), torch.int64)], r"\(5, 16, 7\) and type torch.int64; .*float"),
    ([wrong((5, C + 1, 7))], r"input of shape \(5, 17, 7\) .* \(N, 16, \.\.\.\)"),
    ([wrong((C,))], r"input of shape \(16,\)"),
    ([X, wrong((5, 6), torch.bool)], r"mask .*\(5, 6\).* \(5, 7\)"),
    ([X, wrong((1, 7), torch.bool)], r"mask .*\(1, 7\).* \(5, 7\)"),
    ([X, wrong((5, 7))], r"mask .*torch.float32; .*\(5, 7\), bool"),
    ([X, wrong((5, 7), torch.int64)], r"mask .*torch.int64; .*bool"),
    ([X, None, wrong((4,), torch.int64)], r"condition .*\(5,\), int"),
    ([X, None, wrong((5,))], r"condition .*float32; .*\(5,\), int64"),
]


@every_norm
def test_bad_input_is_refused_with_norm_argument_and_shape(name):
    norm = make(name, C)
    before = deepcopy(norm)
    for arguments, message in BAD_INPUTS:
        with pytest.raises(RequestError, match=f"norm={name} .*{message}"):
            norm(*arguments)
    if not any(is_lazy(parameter) for parameter in norm.parameters()):
        assert same_state(norm, before)


@every_case
def test_a_fully_masked_batch_is_refused_or_stays_finite(name, options):
    mask = torch.zeros(3, 5, dtype=torch.bool)
    for training in MODES:
        norm = made(name, (3, C, 5), **options).train(training)
        before = deepcopy(norm)
        try:
            tensors = results(norm, sample(3, C, 5), mask)
        except Incompatible as reason:
            assert f"norm={name} " in str(reason)
            assert same_state(norm, before)
        else:
            assert all(t.isfinite().all() for t in (*tensors, *norm.buffers()))


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
        ("conditional_instance", {"conditions": 1}, "instance", 3),
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


# Names, options and their files in configs/norm.


def test_a_norm_is_made_by_name():
    norm = make("group", channels=32, num_groups=4)
    assert (norm.name, norm.channels, norm.num_groups) == ("group", 32, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grup", {}, "norm.name=grup is unknown; did you mean 'group'"),
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


def test_every_norm_has_a_yaml():
    assert set(names()) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_yaml_repeats_the_defaults_and_comments_each(path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    content = yaml.safe_load(path.read_text())
    name = content.pop("name")
    assert name == path.stem
    assert all("  # " in line for line in lines if not line.startswith("name:"))
    aliased = ["layer_sample", "layer_position"] if name == "layer" else [name]
    for real in aliased:
        assert content == REGISTRY.options(real, {})
        for year in re.findall(r"\d{4}", REGISTRY.get(real).source):
            assert year in first
