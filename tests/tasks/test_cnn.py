"""The CNNs: shapes, padding, grouped convolutions, and torchvision's ResNets."""

import itertools
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
for_every_network = pytest.mark.parametrize(("kind", "padding"), NETWORKS)


def images(height: int, width: int) -> Images:
    """Four pictures of noise."""
    return Images(
        images=torch.randn(4, 3, height, width),
        labels=torch.arange(4) % 2,
        classes=("a", "b"),
        splits={split: torch.arange(4) for split in ("train", "val", "test")},
    )


def build(
    norm: str, data: Images | None = None, norm_options: Any = None, **options: Any
) -> Network:
    """Build the network of the task with `options`, from seed 0, in training mode."""
    task = CNN(data or images(24, 24), torch.device("cpu"), **options)
    torch.manual_seed(0)
    model = task.build(NormFactory(norm, norm_options or {}, norm_batch=4))
    assert isinstance(model, Network)
    return model


@for_every_network
@pytest.mark.parametrize(
    ("depth", "stem_stride", "groups"), [(1, 1, 1), (2, 1, 4), (1, 2, 8)]
)
def test_a_network_has_a_norm_after_each_convolution(
    kind: str, padding: str, depth: int, stem_stride: int, groups: int
) -> None:
    model = build(
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
    ("padding", "expected"),
    [
        ("zeros", [24, 24, 12, 6]),
        ("reflect", [24, 24, 12, 6]),
        ("valid", [22, 20, 9, 4]),
    ],
)
def test_the_output_sizes_of_the_four_convolutions(
    padding: str, expected: list[int]
) -> None:
    model = build("none", network="plain", padding=padding)
    sides: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, y: sides.append(y.shape[-1]))
    model(torch.randn(1, 3, 24, 24))
    assert sides == expected


@for_every_network
def test_instance_norm_depends_on_brightness_only_with_zero_padding(
    kind: str, padding: str
) -> None:
    model = build("instance", network=kind, padding=padding).double()
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    brighter, tinted = x + 3, x + torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    differences = [(model(y) - model(x)).abs().max() for y in (brighter, tinted)]
    if padding == "zeros":
        assert min(differences) > 1e-3
    else:
        assert max(differences) < 1e-9


@for_every_network
def test_only_the_classifier_combines_the_groups_of_channels(
    kind: str, padding: str
) -> None:
    def dependencies(groups: int) -> Tensor:
        """Return a bool matrix: does output channel i depend on input channel j?"""
        model = build("none", network=kind, padding=padding, conv_groups=groups)
        x = torch.rand(1, 16, 24, 24, requires_grad=True)
        pooled = model.blocks(x).mean((0, 2, 3))
        rows = [
            torch.autograd.grad(y, x, retain_graph=True)[0].abs().sum((0, 2, 3))
            for y in pooled
        ]
        return torch.stack(rows) > 0

    same_group = torch.block_diag(*[torch.ones(16, 4)] * 4).bool()
    assert not dependencies(4)[~same_group].any()
    assert dependencies(4)[same_group].float().mean() > 0.5  # a ReLU may be dead
    assert dependencies(1)[~same_group].float().mean() > 0.5


@for_every_network
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
    model = build(norm, norm_options=norm_options, **options)
    parameters = dict(build("none", **options).named_parameters())
    assert len(parameters) >= 6
    for name, weight in parameters.items():
        assert torch.equal(model.get_parameter(name), weight), name


def test_initial_weights_do_not_depend_on_the_padding() -> None:
    zeros, reflect, valid = (
        build("none", network="plain", padding=padding).state_dict()
        for padding in ("zeros", "reflect", "valid")
    )
    for key, weight in zeros.items():
        assert torch.equal(reflect[key], weight), key
        assert torch.equal(valid[key], weight), key


def test_the_order_option_decides_whether_layers_share_a_partition() -> None:
    def partitions(order: str, seed: int) -> list[set[frozenset[int]]]:
        """Return the channel groups of every norm with 16 channels."""
        task = CNN(images(24, 24), torch.device("cpu"))
        torch.manual_seed(seed)
        norms = NormFactory("group_permuted", {"order": order, "num_groups": 4}, 4)
        task.build(norms)
        return [
            {frozenset(group.tolist()) for group in norm.permutation.view(4, -1)}
            for norm in norms.modules
            if norm.channels == 16
        ]

    different = partitions("random_each_layer", 0)
    assert len(different) == 3
    assert all(a != b for a, b in itertools.combinations(different, 2))
    assert different == partitions("random_each_layer", 0)
    other_seed = partitions("random_each_layer", 1)
    assert all(a != b for a, b in zip(different, other_seed, strict=True))
    shared = partitions("random_fixed", 0)
    assert shared == shared[:1] * 3
    assert shared == partitions("random_fixed", 1)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("depth", [1, 2])
