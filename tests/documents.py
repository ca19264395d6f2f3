"""The commands and code blocks of the documents, and the files of the recipes."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMANDS = ("", "sh")
"""Languages of blocks with a command per line; blocks of output are `text`."""


@dataclass(frozen=True)
class Block:
    """A fenced code block of a document."""

    document: Path
    language: str
    text: str


def blocks(documents: list[Path] = DOCUMENTS) -> list[Block]:
    return [
        Block(document, language, textwrap.dedent(text))
        for document in documents
        for _, language, text in FENCE.findall(document.read_text())
    ]


def without_blocks(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def commands(documents: list[Path] = DOCUMENTS) -> list[str]:
    """Return all commands in blocks of documents, each once without its comment."""
    lines = [
        line.strip()
        for block in blocks(documents)
        if block.language in COMMANDS
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    shown = (line for line in lines if line and line[0] != "#")
    return list({" ".join(words_of(line)): line for line in shown}.values())


def marked_commands() -> list[Any]:
    """Return all commands as parameters of a test.

    Those of the documents that a new user does not read first are slow.
    """
    first = commands([ROOT / "README.md", ROOT / "docs" / "tutorial.md"])
    return [
        pytest.param(
            line,
            marks=[] if line in first else [pytest.mark.slow],
            id=" ".join(words_of(line)),
        )
        for line in commands()
    ]


def words_of(command: str) -> list[str]:
    """Split a command as the shell does, without its comment."""
    return shlex.split(command, comments=True)


def arguments_of(command: str) -> list[list[str]]:
    """Return the arguments of all `normbench COMMAND` in the documents."""
    all_words = [words_of(line) for line in commands()]
    return [words[2:] for words in all_words if words[:2] == ["normbench", command]]


def section(heading: str) -> str:
    """Return the section of CONTRIBUTING.md with this heading."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def code(heading: str, language: str) -> str:
    """Return the first block of a language in a section of CONTRIBUTING.md."""
    match = re.search(rf"^ *```{language}\n(.*?)```", section(heading), re.M | re.S)
    assert match
    return textwrap.dedent(match[1])


def write_recipe(heading: str, **files: Path) -> None:
    """Write blocks of a section of CONTRIBUTING.md; `files` maps their languages."""
    for language, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code(heading, language))


def write_recipe_for_a_norm(module: Path, config: Path) -> None:
    """Write the Python file and the yaml file of the recipe for a norm."""
    files = {"python": module / "half.py", "yaml": config / "half.yaml"}
    write_recipe("A new norm", **files)


def write_recipe_for_a_data_set(module: Path, config: Path) -> None:
    """Write the Python file and the yaml file of the recipe for a data set."""
    files = {"python": module / "stripes.py", "yaml": config / "stripes.yaml"}
    write_recipe("A new data set", **files)


def write_recipe_for_a_task(module: Path, config: Path) -> None:
    """Write the Python file and the yaml file of the recipe for a task."""
    files = {"python": module / "contrast.py", "yaml": config / "contrast.yaml"}
    write_recipe("A new task", **files)


def write_network(module: Path) -> None:
    """Write the network of docs/tasks/module.md."""
    (block,) = [
        block
        for block in blocks([ROOT / "docs" / "tasks" / "module.md"])
        if block.language == "python"
    ]
    (module / "nets.py").write_text(block.text)


def write_recipe_for_a_probe(module: Path) -> None:
    write_recipe("A new probe", python=module / "count.py")


def write_recipe_for_a_claim(folder: Path) -> None:
    write_recipe("A new claim", yaml=folder / "claim" / "norm-or-none.yaml")


def write_network_to_examine(folder: Path) -> None:
    """Write the file `my_network.py` of docs/models.md."""
    name = "my_network.py"
    (text,) = (
        block.text
        for block in blocks([ROOT / "docs" / "models.md"])
        if block.text.startswith(f"# {name}")
    )
    (folder / name).write_text(text)


def texts_in(svg: str) -> list[str]:
    """Return the texts of a picture in their order."""
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]
