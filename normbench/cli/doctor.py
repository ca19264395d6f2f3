"""The command that checks a config before anything runs: doctor."""

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Overrides,
    Results,
    exit_codes,
)
from normbench.cli.tables import print_json, width

if TYPE_CHECKING:
    from normbench.sweeps.traps import Finding

WIDEST = 100
"""Columns of text that is still easy to read."""
WORST_FIRST = ("error", "warning", "note", "ok")
"""The levels of findings, in the order in which they are printed."""


def doctor(
    overrides: Overrides = None,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Check the machine and a config: what is missing, and which traps it has.

    Checks packages, device, data, W&B login, disk and code, and, for this config, batch
    sizes, statistics, weight decay and learning rate. Prints errors and warnings first.
    Trains nothing; downloads missing data, as a run would. Exit code 0: it can run; 1:
    there is an error; 2: the request was wrong.
    """
    with exit_codes():
        from dataclasses import asdict

        from normbench.config.composition import compose, compose_engine
        from normbench.config.user_modules import import_modules
        from normbench.sweeps.doctor import examine

        import_modules(module or ())
        config = compose(overrides or (), config_dir)
        engine = compose_engine(_of_engine(overrides or ()), config_dir)
        findings = examine(config, engine, results, module or ())
        if json:
            plain = [asdict(finding) for finding in findings]
            print_json(plain)
        else:
            for finding in sorted(findings, key=lambda f: WORST_FIRST.index(f.level)):
                typer.echo(_text(finding))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _text(finding: "Finding") -> str:
    """The level, what it is about, and below it what to do."""
    lines = [f"{finding.level:<8} {finding.what}: {finding.why}"]
    if finding.do:
        lines.append(f"{'':<8} -> {finding.do}")
    columns, indent = min(width(), WIDEST), " " * 12
    return "\n".join(
        textwrap.fill(line, columns, subsequent_indent=indent, break_on_hyphens=False)
        for line in lines
    )


def _of_engine(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if re.match(r"[+~]*engine[.=]", text)]
