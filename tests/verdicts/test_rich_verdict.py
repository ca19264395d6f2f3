"""The made-up verdict has everything that tests over all verdicts must see."""

from typing import get_args

from verdicts_made import committed, rich_verdict, some_verdicts

from normbench.verdicts.verdict import Decision, Kind, Result, Size, Verdict

VERDICT = rich_verdict()
CONTRASTS = {c.name: c for design in VERDICT.designs for c in design.contrasts}


def test_every_decision_size_and_result_occurs() -> None:
    assert {c.decision for c in CONTRASTS.values()} == {*get_args(Decision)}
    assert {c.size for c in CONTRASTS.values()} == {*get_args(Size), None}
    results = {b.result for part in VERDICT.parts for b in part.bearings}
    assert results <= {*get_args(Result)}
    assert {"for", "small", "not tested"} <= results
    kinds = {b.kind for part in VERDICT.parts for b in part.bearings}
    assert kinds == {*get_args(Kind)}
    assert [rule.decision for rule in VERDICT.census] == [
        "confirmed",
        "not decided",
        "not decided",
    ]
    headlines = [part.headline for part in VERDICT.parts]
    assert headlines == ["holds in part", "holds", "not tested"]


def test_sizes_belong_to_directions() -> None:
    for contrast in CONTRASTS.values():
        directed = contrast.says in {"greater", "less"} and contrast.decision in {
            "confirmed",
            "contradicted",
        }
        assert (contrast.size is not None) == directed, contrast.name


def test_cells_have_rates_of_which_one_was_dropped_and_failures() -> None:
    outcome = VERDICT.outcomes[0]
    cells = {cell.cell: cell for cell in outcome.cells}
    assert [rate.dropped for rate in cells["a@2"].rates] == [False, False, True]
    assert [rate.seeds for rate in cells["a@2"].rates] == [0, 12, 0]
    assert cells["a@2"].usual_rate == 0.2
    assert (cells["c@1"].diverged, cells["c@1"].untrained) == (1, 1)
    assert cells["f@1"].skipped == "the norm needs two samples"
    assert (cells["f@1"].n, cells["f@1"].usual_rate) == (0, None)
    assert [design.data for design in VERDICT.designs] == ["digits", ""]
    assert len(outcome.crossovers) == 1


def test_a_diverged_run_has_an_error_of_1_and_no_loss() -> None:
    error = CONTRASTS["c against b (diverged)"]
    loss = CONTRASTS["c against b (diverged) (loss)"]
    assert (error.n, loss.n) == (12, 11)
    assert "3" in error.values and "3" not in loss.values
    assert error.effect is not None and error.without_failures is not None
    assert error.effect > 0.05 > abs(error.without_failures.effect)
    assert error.without_failures.n == 11
    assert loss.because.endswith("without seeds 3, on which a run diverged")


def test_the_verdict_is_the_same_each_time_and_survives_json() -> None:
    assert rich_verdict() == VERDICT
    assert Verdict.model_validate_json(VERDICT.model_dump_json()) == VERDICT
    *others, last = some_verdicts()
    assert last == VERDICT
    assert all(verdict == committed(verdict.claim) for verdict in others)