@for_every_network
def test_exactly_the_images_that_are_too_small_are_refused(
    kind: str, padding: str, depth: int, stem_stride: int
) -> None:
    options = {"network": kind, "padding": padding, "width": 2}
    options |= {"depth": depth, "stem_stride": stem_stride}
    refused = []
    for side in range(1, 60):
        data = images(side, 60)
        try:
            model = build("none", data, **options)
        except RequestError as error:
            refused.append(side)
            assert f"task.padding={padding} needs" in str(error)
            assert f"{side}x60" in str(error)
            # Without the check, the forward pass would fail.
            model = build("none", images(60, 60), **options)
            with pytest.raises(RuntimeError):
                model(data.images)
        else:
            assert model(data.images).isfinite().all()
    assert refused == list(range(1, len(refused) + 1))
    assert bool(refused) == (padding != "zeros")


REFUSED = {
    ("padding=valid",): "padding=valid does not .*network=plain",
    ("conv_groups=3",): "task.conv_groups=3 does not divide task.width=16",
    ("network=plain", "padding=valid", "stem_stride=2"): (
        "task.padding=valid needs 3 .* convolution 4 gets 1 for images of 14x14"
    ),
    ("network=plain", "shortcut=pad"): "shortcut=pad does not apply",
    ("shortcut=pad", "conv_groups=2"): "conv_groups=2; set task.shortcut=projection",
    ("network=resnet18", "width=64"): "task.width=64 does not apply",
    ("network=resnet50", "depth=2"): "leave task.depth at 1",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_impossible_options_are_refused(options: tuple[str, ...]) -> None:
    overrides = [f"task.{option}" for option in options]
    config = compose(["task=cnn", "data.size=14", *overrides])
    with pytest.raises(RequestError, match=REFUSED[options]) as error:
        network.make_task(config, torch.device("cpu"))
    assert len(str(error.value).splitlines()) <= 3


PARAMETERS = {
    "resnet20": 269_722,  # 0.27 M in He et al. 2016, table 6
    "resnet56": 853_018,  # 0.85 M in He et al. 2016, table 6
    "resnet18": 11_689_512,  # documentation of torchvision
    "resnet50": 25_557_032,  # documentation of torchvision
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_networks_have_the_published_number_of_parameters(name: str) -> None:
    config = compose([f"task={name}", "tracker=none"])
    options = config.task.options
    classes = 1000 if options["network"].startswith("resnet") else 10
    data = replace(images(32, 32), classes=("",) * classes)
    task = CNN(data, torch.device("cpu"), **options)
    with torch.device("meta"):
        model = task.build(NormFactory("batch", {}, norm_batch=4))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnets_compute_the_same_as_those_of_torchvision(
    name: str, channels: int
) -> None:
    from torchvision import models

    model = resnet(name, NormFactory("batch", {}, norm_batch=4), channels, 5)
    reference = getattr(models, name)(num_classes=5)
    if channels == 1:
        reference.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    sources, targets = (
        [v for v in m.state_dict().values() if v.dtype.is_floating_point]
        for m in (model, reference)
    )
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)
    x = torch.randn(4, channels, 64, 64)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.eval()(x), reference.eval()(x))


@pytest.mark.parametrize(
    ("name", "with_relu", "without"), [("resnet18", 9, 11), ("resnet50", 33, 20)]
)
def test_the_norms_of_a_resnet_apply_all_activations_before_a_sum(
    name: str, with_relu: int, without: int
) -> None:
    activations = []

    def norm(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
        activations.append(activation)
        return nn.Identity()

    model = resnet(name, norm, 3, 10)
    assert activations.count(nn.ReLU) == with_relu
    assert activations.count(None) == without
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


@pytest.mark.parametrize("norm", names())
def test_gradients_pass_through_every_norm_in_a_resnet(norm: str) -> None:
    model = resnet("resnet18", NormFactory(norm, {}, norm_batch=2), 3, 10)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_instance_norm_is_incompatible_with_a_resnet_on_small_images() -> None:
    # The last stage of ResNet-18 has one position, and one value has no variance.
    config = compose(["task=resnet18", "data=mnist5k", "norm=instance"])
    reason = network.incompatible(config)
    assert reason is not None and "norm=instance cannot work" in reason
    assert network.incompatible(compose(["task=resnet18", "data=mnist5k"])) is None


def test_the_pad_shortcut_skips_positions_and_appends_zero_channels() -> None:
    block = BasicBlock(
        *(NormFactory("none", {}, norm_batch=4), 4, 8, 2), Shape(shortcut="pad")
    )
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()


def test_reparametrization_applies_to_all_convolutions_of_a_resnet() -> None:
    overrides = ["task=resnet18", "data=mnist5k", "reparam=weight_std"]
    config = compose(overrides)
    built = network.build(config, network.make_task(config, torch.device("cpu")))
    convolutions = [m for m in built.model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 20
    assert all(hasattr(c, "parametrizations") for c in convolutions)


def test_a_plain_network_learns_a_colour_in_a_few_steps(run: Run) -> None:
    record = run(
        *["task=cnn", "data=shapes", "data.label=hue", "data.samples=1000"],
        *["task.network=plain", "task.padding=reflect", "task.stem_stride=2"],
        *["budget.epochs=3", "budget.max_steps=60", "clip=2.0", "evaluations=1"],
    )
    error = record.metrics["test/error"]
    assert error is not None
    assert error < 0.4
