"""Count models, or the modules that define them, by their most frequent category.

A model has layers of several categories. A module defines several models: ResNets of
all sizes are one module. The category of each is that of most of its layers or models.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NONE = "none"
"""The category of a model that has no such layer."""


class Tally(NamedTuple):
    """Numbers of models, or of modules, of each category.

    `certain` counts a model if most of its layers are of this category, and `possible`
    also if no other category has more layers. `tied` models are in `possible` only.
    `not_counted` models have an unknown category. Modules and their models count in the
    same way.
    """

    certain: Counter[str]
    possible: Counter[str]
    tied: int
    not_counted: int = 0

    @property
    def total(self) -> int:
        """The number that was counted, tied ones included."""
        return self.certain.total() + self.tied


def tally_models(
    models: Iterable[Mapping[str, int]],
    among: Iterable[str] | None = None,
    not_counted: int = 0,
) -> Tally:
    """Count each model, which is given as category -> number of layers, once.

    A model without layers has the category "none". With `among`, other categories are
    left out, and so are models that have no layer of these.
    """
    return _tally((_leaders(layers, among) for layers in models), not_counted)


def tally_modules(
    models: Mapping[str, Mapping[str, int]],
    failures: Iterable[str],
    modules: Mapping[str, str],
    among: Iterable[str] | None = None,
) -> Tally:
    """Count each module once, in the category that most of its models belong to.

    `models`: model -> category -> number of layers. `failures`: models that could not
    be counted. `modules`: model -> its module. A module is tied, or not counted, if its
    tied models and failures can change its category. `among`: as in `tally_models`.
    """
    by_module: dict[str, list[list[str]]] = defaultdict(list)
    for model, layers in models.items():
        if leaders := _leaders(layers, among):
            by_module[modules[model]].append(leaders)
    failed = Counter(modules[model] for model in failures)
    not_counted = 0
    all_leaders: list[list[str]] = []
    for module in by_module.keys() | failed.keys():
        certain: Counter[str] = Counter()
        possible: Counter[str] = Counter()
        for leaders in by_module[module]:
            possible.update(leaders)
            if len(leaders) == 1:
                certain.update(leaders)
        most = max(certain.values(), default=0)
        if failed[module] and failed[module] >= most:
            not_counted += 1  # the failures alone could be most of its models
            continue
        all_leaders.append(
            [c for c, number in possible.items() if number + failed[module] >= most]
        )
    return _tally(all_leaders, not_counted)


def _leaders(layers: Mapping[str, int], among: Iterable[str] | None) -> list[str]:
    """Return the categories of most layers, several if tied; [] if it is left out."""
    kept = None if among is None else set(among)
    numbers = {
        category: number
        for category, number in (layers or {NONE: 1}).items()
        if kept is None or category in kept
    }
    return [c for c, n in numbers.items() if n == max(numbers.values())]


def _tally(all_leaders: Iterable[Sequence[str]], not_counted: int) -> Tally:
    certain: Counter[str] = Counter()
    possible: Counter[str] = Counter()
    tied = 0
    for leaders in all_leaders:
        possible.update(leaders)
        if len(leaders) == 1:
            certain.update(leaders)
        elif leaders:
            tied += 1
    return Tally(certain, possible, tied, not_counted)
