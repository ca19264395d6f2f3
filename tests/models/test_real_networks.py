"""Networks of torchvision, timm and Transformers: examined, and swapped."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks_made import difference, randomised
from torch import nn

import normbench
from normbench.models.forward import call, quietly, tensors
from normbench.models.loading import load
from normbench.models.problems.context import uses_batch

pytestmark = pytest.mark.slow

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def from_zoo(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: load(name, options)


def of_transformers(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(**(options or SIZES))
        model: nn.Module = transformers.AutoModel.from_config(config)
        return model

    return build


T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}
HEADS = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
DETECTION = {"min_size": 64, "max_size": 64}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any, set[str], set[str]]] = {
    # name: how to build it, its input, the kinds of its norms, and the findings
    "resnet18": (
        from_zoo("torchvision:resnet18"),
        IMAGES,
        {"batch"},
        {"samples per statistic"},
    ),
    "mobilenet_v3_small": (
        from_zoo("torchvision:mobilenet_v3_small"),
        IMAGES,
        {"batch"},
        {"samples per statistic"},
    ),
    "swin_t": (from_zoo("torchvision:swin_t"), IMAGES, {"layer_position"}, {"norms"}),
    "maskrcnn_resnet50_fpn": (
        from_zoo("torchvision:maskrcnn_resnet50_fpn", **DETECTION),
        IMAGES.sigmoid(),
        {"batch"},
        {"samples per statistic", "training forward"},
    ),
    "efficientnet_lite0": (
        from_zoo("timm:efficientnet_lite0"),
        IMAGES,
        {"batch"},
        {"samples per statistic"},
    ),
    "convnext_atto": (
        from_zoo("timm:convnext_atto"),
        IMAGES,
        {"layer_position"},
        {"norms"},
    ),
    "convnextv2_atto": (
        from_zoo("timm:convnextv2_atto"),
        IMAGES,
        {"layer_position", "grn"},
        {"norms"},
    ),
    "resnetv2_50 with norm and activation in one layer": (
        from_zoo("timm:resnetv2_50"),
        IMAGES,
        {"batch"},
        {"samples per statistic"},
    ),
    "bert": (
        of_transformers("Bert"),
        TEXT,
        {"layer_position"},
        {"epsilon", "norms"},  # its epsilon is 1e-12
    ),
    "llama": (of_transformers("Llama"), TEXT, {"rms"}, {"norms"}),
    "gemma2": (of_transformers("Gemma2", **HEADS), TEXT, {"rms"}, {"norms"}),
    "qwen3 with norms of each head": (
        of_transformers("Qwen3", **HEADS),
        TEXT,
        {"rms"},
        {"values per statistic"},
    ),
    "t5": (
        of_transformers("T5", **T5, num_heads=4),
        {**TEXT, "decoder_input_ids": IDS},
        {"rms"},
        {"norms"},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_norms_of_a_network_are_found(name: str) -> None:
    build, x, kinds, what = NETWORKS[name]
    report = normbench.inspect(build(), x)
    assert report.ok
    assert {row.kind for row in report.layers} == kinds
    assert {finding.what for finding in report.findings} == what
    assert not report.functional
    for row in report.layers:
        assert row.calls >= 1 and row.input is not None
        assert row.channels is not None or row.kind == "unknown"
        if row.kind in ("batch", "layer_position", "rms") and row.channels is not None:
            values = torch.Size(row.input).numel()
            expected = values // row.channels if uses_batch(row) else row.channels
            assert row.values == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_swapped_to_its_own_norms_gives_equal_outputs(name: str) -> None:
    build, x, _, _ = NETWORKS[name]
    model = randomised(build())
    report = normbench.swap(model, "keep", in_place=False)
    assert report.layers
    assert all("unknown" in reason for reason in report.left.values())
    old, new = model.state_dict(), report.model.state_dict()
    assert list(old) == list(new)
    assert all(torch.equal(new[key], value) for key, value in old.items())
    modes = (False,) if name.startswith("maskrcnn") else (False, True)
    for training in modes:
        outputs = []
        for network in (copy.deepcopy(model), copy.deepcopy(report.model)):
            with quietly(), torch.no_grad():
                torch.manual_seed(0)
                outputs.append(tensors(call(network.train(training), x)))
        for before, after in zip(*outputs, strict=True):
            assert before.numel() == 0 or difference(before, after) <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_works_after_a_swap_and_its_undoing(name: str) -> None:
    build, x, kinds, _ = NETWORKS[name]
    model = build().eval()
    keys = list(model.state_dict())
    norm = "layer" if kinds == {"batch"} else "rms"
    report = normbench.swap(model, norm)
    with quietly(), torch.no_grad():
        assert all(y.isfinite().all() for y in tensors(call(model, x)))
    assert set(model.state_dict()) <= set(keys)
    report.undo()
    assert list(model.state_dict()) == keys
