"""The contract suite: what every norm promises.

Every registered norm goes through all tests of `every_case`, with no edit here. An
entry in VARIANTS of layers_made.py adds further options.
"""

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from layers_made import (
    CHANNELS as C,
)
from layers_made import (
    MODES,
    SHAPES,
    Options,
    assert_close,
    every_case,
    every_norm,
    made,
    once,
    padded,
    results,
    same_state,
    sample,
)
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms import REGISTRY, Ghost, Norm, make, names


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
        if not (norm.uses_other_samples and (training or not norm.differs_in_eval)):
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
def test_pads_matter_in_evaluation_unless_the_norm_says_otherwise(name, options):
    x, mask = sample(5, C, 7), padded((5, C, 7))
    norm = made(name, x.shape, **options).eval()
    real = mask[:, None].expand_as(x)
    y = once(norm, x, mask)
    ignores_pads = norm.honours_mask or norm.fixed_map_in_eval
    assert (
        torch.equal(y[real], once(norm, x.where(real, 9), mask)[real]) == ignores_pads
    )
    if ignores_pads:  # the number of pads does not matter either
        y_short = once(norm, x[:, :, :5], mask[:, :5])
        assert_close(y_short[real[:, :, :5]], y[real])


@every_case
def test_other_samples_matter_only_where_the_norm_says_so(name, options):
    x = sample(4, C, 5)
    changed = torch.cat([x[:1], sample(3, C, 5)])
    norm = made(name, x.shape, **options)
    same = torch.equal(once(norm, x)[0], once(norm, changed)[0])
    assert same != norm.uses_other_samples
    same = torch.equal(once(norm.eval(), x)[0], once(norm, changed)[0])
    assert same == (norm.differs_in_eval or not norm.uses_other_samples)


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
