"""The census counts every model, or reports why it could not be built."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models
from verdicts_made import a_verdict

from normbench.claims import census, zoos
from normbench.report.text.verdict import verdict_text


def test_the_census_builds_on_the_cpu_what_the_meta_device_cannot() -> None:
    def build(name: str) -> nn.Module:
        if name == "broken":
            where = torch.empty(0).device
            raise RuntimeError(f"no kernel for {where}\nand more")
        if name == "needs numbers":  # as RegNet's blocks do
            torch.arange(3).tolist()
        return nn.BatchNorm2d(4) if name != "plain" else nn.Linear(2, 2)

    names = ["broken", "needs numbers", "usual", "plain"]
    counts, not_built = census.count(names, build)
    assert counts == {"batch": 2, "none": 1, "not built": 1}
    on_meta = "on the meta device RuntimeError: no kernel for meta"
    on_cpu = "on the CPU RuntimeError: no kernel for cpu"
    assert not_built == {"broken": f"{on_meta}; {on_cpu}"}
    batch, group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
    assert census.family(nn.Sequential(batch, nn.BatchNorm1d(4), group)) == "batch"
    regnet = partial(models.get_model, weights=None)
    assert census.count(["regnet_y_128gf"], regnet) == ({"batch": 1}, {})


def test_a_model_that_is_built_on_the_cpu_keeps_no_parameter_in_memory() -> None:
    def build(name: str) -> nn.Module:
        torch.arange(3).tolist()  # fails on the meta device
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
        model[1].weight = model[0].weight
        model.register_buffer("scale", torch.ones(1))
        return model

    model = zoos.built("tied", build)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert len(list(model.parameters())) == 2  # the tied one counts once
    assert not nn.Linear(2, 2).weight.is_meta  # other modules are built as usual


def test_the_counts_are_cached_for_the_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def installed() -> dict[str, zoos.Zoo]:
        zoo = zoos.Zoo(["one"], lambda name: nn.BatchNorm2d(4), lambda model: (3, 8, 8))
        calls.append("installed")
        return {"a zoo": zoo}

    calls: list[str] = []
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(zoos, "installed", installed)
    assert zoos.versions().keys() == {"torch", "torchvision", "timm"}
    first = census.census()
    assert first == census.Census({"a zoo": {"batch": 1}}, {})
    assert census.census() == first and len(calls) == 1
    monkeypatch.setattr(zoos, "versions", lambda: {"torch": "another"})
    assert census.census() == first and len(calls) == 2


def test_models_that_could_not_be_built_are_counted_and_named() -> None:
    verdict = a_verdict()
    counts = {"a zoo": {"batch": 3, "not built": 2}, "another": {"layer": 1}}
    failures = {"a zoo": {"one": "RuntimeError: no", "two": "RuntimeError: no"}}
    changes = {"census": counts, "census_failures": failures}
    printed = verdict_text(verdict.model_copy(update=changes), 200, details=True)
    reason = "2 of 5 models could not be built: one, two (RuntimeError: no)"
    assert reason in printed
    assert "all 1 models were built" in printed
    older = verdict.model_copy(update={"census": counts})
    assert "the reasons were not recorded" in verdict_text(older, 200, details=True)
