"""The CNNs: their shapes, their borders, and channels that never meet."""

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import Run
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.data.base import Images
from normbench.errors import RequestError
from normbench.norms import names
from normbench.norms.factory import NormFactory
from normbench.tasks.cnn import CNN
from normbench.tasks.networks.cnn import BasicBlock, Network, Shape
from normbench.tasks.networks.resnet import resnet
from normbench.training import network

NETWORKS = [
    ("residual", "zeros"),
    ("residual", "reflect"),
    ("plain", "zeros"),
    ("plain", "reflect"),
    ("plain", "valid"),
]
every_network = pytest.mark.parametrize(("kind", "padding"), NETWORKS)


def images(height: int, width: int) -> Images:
    """Four pictures of noise."""
    return Images(
        images=torch.randn(4, 3, height, width),
        labels=torch.arange(4) % 2,
        classes=("a", "b"),
        splits={part: torch.arange(4) for part in ("train", "val", "test")},
    )


def made(
    norm: str, data: Images | None = None, norm_options: Any = None, **options: Any
) -> Network:
    """A network of the task with `options`, from seed 0, in training."""
    task = CNN(data or images(24, 24), torch.device("cpu"), **options)
    torch.manual_seed(0)
    model = task.build(NormFactory(norm, norm_options or {}, norm_batch=4))
    assert isinstance(model, Network)
    return model


@every_network
@pytest.mark.parametrize(
    ("depth", "stem_stride", "groups"), [(1, 1, 1), (2, 1, 4), (1, 2, 8)]
)
def test_a_network_has_a_norm_after_each_convolution(
    kind: str, padding: str, depth: int, stem_stride: int, groups: int
) -> None:
    model = made(
        "batch",
        images(48, 48),
        network=kind,
        padding=padding,
        width=8,
        depth=depth,
        stem_stride=stem_stride,
        conv_groups=groups,
    )
    assert model(torch.randn(4, 3, 48, 48)).shape == (4, 2)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if getattr(m, "name", None) == "batch"]
    per_block = 1 if kind == "plain" else 2
    shortcuts = 0 if kind == "plain" else 2
    assert len(convolutions) == 1 + 3 * depth * per_block + shortcuts
    assert len(norms) == len(convolutions)
    assert all(c.bias is None for c in convolutions)
    assert [c.groups for c in convolutions] == [1] + [groups] * (len(convolutions) - 1)
    assert convolutions[-1].out_channels == 32


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        ("zeros", [24, 24, 12, 6]),
        ("reflect", [24, 24, 12, 6]),
        ("valid", [22, 20, 9, 4]),
    ],
)
def test_the_sizes_between_the_four_convolutions(
    padding: str, sides: list[int]
) -> None:
    model = made("none", network="plain", padding=padding)
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, y: seen.append(y.shape[-1]))
    model(torch.randn(1, 3, 24, 24))
    assert seen == sides


@every_network
def test_only_a_border_of_zeros_tells_instance_norm_the_brightness(
    kind: str, padding: str
) -> None:
    model = made("instance", network=kind, padding=padding).double()
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    brighter, tinted = x + 3, x + torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    differences = [(model(y) - model(x)).abs().max() for y in (brighter, tinted)]
    if padding == "zeros":
        assert min(differences) > 1e-3
    else:
        assert max(differences) < 1e-9


@every_network
def test_groups_of_channels_meet_in_the_classifier_only(
    kind: str, padding: str
) -> None:
    def seen(groups: int) -> Tensor:
        """Which channels after the first convolution each last channel depends on."""
        model = made("none", network=kind, padding=padding, conv_groups=groups)
        x = torch.rand(1, 16, 24, 24, requires_grad=True)
        pooled = model.blocks(x).mean((0, 2, 3))
        rows = [
            torch.autograd.grad(y, x, retain_graph=True)[0].abs().sum((0, 2, 3))
            for y in pooled
        ]
        return torch.stack(rows) > 0

    apart = torch.block_diag(*[torch.ones(16, 4)] * 4).bool()
    assert not seen(4)[~apart].any()
    assert seen(4)[apart].float().mean() > 0.5  # a ReLU may be dead
    assert seen(1)[~apart].float().mean() > 0.5


