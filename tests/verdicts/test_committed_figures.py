"""The committed figures of verdicts are those that `normbench plot` draws."""

import pytest
from documents import texts_in
from verdicts_made import CLAIMS, NAMES, committed

from normbench.records.store import read_compact
from normbench.report.figures import drawing
from normbench.report.figures.seeds import RECORDS
from normbench.report.figures.verdict import verdict_figures
from normbench.verdicts.registration import read_claim


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_figures_have_the_texts_of_the_verdict(name: str) -> None:
    verdict, folder = committed(name), CLAIMS / name
    records = read_compact(folder / RECORDS)
    shown = {
        file.stem: texts_in(file.read_text(encoding="utf-8"))
        for file in (folder / "figures").glob("*.svg")
    }
    figures = verdict_figures(verdict, read_claim(name), records)
    drawn = {key: texts_in(drawing.svg(figure)) for key, figure in figures.items()}
    assert drawn == shown, f"run normbench plot {name} --format svg"
