"""Prints the cells of a sweep: before its runs, what is planned; after them, means."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from normbench.cli.tables import number, print_table

if TYPE_CHECKING:
    from normbench.config.schema import RunConfig, RunRecord
    from normbench.records.query import Cell
    from normbench.sweeps.plan import Plan, PlanState

MAX_CELLS = 40
"""Rows of a printed table of planned cells; --json has all cells."""
CAN_CHANGE_ROUNDING = frozenset({"device", "threads", "compile", "channels_last"})
CAN_CHANGE_ROUNDING |= {"evaluation.batch_size"}
"""Keys that are not part of the run id, but can change a metric by rounding."""


def differing(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[str, Any]]:
    """Return the keys in which flat configs differ, and options that only some have.

    An option, such as one of a single norm, is returned with its value if all configs
    that have it agree in the value and it is not None. Keys that cannot change a metric
    are left out.
    """
    from normbench.config.schema import is_hashed

    keys, options = [], {}
    for key in in_config_order(key for config in configs for key in config):
        if not is_hashed(key) and key not in CAN_CHANGE_ROUNDING:
            continue
        values = [config[key] for config in configs if key in config]
        if any(value != values[0] for value in values):
            keys.append(key)
        elif len(values) < len(configs) and values[0] is not None:
            options[key] = values[0]
    return keys, options


def in_config_order(keys: Iterable[str]) -> list[str]:
    """Return the distinct keys of flat configs, sorted by their section of a config."""
    from normbench.config.schema import RunConfig

    sections = list(RunConfig.model_fields)
    return sorted(
        dict.fromkeys(keys), key=lambda key: sections.index(key.split(".")[0])
    )


def config_text(value: Any) -> str:
    """Return a value of a config as the user would type it on the command line."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def varying_keys(configs: Iterable["RunConfig"]) -> list[str]:
    """Return the keys that tell cells apart: those in which configs differ, no seed.

    The norm is always among them.
    """
    from normbench.records.query import flat

    configs = list(configs)
    keys = {"norm", *differing([flat(config) for config in configs])[0]} - {"seed"}
    return in_config_order(
        keys - {"norm_batch"} if norm_batch_follows(configs) else keys
    )


def norm_batch_follows(configs: Iterable["RunConfig"]) -> bool:
    """Return whether the norm batch follows from the batch size in all configs."""
    return all(c.norm_batch * c.accumulate == c.batch_size for c in configs)


def planned_cells(plan: "Plan", state: "PlanState") -> list[dict[str, Any]]:
    """Return the cells of a plan: the values of the varying keys, runs, and missing.

    A key that the config of a cell lacks has the value None.
    """
    from normbench.records.query import flat

    keys = varying_keys(plan.runs.values())
    cells: dict[str, dict[str, Any]] = {}
    for run_id, config in plan.runs.items():
        values = flat(config)
        row = {key: values.get(key) for key in keys}
        cell = cells.setdefault(json.dumps(row), row | {"runs": 0, "missing": 0})
        cell["runs"] += 1
        cell["missing"] += run_id in state.missing
    return list(cells.values())


def print_planned_cells(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print at most MAX_CELLS planned cells as a table."""
    rows = [
        {
            key: "-" if value is None else config_text(value)
            for key, value in cell.items()
        }
        for cell in cells[:MAX_CELLS]
    ]
    typer.echo("")
    count = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
    typer.echo(f"{count}, each with the runs of all its seeds:")
    print_table(rows, title="")
    if len(cells) > MAX_CELLS:
        left_out = len(cells) - MAX_CELLS
        typer.echo(f"{left_out} more cells are left out; --json prints all of them")


def print_finished_cells(records: Sequence["RunRecord"]) -> None:
    """Print the mean of each cell, and the commands that show more of them."""
    from normbench.records import query

    if not records:
        return
    keys = varying_keys(record.config for record in records)
    cells = query.cells(records, keys)
    metrics = ", ".join(dict.fromkeys(cell.metric for cell in cells))
    typer.echo("")
    typer.echo(f"{metrics}: mean and 95% interval over the n ok runs of each cell")
    in_title = metrics if "," not in metrics else ""
    print_table([*cell_rows(cells, in_title=in_title)], title="")
    typer.echo("")
    by = ",".join(keys)
    typer.echo(f"next: normbench results --by {by}")
    typer.echo(f"      normbench plot --by {_axis(keys, records)}")


def _axis(keys: Sequence[str], records: Iterable["RunRecord"]) -> str:
    """Return the key for the axis of a plot: one with numbers, otherwise the norm."""
    from normbench.records import query

    values = [query.flat(record.config) for record in records]

    def is_number(key: str) -> bool:
        return all(type(each.get(key)) in (int, float) for each in values)

    return next(filter(is_number, keys), "norm")


def cell_rows(
    cells: Iterable["Cell"], *, in_title: str = ""
) -> Iterable[dict[str, str]]:
    """Yield a row of text for each cell; the metric `in_title` has no column."""
    text: Callable[[Any], str] = number
    for cell in cells:
        row = {key: text(value) for key, value in cell.plain().items()}
        for key, value in cell.by.items():
            row[key] = "-" if value is None else str(value)
        if in_title:
            del row["metric"]
        yield row
