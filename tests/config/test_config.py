"""Configs: composition, refused overrides, and run ids."""

import json
from pathlib import Path

import data_made
import pytest
import yaml

from normbench.config.choices import choices, description, groups
from normbench.config.composition import compose, resolve
from normbench.config.identity import ADDED_LATER, run_id
from normbench.config.saved import compose_from
from normbench.config.schema import NOT_HASHED, Evaluation, RunConfig
from normbench.data.base import REGISTRY as DATA
from normbench.errors import RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.records.query import flat
from normbench.tasks.base import REGISTRY as TASKS


def task_for(data: str) -> str:
    """Return a task for the data set `data`."""
    kind = DATA.get(data).kind
    return next(task for task in TASKS.names() if TASKS.get(task).data_kind is kind)


def test_every_yaml_composes_and_has_a_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group in groups():
        for name, file in choices(group).items():
            overrides = [f"{group}={name}"]
            if group == "data":
                folder = tmp_path / name
                folder.mkdir()
                files = data_made.options(name, folder, monkeypatch)
                overrides += [f"data.{key}={value}" for key, value in files.items()]
                overrides.insert(0, f"task={task_for(name)}")
            assert compose(overrides), overrides
            assert len(description(file)) > 10, file


def test_a_yaml_has_all_options_of_its_class_with_their_defaults() -> None:
    """Aliases and variants, whose names are not names of classes, are left out."""
    for group, registry in {"norm": NORMS, "data": DATA, "task": TASKS}.items():
        for name in choices(group).keys() & registry.names():
            section = yaml.safe_load(choices(group)[name].read_text())
            section = section[group] if group == "task" else section
            assert section.pop("name") == name
            assert section == registry.options(name, {}), name


def test_the_command_line_overrides_the_yaml_of_a_task() -> None:
    config = compose(["optimizer=sgd", "lr=0.5", "task=transformer", "batch_size=4"])
    assert (config.optimizer.name, config.lr, config.batch_size) == ("sgd", 0.5, 4)
    assert config.data.name == "display_names"


def test_norm_layer_is_an_alias_that_depends_on_the_task() -> None:
    for task, layer in (
        ("cnn", "layer_sample"),
        ("style", "layer_sample"),
        ("transformer", "layer_position"),
    ):
        alias = compose([f"task={task}", "norm=layer"])
        assert alias.norm.name == layer
        assert run_id(alias) == run_id(compose([f"task={task}", f"norm={layer}"]))


GOLDEN = {
    ("task=cnn", "norm=batch"): "dc7bef483d534b38",
    ("task=transformer", "norm=layer", "seed=3"): "711ce1a21cde5618",
    ("task=style", "norm=instance", "batch_size=2", "accumulate=2"): "f3b159239fdf2daf",
    ("norm=group_permuted", "task.depth=2", "data.size=14"): "34150116ef4055d0",
}


def test_golden_run_ids() -> None:
    """Existing records keep their ids: a new key is hashed only if it is used."""
    for overrides, golden in GOLDEN.items():
        assert run_id(compose(overrides)) == golden, overrides


def test_run_id_does_not_depend_on_the_order_of_overrides() -> None:
    overrides = ["task=cnn", "norm=group", "norm.num_groups=4", "batch_size=2", "lr=1"]
    assert run_id(compose(overrides)) == run_id(compose(overrides[::-1]))


def test_run_id_changes_exactly_with_the_keys_that_decide_the_metrics() -> None:
    default = run_id(compose([]))
    for same in (
        ["tracker=none"],
        ["tracker.mode=online", "tracker.group=mine"],
        ["device=cpu", "threads=2"],
        ["compile=true", "channels_last=true", "precision=fp32"],
        ["evaluations=3", "log_every=7", "keep_weights=true", "evaluation=exact"],
        ["evaluation.at_end=[]", "evaluation.batch_size=auto"],
        ["evaluation.batch_size=7", "evaluation.train_samples=null"],
        ["norm_batch=32"],
        ["lr=1e-1"],
        ["norm.eps=0.00001"],
        ["budget=full", "budget.epochs=2"],
    ):
        assert run_id(compose(same)) == default, same
    for other in (
        *("seed=1", "norm.eps=0.1", "reparam=weight_std", "norm_batch=8"),
        *("accumulate=2", "precision=bf16", "budget=smoke", "optimizer.momentum=0"),
        *("data.size=14", "task.network=plain", "task.padding=reflect"),
        *("task.conv_groups=2", "evaluation=fast", "evaluation.train_samples=64"),
        "evaluation.recompute_samples=64",
    ):
        assert run_id(compose([other])) != default, other


