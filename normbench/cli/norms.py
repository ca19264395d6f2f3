"""The commands `list` and `bench norms`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import ConfigDir, Json, Modules, exit_codes
from normbench.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from normbench.training.catalogue import Facts

bench = typer.Typer(
    name="bench", help="Measure the speed and memory of norms.", no_args_is_help=True
)


@bench.callback()
def _group() -> None:
    """Keep the name `norms`; without this, Typer drops the name of a sole command."""


def _listable() -> dict[str, str]:
    """Return what `list` accepts: the plural -> the config group or registry."""
    from normbench.config.choices import groups
    from normbench.registry import REGISTRIES

    kinds = dict.fromkeys([*groups(), *REGISTRIES])
    return {kind if kind == "data" else f"{kind}s": kind for kind in kinds}


def _complete_list(incomplete: str) -> list[str]:
    return [name for name in _listable() if name.startswith(incomplete)]


Kind = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="What to list: norms, tasks, data, probes, reparams, or another config "
        "group in the plural, such as budgets.",
        autocompletion=_complete_list,
        show_default=False,
    ),
]


def list_(
    what: Kind,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """List the names that a config can use.

    For each norm, the command prints its source, the axes of its statistics in
    training, its number of parameters for C channels, whether it uses other samples,
    differs in evaluation or honours a mask, whether it normalizes all ghost batches in
    one call or in a loop, which is slower, the precisions that are safe, and the tasks
    whose default network it fits.
    """
    with exit_codes():
        from normbench.config.choices import choices, description, groups
        from normbench.errors import RequestError, did_you_mean
        from normbench.registry import functions
        from normbench.system.imports import import_modules

        kinds = _listable()
        if what not in kinds:
            raise RequestError(f"cannot list {what!r}; {did_you_mean(what, kinds)}")
        kind = kinds[what]
        import_modules(module or ())
        rows: list[dict[str, Any]]
        if kind == "norm":
            from normbench.training.catalogue import catalogue

            norms = catalogue(config_dir)
            rows = [asdict(norm) for norm in norms]
            shown = [_norm_row(norm) for norm in norms]
        else:
            if kind in groups():
                files = choices(kind, config_dir)
                descriptions = {name: description(file) for name, file in files.items()}
            else:
                registry = functions(kind)
                descriptions = {n: registry.description(n) for n in registry.names()}
            rows = shown = [
                {"name": name, "description": text}
                for name, text in descriptions.items()
            ]
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
        "ghost batches": {True: "one call", False: "loop", None: ""}[norm.one_call],
        "precisions": norm.precisions or "",
        "tasks": " ".join(norm.tasks),
    }


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NORM",
        help="Names of norms, such as: group rms",
        show_default="all norms",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="SHAPE",
        help="Shape of the input: image, tokens or style. Repeatable.",
        show_default="all shapes",
    ),
]
Blocks = Annotated[
    int,
    typer.Option(
        metavar="NUMBER",
        min=3,
        help="Number of measurements, of which the median is printed.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="One of cpu, cuda, cuda:N and mps.")
]


def bench_norms(
    names: Names = None,
    shape: Shapes = None,
    blocks: Blocks = 21,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Time the forward and the backward pass of norms.

    The reference of a norm is a layer of torch or timm that computes the same. Times
    are medians in microseconds on one thread. `ratio` is the time of the norm divided
    by the time of its reference. `ghost ratio` is the time of the norm with ghost
    batches of two samples (norm_batch=2) divided by its time without them.
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
        "ghost ratio": cost["ghost_ratio"],
        "reference us": cost["reference_microseconds"],
        "reference": cost["reference"] or cost["incompatible"],
    }
    return {key: "-" if value is None else value for key, value in row.items()}
