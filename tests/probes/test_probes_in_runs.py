"""Probes in runs, which they do not change."""

from pathlib import Path

import pytest
import torch

from normbench.config.composition import compose
from normbench.errors import RequestError
from normbench.probes.base import PROBES, Trained
from normbench.training import loop
from tests.conftest import SMALL, Run

EVERY_TASK = ["statistic_noise", "discrepancy", "covariate_shift"]
PROBES_BY_TASK = {
    "cnn": [*EVERY_TASK, "regrouped"],
    "transformer": [*EVERY_TASK, "pad_statistics"],
    "style": [*EVERY_TASK, "style_leakage"],
    "module": EVERY_TASK,
}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("task", SMALL)
def test_probes_change_no_metric_and_no_id(
    run: Run, tmp_path: Path, task: str, norm: str
) -> None:
    batch_size = 4 if task == "style" else 32
    overrides = [*SMALL[task], f"norm={norm}", f"batch_size={batch_size}"]
    overrides.append("norm_batch=2")
    probes = f"probes=[{','.join(PROBES_BY_TASK[task])}]"
    plain = run(*overrides, results=tmp_path / "without")
    probed = run(*overrides, probes, results=tmp_path / "with")
    assert probed.status == "ok", probed.error
    assert probed.run_id == plain.run_id
    assert probed.metrics == plain.metrics
    assert plain.probes == {}
    empty = "regrouped" if norm == "batch" else "discrepancy"
    with_numbers = {name.split("/")[0] for name in probed.probes}
    assert with_numbers == set(PROBES_BY_TASK[task]) - {empty}
    assert None not in probed.probes.values()


def test_a_record_with_probes_answers_a_request_for_fewer(run: Run) -> None:
    overrides = [*SMALL["cnn"], "norm=batch"]
    one = run(*overrides, "probes=[statistic_noise]")
    both = run(*overrides, "probes=[statistic_noise,discrepancy]")
    assert both.probes.keys() > one.probes.keys()
    for fewer in ("[]", "[discrepancy]", "[discrepancy,statistic_noise]"):
        assert run(*overrides, f"probes={fewer}") == both


def test_a_probe_gets_the_training_batches_in_their_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[Trained] = []

    def remember(trained: Trained) -> dict[str, float]:
        """Remember the network."""
        networks.append(trained)
        return {"norms": float(len(trained.norms))}

    monkeypatch.setitem(PROBES._functions, "remember", remember)
    monkeypatch.setitem(PROBES._data, "remember", object)
    record = run(
        *SMALL["cnn"], "batch_size=8", "accumulate=2", "seed=3", "probes=[remember]"
    )
    assert record.probes == {"remember/norms": 9}
    (network,) = networks
    order = loop.epoch_order(network.task.splits["train"], 3, 0)
    assert {len(batch) for batch in network.batches} == {4}
    joined = torch.cat(list(network.batches))
    assert torch.equal(joined, order[: len(order) // 8 * 8])
    assert network.norm_batch == 4


@pytest.mark.parametrize(
    ("task", "probe", "message"),
    [
        ("cnn", "pad_statistics", "measures networks on Tokens; task=cnn is on Images"),
        ("transformer", "style_leakage", "Photographs; task=transformer is on Tokens"),
        ("cnn", "statistics_noise", "unknown; did you mean 'statistic_noise'"),
    ],
)
def test_an_impossible_probe_is_refused(task: str, probe: str, message: str) -> None:
    with pytest.raises(RequestError, match=f"probes={probe} .*{message}"):
        compose([f"task={task}", f"probes=[{probe}]"])