def test_the_run_id_depends_on_every_norm_of_queries_and_keys_but_none() -> None:
    kinds = ("layer", "rms", "l2")
    ids = {run_id(compose(["task=transformer", f"task.qk_norm={k}"])) for k in kinds}
    default = run_id(compose(["task=transformer"]))
    assert len(ids | {default}) == 4
    assert run_id(compose(["task=transformer", "task.qk_norm=none"])) == default


def test_every_field_is_hashed_or_named_as_not_hashed() -> None:
    evaluation = {f"evaluation.{key}" for key in Evaluation.model_fields}
    assert RunConfig.model_fields.keys() | evaluation > NOT_HASHED


def test_a_config_is_the_same_after_yaml() -> None:
    config = compose(["task=transformer", "norm=layer", "batch_size=8"])
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert resolve(yaml.safe_load(text)) == config


BAD: list[tuple[list[str], list[str]]] = [
    (["norm=grop"], ["norm=grop", "'group'"]),
    (["nrom=group"], ["nrom", "'norm'"]),
    (["norm=group", "norm.numgroups=4"], ["norm.numgroups", "norm.num_groups"]),
    (["batchsize=4"], ["batchsize", "'batch_size'"]),
    (["batch_size=two"], ["batch_size", "'two'", "integer"]),
    (["batch_size=0"], ["batch_size", "0", "greater than 0"]),
    (["batch_size=-2"], ["batch_size", "-2", "greater than 0"]),
    (["batch_size=2.5"], ["batch_size", "2.5", "integer"]),
    (["seed=-1"], ["seed", "-1"]),
    (["seed=99999999999"], ["seed", "99999999999", "4294967296"]),
    (["lr=inf"], ["lr", "inf", "finite"]),
    (["norm.eps=inf"], ["norm.eps", "finite"]),
    (["threads=5000"], ["threads", "5000"]),
    (["batch_size=2000000011", "accumulate=7"], ["accumulate=7"]),
    (["lr=0"], ["lr", "greater than 0"]),
    (["lr=fast"], ["lr", "'fast'", "number"]),
    (["lr_rule=cubic"], ["lr_rule", "'cubic'", "'linear'"]),
    (["norm=group", "norm.num_groups=four"], ["norm.num_groups", "'four'"]),
    (
        ["norm=group", "norm.num_groups=0"],
        ["norm.num_groups=0", "a positive integer or auto"],
    ),
    (["norm=group", "+norm.momentum=1"], ["norm.momentum", "norm=group"]),
    (["+extra=1"], ["extra", "not a key"]),
    (["norm_batch=5"], ["norm_batch=5", "32", "1, 2, 4, 8, 16, 32"]),
    (["accumulate=5"], ["accumulate=5", "batch_size=32"]),
    (["accumulate=4", "norm_batch=32"], ["norm_batch=32", "micro-batch of 8"]),
    (["task=cnn", "data=display_names"], ["data=display_names", "Images"]),
    (["reparam=weight_stdd"], ["reparam", "weight_std"]),
    (["data.size=20"], ["data.size", "20", "28"]),
    (["norm=group,batch"], ["several values", "one run"]),
    (["lr==="], ["'lr==='", "KEY=VALUE"]),
    (["norm"], ["'norm'", "KEY=VALUE"]),
    (["data.path=~/a"], ["'data.path=~/a'", """'data.path="~/a"' in a shell"""]),
    (["norm.name=os.system"], ["os.system", "unknown"]),
    (["norm={name: group, _target_: os.system}"], ["norm"]),
    (["hydra.verbose=true"], ["does not use"]),
    (["optimizer.momentum=2"], ["optimizer", "momentum", "2"]),
    (["device=tpu"], ["device", "'tpu'", "'cpu'"]),
    (["tracker.mode=loud"], ["tracker.mode", "'loud'"]),
    (["evaluation.train_samples=0"], ["evaluation.train_samples=0", "greater than 0"]),
    (["evaluation.recompute_samples=-4"], ["recompute_samples=-4", "greater than 0"]),
    (["evaluation.train_samples=1.5"], ["evaluation.train_samples=1.5", "integer"]),
    (["evaluation.batch_size=0"], ["evaluation.batch_size=0", "'auto'", "above 0"]),
    (["evaluation.batch_size=big"], ["evaluation.batch_size='big'", "'auto'"]),
    (["evaluation.batch_size=true"], ["evaluation.batch_size=True", "'auto'"]),
    (["evaluation.at_end=[tset]"], ["evaluation.at_end", "'tset'", "'val_batch'"]),
    (["evaluation.at_ends=[]"], ["evaluation.at_ends", "evaluation.at_end"]),
    (["evaluation=quick"], ["evaluation", "quick"]),
    (["lr=null"], ["lr"]),
    (["norm=null"], ["norm"]),
    (["~norm"], ["norm"]),
]


