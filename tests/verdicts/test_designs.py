"""A design is repeated on data sets, and a contrast for metrics."""

import math
from typing import Any

import pytest
from pydantic import ValidationError
from verdicts_made import a_claim, a_contrast, a_design

from normbench.verdicts.registration import Theorem

DATA: dict[str, Any] = {
    "digits": {"overrides": "data.size=14"},
    "shapes": {
        "overrides": "data=shapes",
        "seconds": 9.0,
        "below": 0.6,
        "rates": [0.2, 0.8],
    },
}


def test_a_design_is_repeated_on_each_of_its_data_sets() -> None:
    design = a_design(common="task=cnn", data=DATA)
    claim = a_claim(design, mechanisms={"how": design}, outcomes={"plain": a_design()})
    designs = claim.designs()
    assert list(designs) == ["how-digits", "how-shapes", "plain"]
    assert claim.mechanism_names() == {"how-digits", "how-shapes"}
    digits, shapes = designs["how-digits"], designs["how-shapes"]
    # Without values of its own, a data set has those of the design.
    assert digits.common == "task=cnn data.size=14"
    assert (digits.seconds, digits.gate.below, digits.rates) == (1.0, 0.2, [0.1])
    assert shapes.common == "task=cnn data=shapes"
    assert (shapes.seconds, shapes.gate.below, shapes.rates) == (9.0, 0.6, [0.2, 0.8])
    assert shapes.gate.metric == design.gate.metric
    assert (list(digits.data), list(shapes.data)) == (["digits"], ["shapes"])
    assert shapes.overrides("a@-").startswith("task=cnn data=shapes norm=batch")
    assert designs["plain"] == a_design()


def test_the_overrides_of_a_data_set_need_no_common_ones() -> None:
    design = a_design(data={"digits": {"overrides": "data.size=14"}})
    assert design.on("digits").common == "data.size=14"


def test_a_contrast_is_repeated_for_each_further_metric() -> None:
    contrast = a_contrast(scale="ratio", margin=0.1, also=["test/loss", "train/kept"])
    repeated = contrast.by_metric()
    assert [(one.name, one.metric) for one in repeated] == [
        ("a against b", "test/error"),
        ("a against b (loss)", "test/loss"),
        ("a against b (kept)", "train/kept"),
    ]
    for one in repeated:
        assert one.also == []
        assert (one.part, one.bears, one.scale) == ("better", "for", "ratio")
        assert one.limit == pytest.approx(math.log(1.1))
    design = a_design(contrast)
    assert {"test/loss", "train/kept"} <= {*design.metrics()}
    (judged,) = a_claim(design).designs().values()
    assert judged.contrasts == repeated


def test_repeated_contrasts_have_different_names() -> None:
    same_quantity = a_contrast(also=["test/loss", "train/loss"])
    with pytest.raises(ValidationError, match=r"2 contrasts are called '.*\(loss\)'"):
        a_design(same_quantity)
    taken = a_contrast(name="a against b (loss)", metric="train/loss")
    with pytest.raises(ValidationError, match="2 contrasts are called"):
        a_design(a_contrast(also=["test/loss"]), taken)


def test_what_bears_on_a_part_is_primary_and_names_the_part() -> None:
    assert a_contrast(bears="against").primary
    assert not a_contrast(part=None, bears="context").primary
    for part, bears in (("better", "context"), (None, "for"), (None, "against")):
        with pytest.raises(ValidationError, match="names the part"):
            a_contrast(part=part, bears=bears)
        with pytest.raises(ValidationError, match="names the part"):
            Theorem(check="x", tolerance=0.0, part=part, bears=bears)  # type: ignore[arg-type]  # wrong on purpose
    stray = Theorem(check="x", tolerance=0.0, part="beter", bears="for")
    with pytest.raises(ValidationError, match="no 'beter'; did you mean 'better'"):
        a_claim(a_design(), theorems=[stray])
