"""Yaml files of a user's own: of bounded size, whatever an alias stands for."""

import os
from pathlib import Path

import pytest

from normbench.config.choices import description
from normbench.config.composition import compose
from normbench.errors import NormbenchError, RequestError
from normbench.training.catalogue import _section
from normbench.verdicts.registration import read_claim

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{to}: &{to} [{', '.join([f'*{of}'] * 9)}]\n"
    for of, to in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "aliases stand for more than": f"name: batch\n{BOMB}",
    "nested too deep, or in itself": "name: batch\na: &a [*a]\n",
    "nested too deep": f"name: batch\na: {'[' * 5000}{']' * 5000}\n",
    "is larger than 256 KiB": "name: batch\n" + "# nothing\n" * 40_000,
}


@pytest.mark.parametrize("told", WRONG)
def test_a_yaml_without_bounds_is_refused(told: str, tmp_path: Path) -> None:
    for group in ("norm", "claim"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(WRONG[told])
    with pytest.raises(RequestError, match=told):
        compose(["norm=mine"], tmp_path)
    with pytest.raises(RequestError, match=told):
        read_claim("mine", tmp_path)
    with pytest.raises(RequestError, match=told):
        _section("mine", tmp_path / "norm" / "mine.yaml", tmp_path)
    assert compose(["norm=batch"], tmp_path).norm.name == "batch"


def test_a_pipe_among_yaml_files_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    os.mkfifo(tmp_path / "norm" / "mine.yaml")
    with pytest.raises(NormbenchError, match="named pipe"):
        description(tmp_path / "norm" / "mine.yaml")
    with pytest.raises(NormbenchError):
        compose(["norm=mine"], tmp_path)


def test_aliases_of_a_usual_yaml_work(tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    text = "name: group\nnum_groups: &n 4\neps: 1e-5\n"
    (tmp_path / "norm" / "mine.yaml").write_text(text)
    assert compose(["norm=mine"], tmp_path).norm.options["num_groups"] == 4
