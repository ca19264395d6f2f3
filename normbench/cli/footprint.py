"""The command `footprint`, which measures norms as functions of their input."""

from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    ConfigDir,
    Json,
    Modules,
    complete_group,
    exit_codes,
    path_option,
)
from normbench.cli.tables import print_json, print_table, text_width

if TYPE_CHECKING:
    from normbench.api.footprints import Footprints
    from normbench.norms.measure.portrait import Portrait
    from normbench.report.figures.panel import Panel

Norms = Annotated[
    list[str],
    typer.Argument(
        metavar="NORM",
        help="Names that `list norms` prints, and options, such as: batch group "
        "norm.num_groups=2. norm.KEY=VALUE sets an option of all norms that have it.",
        autocompletion=complete_group("norm"),
        show_default=False,
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="TASK",
        help="A name that `list tasks` prints. The inputs are images, or sequences "
        "with a mask if the task has no images.",
        autocompletion=complete_group("task"),
    ),
]
Output = Annotated[
    Path | None,
    path_option(
        "--output",
        "Folder to which footprint.svg, footprint.png and footprint.json are written.",
        show_default=False,
    ),
]


def footprint(
    norms: Norms,
    task: TaskName = "cnn",
    output: Output = None,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Measure which inputs the outputs of a norm depend on.

    Also measures which changes of the input, such as scaling it, leave the output
    unchanged.
    """
    with exit_codes():
        from normbench.api.footprints import footprint
        from normbench.system.imports import import_modules

        import_modules(module or ())
        measured = footprint(*norms, task=task, config_dir=config_dir)
        if output is not None:
            _write(measured, output)
        if json:
            print_json([portrait.plain() for portrait in measured.portraits])
        else:
            _print_portraits(measured.portraits, measured.panels)


def _write(measured: "Footprints", folder: Path) -> None:
    """Write footprint.svg, .png and .json to `folder`, and print their paths."""
    from normbench.errors import RequestError

    json_file = folder / "footprint.json"
    text = dumps([panel.plain() for panel in measured.panels], indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        json_file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(
            f"--output {folder} cannot be written: {error.strerror}"
        ) from None
    for file in (*measured.draw(folder), json_file):
        typer.echo(f"wrote {file}", err=True)


def _print_portraits(
    portraits: "Sequence[Portrait]", panels: "Sequence[Panel]"
) -> None:
    from normbench.norms.measure.invariance import TOLERANCE
    from normbench.report.figures.panel import panels_text

    shape = " x ".join(map(str, portraits[0].shape))
    print_table(
        [row for portrait in portraits for row in _footprint_rows(portrait)],
        title=f"Entries of a {shape} input that an entry of the output depends on",
    )
    typer.echo()
    typer.echo(panels_text(panels, text_width(100)))
    typer.echo()
    print_table(
        [row for portrait in portraits for row in _invariance_rows(portrait)],
        title="Relative change of the output when the input changes; yes: invariant, "
        f"below {TOLERANCE:.0e}",
    )


def _footprint_rows(portrait: "Portrait") -> Iterator[dict[str, Any]]:
    """Yield a row for all modes with the same footprint.

    If the value and the gradient depend on different inputs, each has a row.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    has_masks = any(f.value.mask is not None for f in portrait.footprints)
    for footprint in portrait.footprints:
        value = footprint.value
        mask = "no" if value.mask is None else "yes"
        dependences = {"": value}
        if not footprint.agree:
            dependences = {"value": value, "gradient": footprint.gradient}
        for kind, dependence in dependences.items():
            key = (mask, kind, dependence.words, dependence.count)
            rows.setdefault(key, []).append(footprint.mode)
    for (mask, kind, words, count), modes in rows.items():
        yield {
            "norm": portrait.norm.label,
            "mode": " ".join([", ".join(modes), kind]).strip(),
            **({"mask": mask} if has_masks else {}),
            "depends on": words,
            "entries": count,
        }


def _invariance_rows(portrait: "Portrait") -> list[dict[str, Any]]:
    """Return one row for training and one for evaluation; a single row if equal."""

    def cell(change: float | None, holds: bool | None) -> str:
        if change is None:
            return "-"
        return "yes" if holds else f"{change:.2g}"

    train, evaluation = {}, {}
    for invariance in portrait.invariances:
        column = invariance.to.value
        train[column] = cell(invariance.train, invariance.holds_in_train)
        evaluation[column] = cell(invariance.eval, invariance.holds_in_eval)
    modes = {"train": train, "eval": evaluation}
    if train == evaluation:
        modes = {"train, eval": train}
    return [
        {"norm": portrait.norm.label, "mode": mode, **cells}
        for mode, cells in modes.items()
    ]
