"""The commands on a network of the user's own: what they import, and what they do."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command
from records_made import a_record, written
from user_networks_made import NETWORKS

from normbench.system.imports import added_modules
from normbench.training import network

MODEL = "task.model=made_nets:Pictures"
TINY = ["budget.max_steps=2", "batch_size=8", "tracker=none", "device=cpu"]
TINY += ["evaluation.train_samples=50"]
PICTURES = ["task=module", MODEL, "data=digits", *TINY]


@pytest.fixture(autouse=True)
def nets(tmp_path: Path) -> Iterator[Path]:
    """Write the module `made_nets` into the folder of `invoke`; forget it later."""
    file = tmp_path / "made_nets.py"
    file.write_text(NETWORKS)
    yield file
    forget()


def forget() -> None:
    """Forget the user's module, as a new process would."""
    sys.modules.pop("made_nets", None)
    added_modules.pop("made_nets", None)
    network._checked.clear()


@pytest.mark.slow
def test_a_sweep_trains_a_network_with_several_norms_on_two_workers(
    invoke: Command,
) -> None:
    words = ["sweep", *PICTURES, "norm=keep,batch", "seed=0,1", "engine.workers=2"]
    done = invoke(*words, "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    assert len(runs) == 4
    assert {run["status"] for run in runs} == {"ok"}
    assert {tuple(run["environment"]["modules"]) for run in runs} == {("made_nets",)}
    forget()
    again = invoke(*words, "--module", "made_nets")
    assert "4 of 4 runs are finished already" in again.stderr
    assert "other code" not in again.stderr
    widths = ["task.model_options.width=4,8", "norm=keep", "evaluations=1"]
    assert invoke("sweep", *PICTURES, *widths).returncode == 0
    table = invoke("results", "--by", "task.model_options.width", "--json")
    cells = {
        row["task.model_options.width"]: row["n"] for row in json.loads(table.stdout)
    }
    assert cells == {4: 1, 8: 1, None: 4}


@pytest.mark.slow
def test_two_norms_in_a_network_are_compared(invoke: Command) -> None:
    arms = ["--arm", "norm=keep", "--arm", "norm=group norm.num_groups=2"]
    options = ["--seeds", "6", "--rates", "0.1", "--gate", "0.99", "--workers", "2"]
    done = invoke("compare", *PICTURES, *arms, *options, "--json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert len(verdict["run_ids"]) == 12
    assert len(verdict["parts"]) == 1


def test_a_run_is_repeated_only_with_the_module_that_the_user_names(
    invoke: Command,
) -> None:
    trained = invoke("train", *PICTURES, "norm=keep", "--json")
    run = json.loads(trained.stdout)["run_id"]
    forget()
    refused = invoke("rerun", run)
    assert refused.returncode == 2
    assert "if you trust them, add --module 'made_nets'" in refused.stderr
    saved = invoke("train", "--from", f"results/runs/{run[:2]}/{run}", "batch_size=4")
    assert saved.returncode == 2
    assert "if you trust it, add --module made_nets" in saved.stderr
    assert "made_nets" not in sys.modules
    repeated = invoke("rerun", run, "--module", "made_nets", "--json")
    assert repeated.returncode == 0, repeated.stderr
    assert json.loads(repeated.stdout)["identical"]


@pytest.mark.usefixtures("no_package_verdicts")
def test_a_record_of_a_stranger_imports_and_calls_nothing(
    invoke: Command, tmp_path: Path
) -> None:
    model = "task.model=made_nets:Pictures"
    record = a_record("task=module", "data=digits", model, "norm=keep", "tracker=none")
    written(tmp_path / "results" / "runs", record)
    assert not record.environment.modules  # which a stranger could leave out
    refused = invoke("rerun", record.run_id)
    assert refused.returncode == 2
    assert "if you trust them, add --module 'made_nets'" in refused.stderr
    file = tmp_path / "stranger.yaml"
    for name in ("made_nets:Pictures", "os:system"):
        file.write_text(
            invoke("config", *PICTURES).stdout.replace("made_nets:Pictures", name)
        )
        forget()
        refused = invoke("train", "--from", str(file))
        assert refused.returncode == 2
        package = name.partition(":")[0]
        assert f"if you trust it, add --module {package}" in refused.stderr
    for words in (["results"], ["show", record.run_id], ["report", "--output", "page"]):
        assert invoke(*words).returncode == 0
    assert "made_nets" not in sys.modules


def test_a_claim_of_a_stranger_imports_nothing(invoke: Command, tmp_path: Path) -> None:
    claim = tmp_path / "mine" / "claim" / "a-claim.yaml"
    claim.parent.mkdir(parents=True)
    claim.write_text(CLAIM)
    words = ["claim", "check", "a-claim", "--config-dir", "mine", "--budget", "smoke"]
    refused = invoke(*words)
    assert refused.returncode == 2
    assert "add --module made_nets" in refused.stderr
    assert "made_nets" not in sys.modules
    done = invoke(*words, "--module", "made_nets", "--arm", "norm=rms", "--json")
    assert done.returncode == 0, done.stderr


CLAIM = f"""
# A network of a user: an example
name: a-claim
statement: A network of a user learns digits faster with its norms.
source: nobody
confounds: [none]
parts:
  faster: {{sentence: A network of a user learns faster., scope: digits}}
outcomes:
  digits:
    question: Is the error lower?
    common: {" ".join(PICTURES[:3])} device=cpu evaluation.train_samples=50
    arms: {{keep: norm=keep, affine: norm=affine}}
    levels: {{"-": ""}}
    rates: [0.1]
    validation: val/error
    seeds: 6
    seconds: 1.0
    gate: {{metric: train/error, below: 0.99}}
    contrasts:
      - name: keep against affine
        metric: test/error
        weights: {{keep@-: 1, affine@-: -1}}
        says: less
        margin: 0.05
        reason: an example
        part: faster
        bears: for
"""


def test_a_yaml_of_the_user_may_name_the_network(
    invoke: Command, tmp_path: Path
) -> None:
    file = tmp_path / "mine" / "task" / "net.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\n# My network\ndefaults:\n  - module\n  - _self_\n"
        "task: {model: 'made_nets:Pictures', model_options: {width: 4}}\n"
    )
    words = ["task=net", "data=digits", *TINY, "--config-dir", "mine"]
    done = invoke("train", *words, "task.model_options.classes=10", "--json")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["config"]["task"]
    assert task["model_options"] == {"width": 4, "classes": 10}
    assert invoke("doctor", *words).returncode == 0


def test_doctor_and_status_know_a_network(invoke: Command) -> None:
    done = invoke("doctor", *PICTURES, "norm=keep", "--json")
    assert done.returncode == 0, done.stderr
    findings = {row["what"]: row for row in json.loads(done.stdout)}
    assert findings["network"]["why"] == "norm=keep: 2 norm layers"
    shared = ["task.model=made_nets:shared", "norm=keep", "--json"]
    rows = json.loads(invoke("doctor", *PICTURES, *shared).stdout)
    warned = [row["why"] for row in rows if row["level"] == "warning"]
    assert any("norm_batch does not apply to it" in why for why in warned)
    status = invoke("status", *PICTURES, "norm=keep,group", "--json")
    assert json.loads(status.stdout)["runs"] == 2
