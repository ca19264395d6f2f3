"""The schema of a claim's yaml, which is registered before the runs.

A claim is one sentence that people repeat, split into the parts that can be true or
false by themselves. Four kinds of statements bear on the parts: theorems (true by
algebra, checked on tensors), censuses (rules on the models of a library), mechanisms
(measured quantities) and outcomes (accuracy or loss after training). Mechanisms and
outcomes are designs with contrasts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from normbench.config.choices import choices
from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import explain
from normbench.system.untrusted import yaml_value
from normbench.verdicts.counting import CensusRule
from normbench.verdicts.design import STRICT, Bears, Design, check_bears

BudgetName = Literal["smoke", "quick", "full"]
BUDGETS: tuple[BudgetName, ...] = get_args(BudgetName)


class _Registered(BaseModel):
    model_config = STRICT


class Part(_Registered):
    """A part of the sentence of a claim that can be true or false by itself.

    `scope` says for what the runs stand, such as "14x14 digits, small CNN".
    """

    sentence: str
    scope: str


class Theorem(_Registered):
    """The name of a check in `normbench.claims.theorems`, and its tolerance.

    `bears` tells what the theorem says of the `part` of the claim.
    """

    check: str
    tolerance: Annotated[float, Field(ge=0)]
    part: str | None = None
    bears: Bears = "context"

    @model_validator(mode="after")
    def _check_bears(self) -> Self:
        check_bears(self.part, self.bears)
        return self


class SmallerBudget(_Registered):
    """The cells of a design that the smaller budgets run, with their contrasts.

    `overrides` come after the overrides of every cell and replace the values of equal
    keys. `data` are the data sets that remain (default: all).
    """

    cells: list[str] | None = None
    data: list[str] | None = None
    overrides: str = ""


class Claim(_Registered):
    """One sentence, its parts, its source, and the tests that decide the parts.

    `seen` says which runs the authors had seen before they wrote this yaml.
    """

    name: str
    statement: str
    source: str
    published: list[str] = []
    """What other papers found about the statement; printed beside the verdict."""
    confounds: Annotated[list[str], Field(min_length=1)]
    seen: list[str] = []
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    theorems: list[Theorem] = []
    mechanisms: dict[str, Design] = {}
    census: list[CensusRule] = []
    """Rules that decide from the counted models of torchvision and timm."""
    outcomes: dict[str, Design] = {}
    quick: dict[str, SmallerBudget] = {}
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        shared = self.mechanisms.keys() & self.outcomes.keys()
        if shared:
            raise ValueError(f"{', '.join(shared)} names a mechanism and an outcome")
        designs = {**self.mechanisms, **self.outcomes}
        if "census" in designs:
            raise ValueError("a design is called census; findings name rules so")
        for name, smaller in self.quick.items():
            if name not in designs:
                known = did_you_mean(name, designs)
                raise ValueError(f"quick: there is no {name!r}; {known}")
            for kind, names, registered in (
                ("cell", smaller.cells, designs[name].all_cells()),
                ("data set", smaller.data, list(designs[name].data)),
            ):
                for wrong in {*(names or ())} - {*registered}:
                    known = did_you_mean(wrong, registered)
                    raise ValueError(f"quick.{name}: no {kind} {wrong!r}; {known}")
        return self

    @model_validator(mode="after")
    def _check_bearings(self) -> Self:
        for name, count in Counter(rule.name for rule in self.census).items():
            if count > 1:
                raise ValueError(f"{count} census rules are called {name!r}")
        parts = [theorem.part for theorem in self.theorems]
        parts += [rule.part for rule in self.census]
        for design in (*self.mechanisms.values(), *self.outcomes.values()):
            parts += [contrast.part for contrast in design.contrasts]
        for part in parts:
            if part is not None and part not in self.parts:
                known = did_you_mean(part, self.parts)
                raise ValueError(f"part: there is no {part!r}; {known}")
        return self

    def designs(self) -> dict[str, Design]:
        """Return mechanisms and outcomes by name, each on one data set.

        If a design has data sets, there is one design NAME-DATA for each. Contrasts
        have one metric.
        """
        return {
            name: design
            for one in (self.mechanisms, self.outcomes)
            for name, design in _on_data_sets(one)
        }

    def mechanism_names(self) -> set[str]:
        """Return the names that mechanisms have in `designs`."""
        return {name for name, _ in _on_data_sets(self.mechanisms)}


def _on_data_sets(designs: Mapping[str, Design]) -> Iterator[tuple[str, Design]]:
    """Yield each design on each of its data sets, with one metric for each contrast."""
    for name, design in designs.items():
        design = design.model_copy(update={"contrasts": design.by_metric()})
        if not design.data:
            yield name, design
        for data in design.data:
            yield f"{name}-{data}", design.on(data)


def read_claim(name: str, config_dir: Path | None = None) -> Claim:
    """Return the claim `name`, from the package or from `config_dir`.

    Raises RequestError with the wrong key and its value.
    """
    known = choices("claim", config_dir)
    if name not in known:
        raise RequestError(f"claim {name!r} is unknown; {did_you_mean(name, known)}")
    try:
        claim = Claim(**yaml_value(known[name]))
    except (OSError, Unreadable, TypeError) as error:
        why = error.why if isinstance(error, Unreadable) else str(error)
        raise RequestError(f"{known[name]} cannot be read: {why}") from None
    except ValidationError as error:
        raise RequestError(f"{known[name]}:\n{explain(error)}") from None
    if claim.name != name:
        raise RequestError(f"{known[name]} is called {claim.name!r}; name it {name!r}")
    return claim


def registration_hash(claim: Claim) -> str:
    """Return a hash of the claim, 16 hex digits; any change of a value changes it.

    The hash leaves out every value that equals its default. So the hash of an older
    claim does not change if the schema gets a new key later.
    """
    plain = claim.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
