"""Commands that measure speed: bench norms."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from normbench.cli.options import Json, exit_codes
from normbench.cli.tables import print_json, print_table

app = typer.Typer(help="Measure speed and memory.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `norms` a command of its own, as long as it is the only one."""


@app.command()
def norms(
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
    """Forward and backward of each norm beside the fastest known layer like it.

    Times in microseconds, medians over paired blocks, one thread. `ratio` is that to
    the reference: torch's layer, or timm's where timm is installed.
    """
    with exit_codes():
        from normbench.norms.measure.cost import measure_all
        from normbench.training.network import choose_device

        costs = [
            asdict(cost)
            for cost in measure_all(
                names or (), shape or (), choose_device(device), blocks
            )
        ]
        if json:
            print_json(costs)
        else:
            print_table([_row(cost) for cost in costs], title="forward + backward")


def _row(cost: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "norm": cost["norm"],
        "shape": cost["shape"],
        "us": cost["microseconds"],
        "peak KiB": cost["peak_kib"],
        "ratio": cost["ratio"],
        "reference us": cost["reference_microseconds"],
        "reference": cost["reference"] or cost["incompatible"],
    }
    return {key: "-" if value is None else value for key, value in shown.items()}
