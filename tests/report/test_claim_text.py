"""A registered claim as text."""

from verdicts_made import a_claim, a_design

from normbench.report.text.claim import claim_text
from normbench.verdicts.design import DataSet


def test_a_data_set_has_its_own_gate_and_rates() -> None:
    data = {
        "digits": DataSet(overrides="data=digits"),
        "textures": DataSet(overrides="data=textures", below=0.35, rates=[0.05, 0.1]),
    }
    text = claim_text(a_claim(a_design(data=data)), {}, [], 200)
    lines = [line.strip() for line in text.splitlines()]
    assert "data     digits: data=digits" in lines
    assert (
        "data     textures: data=textures; gate train/error < 0.35; lr 0.05, 0.1"
        in lines
    )
