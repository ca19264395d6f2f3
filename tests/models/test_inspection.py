"""Reports on the norms of a network: the rows, and each finding in both directions."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks_made import ManyNorms, UNet
from torch import Tensor, nn
from torch.nn import functional as F

import normbench
from normbench.errors import RequestError
from normbench.models.finding import Finding
from normbench.models.inspection import Report
from normbench.models.rows import LayerRow

IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def findings(model: nn.Module, example: Any, **options: Any) -> dict[str, Finding]:
    report = normbench.inspect(model, example, **options)
    assert len({finding.what for finding in report.findings}) == len(report.findings)
    return {finding.what: finding for finding in report.findings}


def rows(report: Report) -> dict[str, LayerRow]:
    return {row.name: row for row in report.layers}


def test_a_row_describes_each_norm_of_a_network() -> None:
    report = normbench.inspect(UNet(), IMAGES)
    assert report.ok and report.model == "UNet"
    assert rows(report)["middle.1"] == LayerRow(
        name="middle.1",
        kind="batch",
        type="BatchNorm2d",
        channels=16,
        groups=None,
        input=(16, 16, 8, 8),
        values=16 * 8 * 8,
        samples=16,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        trainable=True,
        mode="train",
        calls=1,
        after="middle.0",
        before="middle.2",
    )
    json.dumps(report.as_dict())


def test_the_rows_have_the_values_of_each_kind_of_statistic() -> None:
    report = normbench.inspect(ManyNorms(), torch.randn(6, 8, 4, 4))
    values = {row.name: (row.kind, row.values, row.groups) for row in report.layers}
    assert values == {
        "batch": ("batch", 96, None),
        "cumulative": ("batch", 96, None),
        "untracked": ("batch", 96, None),
        "group": ("group", 32, 4),
        "one_group": ("layer_sample", 128, 1),
        "instance": ("instance", 16, None),
        "plain_instance": ("instance", 16, None),
        "sample": ("layer_shape", 128, None),
        "last": ("layer_position", 8, None),
        "without_bias": ("layer_position", 8, None),
        "rms": ("rms", 8, None),
    }
    affine = {row.name for row in report.layers if not row.affine}
    assert affine == {"untracked", "plain_instance"}


def test_inspect_changes_neither_the_model_nor_the_random_state() -> None:
    model = UNet()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    normbench.inspect(model, IMAGES, [(IMAGES, torch.zeros(16).long())] * 0)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_meta_device_gives_the_same_rows_as_the_cpu() -> None:
    real = normbench.inspect(UNet(), IMAGES)
    meta = normbench.inspect(UNet(), IMAGES, device="meta")
    assert real.layers == meta.layers and real.findings == meta.findings


class Head(nn.Module):
    """Pools images to one position and normalizes them there."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(x.mean((2, 3), keepdim=True))
        return output


def with_bias(bias: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8))


def frozen(training: bool) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    model[1].requires_grad_(False).train(training)
    return model


