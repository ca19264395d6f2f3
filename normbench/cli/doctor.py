"""The command `doctor`, which checks a config and the machine before a run."""

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
from normbench.cli.tables import print_json, text_width

if TYPE_CHECKING:
    from normbench.models.finding import Finding

MAX_WIDTH = 100
"""Characters in a line of a finding."""
LEVELS = ("error", "warning", "note", "ok")
"""The levels of findings, in the order in which they are printed."""


def doctor(
    overrides: Overrides = None,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Check a config and this machine for problems before a run.

    Checks packages, device, data, W&B login, disk and code, and the config's batch
    sizes, statistics, weight decay and learning rate. Errors and warnings are printed
    first. Nothing is trained, but missing data is downloaded.

    Exit code: 0 if the config can run; 1 if there is an error; 2 if the request was
    wrong.
    """
    with exit_codes():
        from dataclasses import asdict

        from normbench.config.composition import compose, compose_engine
        from normbench.config.named_modules import import_named
        from normbench.sweeps.doctor import examine

        modules = import_named(module, overrides, config_dir=config_dir)
        config = compose(overrides or (), config_dir)
        engine = compose_engine(_engine_overrides(overrides or ()), config_dir)
        findings = examine(config, engine, results, modules)
        if json:
            plain = [asdict(finding) for finding in findings]
            print_json(plain)
        else:
            for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
                typer.echo(_text(finding))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _text(finding: "Finding") -> str:
    """Return a line with the level and the reason, and a line with the advice."""
    lines = [f"{finding.level:<8} {finding.what}: {finding.why}"]
    if finding.do:
        lines.append(f"{'':<8} -> {finding.do}")
    width, indent = text_width(MAX_WIDTH), " " * 12
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
        for line in lines
    )


def _engine_overrides(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if re.match(r"[+~]*engine[.=]", text)]
