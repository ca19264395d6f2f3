"""Every command that the documents show is one that works."""

import re
import shlex
from pathlib import Path

import pytest

from normbench.config import compose

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMAND = re.compile(r"^\s*(?:\$ )?(normbench .*?)(?:\s+#.*)?$", re.MULTILINE)


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
