"""The command that measures a norm on tensors: footprint."""

import json as jsonlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    ConfigDir,
    Json,
    Modules,
    completion_of,
    exit_codes,
    expanded,
)
from normbench.cli.tables import print_json, print_table, width

if TYPE_CHECKING:
    from normbench.norms.measure.portrait import Portrait
    from normbench.report.figures.panel import Panel


class Inputs(StrEnum):
    """The tasks, which differ in the shape of what they give a norm."""

    cnn = "cnn"
    transformer = "transformer"
    style = "style"


def footprint(
    norms: Annotated[
        list[str],
        typer.Argument(
            metavar="NORM...",
            help="Names of `list norms`; norm.KEY=VALUE is for those that have KEY, "
            "such as: batch group norm.num_groups=2",
            autocompletion=completion_of("norm"),
            show_default=False,
        ),
    ],
    task: Annotated[
        Inputs,
        typer.Option("--task", help="Whose inputs: images, or sequences with a mask."),
    ] = Inputs.cnn,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            callback=expanded,
            help="Folder for the picture, footprint.svg and .png, and its data, .json.",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Measure which inputs each output depends on, and what leaves it unchanged."""
    with exit_codes():
        from normbench.norms.measure.portrait import fitting, portrait

        chosen = _options(norms, task, config_dir, module)
        if output is not None:
            with _writing(output):  # before time is spent on it
                output.mkdir(parents=True, exist_ok=True)
        channels = fitting(list(chosen.values()))
        sequence = task is Inputs.transformer
        portraits = [
            portrait(name, options, channels, sequence)
            for name, options in chosen.items()
        ]
        panels = [panel for one in portraits for panel in _panels(one)]
        if json:
            plain = [one.plain() for one in portraits]
            print_json(plain)
        else:
            _print(portraits, panels)
        if output is not None:
            from normbench.report.figures.cubes import draw

            data = output / "footprint.json"
            plain = [panel.plain() for panel in panels]
            with _writing(output):
                text = jsonlib.dumps(plain, indent=1) + "\n"
                data.write_text(text, encoding="utf-8")
            for file in (*draw(panels, output), data):
                typer.echo(f"wrote {file}", err=True)


def _options(
    words: Sequence[str],
    task: Inputs,
    config_dir: Path | None,
    modules: Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    """The checked options of each norm that `words` name, by that name."""
    from normbench.config.composition import compose
    from normbench.config.user_modules import import_modules
    from normbench.errors import RequestError, did_you_mean

    import_modules(modules or ())
    overrides = {word.partition("=")[0]: word for word in words if "=" in word}
    names = list(dict.fromkeys(word for word in words if "=" not in word))
    if not names:
        raise RequestError("name a norm, such as: normbench footprint batch")
    chosen, known = {}, set()
    for name in names:
        base = [f"task={task}", f"norm={name}"]
        norm = compose(base, config_dir).norm
        keys = {f"norm.{key}" for key in norm.options}
        known |= keys
        own = [word for key, word in overrides.items() if key in keys]
        norm = compose([*base, *own], config_dir).norm if own else norm
        chosen[name] = norm.model_dump()
    for key in overrides.keys() - known:
        raise RequestError(
            f"{key} is not an option of {', '.join(names)}; {did_you_mean(key, known)}"
        )
    return chosen


def _panels(portrait: "Portrait") -> "Iterator[Panel]":
    """What to draw: one output of each part, in training without a mask."""
    from normbench.report.figures.panel import Panel

    train = portrait.footprints[0]
    for part in train.either.parts:
        yield Panel(
            title=portrait.name,
            words=f"{part.where}: {part.words}" if part.where else part.words,
            spatial=portrait.shape[2:],
            output=part.output,
            value=train.value.entries[part.output],
            gradient=train.gradient.entries[part.output],
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    from normbench.errors import RequestError

    try:
        yield
    except OSError as error:
        raise RequestError(
            f"--output {folder} cannot be written: {error.strerror}"
        ) from None


def _print(portraits: "Sequence[Portrait]", panels: "Sequence[Panel]") -> None:
    from normbench.norms.measure.invariance import TOLERANCE
    from normbench.report.figures.panel import text

    print_table(
        [row for one in portraits for row in _footprint_rows(one)],
        title="An output entry depends on, of an input "
        + " x ".join(map(str, portraits[0].shape)),
    )
    typer.echo()
    typer.echo(text(panels, min(100, width())))
    typer.echo()
    print_table(
        [row for one in portraits for row in _invariance_rows(one)],
        title=f"Relative change of the output when the input changes; yes: invariant, "
        f"below {TOLERANCE:.0e}",
    )


def _footprint_rows(portrait: "Portrait") -> Iterator[dict[str, Any]]:
    """A row for all modes that agree; two where value and gradient do not."""
    rows: dict[tuple[str, ...], list[str]] = {}
    masked = any(f.value.mask is not None for f in portrait.footprints)
    for one in portrait.footprints:
        mask = "" if not masked else "no" if one.value.mask is None else "yes"
        seen = {"": one.value}
        if not one.agree:
            seen = {"value": one.value, "gradient": one.gradient}
        for what, dependence in seen.items():
            key = (mask, what, dependence.words, dependence.count)
            rows.setdefault(key, []).append(one.mode)
    for (mask, what, words, count), modes in rows.items():
        yield {
            "norm": portrait.name,
            "mode": " ".join([", ".join(modes), what]).strip(),
            **({"mask": mask} if masked else {}),
            "depends on": words,
            "entries": count,
        }


def _invariance_rows(portrait: "Portrait") -> Iterator[dict[str, Any]]:
    columns: list[dict[str, str]] = []
    for train in (True, False):
        cells = {}
        for one in portrait.invariances:
            change, holds = (
                (one.train, one.holds_in_train)
                if train
                else (one.eval, one.holds_in_eval)
            )
            cells[one.to.value] = (
                "-" if change is None else "yes" if holds else f"{change:.2g}"
            )
        columns.append(cells)
    same = columns[0] == columns[1]
    modes = ["train, eval"] if same else ["train", "eval"]
    for mode, cells in zip(modes, columns, strict=False):
        yield {"norm": portrait.name, "mode": mode, **cells}
