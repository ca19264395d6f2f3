"""A recommendation for the norms of the user's own network, for `recommend`."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normbench.report.text.recommendation import Section
    from normbench.verdicts.conditions import TaskKind
    from normbench.verdicts.recommendation import Recommendation


@dataclass(frozen=True)
class OwnNetwork:
    """The norms of a network, its task, and its batch size if it is known.

    `norms` maps each norm, as overrides, to the number of layers; "" counts layers
    whose function is unknown. `options` are the arguments of the factory, `shape` is
    the text of --input.
    """

    model: str
    options: Sequence[str]
    shape: str | None
    task: "TaskKind"
    batch_size: int | None
    norms: dict[str, int]


def own_network(
    model: str, options: Sequence[str], shape: str | None, modules: Sequence[str]
) -> OwnNetwork:
    """Import and build a network, and return its norms; nothing is computed.

    The task is that of the shape of an input: images (N, C, H, W), otherwise text.
    Without it, a network is for images if a norm has its channels in the second axis.
    Raises RequestError if the network cannot be built, or has no norm.
    """
    from normbench.cli.model import read_shape, read_values
    from normbench.errors import RequestError
    from normbench.models.layers import layers
    from normbench.models.loading import load, module_of
    from normbench.norms.groups import NUM_GROUPS
    from normbench.system.imports import import_modules

    sizes = None if shape is None else read_shape(shape)
    named = module_of(model)
    import_modules([*modules, *([named] if named else [])])
    network = load(model, read_values(options, "--model-options"))
    every = [layer for _, _, layer in layers(network)]
    if not every:
        raise RequestError(f"{model} has no normalization layer")
    norms: Counter[str] = Counter()
    for layer in every:
        groups = layer.options.get("num_groups", NUM_GROUPS)
        text = f" norm.num_groups={groups}" if groups != NUM_GROUPS else ""
        norms["" if layer.kind == "unknown" else f"norm={layer.kind}{text}"] += 1
    is_text = all(layer.channel_axis == -1 for layer in every)
    if sizes is not None:
        is_text = len(sizes) != 4
    task: TaskKind = "text" if is_text else "images"
    return OwnNetwork(
        model, options, shape, task, sizes[0] if sizes else None, dict(norms)
    )


def section(
    network: OwnNetwork, recommendation: "Recommendation"
) -> "Iterator[Section]":
    """Yield what the verdicts say of each norm of a network, and commands to try it."""
    from normbench.report.text.recommendation import Section

    items, best = [], ""
    for norm, count in network.norms.items():
        better = replacements(norm, recommendation)
        best = best or next(iter(better), "")
        items.append(_item(norm, count, better, recommendation))
    yield Section(
        f"The norms of {network.model}",
        "The verdicts are about the networks of the claims, not about this one.",
        items=items,
    )
    new = best or "norm=group norm.num_groups=auto"
    words = ["normbench doctor --model", network.model]
    words += [f"--model-options {shlex.quote(each)}" for each in network.options]
    words += [f"--input {network.shape or 'SHAPE'}"]
    words += [f"--swap {word}" for word in new.split()]
    yield Section(text="To see a swap, layer by layer:", command=" ".join(words))
    asked = recommendation.asked
    words = ["normbench compare task=module", f"task.model={network.model}"]
    words += [f"+task.model_options.{shlex.quote(each)}" for each in network.options]
    words += [f"batch_size={asked.batch_size}"]
    if asked.samples_per_statistic not in (None, asked.batch_size):
        words += [f"norm_batch={asked.samples_per_statistic}"]
    words += ["data=NAME --arm norm=keep --arm", shlex.quote(new)]
    yield Section(
        text="To compare the norms in this network, with your data set NAME:",
        command=" ".join(words),
    )


def replacements(norm: str, recommendation: "Recommendation") -> list[str]:
    """Return the norms that are better than a norm and can replace it in a network.

    `reparam` is not possible in a network of the user's own.
    """
    standing = recommendation.standings.get(norm)
    better = standing.worse_than if standing else ()
    return [other for other in better if "reparam=" not in other]


def as_plain(network: OwnNetwork, recommendation: "Recommendation") -> dict[str, Any]:
    """Return the norms of a network, and what replaces them, as data for JSON."""
    norms = {
        norm: {"layers": count, "better": replacements(norm, recommendation)}
        for norm, count in network.norms.items()
    }
    return {"model": network.model, "norms": norms}


def _item(
    norm: str, count: int, better: Sequence[str], recommendation: "Recommendation"
) -> str:
    """Return a sentence about the layers of one norm."""
    from normbench.verdicts.naming import usual_name

    layers = f"{count} layer{'s' if count > 1 else ''}"
    if not norm:
        return f"unknown norms, {layers}: no verdict is about them"
    start = f"{usual_name(norm, recommendation.task)}, {layers}: "
    names = [recommendation.names[other] for other in better]
    if names:
        return f"{start}replace it by {' or '.join(names)}, which was better"
    if norm not in recommendation.standings:
        return f"{start}no verdict compares it here"
    return f"{start}no verdict says that another norm is better here"