@every_network
@pytest.mark.parametrize(
    ("norm", "norm_options"),
    [
        ("batch", {}),
        ("layer_shape", {}),
        ("switchable", {}),
        ("group_permuted", {"order": "random_each_layer"}),
    ],
)
def test_initial_weights_do_not_depend_on_the_norm(
    kind: str, padding: str, norm: str, norm_options: dict[str, Any]
) -> None:
    options = {"network": kind, "padding": padding, "conv_groups": 2}
    model = made(norm, norm_options=norm_options, **options)
    reference = made("none", **options)
    compared = [
        torch.equal(model.get_parameter(name), weight)
        for name, weight in reference.named_parameters()
    ]
    assert len(compared) >= 6
    assert all(compared)


def test_padding_draws_the_same_weights() -> None:
    states = [
        made("none", network="plain", padding=p).state_dict() for _, p in NETWORKS
    ]
    for state in states:
        assert all(torch.equal(state[key], states[0][key]) for key in states[0])


def test_layers_of_a_network_have_partitions_of_their_own_or_one() -> None:
    def partitions(order: str, seed: int) -> list[set[frozenset[int]]]:
        task = CNN(images(24, 24), torch.device("cpu"))
        torch.manual_seed(seed)
        norms = NormFactory("group_permuted", {"order": order, "num_groups": 4}, 4)
        task.build(norms)
        return [
            {frozenset(group.tolist()) for group in norm.permutation.view(4, -1)}
            for norm in norms.modules
            if norm.channels == 16
        ]

    own = partitions("random_each_layer", 0)
    assert len(own) == 3
    assert all(a != b for a, b in itertools.combinations(own, 2))
    assert own == partitions("random_each_layer", 0)
    other = partitions("random_each_layer", 1)
    assert all(a != b for a, b in zip(own, other, strict=True))
    shared = partitions("random_fixed", 0)
    assert shared == shared[:1] * 3
    assert shared == partitions("random_fixed", 1)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("depth", [1, 2])
@every_network
def test_images_that_are_too_small_are_refused_and_no_others(
    kind: str, padding: str, depth: int, stem_stride: int
) -> None:
    options = {"network": kind, "padding": padding, "width": 2}
    options |= {"depth": depth, "stem_stride": stem_stride}
    refused = []
    for side in range(1, 60):
        data = images(side, 60)
        try:
            model = made("none", data, **options)
        except RequestError as error:
            refused.append(side)
            assert f"task.padding={padding} needs" in str(error)
            assert f"{side}x60" in str(error)
            # What the check says of a picture is what its network would have met.
            model = made("none", images(60, 60), **options)
            with pytest.raises(RuntimeError):
                model(data.images)
        else:
            assert model(data.images).isfinite().all()
    assert refused == list(range(1, len(refused) + 1))
    assert bool(refused) == (padding != "zeros")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.padding=valid"], ["task.padding=valid", "task.network=plain"]),
        (["task.conv_groups=3"], ["task.conv_groups=3", "task.width=16"]),
        (
            ["task.network=plain", "task.padding=valid", "task.stem_stride=2"],
            ["task.padding=valid", "14x14", "1 is left at convolution 4"],
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(
    overrides: list[str], words: list[str]
) -> None:
    config = compose(["task=cnn", "data.size=14", *overrides])
    with pytest.raises(RequestError) as error:
        network.make_task(config, torch.device("cpu"))
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def parameters(*overrides: str) -> int:
    """Of the network that a config asks for, on three channels."""
    config = compose([*overrides, "tracker=none"])
    options = config.task.options
    classes = 1000 if config.task.options["network"].startswith("resnet") else 10
    data = replace(images(32, 32), classes=("",) * classes)
    task = CNN(data, torch.device("cpu"), **options)
    with torch.device("meta"):
        model = task.build(NormFactory("batch", {}, norm_batch=4))
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("task", "count"),
    [
        ("resnet20", 269_722),  # 0.27 M in He et al. 2016, table 6
        ("resnet56", 853_018),  # 0.85 M
        ("resnet18", 11_689_512),  # torchvision's documentation
        ("resnet50", 25_557_032),
    ],
)
def test_known_networks_have_their_known_number_of_parameters(
    task: str, count: int
) -> None:
    assert parameters(f"task={task}") == count


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_s_networks_compute_what_torchvision_s_do(
    name: str, channels: int
) -> None:
    from torchvision import models

    model = resnet(name, NormFactory("batch", {}, norm_batch=4), channels, 5)
    reference = getattr(models, name)(num_classes=5)
    if channels == 1:
        reference.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    known = [v for v in reference.state_dict().values() if v.dtype.is_floating_point]
    own = [v for v in model.state_dict().values() if v.dtype.is_floating_point]
    with torch.no_grad():
        for mine, theirs in zip(own, known, strict=True):
            theirs.copy_(mine)
    x = torch.randn(4, channels, 64, 64)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.eval()(x), reference.eval()(x))


