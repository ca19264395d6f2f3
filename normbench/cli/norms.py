"""Commands about norms as layers: list, footprint, bench norms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import ConfigDir, Json, Modules, exit_codes, expanded
from normbench.cli.tables import print_json, print_table, width

if TYPE_CHECKING:
    from normbench.norms.measure.portrait import NormChoice, Portrait
    from normbench.report.figures.panel import Panel
    from normbench.training.catalogue import Facts

bench = typer.Typer(help="Measure speed and memory.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Keeps `norms` a command of its own, as long as it is the only one."""


def _listable() -> dict[str, str]:
    """What `list` can list: the plural of each config group and kind of function."""
    from normbench.config.choices import groups
    from normbench.registry import REGISTRIES

    kinds = dict.fromkeys([*groups(), *REGISTRIES])
    return {kind if kind == "data" else f"{kind}s": kind for kind in kinds}


def _complete_list(incomplete: str) -> list[str]:
    return [name for name in _listable() if name.startswith(incomplete)]


def _completion(group: str) -> Callable[[str], list[str]]:
    """A completion by the yaml files of a config group."""

    def complete(incomplete: str) -> list[str]:
        from normbench.config.choices import choices

        return [name for name in choices(group) if name.startswith(incomplete)]

    return complete


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A config group in the plural, such as norms, tasks, data or budgets; "
            "probes; reparams.",
            autocompletion=_complete_list,
            show_default=False,
        ),
    ],
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """List the names that a config can use, each with a description.

    For norms: the source, which inputs share a statistic in training, the parameters on
    C channels, the precisions that it is safe with, and the tasks whose default network
    it works in.
    """
    with exit_codes():
        from normbench.config.choices import choices, description, groups
        from normbench.config.user_modules import import_modules
        from normbench.errors import RequestError, did_you_mean
        from normbench.registry import functions

        kinds = _listable()
        if what not in kinds:
            raise RequestError(f"cannot list {what!r}; {did_you_mean(what, kinds)}")
        kind = kinds[what]
        import_modules(module or ())
        rows: list[dict[str, Any]]
        if kind == "norm":
            from normbench.training.catalogue import catalogue

            facts = catalogue(config_dir)
            rows = [asdict(norm) for norm in facts]
            shown = [_norm_row(norm) for norm in facts]
        else:
            if kind in groups():
                texts = {
                    n: description(f) for n, f in choices(kind, config_dir).items()
                }
            else:
                registry = functions(kind)
                texts = {name: registry.description(name) for name in registry.names()}
            rows = shown = [{"name": n, "description": t} for n, t in texts.items()]
        if json:
            print_json(rows)
        else:
            print_table(shown, title=what)


def _norm_row(norm: "Facts") -> dict[str, str]:
    yes_no = {True: "yes", False: "-", None: ""}
    return {
        "name": norm.name,
        "source": norm.source or norm.description,
        "axes": norm.axes or "",
        "parameters": norm.parameters or "",
        "uses other samples": yes_no[norm.uses_other_samples],
        "differs in eval": yes_no[norm.differs_in_eval],
        "honours mask": yes_no[norm.honours_mask],
        "precisions": norm.precisions or "",
        "tasks": " ".join(norm.tasks),
    }


