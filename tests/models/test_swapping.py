"""Swaps of the norms in a network: what is equal, kept, refused, and undone."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from networks_made import (
    Encoder,
    ManyNorms,
    Tagger,
    UNet,
    dcgan,
    difference,
    randomised,
)
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

import normbench
from normbench.errors import Incompatible, RequestError
from normbench.models.layers import layers
from normbench.norms.base import Norm
from normbench.norms.groups import auto_groups

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
IDS = torch.arange(28).reshape(4, 7) % 50
CASES: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "unet": (UNet, IMAGES),
    "unet with groups": (lambda: UNet(lambda c: nn.GroupNorm(4, c)), IMAGES),
    "dcgan": (dcgan, IMAGES[:, 0, :8, :1, None]),
    "tagger": (Tagger, IDS),
    "every norm": (ManyNorms, torch.randn(4, 8, 4, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_swap_to_the_same_norms_changes_no_output_and_no_key(name: str) -> None:
    build, x = CASES[name]
    model = randomised(build())
    swapped = normbench.swap(model, "keep", in_place=False)
    assert not swapped.left and swapped.layers
    assert all(isinstance(m, Norm) for _, m, _ in layers(swapped.model))
    for training in (False, True):
        before, after = copy.deepcopy(model), copy.deepcopy(swapped.model)
        with torch.no_grad():
            outputs = before.train(training)(x), after.train(training)(x)
        assert difference(*outputs) <= 1e-6
        old, new = before.state_dict(), after.state_dict()
        assert list(old) == list(new)
        for key, value in old.items():
            torch.testing.assert_close(new[key], value, rtol=1e-6, atol=1e-6)
    # A state dict of either network fits the other.
    model.load_state_dict(swapped.model.state_dict())
    swapped.model.load_state_dict(model.state_dict())


def test_the_gradients_of_a_swap_to_the_same_norms_are_equal() -> None:
    model = randomised(UNet())
    swapped = normbench.swap(model, "keep", in_place=False).model
    for network in (model, swapped):
        network(IMAGES).square().mean().backward()
    gradients = [dict(network.named_parameters()) for network in (model, swapped)]
    for name, parameter in gradients[0].items():
        torch.testing.assert_close(gradients[1][name].grad, parameter.grad)


def test_a_swap_keeps_mode_type_trainability_and_names() -> None:
    model = UNet().to(torch.float64).eval()
    model.down[1].train()
    model.middle[1].weight.requires_grad_(False)
    names = [name for name, _ in model.named_parameters()]
    swapped = normbench.swap(model, "group", num_groups=2).model
    assert swapped is model
    assert [name for name, _ in model.named_parameters()] == names
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.down[1].training and not model.middle[1].training
    assert (
        not model.middle[1].weight.requires_grad and model.middle[1].bias.requires_grad
    )


def test_a_swap_keeps_the_gain_and_the_bias_unless_told_otherwise() -> None:
    model = randomised(UNet())
    gain = model.down[1].weight.clone()
    kept = normbench.swap(model, "group", num_groups=2, in_place=False)
    fresh = normbench.swap(
        model, "group", num_groups=2, keep_affine=False, in_place=False
    )
    assert torch.equal(kept.model.down[1].weight, gain)
    assert torch.equal(fresh.model.down[1].weight, torch.ones(8))
    # A norm without a bias loses it, and says so.
    without = normbench.swap(model, "rms", in_place=False)
    assert "has no bias" in without.layers[0].notes[0]


def test_hooks_move_to_the_new_norm_with_the_layout_of_the_network() -> None:
    model = Tagger()
    shapes: list[tuple[int, ...]] = []
    handle = model.norm.register_forward_hook(
        lambda module, args, output: shapes.append((*args[0].shape, *output.shape))
    )
    normbench.swap(model, "group", num_groups=4)
    model(IDS)
    assert shapes == [(4, 7, 16, 4, 7, 16)]
    handle.remove()
    model(IDS)
    assert len(shapes) == 1


def test_a_swap_of_channels_last_equals_the_norm_on_channels_first() -> None:
    model = Tagger()
    normbench.swap(model, "group", num_groups=4)
    x = model.embedding(IDS)
    expected = nn.functional.group_norm(x.transpose(1, 2), 4).transpose(1, 2)
    torch.testing.assert_close(model.norm(x), expected)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(IDS), model(IDS))
        assert copied.norm.forward.norm is copied.norm


def test_undo_puts_the_old_layers_back() -> None:
    model = randomised(UNet())
    before, output = list(model.modules()), model.eval()(IMAGES)
    report = normbench.swap(model, "instance")
    assert difference(output, model(IMAGES)) > 0.01
    assert report.undo() is model
    assert list(model.modules()) == before and torch.equal(model(IMAGES), output)
    assert report.undo() is model  # a second call changes nothing


def test_where_selects_layers_by_a_regular_expression_or_a_predicate() -> None:
    by_name = normbench.swap(UNet(), "instance", where=r"^down")
    assert [layer.name for layer in by_name.layers] == ["down.1"]
    wide = normbench.swap(
        UNet(), "instance", where=lambda name, module: module.num_features > 8
    )
    assert [layer.name for layer in wide.layers] == ["middle.1"]
    with pytest.raises(RequestError, match=r"none of the 3 norms .* down\.1"):
        normbench.swap(UNet(), "instance", where="up")
    with pytest.raises(RequestError, match="not a regular expression"):
        normbench.swap(UNet(), "instance", where="(")


def test_a_swap_that_fails_leaves_the_model_as_it_was() -> None:
    model = UNet()
    before = list(model.modules())
    with pytest.raises(Incompatible, match=r"layer down\.1: .*num_groups=16"):
        normbench.swap(model, "group", num_groups=16)
    with pytest.raises(RequestError, match=r"norm\.name=grup is unknown"):
        normbench.swap(model, "grup")
    with pytest.raises(RequestError, match="momentum is not an option"):
        normbench.swap(model, "group", num_groups=4, momentum=0.1)
    with pytest.raises(RequestError, match="Linear has no normalization layer"):
        normbench.swap(nn.Linear(2, 2), "group")
    assert list(model.modules()) == before


def test_a_swap_does_not_change_the_random_state() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    normbench.swap(nn.BatchNorm2d(8), "group_permuted", num_groups=4)
    assert torch.equal(torch.rand(1), expected)


def test_a_layer_with_two_names_stays_one_layer() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU())
    model.add_module("again", model[0])
    report = normbench.swap(model, "group", num_groups=2)
    assert [layer.name for layer in report.layers] == ["0"]
    assert model[0] is model.again and isinstance(model[0], Norm)
    report.undo()
    assert model[0] is model.again and isinstance(model[0], nn.BatchNorm1d)


def test_the_model_itself_may_be_the_norm() -> None:
    report = normbench.swap(nn.BatchNorm1d(8), "group", num_groups=2)
    assert isinstance(report.model, Norm)
    assert isinstance(report.undo(), nn.BatchNorm1d)


def test_layers_without_channels_and_unknown_layers_stay_and_say_why() -> None:
    class OddNorm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    lazy = nn.Sequential(nn.LazyBatchNorm1d(), OddNorm(), nn.LocalResponseNorm(3))
    report = normbench.swap(lazy, "group", num_groups=2)
    assert not report.layers
    assert "call the model once" in report.left["0"]
    assert "OddNorm is unknown" in report.left["1"]
    assert report.left["2"]


def test_auto_groups_follow_the_rule_that_is_printed() -> None:
    for channels in range(1, 200):
        groups = auto_groups(channels)
        assert channels % groups == 0 and groups <= 32
        assert groups == 1 or channels // groups >= 4
        larger = [n for n in range(groups + 1, 33) if channels % n == 0]
        assert all(channels // n < 4 for n in larger)
    report = normbench.swap(UNet(), "group", num_groups="auto")
    assert [layer.options["num_groups"] for layer in report.layers] == [2, 4, 2]
    assert "at most 32" in report.rule
    lines = str(report).splitlines()
    assert lines[0] == "3 layers of UNet swapped" and lines[-1] == report.rule
    new = "group(16, eps=1e-05, affine=True, num_groups=4)"
    assert lines[2] == f"middle.1: BatchNorm2d -> {new}"
    assert "(1): GroupNorm(16, num_groups=4)" in repr(report.model)
    default = normbench.swap(UNet(), "group").layers[1]
    assert default.options["num_groups"] == 8
    assert not normbench.swap(UNet(), "group", num_groups=2).rule


def test_drift_says_how_far_each_output_moved() -> None:
    model = randomised(UNet())
    same = normbench.swap(model, "keep", in_place=False)
    assert max(same.drift(IMAGES).values()) < 1e-6
    other = normbench.swap(model, "instance", in_place=False)
    drift = other.drift(IMAGES)
    assert list(drift) == ["down.1", "middle.1", "last.1"]
    assert min(drift.values()) > 0.05
    with torch.no_grad():
        x = model.eval().down[0](IMAGES)
        old, new = model.down[1](x), other.model.eval().down[1](x)
    expected = ((new - old).square().mean() / old.square().mean()).sqrt()
    assert drift["down.1"] == pytest.approx(float(expected), rel=1e-5)


def test_torch_fx_traces_a_swapped_network() -> None:
    for norm in ("keep", "layer", "group_permuted"):
        model = normbench.swap(randomised(UNet()), norm).model.eval()
        traced = torch.fx.symbolic_trace(model)
        assert torch.equal(traced(IMAGES), model(IMAGES))
        assert "middle.1" in {node.target for node in traced.graph.nodes}


def test_a_swap_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = UNet()
    normbench.swap(model, "group", num_groups="auto")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model(torch.empty(2, 3, 16, 16, device="meta")).shape == (2, 2, 16, 16)


MASK = torch.arange(7) < torch.tensor([[7], [5], [3], [6]])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm", ["keep", "group", "rms", "none", "batch"])
def test_the_fast_path_of_torch_does_not_bypass_a_new_norm(norm: str) -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    with torch.no_grad():
        before = model(IDS, MASK)
    options = {"num_groups": 4} if norm == "group" else {}
    report = normbench.swap(model, norm, **options)
    slow = model(IDS, MASK).detach()
    with torch.no_grad():
        fast = model(IDS, MASK)
    assert difference(slow[MASK], fast[MASK]) < 1e-5
    assert (difference(before[MASK], fast[MASK]) < 1e-5) == (norm == "keep")
    report.undo()
    with torch.no_grad():
        assert torch.equal(model(IDS, MASK)[MASK], before[MASK])
    assert model.encoder.use_nested_tensor


def test_an_optimizer_made_before_the_swap_trains_the_new_norms() -> None:
    model = UNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    normbench.swap(model, "group", num_groups=2)
    before = model.down[1].weight.detach().clone()
    model(IMAGES).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model.down[1].weight, before)


def test_a_copy_shares_no_parameter_with_the_model() -> None:
    model = UNet()
    copied = normbench.swap(model, "keep", in_place=False).model
    assert not {id(p) for p in model.parameters()} & {
        id(p) for p in copied.parameters()
    }


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


def test_a_parametrized_norm_stays() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    register_parametrization(model[0], "weight", Exponential())
    report = normbench.swap(model, "keep")
    assert list(report.left) == ["0"] and "parametrized" in report.left["0"]
    assert [layer.name for layer in report.layers] == ["1"]


def test_swaps_are_undone_in_reverse_order() -> None:
    model = UNet()
    first = normbench.swap(model, "batch")
    second = normbench.swap(model, "instance")
    with pytest.raises(RequestError, match=r"later swap replaced layer down\.1"):
        first.undo()
    second.undo()
    first.undo()
    assert isinstance(model.down[1], nn.BatchNorm2d)