def test_a_norm_that_contains_its_activation_gets_no_second_one() -> None:
    for name, blocks, inner in (("resnet18", 8, 1), ("resnet50", 16, 2)):
        calls = []

        def norm(
            channels: int,
            activation: type[nn.Module] | None = None,
            calls: list[object] = calls,
        ) -> nn.Module:
            calls.append(activation)
            return nn.Identity()

        model = resnet(name, norm, 3, 10)
        assert calls.count(nn.ReLU) == 1 + blocks * inner
        assert calls.count(None) == blocks + (3 if name == "resnet18" else 4)
        assert not any(isinstance(m, nn.ReLU) for m in model.modules())


@pytest.mark.parametrize("norm", names())
def test_gradients_pass_through_any_norm_in_torchvision_s_networks(norm: str) -> None:
    model = resnet("resnet18", NormFactory(norm, {}, norm_batch=2), 3, 10)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_norm_that_cannot_work_in_a_torchvision_network_is_incompatible() -> None:
    # ResNet-18 ends in one position here, of which there is no variance.
    config = compose(["task=resnet18", "data=mnist5k", "norm=instance"])
    reason = network.incompatible(config)
    assert reason is not None and "norm=instance cannot work" in reason
    assert network.incompatible(compose(["task=resnet18", "data=mnist5k"])) is None


def test_a_shortcut_that_pads_is_the_input_where_nothing_is_learned() -> None:
    block = BasicBlock(
        *(NormFactory("none", {}, norm_batch=4), 4, 8, 2), Shape(shortcut="pad")
    )
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()


def test_reparametrisation_reaches_the_convolutions_of_torchvision_s_networks() -> None:
    overrides = ["task=resnet18", "data=mnist5k", "reparam=weight_std"]
    config = compose(overrides)
    built = network.build(config, network.make_task(config, torch.device("cpu")))
    convolutions = [m for m in built.model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 20
    assert all(hasattr(c, "parametrizations") for c in convolutions)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.network=plain", "task.shortcut=pad"], "task.shortcut=pad has no"),
        (["task.shortcut=pad", "task.conv_groups=2"], "conv_groups=2; use projection"),
        (["task.network=resnet18", "task.width=64"], "task.width=64 has no meaning"),
        (["task.network=resnet50", "task.depth=2"], "leave it at 1"),
    ],
)
def test_options_of_another_network_are_refused(
    overrides: list[str], words: str
) -> None:
    config = compose(["task=cnn", *overrides])
    with pytest.raises(RequestError, match=re.escape(words)):
        network.make_task(config, torch.device("cpu"))


def test_a_plain_network_learns_a_colour_in_a_few_steps(run: Run) -> None:
    finished = run(
        *["task=cnn", "data=shapes", "data.label=hue", "data.samples=1000"],
        *["task.network=plain", "task.padding=reflect", "task.stem_stride=2"],
        *["budget.epochs=3", "budget.max_steps=60", "clip=2.0", "evaluations=1"],
    )
    error = finished.metrics["test/error"]
    assert error is not None
    assert error < 0.4