def footprint(
    norms: Annotated[
        list[str],
        typer.Argument(
            metavar="NORM...",
            help="Names of `list norms`. norm.KEY=VALUE changes the norms that have "
            "KEY, such as: batch group norm.num_groups=2",
            autocompletion=_completion("norm"),
            show_default=False,
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TASK",
            help="A name of `list tasks`. Inputs are images, or sequences with a mask "
            "where the task has no images.",
            autocompletion=_completion("task"),
        ),
    ] = "cnn",
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
        from normbench.config.user_modules import import_modules
        from normbench.norms.measure.portrait import fitting, portrait
        from normbench.tasks.base import REGISTRY as TASKS

        import_modules(module or ())
        task_name, norm_choices = _chosen(norms, task, config_dir)
        if output is not None:
            with _writing(output):  # before the measurement, which takes time
                output.mkdir(parents=True, exist_ok=True)
        channels = fitting(norm_choices)
        sequence = not TASKS.get(task_name).has_images
        portraits = [portrait(norm, channels, sequence) for norm in norm_choices]
        panels = [panel for p in portraits for panel in _panels(p)]
        if json:
            print_json([p.plain() for p in portraits])
        else:
            _print(portraits, panels)
        if output is not None:
            _write(panels, output)


def _chosen(
    words: Sequence[str], task: str, config_dir: Path | None
) -> tuple[str, "list[NormChoice]"]:
    """The name of the task's class, and the norms that `words` name, options checked.

    An override goes to the norms that have its key, and must fit one of them.
    """
    from normbench.config.composition import compose
    from normbench.errors import RequestError, did_you_mean
    from normbench.norms.measure.portrait import NormChoice

    overrides = {word.partition("=")[0]: word for word in words if "=" in word}
    labels = list(dict.fromkeys(word for word in words if "=" not in word))
    if not labels:
        raise RequestError("name a norm, such as: normbench footprint batch")
    norms, all_keys = [], set[str]()
    for label in labels:
        request = [f"task={task}", f"norm={label}"]
        config = compose(request, config_dir)
        keys = {f"norm.{key}" for key in config.norm.options}
        all_keys |= keys
        changes = [word for key, word in overrides.items() if key in keys]
        if changes:
            config = compose([*request, *changes], config_dir)
        norms.append(NormChoice(label, config.norm.name, config.norm.options))
    for key in overrides.keys() - all_keys:
        close = did_you_mean(key, all_keys)
        raise RequestError(f"{key} is not an option of {', '.join(labels)}; {close}")
    return config.task.name, norms


def _panels(portrait: "Portrait") -> "Iterator[Panel]":
    """What to draw: one output of each part, in training without a mask."""
    from normbench.report.figures.panel import Panel

    train = portrait.footprints[0]
    for part in train.either.parts:
        yield Panel(
            title=portrait.norm.label,
            words=str(part),
            spatial=portrait.shape[2:],
            output=part.output,
            value=train.value.entries[part.output],
            gradient=train.gradient.entries[part.output],
        )


def _write(panels: "Sequence[Panel]", folder: Path) -> None:
    """Write footprint.svg, .png and .json to `folder`, and print their paths."""
    from normbench.report.figures.cubes import draw

    data = folder / "footprint.json"
    with _writing(folder):
        text = dumps([panel.plain() for panel in panels], indent=1) + "\n"
        data.write_text(text, encoding="utf-8")
    for file in (*draw(panels, folder), data):
        typer.echo(f"wrote {file}", err=True)


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
        [row for p in portraits for row in _footprint_rows(p)],
        title="An output entry depends on, of an input "
        + " x ".join(map(str, portraits[0].shape)),
    )
    typer.echo()
    typer.echo(text(panels, min(100, width())))
    typer.echo()
    print_table(
        [row for p in portraits for row in _invariance_rows(p)],
        title="Relative change of the output when the input changes; yes: invariant, "
        f"below {TOLERANCE:.0e}",
    )


def _footprint_rows(portrait: "Portrait") -> Iterator[dict[str, Any]]:
    """A row for all modes that agree; two where value and gradient differ."""
    rows: dict[tuple[str, ...], list[str]] = {}
    masked = any(f.value.mask is not None for f in portrait.footprints)
    for footprint in portrait.footprints:
        value = footprint.value
        mask = "" if not masked else "no" if value.mask is None else "yes"
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
            **({"mask": mask} if masked else {}),
            "depends on": words,
            "entries": count,
        }


def _invariance_rows(portrait: "Portrait") -> list[dict[str, Any]]:
    """A row for training and one for evaluation, or one row where they are the same."""

    def cell(change: float | None, holds: bool | None) -> str:
        return "-" if change is None else "yes" if holds else f"{change:.2g}"

    measured = {i.to.value: i for i in portrait.invariances}
    train = {to: cell(i.train, i.holds_in_train) for to, i in measured.items()}
    evaluation = {to: cell(i.eval, i.holds_in_eval) for to, i in measured.items()}
    modes = {"train": train, "eval": evaluation}
    if train == evaluation:
        modes = {"train, eval": train}
    return [
        {"norm": portrait.norm.label, "mode": mode, **cells}
        for mode, cells in modes.items()
    ]


@bench.command("norms")
def bench_norms(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NORM", help="Default: all.", show_default=False),
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="image, tokens or style; repeatable.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=3, help="Paired blocks.")] = 21,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")] = "cpu",
    json: Json = False,
) -> None:
    """Time forward and backward of each norm beside the fastest known equal layer.

    Times are medians over paired blocks in microseconds, on one thread. `ratio` is the
    time relative to the reference: a layer of torch, or of timm where it is installed.
    """
    with exit_codes():
        from normbench.norms.measure.cost import measure_all
        from normbench.training.network import choose_device

        measured = measure_all(names or (), shape or (), choose_device(device), blocks)
        costs = [asdict(cost) for cost in measured]
        if json:
            print_json(costs)
        else:
            print_table([_cost_row(cost) for cost in costs], title="forward + backward")


def _cost_row(cost: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "norm": cost["norm"],
        "shape": cost["shape"],
        "us": cost["microseconds"],
        "peak KiB": cost["peak_kib"],
        "ratio": cost["ratio"],
        "reference us": cost["reference_microseconds"],
        "reference": cost["reference"] or cost["incompatible"],
    }
    return {key: "-" if value is None else value for key, value in row.items()}
