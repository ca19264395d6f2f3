"""The user's yaml files: choices by name, limits of their size, learning rates."""

import itertools
import os
import re
from pathlib import Path

import pytest

from normbench.config.choices import choices, description
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.norm_facts import section
from normbench.errors import NormbenchError, RequestError
from normbench.norms.base import make
from normbench.sweeps.plan import make_plan
from normbench.verdicts.registration import read_claim

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{key}: &{key} [{', '.join([f'*{previous}'] * 9)}]\n"
    for previous, key in itertools.pairwise("abcdefghi")
)
WRONG = {
    "aliases stand for more than": f"name: batch\n{BOMB}",
    "nested too deeply, or in itself": "name: batch\na: &a [*a]\n",
    "nested too deep": f"name: batch\na: {'[' * 5000}{']' * 5000}\n",
    "is larger than 256 KiB": "name: batch\n" + "# nothing\n" * 40_000,
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return the path of a user's norm yaml, which the test writes."""
    folder = tmp_path / "\u00e9t\u00e9" / "norm"
    folder.mkdir(parents=True)
    return folder / "mine.yaml"


def test_a_yaml_that_is_too_large_is_refused(mine: Path) -> None:
    folder = mine.parents[1]
    (folder / "claim").mkdir()
    for message, text in WRONG.items():
        mine.write_text(text)
        (folder / "claim" / "mine.yaml").write_text(text)
        with pytest.raises(RequestError, match=message):
            compose(["norm=mine"], folder)
        with pytest.raises(RequestError, match=message):
            read_claim("mine", folder)
        with pytest.raises(RequestError, match=message):
            section("mine", mine, folder)
        assert compose(["norm=batch"], folder).norm.name == "batch"


def test_a_pipe_among_yaml_files_is_refused(mine: Path) -> None:
    os.mkfifo(mine)
    with pytest.raises(NormbenchError, match="named pipe"):
        description(mine)
    with pytest.raises(NormbenchError):
        compose(["norm=mine"], mine.parents[1])


def test_a_user_folder_adds_choices(mine: Path) -> None:
    mine.write_text("# Mine\nname: group\nnum_groups: &n 2\n")
    config = compose(["norm=mine"], mine.parents[1])
    assert config.norm.model_dump() == {
        "name": "group",
        "num_groups": 2,
        "group_size": None,
        "eps": 1e-5,
        "affine": True,
    }
    assert run_id(config) == run_id(compose(["norm=group", "norm.num_groups=2"]))
    assert "mine" in choices("norm", mine.parents[1])


def test_a_config_dir_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--config-dir"):
        compose([], tmp_path / "nowhere")


NINES = "9" * 5000
YAMLS = {
    "name: group\nnum_groups: &a [*a]\n": ["nested too deeply, or in itself"],
    "name: group\nnum_groups: " + "[" * 5000 + "]" * 5000: ["nested too deep"],
    f"name: group\nnum_groups: {NINES}\n": ["too many digits"],
    f"name: group\nnum_groups: 0x{'f' * 5000}\n": ["64 bits"],
    "name: group\nnum_groups: ${norm.num_groups}\n": ["norm.num_groups"],
    "name: ${nosuch:1}\n": ["norm.name", "nosuch"],
    'name: group\nnum_groups: "${a"\n': ["mine.yaml", "${KEY}"],
    "name: group\nnum_groups: ${nokey}\n": ["norm.num_groups", "nokey"],
    "name: group\nnum_groups: ???\n": ["norm.num_groups"],
    "name: [\n": ["mine.yaml is not yaml"],
    "- a list\n": [],
    "defaults: [nosuch]\nname: group\n": ["nosuch"],
    "defaults: [mine]\nname: group\n": [],
    "defaults: 3\nname: group\n": [],
    "name: {a: 1}\n": ["norm"],
    "name: group\n1: 2\n": ["norm.1"],
    "? [a, b]\n: 1\nname: group\n": [],
    "name: group\nnum_groups: 2000-01-01\n": ["num_groups"],
    "name: group\neps: !!python/object:os.system {}\n": ["mine.yaml"],
    "name: \x00group\n": [],
    "name: \xff\xfe\n": [],
}


def test_a_wrong_yaml_is_refused_in_one_line_with_its_name(mine: Path) -> None:
    for text, parts in YAMLS.items():
        mine.write_bytes(text.encode("latin-1"))
        with pytest.raises(RequestError) as refused:
            compose(["norm=mine"], mine.parents[1])
        message = str(refused.value)
        assert [part for part in parts if part not in message] == [], (text, message)
        assert len(message.splitlines()) == 1, (text[:40], message)
        assert 0 < len(message) < 900, text[:40]


def test_a_yaml_may_be_named_by_a_number(tmp_path: Path) -> None:
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget" / "50.yaml").write_text("epochs: 50\nmax_steps: null\n")
    assert compose(["budget=50"], tmp_path).budget.epochs == 50


def test_a_sweep_of_a_users_choice_refuses_a_wrong_key(mine: Path) -> None:
    mine.write_text("name: batch\n")
    with pytest.raises(RequestError, match=r"^norm\.nosuch is not a key"):
        make_plan(["norm=mine", "norm.nosuch=1,2"], (), mine.parents[1])


def test_the_default_rate_depends_on_optimizer_and_task() -> None:
    rates = {
        (): 0.1,
        ("optimizer=adamw",): 0.001,
        ("optimizer=adamw", "lr=0.1"): 0.1,
        ("task=transformer",): 0.003,
        ("task=transformer", "optimizer=adamw"): 0.003,
        ("task=transformer", "optimizer=sgd"): 0.1,
        ("task=style",): 0.002,
        ("task=resnet20", "optimizer=adamw"): 0.001,
        ("optimizer=adamw", "++lr={adamw: 0.01}"): 0.01,
        ("++lr={adamw: 0.01}",): 0.1,
    }
    for overrides, rate in rates.items():
        assert compose(overrides).lr == rate, overrides
    given = compose(["optimizer=adamw", "lr=0.001"])
    assert run_id(given) == run_id(compose(["optimizer=adamw"]))


def test_a_users_optimizer_may_have_a_rate(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    yaml = "# Mine\nname: adamw\nbeta1: 0.9\nbeta2: 0.99\neps: 1.0e-8\n"
    yaml += "weight_decay: 0.1\n"
    file = tmp_path / "optimizer" / "mine.yaml"
    file.write_text(f"{yaml}lr: 0.007\n")
    assert compose(["optimizer=mine"], tmp_path).lr == 0.007
    file.write_text(yaml)
    with pytest.raises(RequestError, match="lr is missing"):
        compose(["optimizer=mine"], tmp_path)
    assert compose(["optimizer=mine", "lr=1"], tmp_path).lr == 1.0


def test_the_rate_of_a_users_optimizer_replaces_that_of_the_task(
    tmp_path: Path,
) -> None:
    (tmp_path / "optimizer").mkdir()
    for name, yaml in (
        ("slow", "defaults: [sgd, _self_]\nlr: 0.03\n"),
        ("slower", "defaults: [slow, _self_]\nmomentum: 0.5\n"),
        ("same", "defaults: [adamw, _self_]\nlr: 0.001\n"),
        ("none", "defaults: [adamw, _self_]\nbeta2: 0.99\n"),
        ("adamw", "name: adamw\nlr: 0.5\n"),  # the built-in one wins
    ):
        (tmp_path / "optimizer" / f"{name}.yaml").write_text(yaml)
    for overrides, rate in (
        (["optimizer=slow"], 0.03),
        (["task=resnet20", "optimizer=slower"], 0.03),
        (["task=transformer", "optimizer=same"], 0.001),
        (["task=style", "optimizer=same"], 0.001),
        (["task=transformer", "optimizer=none"], 0.003),
        (["task=transformer", "optimizer=same", "lr=0.5"], 0.5),
        (["task=transformer", "optimizer=same", "optimizer=adamw"], 0.003),
    ):
        assert compose(overrides, tmp_path).lr == rate, overrides


def test_groups_are_given_by_their_number_or_their_size() -> None:
    for name in ("group", "group_permuted", "evonorm_s0", "batch_group"):
        assert make(name, 12, group_size=3).num_groups == 4
        for option in ({"num_groups": 8}, {"group_size": 5}):
            (key, number), divisors = *option.items(), "1, 2, 3, 4, 6, 12"
            with pytest.raises(RequestError) as refused:
                make(name, 12, **option)
            message = str(refused.value)
            assert re.search(rf"norm\.{key}={number} .* {divisors}$", message)
        with pytest.raises(RequestError, match="both given"):
            make(name, 12, num_groups=4, group_size=3)
    plain = compose(["norm=group"])
    assert plain.norm.options["group_size"] is None
    assert run_id(plain) != run_id(compose(["norm=group", "norm.group_size=4"]))
