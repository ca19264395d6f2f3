"""The options of commands that take the user's own network."""

from typing import Annotated, Literal

import typer

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A network: PACKAGE.MODULE:FACTORY of your own, which is imported, or "
        "torchvision:NAME or timm:NAME.",
        show_default=False,
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--model-options",
        metavar="KEY=VALUE",
        help="Keyword argument of the factory, such as num_classes=10. Repeatable.",
        show_default=False,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of an example input, such as 8,3,224,224 (samples first).",
        show_default=False,
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="Data set of images or texts in place of --input, which adds evaluations, "
        "gaps and leaks. Its options are config values, such as data.path=DIR "
        "batch_size=8.",
        show_default=False,
    ),
]
InputDtype = Annotated[
    Literal["float32", "float64", "float16", "bfloat16", "int64"],
    typer.Option(
        "--input-dtype",
        metavar="DTYPE",
        help="Type of the input: float32, float64, float16, bfloat16, or int64 for "
        "token ids.",
    ),
]
Vocabulary = Annotated[
    int | None,
    typer.Option(
        "--vocabulary",
        metavar="NUMBER",
        min=2,
        help="Number of different token ids in an int64 input.",
        show_default=False,
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="FACTORY",
        help="PACKAGE.MODULE:FACTORY that returns the optimizer of a model, to check "
        "its weight decay.",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="NUMBER",
        min=1,
        help="Number of steps of the training, to check the momentum.",
        show_default=False,
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        metavar="NUMBER",
        min=1,
        help="Forwards per step of the optimizer.",
    ),
]
Swap = Annotated[
    list[str] | None,
    typer.Option(
        "--swap",
        metavar="KEY=VALUE",
        help="Show what a swap of the norms would do: norm=NAME, norm.OPTION=VALUE "
        "(norm.num_groups=auto), where=REGEX. Repeatable.",
        show_default=False,
    ),
]
Device = Annotated[
    Literal["cpu", "meta"],
    typer.Option(
        "--device",
        metavar="cpu|meta",
        help="meta computes only shapes, which is fast for large networks.",
    ),
]
