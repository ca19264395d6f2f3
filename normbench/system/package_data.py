"""Where the data folders of the package are."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def data_folder(name: str) -> Path:
    """Return a data folder of the package, such as "configs", in a wheel or a checkout.

    A wheel has the folder in the package, a checkout has it beside the package.
    """
    in_package = PACKAGE / name
    return in_package if in_package.is_dir() else PACKAGE.parent / name
