"""The census counts every model, or reports why it could not be built."""

from functools import partial

import torch
from torch import nn
from torchvision import models
from verdicts_made import committed

from normbench.claims import census
from normbench.report.text.verdict import verdict_text


def test_the_census_builds_on_the_cpu_what_the_meta_device_cannot() -> None:
    def build(name: str) -> nn.Module:
        if name == "broken":
            raise RuntimeError("no kernel\nfor this")
        if name == "needs numbers":  # as RegNet's blocks do
            torch.arange(3).tolist()
        return nn.BatchNorm2d(4) if name != "plain" else nn.Linear(2, 2)

    names = ["broken", "needs numbers", "usual", "plain"]
    counts, not_built = census.count(names, build)
    assert counts == {"batch": 2, "none": 1, "not built": 1}
    assert not_built == {"broken": "RuntimeError: no kernel"}
    batch, group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
    assert census.family(nn.Sequential(batch, nn.BatchNorm1d(4), group)) == "batch"
    regnet = partial(models.get_model, weights=None)
    assert census.count(["regnet_y_400mf"], regnet) == ({"batch": 1}, {})


def test_models_that_could_not_be_built_are_counted_and_named() -> None:
    verdict = committed("batch-default")
    counts = {"a zoo": {"batch": 3, "not built": 2}, "another": {"layer": 1}}
    failures = {"a zoo": {"one": "RuntimeError: no", "two": "RuntimeError: no"}}
    changes = {"census": counts, "census_failures": failures}
    printed = verdict_text(verdict.model_copy(update=changes), 200)
    reason = "2 of 5 models could not be built: one, two (RuntimeError: no)"
    assert reason in printed
    assert "all 1 models were built" in printed
    older = verdict.model_copy(update={"census": counts})
    assert "the reasons were not recorded" in verdict_text(older, 200)
