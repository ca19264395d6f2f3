"""The command `footprint`, which measures norms as functions of their input."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    from normbench.norms.measure.portrait import NormChoice, Portrait
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
        from normbench.norms.measure.portrait import fitting, portrait
        from normbench.system.imports import import_modules
        from normbench.tasks.base import REGISTRY as TASKS

        import_modules(module or ())
        task_name, norm_choices = _choices(norms, task, config_dir)
        if output is not None:
            # Create the folder now: an error after the measurement would waste time.
            with _output_errors(output):
                output.mkdir(parents=True, exist_ok=True)
        channels = fitting(norm_choices)
        is_sequence = not TASKS.get(task_name).has_images
        portraits = [portrait(norm, channels, is_sequence) for norm in norm_choices]
        panels = [
            panel for norm_portrait in portraits for panel in _panels(norm_portrait)
        ]
        if json:
            print_json([norm_portrait.plain() for norm_portrait in portraits])
        else:
            _print_portraits(portraits, panels)
        if output is not None:
            _write_panels(panels, output)


def _choices(
    words: Sequence[str], task: str, config_dir: Path | None
) -> tuple[str, "list[NormChoice]"]:
    """Return the name of the task's class, and the norms with their options.

    `words` are names of norms and overrides. An override applies to the norms that have
    its key. Raises RequestError if no norm has the key, or if an option is wrong.
    """
    from normbench.config.composition import compose
    from normbench.errors import RequestError, did_you_mean
    from normbench.norms.measure.portrait import NormChoice

    overrides = {word.partition("=")[0]: word for word in words if "=" in word}
    labels = list(dict.fromkeys(word for word in words if "=" not in word))
    if not labels:
        raise RequestError("name a norm, such as: normbench footprint batch")
    norms = []
    all_keys: set[str] = set()
    for label in labels:
        choices = [f"task={task}", f"norm={label}"]
        config = compose(choices, config_dir)
        keys = {f"norm.{key}" for key in config.norm.options}
        all_keys |= keys
        changes = [word for key, word in overrides.items() if key in keys]
        if changes:
            config = compose([*choices, *changes], config_dir)
        norms.append(NormChoice(label, config.norm.name, config.norm.options))
    unknown = [key for key in overrides if key not in all_keys]
    if unknown:
        raise RequestError(
            f"{unknown[0]} is not an option of {', '.join(labels)}; "
            f"{did_you_mean(unknown[0], all_keys)}"
        )
    return config.task.name, norms


def _panels(portrait: "Portrait") -> "Iterator[Panel]":
    """Yield a panel for each part of the outputs, in training without a mask.

    A part is a group of outputs that depend on the same kind of inputs. Its panel shows
    one of these outputs.
    """
    from normbench.report.figures.panel import Panel

    train = portrait.footprints[0]  # training without a mask is measured first
    for part in train.either.parts:
        yield Panel(
            title=portrait.norm.label,
            words=str(part),
            spatial=portrait.shape[2:],
            output=part.output,
            value=train.value.entries[part.output],
            gradient=train.gradient.entries[part.output],
        )


def _write_panels(panels: "Sequence[Panel]", folder: Path) -> None:
    """Write footprint.svg, .png and .json to `folder`, and print their paths."""
    from normbench.report.figures.cubes import draw

    json_file = folder / "footprint.json"
    with _output_errors(folder):
        text = dumps([panel.plain() for panel in panels], indent=1) + "\n"
        json_file.write_text(text, encoding="utf-8")
    for file in (*draw(panels, folder), json_file):
        typer.echo(f"wrote {file}", err=True)


@contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a RequestError that names --output."""
    from normbench.errors import RequestError

    try:
        yield
    except OSError as error:
        raise RequestError(
            f"--output {folder} cannot be written: {error.strerror}"
        ) from None


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
