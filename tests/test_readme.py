"""Every command that the documents show is one that works."""

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from conftest import SMALL, Command

from normbench.config import compose
from normbench.norms import names

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMAND = re.compile(r"^\s*(?:\$ )?(normbench .*?)(?:\s+#.*)?$", re.MULTILINE)


FLAGS = re.DOTALL | re.MULTILINE


def shown(command: str) -> list[list[str]]:
    """The arguments of every `normbench COMMAND` in the documents' code blocks."""
    blocks = [
        block
        for document in DOCUMENTS
        for block in re.findall(r"```\w*\n(.*?)```", document.read_text(), re.DOTALL)
    ]
    lines = [line for block in blocks for line in COMMAND.findall(block)]
    arguments = [shlex.split(line)[1:] for line in lines]
    return [words[1:] for words in arguments if words[0] == command]


@pytest.mark.parametrize("arguments", shown("train") + shown("config"), ids=" ".join)
def test_the_overrides_compose(arguments: list[str]) -> None:
    overrides = [word for word in arguments if "=" in word]
    if "--config-dir" not in arguments:
        assert compose(overrides)


def test_the_readme_names_every_norm() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in names() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("arguments", shown("footprint") + shown("bench"), ids=" ".join)
def test_the_norms_it_measures_exist(arguments: list[str]) -> None:
    named = [word for word in arguments if not word.startswith("-") and word != "norms"]
    if "--config-dir" not in arguments:
        assert set(named) <= set(names())


def test_the_readme_shows_commands() -> None:
    assert len(shown("train")) >= 4
    assert shown("results")
    assert shown("show")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_it_names_exist(document: Path) -> None:
    text = document.read_text()
    names = re.findall(r"`((?:normbench|configs|scripts|tests|results)/[\w./]+)`", text)
    names += re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert names
    for name in names:
        if "NAME" not in name and not name.startswith("results/runs"):
            assert (ROOT / name).exists(), name


def test_the_recipe_for_a_norm_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    module, config = (
        textwrap.dedent(re.findall(rf"^ *```{language}\n(.*?)```", text, FLAGS)[0])
        for language in ("python", "yaml")
    )
    (tmp_path / "half.py").write_text(module)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "half.yaml").write_text(config)
    for task in SMALL:
        small = [*SMALL[task], "budget=smoke", "budget.max_steps=1", "tracker=none"]
        words = [*shown("train")[-1], *small]
        assert "norm=half" in words
        done = command("train", *words, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["config"]["norm"] == {"name": "half", "by": 2.0}
    (footprint,) = [words for words in shown("footprint") if "half" in words]
    assert command("footprint", *footprint).returncode == 0
