"""The learning rates of a check, with made-up runs."""

from pathlib import Path

import numpy as np
import pytest
from checks_made import Runner, a_claim, an_error, checked

from normbench.config.schema import RunConfig
from normbench.sweeps import round
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import Verdict


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(round, "run_all", made)
    return made


def tried(verdict: Verdict, cell: int = 0) -> dict[float, float | None]:
    """Return rate -> mean validation metric of a cell of the first outcome."""
    return {r.lr: r.validation for r in verdict.outcomes[0].cells[cell].rates}


def test_every_seed_has_every_rate_and_an_edge_is_extended(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(a_claim(extend=5), tmp_path)
    for cell in verdict.outcomes[0].cells:
        assert [rate.lr for rate in cell.rates] == [0.1, 0.2, 0.4, 0.8, 1.6]
        assert {rate.lr: rate.seeds for rate in cell.rates if rate.seeds} == {0.8: 8}
        assert cell.usual_rate == 0.8
        assert not cell.at_edge
    rates = (0.1, 0.2, 0.4, 0.8, 1.6)
    assert sorted(runner.seeds("batch")) == [(lr, s) for lr in rates for s in range(8)]
    assert (verdict.parts[0].headline, verdict.outcomes[0].contrasts[0].n) == (
        "holds",
        8,
    )


def test_a_best_rate_at_an_edge_is_a_caveat(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(extend=1), tmp_path)
    assert {cell.usual_rate for cell in verdict.outcomes[0].cells} == {0.4}
    # The good rates are at most ten per cent worse than the best one.
    assert verdict.outcomes[0].cells[0].good == [0.1, 0.2, 0.4]
    assert verdict.caveats[-1].endswith(
        "edge of what was tried for digits a@2, digits b@32"
    )


def test_rates_are_halved_while_all_runs_diverge(
    runner: Runner, tmp_path: Path
) -> None:
    runner.status = lambda config: "ok" if config.lr < 0.06 else "diverged"
    plain = a_claim(extend=3).model_dump(exclude_defaults=True)
    plain["outcomes"]["digits"]["validation"] = "val/loss"
    runner.metrics = lambda config: {**an_error(config), "val/loss": config.lr}
    verdict = checked(Claim(**plain), tmp_path)
    assert tried(verdict) == pytest.approx(
        {0.0125: 0.0125, 0.025: 0.025, 0.05: 0.05, 0.1: None, 0.2: None}
    )
    cell = verdict.outcomes[0].cells[0]
    assert (cell.usual_rate, cell.at_edge) == (0.0125, True)


def test_one_rate_is_no_choice(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(rates=[0.1]), tmp_path)
    assert len(runner.rounds) == 1
    assert {seed for _, seed in runner.seeds("batch")} == set(range(8))
    assert verdict.caveats == []
    (contrast,) = verdict.outcomes[0].contrasts
    assert (contrast.nested, contrast.at_common_rate) == (None, {})


def test_all_seeds_together_choose_the_rate(runner: Runner, tmp_path: Path) -> None:
    def metrics(config: RunConfig) -> dict[str, float | None]:
        """Let seed 3 alone prefer the rate .1, by a little."""
        values = an_error(config)
        validation = values["val/error"]
        assert validation is not None
        if config.lr == 0.1 and config.seed == 3:
            values["val/error"] = validation - 0.002
        return values

    runner.metrics = metrics
    verdict = checked(a_claim(extend=0), tmp_path)
    for cell in verdict.outcomes[0].cells:
        assert {rate.lr: rate.seeds for rate in cell.rates} == {0.1: 0, 0.2: 8}
    (contrast,) = verdict.outcomes[0].contrasts
    assert contrast.effect == pytest.approx(-0.1)
    assert set(contrast.at_common_rate) == {"0.1", "0.2"}
    assert contrast.best_common_rate == "0.2"
    assert contrast.nested is not None and contrast.nested.n == 8


def test_a_clearly_worse_rate_has_no_further_seeds(
    runner: Runner, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 64)

    def metrics(config: RunConfig) -> dict[str, float | None]:
        worse = 0.3 * (config.lr == 0.1)
        return {
            f"{split}/error": 0.4 + worse + float(noise[config.seed]) * (norm - 0.5)
            for split in ("train", "val", "test")
            for norm in [float(config.norm.name == "batch")]
        }

    runner.metrics = metrics
    verdict = checked(a_claim(extend=0, looks=[8, 10]), tmp_path)
    (contrast,) = verdict.outcomes[0].contrasts
    assert contrast.looks == [8, 10]
    for cell in verdict.outcomes[0].cells:
        assert [(r.lr, r.n, r.dropped) for r in cell.rates] == [
            (0.1, 8, True),
            (0.2, 10, False),
        ]
        assert cell.n == 10


def test_the_best_rate_is_the_highest_of_a_metric_that_its_task_maximizes(
    runner: Runner, tmp_path: Path
) -> None:
    runner.changes = {"direction": "maximize", "primary_metric": "test/error"}
    verdict = checked(a_claim(rates=[0.1, 0.8, 1.4], extend=0), tmp_path)
    (outcome,) = verdict.outcomes
    for cell in outcome.cells:
        assert (cell.usual_rate, cell.at_edge) == (0.1, True)
        assert cell.good == [0.1, 0.8, 1.4]
    assert outcome.gate == {"a": False, "b": False}  # neither is above .9
    # Of other metrics less is better.
    runner.changes["primary_metric"] = "test/accuracy"
    again = checked(a_claim(rates=[0.1, 0.8, 1.4], extend=0), tmp_path / "other")
    assert [cell.usual_rate for cell in again.outcomes[0].cells] == [0.8, 0.8]
    assert again.outcomes[0].gate == {"a": True, "b": True}
