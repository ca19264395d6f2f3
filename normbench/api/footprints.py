"""The footprints of norms: which inputs their outputs depend on, measured."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normbench.config.composition import compose
from normbench.errors import RequestError, did_you_mean
from normbench.norms.measure.portrait import NormChoice, Portrait, fitting, portrait
from normbench.report.figures import cubes
from normbench.report.figures.panel import Panel, panels_text
from normbench.tasks.base import REGISTRY as TASKS


@dataclass(frozen=True, repr=False)
class Footprints:
    """The measurements of some norms; a notebook shows them as a picture."""

    portraits: tuple[Portrait, ...]
    panels: tuple[Panel, ...]
    """The parts of the outputs of each norm, in training without a mask."""

    def draw(self, folder: Path | str) -> list[Path]:
        """Write footprint.svg and footprint.png to `folder`, and return their paths.

        Creates the folder. Raises RequestError if it is not writable.
        """
        return cubes.draw(self.panels, Path(folder))

    def __repr__(self) -> str:
        return panels_text(self.panels, 80)

    def _repr_svg_(self) -> str:
        """Return the picture; Jupyter calls this method."""
        with tempfile.TemporaryDirectory() as folder:
            svg, _ = self.draw(folder)
            return svg.read_text(encoding="utf-8")


def footprint(
    *norms: str, task: str = "cnn", config_dir: Path | str | None = None
) -> Footprints:
    """Measure which inputs the outputs of `norms` depend on.

    `norms` are names such as "batch", and options such as "norm.num_groups=2", which
    apply to all norms that have them. The inputs are 4 images, or 4 sequences if `task`
    has no images. Raises RequestError if a name or an option is wrong.
    """
    directory = None if config_dir is None else Path(config_dir)
    task_name, choices = _choices(norms, task, directory)
    channels = fitting(choices)
    sequence = not TASKS.get(task_name).has_images
    portraits = tuple(portrait(norm, channels, sequence) for norm in choices)
    panels = (panel for measured in portraits for panel in _panels(measured))
    return Footprints(portraits, tuple(panels))


def _choices(
    words: Sequence[str], task: str, config_dir: Path | None
) -> tuple[str, list[NormChoice]]:
    """Return the name of the task's class, and the norms with their options.

    `words` are names of norms and overrides. An override applies to the norms that have
    its key. Raises RequestError if no norm has the key, or if an option is wrong.
    """
    overrides = {word.partition("=")[0]: word for word in words if "=" in word}
    labels = list(dict.fromkeys(word for word in words if "=" not in word))
    if not labels:
        raise RequestError("name a norm, such as: normbench footprint batch")
    norms = []
    all_keys: set[str] = set()
    for label in labels:
        choices = [f"task={task}", f"norm={label}"]
        config = compose(choices, config_dir)
        keys = {f"norm.{key}" for key in config.norm.options}
        all_keys |= keys
        changes = [word for key, word in overrides.items() if key in keys]
        if changes:
            config = compose([*choices, *changes], config_dir)
        norms.append(NormChoice(label, config.norm.name, config.norm.options))
    unknown = [key for key in overrides if key not in all_keys]
    if unknown:
        raise RequestError(
            f"{unknown[0]} is not an option of {', '.join(labels)}; "
            f"{did_you_mean(unknown[0], all_keys)}"
        )
    return config.task.name, norms


def _panels(measured: Portrait) -> Iterator[Panel]:
    """Yield a panel for each part of the outputs, in training without a mask.

    A part is a group of outputs that depend on the same kind of inputs. Its panel shows
    one of these outputs.
    """
    train = measured.footprints[0]  # training without a mask is measured first
    for part in train.either.parts:
        yield Panel(
            title=measured.norm.label,
            words=str(part),
            spatial=measured.shape[2:],
            output=part.output,
            value=train.value.entries[part.output],
            gradient=train.gradient.entries[part.output],
        )