class Shared(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.norm, self.times = nn.BatchNorm2d(3), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.norm(x)
        return x


class Functional(nn.Module):
    def __init__(self, used: bool) -> None:
        super().__init__()
        self.inner = nn.BatchNorm2d(3)
        self.used = used

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return F.layer_norm(x, x.shape[1:]) if self.used else x


class StrangeNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().mean()


class Unused(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self[0](x)
        return output


def sgd(decay: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)

    return build


def tiny(eps: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.BatchNorm2d(3, eps=eps).to(dtype)


BAD_AND_GOOD: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "samples per statistic": (
        "warning",
        {"model": UNet(), "example": IMAGES[:4]},
        {"model": UNet(), "example": IMAGES},
    ),
    "values per statistic": (
        "warning",
        {"model": nn.LayerNorm(8), "example": torch.randn(2, 3, 8)},
        {"model": nn.LayerNorm(16), "example": torch.randn(2, 3, 16)},
    ),
    "single values": (
        "error",
        {"model": Head(nn.GroupNorm(3, 3)), "example": IMAGES},
        {"model": Head(nn.GroupNorm(1, 3)), "example": IMAGES},
    ),
    "groups": (
        "warning",
        {"model": nn.GroupNorm(3, 3), "example": IMAGES},
        {"model": nn.GroupNorm(1, 3), "example": IMAGES},
    ),
    "redundant bias": (
        "note",
        {"model": with_bias(True), "example": IMAGES},
        {"model": with_bias(False), "example": IMAGES},
    ),
    "shared layers": (
        "warning",
        {"model": Shared(2), "example": IMAGES},
        {"model": Shared(1), "example": IMAGES},
    ),
    "unused layers": (
        "note",
        {"model": Unused(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), "example": IMAGES},
        {"model": Unused(nn.BatchNorm2d(3)), "example": IMAGES},
    ),
    "functions": (
        "note",
        {"model": Functional(True), "example": IMAGES},
        {"model": Functional(False), "example": IMAGES},
    ),
    "unknown norms": (
        "note",
        {"model": StrangeNorm(), "example": IMAGES},
        {"model": nn.BatchNorm2d(3), "example": IMAGES},
    ),
    "weight decay": (
        "warning",
        {"model": with_bias(False), "example": IMAGES, "optimizer": sgd(0.1)},
        {"model": with_bias(False), "example": IMAGES, "optimizer": sgd(0.0)},
    ),
    "accumulation": (
        "note",
        {"model": UNet(), "example": IMAGES, "accumulate": 4},
        {"model": nn.GroupNorm(1, 3), "example": IMAGES, "accumulate": 4},
    ),
    "several devices": (
        "warning",
        {"model": nn.DataParallel(UNet()), "example": IMAGES},
        {"model": nn.DataParallel(nn.GroupNorm(1, 3)), "example": IMAGES},
    ),
    "frozen norms": (
        "warning",
        {"model": frozen(True), "example": IMAGES},
        {"model": frozen(False), "example": IMAGES},
    ),
    "mode": (
        "note",
        {"model": frozen(False), "example": IMAGES},
        {"model": frozen(False).eval(), "example": IMAGES},
    ),
    "epsilon": (
        "note",
        {"model": tiny(1e-12), "example": IMAGES},
        {"model": tiny(1e-5), "example": IMAGES},
    ),
    "momentum": (
        "warning",
        {"model": UNet(), "example": IMAGES, "steps": 20},
        {"model": UNet(), "example": IMAGES, "steps": 2000},
    ),
}


@pytest.mark.parametrize("what", BAD_AND_GOOD)
def test_a_finding_is_there_if_and_only_if_its_reason_is(what: str) -> None:
    level, bad, good = BAD_AND_GOOD[what]
    of_bad = findings(**bad)
    assert of_bad[what].level == level, of_bad
    assert of_bad[what].why and (of_bad[what].do or level == "note")
    assert what not in findings(**good)


def test_a_small_eps_is_a_warning_in_a_network_in_half_precision() -> None:
    model = nn.LayerNorm(4, eps=1e-12).half()
    assert findings(model, torch.randn(16, 4).half())["epsilon"].level == "warning"


def test_gradients_that_are_not_finite_are_an_error() -> None:
    model = nn.RMSNorm(4, eps=0.0)
    of_zeros = findings(model, torch.zeros(16, 3, 4))
    assert of_zeros["gradients"].level == "error"
    assert "gradients" not in findings(model, torch.ones(16, 3, 4))


def test_findings_are_sorted_and_a_good_network_has_an_ok() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.GroupNorm(2, 8))
    (only,) = normbench.inspect(model, IMAGES).findings
    assert (only.level, only.what) == ("ok", "norms") and "1 norm layer" in only.why
    levels = [f.level for f in normbench.inspect(UNet(), IMAGES[:2], steps=5).findings]
    assert levels == sorted(levels, key=["error", "warning", "note", "ok"].index)


def test_the_layer_that_fails_is_named_with_the_shapes_it_got() -> None:
    with pytest.raises(
        RequestError, match=r"layer down\.0 \(Conv2d\) .*\(2, 1, 8, 8\)"
    ):
        normbench.inspect(UNet(), torch.zeros(2, 1, 8, 8))
    with pytest.raises(RequestError, match=r'layer "0" \(BatchNorm1d\) .*\(1, 3\)'):
        normbench.inspect(nn.Sequential(nn.BatchNorm1d(4)), torch.zeros(1, 3))
    with pytest.raises(RequestError, match=r'layer "0" \(LayerNorm\) .*\(2, 3\)'):
        normbench.inspect(nn.Sequential(nn.LayerNorm(4)), torch.zeros(2, 3))


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(3), nn.BatchNorm2d(3)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_norm_that_torch_refuses_does_not_hide_the_others(
    norm: nn.Module, device: str
) -> None:
    model = nn.Sequential(Head(norm), nn.Flatten(), nn.BatchNorm1d(3))
    report = normbench.inspect(model, IMAGES[:1], device=device)
    values = {row.name: (row.values, row.calls) for row in report.layers}
    assert values == {"0.norm": (1, 1), "2": (1, 1)}
    by_what = {finding.what: finding for finding in report.findings}
    assert by_what["single values"].level == "error" and not report.ok
    assert "forward" not in vars(norm)


class TwoUsers(nn.Module):
    """Uses the output of a convolution in a norm, and again beside it or not."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        output: Tensor = self.norm(y)
        return y + output if self.again else output


def test_a_bias_that_is_used_elsewhere_is_not_redundant() -> None:
    assert "redundant bias" in findings(TwoUsers(False), IMAGES)
    assert "redundant bias" not in findings(TwoUsers(True), IMAGES)


class Shrinking(nn.Module):
    """Calls one norm on images, and again on one position of each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(self.norm(x).mean((2, 3), keepdim=True))
        return output


def test_all_calls_of_a_shared_norm_count() -> None:
    assert findings(Shrinking(), IMAGES)["single values"].level == "error"


def test_a_report_in_words_has_the_norms_and_what_is_wrong() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    first, *findings = str(
        normbench.inspect(network, torch.zeros(2, 3, 8, 8))
    ).splitlines()
    assert first == "Sequential: 1 BatchNorm2d"
    assert any(line.startswith("warning: ") for line in findings), findings
    assert str(normbench.inspect(nn.Linear(2, 2), torch.zeros(1, 2))).startswith(
        "Linear: no norm layers"
    )
