"""Saved configs: the same run again, or a run with other values."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, Command
from data_made import image_folder

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.saved import compose_from
from normbench.errors import RequestError

OVERRIDES = ["task=transformer", "norm=group", "norm.num_groups=2", "lr=1e-5"]
OVERRIDES += ["batch_size=8", "tracker=none"]
PLAIN = compose(OVERRIDES).model_dump(mode="json")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"# run_id: x\n{yaml.safe_dump(PLAIN, sort_keys=False)}")
    return path


def test_a_saved_config_is_the_same_run(saved: Path, tmp_path: Path) -> None:
    config = compose(OVERRIDES)
    assert compose_from(saved) == config
    (tmp_path / "config.json").write_text(config.model_dump_json(indent=2))
    assert compose_from(tmp_path / "config.json") == config
    old = config.model_dump(mode="json")
    del old["precision"]
    del old["task"]["padding"]
    saved.write_text(yaml.safe_dump(old))
    assert run_id(compose_from(saved)) == run_id(config)


def test_overrides_win_over_the_file(saved: Path) -> None:
    for overrides in (
        ["seed=3", "norm.num_groups=4"],
        ["budget.max_steps=5", "tracker=wandb", "tracker.mode=online"],
        ["norm=layer", "budget=full", "optimizer=sgd", "lr=0.5"],
        ["norm=batch", "norm.momentum=0.5"],
    ):
        has_norm = any(override.startswith("norm=") for override in overrides)
        kept = [o for o in OVERRIDES if not (has_norm and o.startswith("norm"))]
        expected = run_id(compose([*kept, *overrides]))
        assert run_id(compose_from(saved, overrides)) == expected, overrides


WRONG_OVERRIDES = {
    "sed=3": "sed is not a key; did you mean 'seed'",
    "norm.num_group=3": "norm.num_group is not an option of norm=group",
    "budget.steps=3": "budget.steps is not a key",
    "seed.x=3": "seed.x is not a key",
    "seed=1,2": "names several values",
    "+seed=1": "write KEY=VALUE",
    "norm=nosuch": "norm=nosuch is unknown",
    "task=cnn": "leave --from out",
    "seed=x": "seed='x'",
    "epochs=3": "did you mean 'budget.epochs'",
    "max_steps=3": "did you mean 'budget.max_steps'",
    "num_groups=3": "did you mean 'norm.num_groups'",
    "budget.max_step=3": "did you mean 'budget.max_steps'",
    "budget={max_step:3}": "did you mean 'budget.max_steps'",
    "tracker.projct=3": "did you mean 'tracker.project'",
    "optimizer.momentum=0.5": "optimizer=sgd have it",
    "optimizer.name=sgd": "write optimizer=sgd",
    "optimizer={name:sgd}": "write optimizer=sgd",
    "norm.name=layer": "write norm=layer",
    "optimizer=sgd": "set lr too, such as optimizer=sgd lr=",
    "optimizer={lr:0.5}": "the key of the learning rate is lr",
    "task.name=cnn": "write task=cnn",
}
WRONG_VALUES: list[tuple[dict[Any, Any], str]] = [
    ({"nosuch": 1}, "nosuch is not a key"),
    ({1: 1}, "1 is not a key"),
    ({"norm": {"name": "group", 1: 1}}, "norm.1"),
    ({"norm": 3}, "norm must name one of"),
    ({"batch_size": "8"}, "batch_size='8'"),
    ({"optimizer": PLAIN["optimizer"] | {"lr": 0.5}}, "learning rate is lr"),
    ({"budget": {"epochs": 1, "max_step": 3}}, "did you mean 'max_steps'"),
    ({"optimizer": PLAIN["optimizer"] | {"momentum": 0}}, "of optimizer=adamw"),
    ({"optimizer": PLAIN["optimizer"] | {"beta1": 2.0}}, "optimizer.beta1=2.0"),
]
WRONG_TEXTS = {
    "": "is not a config",
    "[1]": "is not a config",
    "a: 1": "is not a config",
    "a: [": "cannot be read",
    "x: &a [*a]": "nested too deep",
    "seed: " + "9" * 5000: "cannot be read",
    "seed: " + "[" * 5000: "nested too deep",
    " " * 300_000: "is larger than",
}


def test_a_wrong_file_or_override_is_refused(saved: Path, tmp_path: Path) -> None:
    def refused(file: Path, *overrides: str) -> str:
        with pytest.raises(RequestError) as error:
            compose_from(file, overrides)
        assert len(str(error.value).splitlines()) <= 3
        return str(error.value)

    for override, message in WRONG_OVERRIDES.items():
        error = refused(saved, override)
        assert message in error, override
        assert len(error) < 400, override
    wrong = tmp_path / "wrong.yaml"
    texts = [(yaml.safe_dump(PLAIN | values), m) for values, m in WRONG_VALUES]
    for text, message in (*texts, *WRONG_TEXTS.items()):
        wrong.write_text(text)
        assert message in refused(wrong), text[:40]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none.yaml"):
        assert re.search(r"--from .*No such file", refused(path))
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").endswith(
        "pipe cannot be read: it is a named pipe"
    )


def test_a_folder_means_its_config_and_a_record_the_config_in_it(
    saved: Path, tmp_path: Path
) -> None:
    config = compose(OVERRIDES)
    assert compose_from(tmp_path) == config
    record = tmp_path / "result.json"
    plain = config.model_dump(mode="json")
    record.write_text(json.dumps({"format": 1, "run_id": "x", "config": plain}))
    assert compose_from(record) == config


def test_a_mapping_changes_only_the_keys_that_it_names(saved: Path) -> None:
    for mapping, dotted in (
        ("norm={eps:0.1}", ["norm.eps=0.1"]),
        ("norm={}", []),
        ("budget={epochs:7}", ["budget.epochs=7"]),
        ("optimizer={beta1:0.5,eps:1.0}", ["optimizer.beta1=0.5", "optimizer.eps=1.0"]),
        ("tracker={project:x}", ["++tracker.project=x"]),
        ("data={val_fraction:0.2}", ["data.val_fraction=0.2"]),
        ("task={width:32}", ["task.width=32"]),
        ("checkpoint={every:7}", ["checkpoint.every=7"]),
    ):
        assert compose_from(saved, [mapping]) == compose([*OVERRIDES, *dotted]), mapping


def test_the_norm_batch_follows_the_batch_size_if_it_was_the_default(
    saved: Path,
) -> None:
    for overrides in (
        ["batch_size=64"],
        ["batch_size=2"],
        ["accumulate=2"],
        ["batch_size=64", "norm_batch=8"],
    ):
        assert compose_from(saved, overrides) == compose([*OVERRIDES, *overrides])
    plain = compose([*OVERRIDES, "norm_batch=2"]).model_dump(mode="json")
    saved.write_text(yaml.safe_dump(plain))
    assert compose_from(saved, ["batch_size=64"]).norm_batch == 2


def test_the_command_runs_what_config_printed(invoke: Command, tmp_path: Path) -> None:
    tiny = [*SMALL["cnn"], "budget.max_steps=1", "tracker=none", "seed=5"]
    printed = invoke("config", *tiny)
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert invoke("config", "--from", "mine.yaml").stdout == printed.stdout
    done = invoke("train", "--from", "mine.yaml", "--json", "threads=1")
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout)
    assert f"# run_id: {finished['run_id']}" in printed.stdout
    assert finished["config"]["seed"] == 5


def test_a_rerun_can_use_data_that_have_moved(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "before", monkeypatch)
    tiny = ["task=cnn", "data=folder", "data.path=before", "data.size=14"]
    tiny += ["task.stem_stride=2", "task.width=4", "budget.max_steps=1", "batch_size=8"]
    done = invoke("train", *tiny, "tracker=none", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run_id"]
    (tmp_path / "before").rename(tmp_path / "after")
    without_path = invoke("rerun", run)
    assert without_path.returncode == 2
    assert "; if the data have moved, add data.path=PATH" in without_path.stderr
    assert len(without_path.stderr.splitlines()) == 1
    with_path = invoke("rerun", run, "data.path=after", "--json")
    assert with_path.returncode == 0, with_path.stderr
    assert json.loads(with_path.stdout)["identical"]
    image_folder(tmp_path / "other", monkeypatch)
    (tmp_path / "other" / "class 0" / "00.jpg").unlink()
    for override, message in (
        ("data.path=other", "is not that of the data"),
        ("seed=3", "can only change paths of its data: data.path=PATH"),
    ):
        refused = invoke("rerun", run, override)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "if the data have moved" not in refused.stderr
        assert "test_path" not in refused.stderr
