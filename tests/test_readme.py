"""Every command that the documents show is one that works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import material
import pytest
from conftest import SMALL, Command

from normbench.config import compose
from normbench.norms import REGISTRY, names

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "docs/data.md", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
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
def test_the_overrides_compose(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    files = {"data.path", "data.style_paths", "data.dataset"}
    if files & given.keys():  # the reader's, instead of which there are some of ours
        made = material.options(given["data"], tmp_path, monkeypatch)
        given |= {f"data.{key}": str(value) for key, value in made.items()}
    if "--config-dir" not in arguments:
        assert compose([f"{key}={value}" for key, value in given.items()])


def test_the_readme_sorts_norms_by_what_they_declare() -> None:
    """A new norm need not be in it: `list norms` has all."""
    table = (ROOT / "README.md").read_text().partition("| an output depends on |")[2]
    rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
    listed = {what.strip(): re.findall(r"`(\w+)`", cell) for _, what, cell, _ in rows}
    assert sum(map(len, listed.values())) > 20
    for what, norms in listed.items():
        for name in norms:
            assert what in dependence(REGISTRY.get(name).axes), name


def dependence(axes: str) -> list[str]:
    """The README's words for what an output depends on."""
    if "all samples" in axes:
        return ["other samples", "both"]
    _, channels, positions = axes.split(", ")
    if positions == "one position":
        return ["itself" if channels == "one channel" else "its position's channels"]
    if channels == "one channel":
        return ["its sample's channel"]
    return ["its sample's group of channels, or all"]


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


def section(heading: str) -> str:
    """What CONTRIBUTING.md says under `heading`."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def recipe(module: Path, config: Path) -> None:
    """Write the two files of the recipe for a norm into these folders."""
    text = section("A new norm")
    for language, file in (
        ("python", module / "half.py"),
        ("yaml", config / "half.yaml"),
    ):
        content, *_ = re.findall(rf"^ *```{language}\n(.*?)```", text, FLAGS)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content))


def test_the_recipe_for_a_norm_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    recipe(tmp_path, tmp_path / "mine" / "norm")
    for task in SMALL:
        small = [*SMALL[task], "budget=smoke", "budget.max_steps=1", "tracker=none"]
        words = [*shown("train")[-1], *small]
        assert "norm=half" in words
        done = command("train", *words, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["config"]["norm"] == {"name": "half", "by": 2.0}
    (footprint,) = [words for words in shown("footprint") if "half" in words]
    assert command("footprint", *footprint).returncode == 0


def test_the_recipe_for_a_data_set_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    text = (ROOT / "docs/data.md").read_text()
    (tmp_path / "mine" / "data").mkdir(parents=True)
    for language, file in (("python", "halves.py"), ("yaml", "mine/data/halves.yaml")):
        (content,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        (tmp_path / file).write_text(content)
    (words,) = [words for words in shown("train") if "data=halves" in words]
    done = command("train", *words, "budget=smoke", "tracker=none", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["data"]["name"] == "halves"


def test_the_recipe_for_a_probe_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    (content,) = re.findall(r"```python\n(.*?)```", section("A new probe"), re.DOTALL)
    (tmp_path / "count.py").write_text(content)
    listed = command("list", "probes", "--module", "count", "--json")
    found = {row["name"]: row["description"] for row in json.loads(listed.stdout)}
    assert found["count"] == "How many norms the network has."
    assert {"pad_statistics", "statistic_noise"} <= found.keys()
    words = "probes=[count] --module count"
    assert f"`normbench train {words}`" in section("A new probe")
    small = [*SMALL["cnn"], "budget=smoke", "budget.max_steps=1", "tracker=none"]
    done = command("train", *words.split(), *small, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["probes"] == {"count/norms": 9}


@pytest.mark.slow
def test_the_recipe_for_a_claim_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    _, content, *_ = re.findall(r"^ *```yaml\n(.*?)```", text, FLAGS)
    file = tmp_path / "mine" / "claim" / "norm-or-none.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    shows, quick, full = [words for words in shown("claim") if "norm-or-none" in words]
    assert "is below 0" in command("claim", *shows).stdout
    refused = command("claim", *full)
    assert refused.returncode == 2
    assert "is not committed" in refused.stderr
    done = command("claim", *quick, "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)
    assert (verdict["theorem"], verdict["outcome"]) == ("supported", "supported")
    assert "norm-or-none/verdict.quick.json" in done.stderr


@pytest.mark.slow
def test_the_recipe_in_the_repository_passes_the_suite(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("normbench", "configs", "tests", "scripts"):
        shutil.copytree(ROOT / part, copy / part)
    shutil.copy(ROOT / "pyproject.toml", copy)
    recipe(copy / "normbench" / "norms", copy / "configs" / "norm")
    suite = ["norms", "footprint", "norm_factory", "imports", "bench", "experiment"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "half", "-m", "not slow"]
        + [f"tests/test_{name}.py" for name in suite],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 60
