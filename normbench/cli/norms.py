"""The commands `list` and `bench norms`."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import ConfigDir, Json, Modules, exit_codes
from normbench.cli.tables import print_json, print_table, two_columns

if TYPE_CHECKING:
    from normbench.config.norm_facts import Declared
    from normbench.training.catalogue import Facts

YES_NO = {True: "yes", False: "no", None: "-"}

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


Only = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="List only these. For norms, print all that is known about them.",
        show_default=False,
    ),
]


def list_(
    what: Kind,
    names: Only = None,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """List the names that a config can use.

    In the list of norms, `other samples` says whether an output depends on other
    samples of the batch in training. `list norms NAME` prints the formula of a norm,
    its options, the axes of its statistics, its number of parameters for C channels,
    its behaviour in evaluation and with a mask, and the tasks whose default network
    can use it. --json prints all this for all norms, which takes some seconds.
    """
    with exit_codes():
        from normbench.errors import RequestError, did_you_mean
        from normbench.system.imports import import_modules

        kinds = _listable()
        if what not in kinds:
            raise RequestError(f"cannot list {what!r}; {did_you_mean(what, kinds)}")
        kind = kinds[what]
        import_modules(module or ())
        _require_listed(kind, names or (), config_dir)
        if kind == "norm":
            _list_norms(names or (), config_dir, has_modules=bool(module), json=json)
            return
        rows = [
            {"name": name, "description": text}
            for name, text in _descriptions(kind, config_dir).items()
            if not names or name in names
        ]
        if json:
            print_json(rows)
        else:
            print_table(rows, title=what)


def _descriptions(kind: str, config_dir: Path | None) -> dict[str, str]:
    """Return name -> description of a config group or a registry, sorted by name."""
    from normbench.config.choices import choices, description, groups
    from normbench.registry import functions

    if kind in groups():
        files = choices(kind, config_dir)
        return {name: description(file) for name, file in files.items()}
    registry = functions(kind)
    return {name: registry.description(name) for name in registry.names()}


def _require_listed(kind: str, names: Sequence[str], config_dir: Path | None) -> None:
    """Raise RequestError if one of `names` is not in the list."""
    from normbench.config.norm_facts import other_names
    from normbench.errors import RequestError, did_you_mean

    known = _descriptions(kind, config_dir) if names else {}
    for name in names:
        if name not in known:
            clause = did_you_mean(name, known, other_names() if kind == "norm" else {})
            raise RequestError(f"{kind}={name} is unknown; {clause}")


def _list_norms(
    names: Sequence[str], config_dir: Path | None, *, has_modules: bool, json: bool
) -> None:
    """Print one line per norm, or all facts of the norms `names`."""
    if names or json:
        from normbench.config.choices import choices
        from normbench.training.catalogue import catalogue

        norms = catalogue(config_dir, names)
        if json:
            print_json([asdict(norm) for norm in norms])
        else:
            files = choices("norm", config_dir)
            blocks = [_details(norm, _comments(files[norm.name])) for norm in norms]
            typer.echo("\n\n".join(map("\n".join, blocks)))
        return
    from normbench.config.norm_facts import summaries

    rows = [
        {
            "name": norm.name,
            "year": norm.year or "-",
            "other samples": YES_NO[norm.uses_other_samples],
            "description": norm.description,
        }
        for norm in summaries(config_dir, _own_norms() if has_modules else {})
    ]
    print_table(rows, title="norms")
    typer.echo("\n`normbench list norms NAME` prints the formula, options and tasks.")


def _own_norms() -> "dict[str, Declared]":
    """Return the declared attributes of the norms that the user's modules define."""
    from normbench.config.norm_facts import Declared, declared
    from normbench.norms import REGISTRY

    own = {name: REGISTRY.get(name) for name in REGISTRY.names()}
    return {
        name: Declared(source=norm.source, uses_other_samples=norm.uses_other_samples)
        for name, norm in own.items()
        if name not in declared()
    }


def _details(norm: "Facts", comments: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines with all facts of a norm; `comments` explain its options."""
    yield f"{norm.name}: {norm.description}"
    if norm.text:
        yield f"\n{textwrap.indent(norm.text, '  ')}"
    facts = {"tasks": " ".join(norm.tasks)}
    if norm.uses_other_samples is not None:  # otherwise, the class is unknown
        loop = {True: "one call", False: "a loop, which is slower", None: ""}
        facts = {
            "source": norm.source or "",
            "also called": ", ".join(norm.also_called),
            "axes": norm.axes or "",
            "other samples": YES_NO[norm.uses_other_samples],
            "evaluation": "another function" if norm.differs_in_eval else "as training",
            "honours mask": YES_NO[norm.honours_mask],
            "ghost batches": loop[norm.one_call],
            "parameters": norm.parameters or "",
            "precisions": norm.precisions or "",
            **facts,
        }
    yield ""
    yield from two_columns({key: value for key, value in facts.items() if value})
    if norm.options:
        yield "\n  options and their defaults"
        yield from two_columns(
            {
                f"norm.{key}={dumps(value)}": comments.get(key, "")
                for key, value in norm.options.items()
            }
        )


def _comments(file: Path) -> dict[str, str]:
    """Return key -> comment for the options in the yaml of a norm."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return dict(re.findall(r"^(\w+):.*?\s#\s*(.*)$", text, re.MULTILINE))


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
