"""What every norm promises, and each norm against torch's own."""

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
from normbench.norms import REGISTRY, Norm, make, names

C = 16
SHAPES = [(5, C), (5, C, 7), (5, C, 4, 3)]
CONFIGS = sorted((Path(__file__).parents[1] / "configs" / "norm").glob("*.yaml"))

every_norm = pytest.mark.parametrize("name", names())
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=len)


def made(name: str, shape: tuple[int, ...], **options: object) -> Norm:
    """A float64 norm for `shape`, in training, with a random affine map."""
    norm = make(name, shape[1], **options).double()
    norm.eval()(torch.zeros(shape, dtype=torch.float64))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm.train()


def sample(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64) * 2 + 1


def padded(shape: tuple[int, ...]) -> Tensor:
    """A mask (N, T): sample i has i + 2 real positions."""
    return torch.arange(shape[2]) < torch.arange(2, shape[0] + 2)[:, None]


def gradients(
    module: nn.Module, x: Tensor, *args: Tensor, grad: Tensor | None = None
) -> list[Tensor]:
    """Output, then gradients of input and parameters for one output gradient."""
    x = x.detach().requires_grad_()
    y = module(x, *args)
    if grad is None:
        grad = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).cos().view(y.shape)
    inputs = [x, *module.parameters()]
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Each norm against torch's own.


class ChannelsLast(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def torch_batch(shape: tuple[int, ...]) -> nn.Module:
    return [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d][len(shape) - 2](C)


def torch_instance(shape: tuple[int, ...]) -> nn.Module:
    return [nn.InstanceNorm1d, nn.InstanceNorm2d][len(shape) - 3](C, affine=True)


ORACLES: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "none": lambda shape: nn.Identity(),
    "batch": torch_batch,
    "batch_masked": torch_batch,
    "layer_sample": lambda shape: nn.GroupNorm(1, C),
    "layer_shape": lambda shape: nn.LayerNorm(shape[1:]),
    "layer_position": lambda shape: ChannelsLast(nn.LayerNorm(C)),
    "instance": torch_instance,
    "group": lambda shape: nn.GroupNorm(4, C),
    "rms": lambda shape: ChannelsLast(nn.RMSNorm(C, eps=1e-5)),
}
OPTIONS = {"group": {"num_groups": 4}}


def oracle_pairs() -> list[tuple[str, tuple[int, ...]]]:
    pairs = [(name, shape) for name in ORACLES for shape in SHAPES]
    return [pair for pair in pairs if pair != ("instance", (5, C))]


@pytest.mark.parametrize(("name", "shape"), oracle_pairs())
def test_equals_torch_forward_backward_and_state_dict(name, shape):
    ours = made(name, shape, **OPTIONS.get(name, {}))
    theirs = ORACLES[name](shape).double()
    inner = theirs.norm if isinstance(theirs, ChannelsLast) else theirs
    inner.load_state_dict(ours.state_dict())

    x = sample(*shape)
    for _ in range(2):
        assert_close(gradients(ours, x), gradients(theirs, x))
    for key, value in inner.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    assert_close(gradients(ours.eval(), x), gradients(theirs.eval(), x))

    loaded = make(name, C, **OPTIONS.get(name, {})).double()
    loaded.load_state_dict(inner.state_dict())
    assert_close(gradients(loaded.eval(), x), gradients(theirs, x))


def test_affine_is_a_gain_and_a_bias_per_channel():
    norm, x = made("affine", SHAPES[2]), sample(*SHAPES[2])
    expected = x * norm.weight.view(1, C, 1, 1) + norm.bias.view(1, C, 1, 1)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("training", [True, False])
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
    monkeypatch.setattr(norm, "_count", lambda mask: mask.sum().clamp(min=1))
    y, *grads = gradients(norm, sample(1, C, 4), mask)
    assert all(t.isfinite().all() for t in (y, *grads))
    torch.testing.assert_close(y[:, :, :real], norm.bias.view(1, C, 1)[:, :, :real])
    assert_close([norm.running_mean, norm.running_var], before)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(5, 6, dtype=torch.bool),
        torch.ones(1, 7, dtype=torch.bool),
        torch.ones(5, 7),
    ],
    ids=["positions", "samples", "type"],
)
def test_masked_batch_refuses_a_wrong_mask(mask):
    with pytest.raises(RequestError, match=r"batch_masked .* \(5, 7\), bool"):
        make("batch_masked", C)(torch.randn(5, C, 7), mask)


# What every norm promises.


@every_norm
@every_shape
def test_keeps_shape_and_type(name, shape):
    if name == "instance" and len(shape) == 2:
        pytest.skip("one position")
    x = torch.randn(shape)
    y = make(name, C)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@every_norm
def test_gradient_is_exact_where_the_norm_says_so(name):
    norm = made(name, (3, C, 2))
    x = sample(3, C, 2).requires_grad_()
    parameters = list(norm.parameters())
    exact = torch.autograd.gradcheck(
        lambda x, *_: norm(x), (x, *parameters), raise_exception=False
    )
    assert exact == norm.exact_gradient


