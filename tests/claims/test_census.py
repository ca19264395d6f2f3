"""The census counts every model, or reports why it could not be built."""

from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torchvision import models
from verdicts_made import CLAIMS

from normbench.claims import census, zoos
from normbench.errors import NormbenchError, RequestError
from normbench.verdicts.counting import (
    LAYER_CATEGORIES,
    MAX_REASON,
    ModelCensus,
    Unit,
    judge_census,
)
from normbench.verdicts.registration import read_claim

LABELS = {
    "torchvision classification": "torchvision, {:,} {}s for classification",
    "timm": "timm, {:,} {}s",
}
"""Zoo -> what of it is counted, in a table of a document."""
UNITS: tuple[Unit, ...] = get_args(Unit)
THREE = ["C,H,W", "C at each position", "token"]


def a_zoo(names: list[str], build: zoos.Build) -> zoos.Zoo:
    return zoos.Zoo(names, build, lambda model: (4, 8, 8), lambda name: f"of {name}")


def test_the_census_builds_on_the_cpu_what_the_meta_device_cannot() -> None:
    def build(name: str) -> nn.Module:
        if name == "broken":
            where = torch.empty(0).device
            raise RuntimeError(f"no kernel for {where}\nand more")
        if name == "needs numbers":  # as RegNet's blocks do
            torch.arange(3).tolist()
        return nn.BatchNorm2d(4) if name != "plain" else nn.Linear(2, 2)

    names = ["broken", "needs numbers", "usual", "plain"]
    counted = census.count("default_norms", a_zoo(names, build))
    one = {"batch": 1}
    assert counted.models == {"needs numbers": one, "usual": one, "plain": {}}
    on_meta = "on the meta device RuntimeError: no kernel for meta"
    on_cpu = "on the CPU RuntimeError: no kernel for cpu"
    assert counted.failures == {"broken": f"{on_meta}; {on_cpu}"}
    regnet = a_zoo(["regnet_y_128gf"], partial(models.get_model, weights=None))
    counted = census.count("default_norms", regnet)
    assert counted.models["regnet_y_128gf"].keys() == one.keys()
    assert counted.failures == {}


def test_the_norm_layers_of_a_model_are_counted_by_their_family() -> None:
    batch, group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
    model = nn.Sequential(group, batch, nn.Sequential(nn.BatchNorm1d(4)), nn.ReLU())
    assert census.norm_layers(model) == {"group": 1, "batch": 2}
    assert census.FAMILIES.keys() == set(LAYER_CATEGORIES["default_norms"])


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


def build_two(name: str) -> nn.Module:
    if name == "broken":
        raise RuntimeError("no\nmore")
    return nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(1, 4))


def test_a_census_is_cached_for_the_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def installed() -> dict[str, zoos.Zoo]:
        calls.append("installed")
        return {"a zoo": a_zoo(["one", "broken"], build_two)}

    calls: list[str] = []
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(zoos, "installed", installed)
    assert zoos.versions().keys() == {"torch", "torchvision", "timm"}
    both = census.model_census(["default_norms", "layer_norm_axes"])
    assert both.versions == zoos.versions() and len(calls) == 2
    norms = both.counts["default_norms"]["a zoo"]
    assert norms.models == {"one": {"batch": 1, "group": 1}}
    axes = both.counts["layer_norm_axes"]["a zoo"]
    assert axes.models == {"one": {"C,H,W": 1}}
    assert norms.failures == axes.failures and norms.failures.keys() == {"broken"}
    assert norms.modules == {"one": "of one", "broken": "of broken"}
    assert census.model_census(["default_norms"]).counts.keys() == {"default_norms"}
    assert len(calls) == 2  # both are read from the cache
    monkeypatch.setattr(zoos, "versions", lambda: {"torch": "another"})
    assert census.model_census(["default_norms"]).versions == {"torch": "another"}
    assert len(calls) == 3


def test_a_zoo_knows_the_module_of_each_model() -> None:
    installed = zoos.installed()
    names = {"torchvision classification": "resnet18", "timm": "resnet18"}
    modules = {zoo: installed[zoo].module_of(name) for zoo, name in names.items()}
    assert modules == {
        "torchvision classification": "torchvision.models.resnet",
        "timm": "timm.models.resnet",
    }


