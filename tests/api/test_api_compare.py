"""normbench.compare."""

from pathlib import Path

import pytest
from conftest import SMALL

import normbench
from normbench.errors import RequestError


def test_compare_answers_saves_and_repeats_nothing(tmp_path: Path) -> None:
    arms = ("norm=instance", "norm=group norm.num_groups=4")
    first = normbench.compare(
        *arms,
        overrides=[*SMALL["cnn"], "budget.max_steps=1", "tracker=none"],
        rates=[0.1],
        seeds=[6],
        gate=1.0,
        workers=1,
        results=tmp_path,
    )
    (answer,) = first.answers
    assert answer in str(first)
    assert list(first.table["arm"]) == ["InstanceNorm", "GroupNorm with 4 groups"]
    assert "<table" in first._repr_html_()
    assert all(file.exists() for file in first.files)
    assert len(normbench.runs(results=tmp_path)) == 12
    assert len(first.comparison.run_ids) == 12


def test_a_comparison_of_one_arm_is_a_request_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="two arms or more"):
        normbench.compare("norm=batch", results=tmp_path)
