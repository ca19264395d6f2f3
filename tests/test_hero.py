"""docs/hero.svg has the numbers of the committed verdict."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from documents import texts_in
from verdicts_made import committed

from normbench.report.figures import drawing

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "write_hero"))


def test_the_picture_shows_the_committed_verdict(script: dict[str, Any]) -> None:
    verdict = committed(script["CLAIM"])
    designs = {design.name: design for design in verdict.designs}
    for name, all_series in script["shown"](verdict).items():
        cells = {cell.cell: cell for cell in designs[name].cells}
        assert [series.label for series in all_series] == list(script["ARMS"])
        arms = ("batch", "group", "group_ws")
        for series, arm in zip(all_series, arms, strict=True):
            for level, point in series.points.items():
                cell = cells[f"{arm}@{level}"]
                assert point.mean == pytest.approx(100 * cell.mean["test/error"])
                assert len(point.seeds) == cell.n
    drawn = texts_in(drawing.svg(script["picture"]()))
    shown = texts_in((ROOT / "docs" / "hero.svg").read_text(encoding="utf-8"))
    assert drawn == shown, "run scripts/write_hero"
    text = " ".join(shown).replace("\N{NO-BREAK SPACE}", " ")
    numbers = re.findall(r"\d+\.\d+ %", text)
    few = designs["norm_batch-textures"].cells[0].mean["test/error"]
    assert numbers[0] == f"{100 * few:.2f} %"