def test_bad_input_names_the_key_and_what_would_be_right() -> None:
    for overrides, words in BAD:
        with pytest.raises(RequestError) as error:
            compose(overrides)
        message = str(error.value)
        assert [word for word in words if word not in message] == [], message
        assert 1 <= len(message.splitlines()) <= 3, overrides


def test_a_key_that_was_added_later_is_hashed_only_if_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, used = compose([]), compose(["clip=1.0", "task.depth=2"])
    before = run_id(plain), run_id(used)
    monkeypatch.setitem(ADDED_LATER, "clip", None)
    monkeypatch.setitem(ADDED_LATER, "task.depth", 1)
    monkeypatch.setitem(ADDED_LATER, "task.no_such_key", None)
    assert run_id(plain) != before[0]
    assert run_id(used) == before[1]
    assert run_id(plain) != run_id(used)


def test_a_config_without_the_sections_that_were_added_later_is_valid() -> None:
    config = compose(["checkpoint.every=7"])
    plain = config.model_dump(mode="json", exclude={"checkpoint", "evaluation"})
    old = RunConfig.model_validate_json(json.dumps(plain))
    assert old.checkpoint.every is None
    assert old.evaluation == compose(["evaluation=exact"]).evaluation
    assert run_id(old) == run_id(config)
    with pytest.raises(RequestError, match=r"checkpoint\.every"):
        compose(["checkpoint.every=0"])


def test_arguments_of_a_factory_need_no_place_in_the_yaml(tmp_path: Path) -> None:
    plain = compose(["task=module", "tracker=none"])
    words = ["task.model_options.width=4", "+task.model_options.bias=true"]
    config = compose(["task=module", "tracker=none", *words])
    assert config.task.options["model_options"] == {"width": 4, "bias": True}
    assert run_id(config) != run_id(plain)
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    changed = compose_from(saved, ["task.model_options.width=8"])
    assert changed.task.options["model_options"] == {"width": 8, "bias": True}
    flat_config = flat(config)
    assert flat_config["task.model_options.width"] == 4
    assert "task.model_options" not in flat_config
    for wrong in ("width=[1]", "width={a:1}", "width=12345678901234567"):
        with pytest.raises(RequestError, match="width"):
            compose(["task=module", f"task.model_options.{wrong}"])
    with pytest.raises(RequestError, match=r"task\.modle_options is not a key"):
        compose(["task=module", "task.modle_options=1"])
    with pytest.raises(RequestError, match="data=photographs gives Photographs"):
        compose(["task=module", "data=photographs"])
