"""The Python of docs/models.md runs and prints what the page shows."""

import contextlib
import io

import torch
from documents import ROOT, blocks

from normbench.models import problems
from normbench.models.problems import shapes, training

PAGE = ROOT / "docs" / "models.md"


def test_the_python_of_the_page_prints_what_the_page_shows() -> None:
    torch.manual_seed(0)
    shown, printed = "", io.StringIO()
    code = [b for b in blocks([PAGE]) if b.language in ("python", "text")]
    names: dict[str, object] = {}
    for block in code:
        if block.language == "text":
            shown += block.text
            continue
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, str(PAGE), "exec"), names)
    assert printed.getvalue() == shown


def test_the_page_lists_every_finding() -> None:
    source = "".join(
        (ROOT / "normbench" / "models" / "problems" / f"{module}.py").read_text()
        for module in ("shapes", "training")
    )
    assert shapes.CHECKS and training.CHECKS and problems.__doc__
    rows = [
        line.split("|")[1].strip()
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| finding")
    ]
    assert len(rows) == len(set(rows)) >= 17
    assert [what for what in rows if f'"{what}"' not in source] == []
