"""The checks of theorems hold, and they fail after a change that makes them false."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.claims import theorems
from normbench.claims.theorems import Finding, base, batch_size_dependence
from normbench.errors import RequestError
from normbench.norms import REGISTRY, Norm
from normbench.norms.reparam import WeightStd
from normbench.system.imports import import_modules
from normbench.verdicts.judging import judge_theorem
from normbench.verdicts.registration import Theorem

TOLERANCES = {
    "accumulation": 1e-12,
    "batch-composition": 1e-12,
    "batch-folds": 1e-12,
    "batch-of-one": 1e-12,
    "brightness-and-contrast": 1e-12,
    "channel-gain-and-bias": 1e-12,
    "every-norm-batch": 0.0,
    "fixed-moments": 1e-12,
    "group-ends": 1e-12,
    "group-permutation": 1e-12,
    "instance-then-pooling": 1e-12,
    "layer-footprints": 0.0,
    "layer-forgets-scale": 1e-12,
    "layer-shape-fixes-size": 0.0,
    "layers-that-agree": 1e-12,
    "mixed-moments": 1e-12,
    "moments-with-pads": 1e-12,
    "noise-slope": 1e-12,
    "other-samples": 1e-12,
    "pads-in-evaluation": 1e-12,
    "pads-in-training": 1e-8,  # AdamW's eps under rounding
    "path-around-sublayers": 1e-12,
    "rms-of-centred": 1e-12,
    "sample-gain-and-bias": 1e-12,
    "scale-in-evaluation": 1e-12,
    "transformer-norms": 0.0,
    "weight-decay-scale": 1e-12,
    "weight-std-gain-and-offset": 1e-12,
    "weights-grow": 1e-9,  # a difference of squared lengths
    "zeroed-pads": 1e-12,
}
Falsify = Callable[[pytest.MonkeyPatch], None]


def test_every_check_has_a_tolerance_here() -> None:
    assert sorted(TOLERANCES) == theorems.names()


def holds(finding: Finding, tolerance: float) -> bool:
    theorem = Theorem(check="x", tolerance=tolerance)
    measured = finding.deviation, finding.control, finding.detail
    return judge_theorem(theorem, "", *measured).decision == "confirmed"


@pytest.mark.parametrize("name", TOLERANCES)
def test_every_theorem_holds_and_its_control_does_not(name: str) -> None:
    before = torch.random.get_rng_state(), torch.get_num_threads()
    finding = theorems.check(name)
    assert finding.control is not None
    # The control depends on random weights, and these on the CPU.
    assert finding.control > max(0.001, 1000 * TOLERANCES[name])
    assert holds(finding, TOLERANCES[name])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def becomes(name: str, other: str) -> Falsify:
    """Return a change after which the norm `name` computes what `other` computes."""

    def falsify(patch: pytest.MonkeyPatch) -> None:
        computed = REGISTRY.get(other)
        for method in {"forward", "_count"} & vars(computed).keys():
            function = getattr(computed, method)
            patch.setattr(REGISTRY.get(name), method, function, raising=False)

    return falsify


def computes(name: str, function: Callable[[Norm, Tensor], Tensor]) -> Falsify:
    """Return a change after which the norm `name` computes `function`."""

    def falsify(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            REGISTRY.get(name),
            "forward",
            lambda norm, x, mask=None, condition=None: function(norm, x),
        )

    return falsify


def across_samples(norm: Norm, x: Tensor) -> Tensor:
    return x - x.mean(0)


def twice(norm: Norm, x: Tensor) -> Tensor:
    norm.running_mean = x.mean((0, 2)) * 2
    return x


def only(*names: str) -> Falsify:
    """Return a change after which only `names` are registered; it saves seconds."""
    return lambda patch: patch.setattr(REGISTRY, "names", lambda: sorted(names))


FALSE: dict[str, list[Falsify]] = {
    "accumulation": [computes("rms", across_samples), only("rms", "batch")],
    "batch-composition": [
        computes("rms", lambda norm, x: x - x.roll(1, 0)),
        only("rms", "batch"),
    ],
    "batch-folds": [becomes("batch", "instance")],
    "batch-of-one": [becomes("instance", "layer_sample")],
    "brightness-and-contrast": [becomes("instance", "layer_sample")],
    "channel-gain-and-bias": [becomes("instance", "layer_sample")],
    "every-norm-batch": [
        lambda patch: patch.setattr(REGISTRY.get("batch"), "uses_other_samples", False),
        only("rms", "batch"),
    ],
    "fixed-moments": [becomes("batch", "layer_position")],
    "group-ends": [becomes("group", "layer_position")],
    "group-permutation": [becomes("group_permuted", "group")],
    "instance-then-pooling": [becomes("instance", "layer_sample")],
    "layer-footprints": [becomes("layer_sample", "layer_position")],
    "layer-forgets-scale": [becomes("rms", "none")],
    "layer-shape-fixes-size": [
        computes("layer_shape", lambda norm, x: F.layer_norm(x, x.shape[1:]))
    ],
    "layers-that-agree": [becomes("layer_sample", "layer_position")],
    "mixed-moments": [becomes("batch", "instance")],
    "moments-with-pads": [computes("batch", twice)],
    "noise-slope": [
        # The mean of the first two samples is independent of the other two.
        lambda patch: patch.setattr(
            batch_size_dependence,
            "batch_moments",
            lambda x, mask, count, chunks: torch.var_mean(
                x.unflatten(0, (chunks, -1))[:, :2], (1, 3, 4)
            )[::-1],
        )
    ],
    "other-samples": [computes("rms", across_samples)],
    "pads-in-evaluation": [becomes("layer_position", "instance")],
    "pads-in-training": [becomes("batch_masked", "batch")],
    "path-around-sublayers": [
        # A norm after a sublayer that returns 0 then returns 1.
        computes("rms", lambda norm, x: x + 1)
    ],
    "rms-of-centred": [becomes("layer_position", "layer_sample")],
    "sample-gain-and-bias": [computes("group", lambda norm, x: x)],
    "scale-in-evaluation": [becomes("group", "affine")],
    "transformer-norms": [
        lambda patch: patch.setattr(
            nn.LayerNorm, "forward", lambda layer, x: F.layer_norm(x, x.shape[1:])
        )
    ],
    "weight-decay-scale": [becomes("group", "none")],
    "weight-std-gain-and-offset": [
        lambda patch: patch.setattr(WeightStd, "forward", lambda self, w: w)
    ],
    "weights-grow": [becomes("group", "none")],
    "zeroed-pads": [becomes("batch", "batch_masked")],
}
"""Theorem -> changes of the program after which the theorem is false."""


@pytest.mark.parametrize("name", TOLERANCES)
def test_every_check_fails_if_its_theorem_is_false(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for falsify in FALSE[name]:
        falsify(monkeypatch)
    finding = theorems.check(name)
    assert finding.deviation > TOLERANCES[name]


@pytest.mark.parametrize(("name", "says"), [("batch", False), ("layer_sample", True)])
def test_a_norm_with_a_wrong_trait_is_reported(
    name: str, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTRY.get(name), "uses_other_samples", says)
    finding = theorems.check("other-samples")
    assert not holds(finding, TOLERANCES["other-samples"])
    assert name in finding.detail


def test_a_check_does_not_depend_on_the_random_state() -> None:
    torch.manual_seed(1)
    first = theorems.check("weight-std-gain-and-offset")
    torch.manual_seed(2)
    assert theorems.check("weight-std-gain-and-offset") == first


def test_not_a_number_is_the_largest_deviation_and_the_smallest_control() -> None:
    values = {"a": 1.0, "b": math.nan, "c": 2.0}
    assert base.largest(values)[0] == base.smallest(values)[0] == "b"
    assert base.largest({"a": 1.0, "c": 2.0}) == ("c", 2.0)
    assert base.smallest({"a": 1.0, "c": 2.0}) == ("a", 1.0)
    assert math.isnan(base.difference(torch.tensor([math.nan, 1]), torch.ones(2)))


def test_the_recipe_for_a_theorem_works_to_the_letter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (recipe,) = re.findall(r"```python\n((?:(?!```).)*@theorem.*?)```", text, re.S)
    (tmp_path / "a_theorem_of_mine.py").write_text(recipe)
    theorems.names()  # registers the theorems of the package
    known = dict(theorems.theorem._functions)
    monkeypatch.setattr(theorems.theorem, "_functions", known)
    monkeypatch.syspath_prepend(tmp_path)
    import_modules(["a_theorem_of_mine"])
    assert "dyt-is-odd" in theorems.names()
    assert theorems.statement("dyt-is-odd") == (
        "dyt of the negative is the negative of dyt."
    )
    assert holds(theorems.check("dyt-is-odd"), 0.0)


def test_wrong_names_and_a_missing_statement_are_refused() -> None:
    def other() -> Finding:
        """Another."""
        return Finding(0.0, None, "")

    def silent() -> Finding:
        return Finding(0.0, None, "")

    assert "batch-folds" in theorems.names()
    with pytest.raises(RequestError, match=r"already the name of .*batch_default"):
        theorems.theorem("batch-folds")(other)
    with pytest.raises(RequestError, match="no docstring"):
        theorems.theorem("silent")(silent)
    for ask in (theorems.check, theorems.statement):
        with pytest.raises(RequestError, match="did you mean 'batch-folds'"):
            ask("batch-fold")
