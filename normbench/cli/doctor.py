"""The command `doctor`, which checks a config and a machine, or a network."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.colours import (
    CYAN,
    GREEN,
    RED,
    YELLOW,
    echo,
    has_colours,
    styled,
)
from normbench.cli.model_options import (
    Accumulate,
    DataName,
    Device,
    Input,
    InputDtype,
    Model,
    ModelOptions,
    Optimizer,
    Steps,
    Swap,
    Vocabulary,
)
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
from normbench.system.streams import clean

if TYPE_CHECKING:
    from normbench.models.finding import Finding

MAX_WIDTH = 100
"""Characters in a line of a finding."""
LEVELS = ("error", "warning", "note", "ok")
"""The levels of findings, in the order in which they are printed."""
STYLES = dict(zip(LEVELS, (RED, YELLOW, CYAN, GREEN), strict=True))
"""Level -> colour of its word on a terminal."""

Details = Annotated[
    bool,
    typer.Option("--details", help="Print each check of a config that is ok, too."),
]


def doctor(
    overrides: Overrides = None,
    model: Model = None,
    model_options: ModelOptions = None,
    input: Input = None,
    data: DataName = None,
    input_dtype: InputDtype = "float32",
    vocabulary: Vocabulary = None,
    optimizer: Optimizer = None,
    steps: Steps = None,
    accumulate: Accumulate = 1,
    swap: Swap = None,
    device: Device = "cpu",
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    details: Details = False,
    json: Json = False,
) -> None:
    """Find problems of a config, a machine or a network.

    Without --model, checks packages, device, data, W&B login, disk and code, and the
    config's batch sizes, statistics, weight decay and learning rate. Errors and
    warnings are printed first; --details prints what is right, too. Nothing is trained,
    but missing data is downloaded.

    With --model and --input or --data, finds every normalization layer of a network,
    and examines it in one training forward and backward.

    Exit code: 0 if there is no error; 1 if there is an error; 2 if the request was
    wrong.
    """
    with exit_codes():
        if model is not None:
            from normbench.cli.model import ModelRequest, examine_model

            request = ModelRequest(
                model=model,
                options=model_options or (),
                input=input,
                dtype=input_dtype,
                vocabulary=vocabulary,
                optimizer=optimizer,
                steps=steps,
                accumulate=accumulate,
                swap=swap or (),
                device=device,
                data=data,
                overrides=overrides or (),
                config_dir=config_dir,
                modules=module or (),
            )
            findings = examine_model(request, json)
        else:
            _require_no_model_options(input, data, optimizer, swap)
            findings = _examine_config(
                overrides or (), results, config_dir, module, details, json
            )
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _require_no_model_options(*values: object) -> None:
    from normbench.errors import RequestError

    if any(values):
        raise RequestError(
            "--input, --data, --optimizer and --swap examine a network; add --model "
            "PACKAGE.MODULE:FACTORY"
        )


def _examine_config(
    overrides: Sequence[str],
    results: Path,
    config_dir: Path | None,
    named: list[str] | None,
    details: bool,
    json: bool,
) -> "list[Finding]":
    """Print the findings about a config and this machine, and return them."""
    from dataclasses import asdict

    from normbench.config.composition import compose, compose_engine
    from normbench.config.named_modules import import_named
    from normbench.sweeps.doctor import examine

    modules = import_named(named, overrides, config_dir=config_dir)
    config = compose(overrides, config_dir)
    engine = compose_engine(_engine_overrides(overrides), config_dir)
    findings = examine(config, engine, results, modules)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_findings(findings, details=details)
    return findings


def print_findings(findings: "Sequence[Finding]", *, details: bool = True) -> None:
    """Print findings, the worst first. Without `details`, count those with "ok"."""
    colours = has_colours()
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        if finding.level != "ok" or details:
            echo(_text(finding, colours), colours=colours)
    count = sum(finding.level == "ok" for finding in findings)
    if count and not details:
        level = styled(f"{'ok':<8}", STYLES["ok"], colours)
        echo(f"{level} {count} checks; --details prints them", colours=colours)


def _text(finding: "Finding", colours: bool) -> str:
    """Return a line with the level and the reason, and a line with the advice."""
    lines = [f"{finding.level:<8} {finding.what}: {finding.why}"]
    if finding.do:
        lines.append(f"{'':<8} -> {finding.do}")
    width, indent = text_width(MAX_WIDTH), " " * 12
    text = "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
        for line in map(clean, lines)
    )
    level = styled(text[:8], STYLES[finding.level], colours)
    return f"{level}{text[8:]}"


def _engine_overrides(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if re.match(r"[+~]*engine[.=]", text)]