@every_norm
def test_strides_do_not_matter(name):
    tokens = sample(5, 7, C)
    view = tokens.transpose(1, 2)
    norm = made(name, view.shape)
    twin = deepcopy(norm)
    assert_close(gradients(norm, view), gradients(twin, view.contiguous()))


@every_norm
def test_number_of_dimensions_does_not_matter(name):
    if REGISTRY.get(name).fixed_spatial:
        pytest.skip("its parameters have the shape of the input")
    x = sample(4, C, 6)
    norm = made(name, x.shape)
    torch.testing.assert_close(norm(x), norm(x.view(4, C, 2, 3)).flatten(2))


@every_norm
def test_a_mask_of_ones_is_no_mask(name):
    x, ones = sample(5, C, 7), torch.ones(5, 7, dtype=torch.bool)
    norm = made(name, x.shape)
    twin = deepcopy(norm)
    assert_close(gradients(norm, x, ones), gradients(twin, x))
    assert_close(list(norm.buffers()), list(twin.buffers()))


@every_norm
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pad", [1e3, torch.nan])
def test_what_stands_at_pads_matters_unless_the_mask_is_honoured(name, training, pad):
    x, mask = sample(5, C, 7), padded((5, C, 7))
    real = mask[:, None].expand_as(x)
    norm = made(name, x.shape).train(training)
    if norm.differs_in_eval and not norm.honours_mask and not training:
        pytest.skip("evaluation takes no statistics")
    grad = sample(5, C, 7).where(real, 0)
    twin = deepcopy(norm)
    y, dx, *_ = gradients(norm, x, mask, grad=grad)
    other_y, other_dx, *_ = gradients(twin, x.where(real, pad), mask, grad=grad)
    same = torch.equal(y[real], other_y[real]) and torch.equal(dx[real], other_dx[real])
    if norm.differs_in_eval:
        buffers = zip(norm.buffers(), twin.buffers(), strict=True)
        same = same and all(torch.equal(a, b) for a, b in buffers)
    assert same == norm.honours_mask


@every_norm
def test_other_samples_matter_only_where_the_norm_says_so(name):
    x = sample(4, C, 5)
    changed = torch.cat([x[:1], sample(3, C, 5)])
    norm = made(name, x.shape)
    same = torch.equal(norm(x)[0], norm(changed)[0])
    assert same != norm.uses_other_samples
    norm.eval()
    assert torch.equal(norm(x)[0], norm(changed)[0])


@every_norm
def test_evaluation_differs_only_where_the_norm_says_so(name):
    x = sample(4, C, 5)
    norm = made(name, x.shape)
    same = torch.equal(norm(x), norm.eval()(x))
    assert same != norm.differs_in_eval


@every_norm
def test_evaluation_changes_nothing(name):
    norm = made(name, (4, C, 5))
    norm(sample(4, C, 5))
    before = deepcopy(norm.eval().state_dict())
    norm(sample(4, C, 5))
    assert_close(list(norm.state_dict().values()), list(before.values()))


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


@every_norm
def test_works_without_an_affine_map(name):
    if "affine" not in REGISTRY.options(name, {}):
        pytest.skip("no such option")
    norm, x = make(name, C, affine=False).double(), sample(5, C, 7)
    assert not list(norm.parameters())
    torch.testing.assert_close(norm(x), make(name, C).double()(x))
    mask = padded(x.shape)
    torch.testing.assert_close(norm(x, mask), make(name, C).double()(x, mask))


@every_norm
def test_works_on_the_meta_device(name):
    with torch.device("meta"):
        norm = make(name, C)
        mask = torch.ones(5, 7, dtype=torch.bool)
        y = norm(torch.randn(5, C, 7), mask)
    assert y.shape == (5, C, 7) and y.is_meta
    assert all(t.is_meta for t in norm.state_dict().values())


@every_norm
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 1, 1)], ids=len)
def test_never_takes_a_statistic_of_one_value_in_silence(name, shape):
    options = {"num_groups": 1} if name == "group" else {}
    norm = make(name, 1, **options)
    if name in ("none", "affine"):
        norm(torch.randn(shape))
        return
    with pytest.raises(Incompatible, match=f"norm={name} .*1, 1.*;"):
        norm(torch.randn(shape))


@pytest.mark.parametrize(
    ("name", "shape", "modes"),
    [
        ("instance", (3, 8, 1, 1), [True, False]),
        ("instance", (3, 8), [True, False]),
        ("group", (3, 8, 1), [True, False]),
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


@pytest.mark.parametrize("name", ["layer_position", "rms"])
def test_per_token_norms_answer_the_transformer_without_a_copy(name):
    y = make(name, C)(torch.randn(5, 7, C).transpose(1, 2))
    assert y.shape == (5, C, 7)
    assert y.transpose(1, 2).is_contiguous()


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
    aliased = ["layer_sample", "layer_position"] if name == "layer" else [name]
    for real in aliased:
        assert content == REGISTRY.options(real, {})
