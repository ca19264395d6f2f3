"""Count the normalization layers of the models of torchvision and timm.

Building all models takes minutes, so each census is cached for the installed versions
of the packages. `write` saves a census beside a verdict. With `read`, a check from
records judges the saved models and builds none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch import nn

from normbench.claims import zoos
from normbench.claims.layer_norm_axes import readings
from normbench.data.reading.cache import Parsed, cached
from normbench.errors import NormbenchError, RequestError, Unreadable
from normbench.system import untrusted
from normbench.system.atomic import write_atomically
from normbench.verdicts.counting import (
    MAX_REASON,
    CensusName,
    Counted,
    Family,
    ModelCensus,
)

FORMAT = 5
"""Part of the key of the cache. Increase it if a census would count differently."""
FILE = "census.json"
"""Name of the file with the counted models, beside a verdict."""
MAX_CENSUS_BYTES = 8 * untrusted.MIB  # a census of 1,500 models has 150 KiB

FAMILIES: dict[Family, str] = {
    "batch": "batchnorm",
    "layer": "layernorm",
    "group": "groupnorm",
    "instance": "instancenorm",
    "rms": "rmsnorm",
    "evonorm": "evonorm",
    "filter_response": "filterresponsenorm",
}
"""Family -> a part of the lower-case name of each of its classes.

The class BatchNormAct2d belongs to "batch", because its name contains "batchnorm".
"""

CountLayers = Callable[[nn.Module, zoos.SampleShape], Mapping[str, int]]
"""Returns category -> number of layers of a model. It may change the model."""


def norm_layers(model: nn.Module) -> dict[str, int]:
    """Return the number of norm layers of each family: family -> number."""
    counts: Counter[str] = Counter()
    for module in model.modules():
        name = type(module).__name__.lower()
        counts.update(f for f, part in FAMILIES.items() if part in name)
    return dict(counts)


COUNT_LAYERS: dict[CensusName, CountLayers] = {
    "default_norms": lambda model, shape: norm_layers(model),
    "layer_norm_axes": lambda model, shape: Counter(readings(model, shape)),
}


def model_census(names: Iterable[CensusName]) -> ModelCensus:
    """Return the given censuses of all installed zoos, from the cache if it has them.

    The first call takes minutes for each census. One model at a time is in memory, and
    its parameters are on the meta device.
    """
    versions = zoos.versions()
    counts: dict[CensusName, dict[str, Counted]] = {}
    for name in names:

        def make(name: CensusName = name) -> Parsed:
            installed = zoos.installed().items()
            by_zoo = {zoo_name: count(name, zoo) for zoo_name, zoo in installed}
            new = ModelCensus(versions=versions, counts={name: by_zoo})
            return Parsed({}, {"census": new.model_dump_json()})

        stored = cached(name, {"format": FORMAT, **versions}, make).strings["census"]
        counts |= ModelCensus.model_validate_json(stored).counts
    return ModelCensus(versions=versions, counts=counts)


def count(name: CensusName, zoo: zoos.Zoo) -> Counted:
    """Count the layers of each model of a zoo, and build one model at a time.

    A model that cannot be built or measured is a failure, with the reason.
    """
    models: dict[str, dict[str, int]] = {}
    failures: dict[str, str] = {}
    for model in zoo.names:
        try:
            built = zoos.built(model, zoo.build)
            models[model] = dict(COUNT_LAYERS[name](built, zoo.sample_shape))
        except zoos.NotBuilt as error:
            failures[model] = str(error)[:MAX_REASON]
        except Exception as error:  # models are code of other packages
            reason = f"cannot be measured: {zoos.one_line(error)}"
            failures[model] = reason[:MAX_REASON]
    modules = {model: zoo.module_of(model) for model in (*models, *failures)}
    return Counted(models=models, failures=failures, modules=modules)


def write(path: Path, counted: ModelCensus) -> None:
    """Write a census as JSON. Raises NormbenchError if the file cannot be written."""
    try:
        write_atomically(path, counted.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None


def read(path: Path) -> ModelCensus:
    """Return the census in a file that `write` wrote.

    Raises RequestError if the file is missing, damaged or larger than MAX_CENSUS_BYTES.
    """
    try:
        data = untrusted.content(path, MAX_CENSUS_BYTES, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(
            f"{path} is not there: only a full check writes the models that it "
            "counted; leave out --from-records to count them"
        ) from None
    except Unreadable as error:
        raise RequestError(f"{path} is not a census ({error.why})") from None
    return untrusted.parsed(ModelCensus, data, path)
