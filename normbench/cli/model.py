"""Examine the user's own network, for the command `doctor`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from normbench.cli.tables import print_json, print_table, text_width
from normbench.errors import RequestError
from normbench.report.text.paragraph import paragraph

if TYPE_CHECKING:
    from normbench.models.examples import Module, Tensor
    from normbench.models.finding import Finding
    from normbench.models.inspection import Report
    from normbench.models.statistics import Evaluations, Gap
    from normbench.models.swapping import SwapReport

MAX_BATCHES = 16
"""The most batches of a data set that a network is examined with."""
MAX_NUMBERS = 2**31
"""The most numbers in an example input."""


@dataclass(frozen=True)
class ModelRequest:
    """The options of the command line about a network."""

    model: str
    options: Sequence[str]
    input: str | None
    dtype: str
    vocabulary: int | None
    optimizer: str | None
    steps: int | None
    accumulate: int
    swap: Sequence[str]
    device: str
    data: str | None
    overrides: Sequence[str]
    config_dir: Path | None
    modules: Sequence[str]


def examine_model(request: ModelRequest, json: bool) -> "list[Finding]":
    """Print a report on the norms of a network, and return its findings."""
    from normbench.models.inspection import inspect
    from normbench.models.loading import load, load_factory, module_of
    from normbench.models.swapping import swap
    from normbench.system.imports import import_modules

    if request.overrides and request.data is None:
        raise RequestError(
            f"{request.overrides[0]} is a config value, which --model uses only with "
            "--data; pass arguments of the factory with --model-options KEY=VALUE"
        )
    named = [module_of(name) for name in (request.model, request.optimizer) if name]
    import_modules([*request.modules, *(name for name in named if name)])
    batches: list[Any] | None = None
    if request.data is None:
        example: Any = _example(request)
        model = load(request.model, read_values(request.options, "--model-options"))
        _require_one_argument(model)
    else:
        model, batches = _model_and_data(request)
        example = batches[0][0]
    optimizer: Callable[..., Any] | None = None
    if request.optimizer:
        optimizer = load_factory(request.optimizer)
    report = inspect(
        model,
        example,
        batches,
        optimizer=optimizer,
        steps=request.steps,
        accumulate=request.accumulate,
        device=request.device,
    )
    swapped: SwapReport | None = None
    drift: Mapping[str, float] = {}
    if request.swap:
        norm, options = _swap_options(request.swap)
        swapped = swap(model, norm, in_place=False, **options)
        if request.device == "cpu":
            drift = swapped.drift(example)
    if json:
        plain = {**report.as_dict(), "swap": _plain_swap(swapped, drift)}
        print_json(plain)
    else:
        _print_report(report)
        if swapped is not None:
            _print_swap(swapped, drift)
    return report.findings


def _example(request: ModelRequest) -> "Tensor":
    """Return a random input of the requested shape and type."""
    from normbench.models.examples import random_input

    if request.input is None:
        raise RequestError(
            "--model needs the shape of an input, such as --input 8,3,224,224"
        )
    shape = read_shape(request.input)
    if request.dtype == "int64" and request.vocabulary is None:
        raise RequestError(
            "--input-dtype int64 needs the number of token ids, such as "
            "--vocabulary 1000"
        )
    return random_input(shape, request.dtype, request.vocabulary or 0)


def read_shape(text: str) -> list[int]:
    """Return the shape of an input. Raises RequestError if `text` is none."""
    try:
        shape = [int(size) for size in text.split(",")]
    except ValueError:
        shape = []
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_NUMBERS:
        raise RequestError(
            f"--input {text} is no shape; write positive numbers with commas, "
            "samples first, such as 8,3,224,224"
        )
    return shape


def _require_one_argument(model: "Module") -> None:
    """Raise RequestError if the forward of a network needs more than one tensor."""
    parameters = signature(model.forward).parameters.values()
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(needed) > 1:
        raise RequestError(
            f"the forward of {type(model).__name__} needs {', '.join(needed)}, but "
            "--input gives one tensor; --data gives texts and their mask, and "
            "normbench.inspect in Python takes a tuple or a dict"
        )


def _model_and_data(request: ModelRequest) -> "tuple[Module, list[Any]]":
    """Return the network and batches of the validation split of a data set."""
    from normbench.config.composition import compose
    from normbench.tasks.module import ModuleTask
    from normbench.training.network import choose_device, make_task

    if request.input is not None:
        raise RequestError(
            "--input and --data exclude each other: the input is a batch of the data"
        )
    read_values(request.options, "--model-options")
    overrides = [
        *("task=module", f"task.model={request.model}", f"data={request.data}"),
        *(f"+task.model_options.{word}" for word in request.options),
        *request.overrides,
    ]
    config = compose(overrides, request.config_dir)
    task = make_task(config, choose_device("cpu"))
    assert isinstance(task, ModuleTask)
    model = task.network()
    batches = task.examples(model, "val", config.batch_size, MAX_BATCHES)
    if not batches:
        raise RequestError(
            f"batch_size={config.batch_size} is above the {len(task.splits['val'])} "
            "validation samples; use a smaller one"
        )
    return model, batches


def read_values(words: Iterable[str], option: str) -> dict[str, Any]:
    """Return KEY=VALUE words as a dict; values are read as YAML."""
    import yaml

    values: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise RequestError(f"{option} {word} is not of the form KEY=VALUE")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[key] = value
    return values


def _swap_options(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the name of the norm, and the other arguments of `swap`."""
    values = read_values(words, "--swap")
    norm = values.pop("norm", None)
    if not isinstance(norm, str):
        raise RequestError("--swap needs the new norm, such as --swap norm=group")
    options: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("where", "keep_affine"):
            options[key] = value
        elif key.startswith("norm."):
            options[key.removeprefix("norm.")] = value
        else:
            raise RequestError(
                f"--swap {key} is unknown; use norm, norm.OPTION, where or keep_affine"
            )
    return norm, options


