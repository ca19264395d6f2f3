"""Commands and code of the documents, and the files of CONTRIBUTING's recipes."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMANDS = ("", "sh")
"""Languages of blocks of commands, one a line; output is `text`."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

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


def commands() -> list[str]:
    """Every command in a block of any document, once."""
    lines = [
        line.strip()
        for block in blocks()
        if block.language in COMMANDS
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line and line[0] != "#"))


def words_of(command: str) -> list[str]:
    """As the shell splits them, without the comment."""
    return shlex.split(command, comments=True)


def arguments_of(command: str) -> list[list[str]]:
    """Those of every `normbench COMMAND` that is shown."""
    shown = [words_of(line) for line in commands()]
    return [words[2:] for words in shown if words[:2] == ["normbench", command]]


def section(heading: str) -> str:
    """What CONTRIBUTING.md says under `heading`."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def code(heading: str, language: str) -> str:
    """The first block of `language` of a section of CONTRIBUTING.md."""
    found = re.search(rf"^ *```{language}\n(.*?)```", section(heading), re.M | re.S)
    assert found
    return textwrap.dedent(found[1])


def write_recipe(heading: str, **files: Path) -> None:
    """Write the blocks of a section of CONTRIBUTING.md to files, by their language."""
    for language, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code(heading, language))


def write_recipe_for_a_norm(module: Path, config: Path) -> None:
    """Write the two files of the recipe for a norm into these folders."""
    files = {"python": module / "half.py", "yaml": config / "half.yaml"}
    write_recipe("A new norm", **files)


def write_recipe_for_a_data_set(module: Path, config: Path) -> None:
    """Write the two files of the recipe for a data set into these folders."""
    files = {"python": module / "stripes.py", "yaml": config / "stripes.yaml"}
    write_recipe("A new data set", **files)


def write_recipe_for_a_probe(module: Path) -> None:
    write_recipe("A new probe", python=module / "count.py")


def write_recipe_for_a_claim(folder: Path) -> None:
    write_recipe("A new claim", yaml=folder / "claim" / "norm-or-none.yaml")