def test_a_census_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / census.FILE
    zoo = a_zoo(["one", "broken"], build_two)
    counts = {"default_norms": {"timm": census.count("default_norms", zoo)}}
    written = ModelCensus(versions={"timm": "1.0", "torch": None}, counts=counts)
    census.write(path, written)
    assert census.read(path) == written
    text = path.read_text(encoding="utf-8")
    for wrong, reason in (
        ("", "Invalid JSON"),
        (text[:-20], "Invalid JSON"),
        (text.replace('"batch"', '"bacth"'), "timm, one: 'bacth' is no category of"),
        (text.replace('"batch": 1', '"batch": -1'), "greater than 0"),
        (text.replace('"format": 2', '"format": 1'), "format: Input should be 2"),
        (text.replace('"models"', '"model"'), "models: Field required"),
    ):
        assert wrong != text
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(RequestError, match=rf"census\.json is damaged: .*{reason}"):
            census.read(path)


def test_a_file_that_is_no_census_is_refused(tmp_path: Path) -> None:
    path = tmp_path / census.FILE
    with pytest.raises(RequestError, match="is not there: only a full check writes"):
        census.read(path)
    with path.open("wb") as file:
        file.truncate(census.MAX_CENSUS_BYTES + 1)
    with pytest.raises(RequestError, match="it is larger than 8,192 KiB"):
        census.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RequestError, match=r"is not a census .*a folder"):
        census.read(path)
    with pytest.raises(NormbenchError, match="cannot be written"):
        census.write(path, ModelCensus(versions={}, counts={}))


def test_a_long_reason_is_cut() -> None:
    def build(name: str) -> nn.Module:
        raise RuntimeError("x" * 10_000)

    counted = census.count("default_norms", a_zoo(["one"], build))
    assert len(counted.failures["one"]) == MAX_REASON


def test_the_pages_of_the_claims_quote_the_committed_censuses() -> None:
    docs = Path(__file__).parents[2] / "docs" / "claims"
    default = census.read(CLAIMS / "batch-default" / census.FILE)
    norms = default.counts["default_norms"]
    page = (docs / "batch-default.md").read_text(encoding="utf-8")
    for (zoo, label), unit in product(LABELS.items(), UNITS):
        tally = norms[zoo].tally(unit)
        batch, layer = tally.certain["batch"], tally.certain["layer"]
        without = tally.certain["none"]
        others = tally.certain.total() - batch - layer - without
        what = label.format(tally.total, unit)
        row = what, batch, layer, others, without, tally.tied
        assert f"| {' | '.join(map(str, row))} |" in page
        if (zoo, unit) != ("torchvision classification", "module"):
            assert f"({batch / tally.total:.0%}".replace("%", " %)") in page
        assert norms[zoo].failures == {}
    axes = census.read(CLAIMS / "layernorm-axes" / census.FILE)
    assert axes.versions == default.versions
    assert f"torchvision {axes.versions['torchvision']}" in page
    page = (docs / "layernorm-axes.md").read_text(encoding="utf-8")
    for (zoo, label), unit in product(LABELS.items(), UNITS):
        counted = axes.counts["layer_norm_axes"][zoo]
        tally = counted.tally(unit, THREE)
        numbers = [tally.certain[reading] for reading in THREE]
        row_of_three = label.format(tally.total, unit), *numbers, tally.tied
        assert f"| {' | '.join(map(str, row_of_three))} |" in page
        assert all(f"`{model}`" in page for model in counted.failures)


REGISTERED = {
    "batch-default": [
        ("confirmed", 57, 80),
        ("confirmed", 10, 17),
        ("contradicted", 660, 1371),
        ("confirmed", 54, 98),
        ("confirmed", 660, 1371),
    ],
    "layernorm-axes": [
        ("contradicted", 0, 10),
        ("contradicted", 0, 2),
        ("contradicted", 35, 282),
        ("contradicted", 5, 28),
    ],
}
"""Decision, count and total of the rules of each claim, as its `seen` says."""


@pytest.mark.parametrize("name", REGISTERED)
def test_registered_rules_decide_on_the_committed_censuses_what_was_seen(
    name: str,
) -> None:
    claim = read_claim(name)
    counted = census.read(CLAIMS / name / census.FILE)
    judged = [judge_census(rule, counted) for rule in claim.census]
    results = [(each.decision, each.count, each.total) for each in judged]
    assert results == REGISTERED[name]
    primary = [each for each in judged if each.bears != "context"]
    for each in primary:
        assert f"{each.count} of {each.total}" in claim.seen[0]
    # No unit alone decides: both bear on the part, for each library.
    assert Counter((each.library, each.unit) for each in primary) == Counter(
        product(("torchvision", "timm"), UNITS)
    )