def _print_report(report: "Report") -> None:
    from normbench.cli.doctor import print_findings

    rows = [
        {
            "layer": row.name or "(the model)",
            "type": row.type,
            "norm": row.kind,
            "channels": row.channels,
            "groups": row.groups,
            "input": "x".join(map(str, row.input)) if row.input else None,
            "values": row.values,
            "eps": row.eps,
            "momentum": row.momentum,
            "affine": ("trainable" if row.trainable else "fixed")
            if row.affine
            else "none",
            "mode": row.mode,
            "calls": row.calls,
            "after": row.after,
            "before": row.before,
        }
        for row in report.layers
    ]
    layers = f"{len(rows)} norm layer{'s' if len(rows) != 1 else ''}"
    _print_rows(rows, f"{report.model}: {layers}")
    typer.echo()
    if report.evaluations is not None:
        _print_evaluations(report.evaluations)
    if report.gaps:
        _print_gaps(report.gaps)
    print_findings(report.findings)


def _print_evaluations(evaluations: "Evaluations") -> None:
    rows = [
        {
            "statistics": kind,
            "error": f"{evaluations.error[kind]:.1%}",
            "loss": f"{evaluations.loss[kind]:.4f}",
        }
        for kind in evaluations.error
    ]
    typer.echo(f"evaluation on {evaluations.samples} validation samples")
    print_table(rows, "")
    typer.echo()


def _print_gaps(gaps: "Sequence[Gap]") -> None:
    rows = [
        {"layer": gap.layer, "mean": f"{gap.mean:.3f}", "std": f"{gap.std:.3f}"}
        for gap in gaps
    ]
    typer.echo("gap between running and batch statistics, in standard deviations")
    print_table(rows, "")
    typer.echo()


def _print_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print a table without the columns whose values are all equal.

    A line before the table has these values.
    """
    columns = list(rows[0]) if rows else []
    equal = {
        key: rows[0][key]
        for key in columns
        if len(rows) > 1 and len({row[key] for row in rows}) == 1
    }
    shown = [f"{key} {value}" for key, value in equal.items() if value is not None]
    if shown:
        title += f"; all have {', '.join(shown)}"
    kept = [key for key in columns if key not in equal]
    _print_text(title)
    cells = [{k: "-" if row[k] is None else row[k] for k in kept} for row in rows]
    if cells and kept:
        print_table(cells, "")


def _print_text(text: str) -> None:
    typer.echo(paragraph("", text, text_width(), indent=0))


def _print_swap(swapped: "SwapReport", drift: Mapping[str, float]) -> None:
    from normbench.models.layers import readable

    typer.echo()
    rows = [
        {
            "layer": layer.name or "(the model)",
            "type": layer.before,
            "new norm": layer.after,
            "channels": layer.channels,
            "options": ", ".join(f"{k}={v}" for k, v in layer.options.items()),
            "drift": f"{drift[layer.name]:.1%}" if layer.name in drift else None,
            "notes": "; ".join(layer.notes) or None,
        }
        for layer in swapped.layers
    ]
    layers = f"{len(rows)} layer{'s' if len(rows) != 1 else ''}"
    _print_rows(rows, f"swap: {layers}")
    for name, reason in swapped.left.items():
        _print_text(f"{readable(name)} stays: {reason}")
    if swapped.rule:
        _print_text(swapped.rule)
    if drift:
        _print_text(
            "drift: root mean square of the change of the layer's output, relative to "
            "the output, in evaluation mode and with all swaps before it"
        )


def _plain_swap(
    swapped: "SwapReport | None", drift: Mapping[str, float]
) -> dict[str, Any] | None:
    if swapped is None:
        return None
    layers = [
        {**asdict(layer), "drift": drift.get(layer.name)} for layer in swapped.layers
    ]
    return {"layers": layers, "left": swapped.left, "rule": swapped.rule}
