"""docs/json.md has every command with --json, and the keys that it prints."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from comparisons_made import a_comparison
from conftest import Command
from documents import ROOT
from pydantic import TypeAdapter
from rankings_made import a_ranking, an_arm
from records_made import A_RECORD, with_errors, written
from typer.core import TyperGroup
from verdicts_made import rich_verdict
from watch_made import a_manifest, grid

from normbench.cli import app
from normbench.config.schema import RunConfig, RunRecord
from normbench.models.finding import Finding
from normbench.norms.measure.cost import Cost
from normbench.sweeps.manifest import Announcement
from normbench.training.catalogue import Facts
from normbench.verdicts.conditions import Condition
from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.differences import Difference
from normbench.verdicts.preferences import Standing
from normbench.verdicts.ranking import RankedArm, Ranking
from normbench.verdicts.recommendation import Comparison as Pair
from normbench.verdicts.recommendation import Evidence, Recommendation
from normbench.verdicts.summaries import CellSummary, CrossoverVerdict, Estimate
from normbench.verdicts.verdict import (
    ContrastVerdict,
    DesignVerdict,
    PartVerdict,
    TheoremVerdict,
    Verdict,
)

OBJECTS: dict[str, Any] = {
    "Run record": RunRecord,
    "Config": RunConfig,
    "Verdict": Verdict,
    "Part": PartVerdict,
    "Theorem": TheoremVerdict,
    "Census rule": CensusVerdict,
    "Design": DesignVerdict,
    "Cell": CellSummary,
    "Contrast": ContrastVerdict,
    "Estimate": Estimate,
    "Crossover": CrossoverVerdict,
    "Ranking": Ranking,
    "Ranked arm": RankedArm,
    "Finding": Finding,
    "Recommendation": Recommendation,
    "Pair of norms": Pair,
    "Evidence": Evidence,
}
"""The sections below "Objects", and the types of these objects."""


@dataclass(frozen=True)
class Section:
    """A section of the page: its keys, its example, and the object that it prints."""

    keys: frozenset[str]
    example: str
    prints: str | None
    """The name of the section of the object, if the first sentence links to it."""
    is_list: bool


def read(text: str) -> Iterator[tuple[str, Section]]:
    """Yield the name of each section, and the section."""
    for part in text.split("\n### ")[1:]:
        name, _, body = part.split("\n## ")[0].partition("\n")
        rows = re.findall(r"^\| (`.*?) \| .+ \|$", body, re.MULTILINE)
        keys = [key for row in rows for key in re.findall(r"`([^`]+)`", row)]
        assert len(keys) == len(set(keys)), name
        example = re.search(r"^```text\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
        first = body.strip().partition("\n\n")[0]
        link = re.search(r"\[[^]]+\]\(#([a-z-]+)\)", first)
        anchors = {each.lower().replace(" ", "-"): each for each in OBJECTS}
        anchors["findings"] = "Finding"
        yield (
            re.sub(r"^normbench | ([A-Z]+|\d+)$", "", name.strip("`")),
            Section(
                frozenset(keys),
                example[1] if example else "",
                anchors.get(link[1]) if link else None,
                first.startswith("A list"),
            ),
        )


PAGE = dict(read((ROOT / "docs" / "json.md").read_text(encoding="utf-8")))


def with_json(command: Any, path: str = "") -> Iterator[str]:
    """Yield the names of all commands with the option --json."""
    if isinstance(command, TyperGroup):
        for name, each in command.commands.items():
            yield from with_json(each, f"{path} {name}".strip())
    elif any("--json" in parameter.opts for parameter in command.params):
        yield path


def test_every_command_with_json_has_a_section() -> None:
    commands = {*with_json(typer.main.get_command(app))}
    assert len(commands) > 15
    assert commands <= PAGE.keys()
    options = {name for name in PAGE if " --" in name or name == "list norms"}
    assert PAGE.keys() == commands | options | OBJECTS.keys()
    for name, section in PAGE.items():
        assert section.example or name in OBJECTS, name


def test_the_objects_have_exactly_these_keys() -> None:
    for name, kind in OBJECTS.items():
        fields = getattr(kind, "model_fields", None) or kind.__dataclass_fields__
        assert PAGE[name].keys == set(fields), name


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def a_recommendation() -> Recommendation:
    return Recommendation(
        task="images",
        asked=Condition(batch_size=2, samples_per_statistic=2),
        default=False,
        names={"norm=batch": "BatchNorm"},
        pairs=[],
        standings={"norm=batch": Standing("undecided", (), (), ())},
        sensitivity=[],
        runs=[],
        gaps=[],
        experiment=None,
        notes=[],
    )


def a_page(*_: object) -> tuple[SimpleNamespace, list[Path]]:
    Path("report.html").touch()
    packed = SimpleNamespace(thinned=0, unreadable=[])
    gallery = SimpleNamespace(left_out=0, unreadable=[])
    return SimpleNamespace(packed=packed, gallery=gallery), [Path("a.svg")]


RACE = a_comparison(
    ranking=a_ranking(an_arm("norm=batch", "best", 0.0), an_arm("a", "worse", 0.1))
)
NETWORK = ("--model", "timm:test_resnet", "--input", "2,3,32,32")
TRAINS = {"normbench.training.experiment.run_one": returning(A_RECORD)}
COMPARE = ("compare", "--arm", "norm=batch", "--arm", "norm=group")
RECOMMEND = {
    "normbench.cli.recommend._recommendations": returning([a_recommendation()])
}
GROUP = {"num_groups": 8, "group_size": None, "eps": 1e-5, "affine": True}
SMALL = ("task=cnn", "norm=batch,group")
CALLS: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "train": (("train",), TRAINS),
    "config": (("config", "norm=group"), {}),
    "list": (("list", "budgets"), {}),
    "list norms": (
        ("list", "norms", "group"),
        {
            "normbench.training.catalogue.catalogue": returning(
                [Facts(name="group", description="", tasks=[], options=GROUP)]
            )
        },
    ),
    "sweep": (
        ("sweep", *SMALL),
        {"normbench.sweeps.round.Rounds.run": returning({"": A_RECORD})},
    ),
    "sweep --dry-run": (("sweep", *SMALL, "--dry-run"), {}),
    "watch": (("watch",), {}),
    "status": (("status",), {}),
    "rerun": (("rerun", A_RECORD.run_id), TRAINS),
    "compare": (
        COMPARE,
        {
            "normbench.cli.compare._compared": returning(a_comparison([0.1] * 8)),
            "normbench.cli.compare.save": returning([]),
        },
    ),
    "compare --minutes": (
        (*COMPARE, "--minutes", "1"),
        {
            "normbench.cli.compare._compared": returning(RACE),
            "normbench.cli.compare.save": returning([]),
        },
    ),
    "results": (("results",), {}),
    "results --by": (("results", "--by", "norm"), {}),
    "show": (("show", A_RECORD.run_id), {}),
    "plot": (
        ("plot", "--by", "norm"),
        {"normbench.report.figures.drawing.save": returning([Path("a.svg")])},
    ),
    "report": (
        ("report",),
        {
            "normbench.report.page.material.gather": returning(
                SimpleNamespace(damaged=[], claims=[], records=[])
            ),
            "normbench.report.page.document.write": a_page,
        },
    ),
    "stylize": (
        ("stylize", A_RECORD.run_id, "a.jpg"),
        {
            "normbench.training.stylization.stylize_files": returning([Path("a.png")]),
        },
    ),
    "recommend": (
        ("recommend", "--task", "images", *NETWORK),
        RECOMMEND,
    ),
    "footprint": (("footprint", "batch"), {}),
    "bench norms": (
        ("bench", "norms", "rms"),
        {
            "normbench.norms.measure.cost.measure_all": returning(
                [Cost("rms", "tokens")]
            )
        },
    ),
    "claim list": (("claim", "list"), {}),
    "claim show": (("claim", "show", "rms-layer"), {}),
    "claim check": (
        ("claim", "check", "rms-layer"),
        {
            "normbench.claims.check.prepare": returning(None),
            "normbench.cli.check._checked": returning(rich_verdict()),
        },
    ),
    "claim check --from-records": (
        ("claim", "check", "rms-layer", "--from-records"),
        {
            "normbench.claims.saved.judge_again": returning(
                (rich_verdict(), [Difference("a", 1, 2)])
            ),
            "normbench.verdicts.remarks.with_remarks": lambda verdict, _: verdict,
        },
    ),
    "doctor": (
        ("doctor",),
        {"normbench.sweeps.doctor.examine": returning([Finding("ok", "a", "b")])},
    ),
    "doctor --model": (("doctor", *NETWORK, "--swap", "norm=group"), {}),
    "dashboard": (
        ("dashboard",),
        {"normbench.verdicts.folders.judged_claims": returning([])},
    ),
}
"""Section -> the arguments of the command, and what is replaced to train nothing."""


def expected_keys(documented: Iterable[str], value: Any, prefix: str = "") -> set[str]:
    """Return the keys of `value`, as deep as `documented` keys are."""
    first = value[0] if isinstance(value, list) else value
    keys = set()
    for key, item in first.items():
        stands_for = "KEY" if key == "norm" and f"{prefix}KEY" in documented else key
        path = f"{prefix}{stands_for}"
        keys.add(path)
        if item and any(each.startswith(f"{path}.") for each in documented):
            keys |= expected_keys(documented, item, f"{path}.")
    return keys


def all_keys(value: Any) -> set[str]:
    """Return the keys of all objects in `value`."""
    if isinstance(value, list):
        return {key for item in value for key in all_keys(item)}
    if not isinstance(value, dict):
        return set()
    return {*value}.union(*map(all_keys, value.values()))


def test_commands_print_the_keys_on_the_page(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "results" / "runs"
    for record in (A_RECORD, *with_errors("group", [0.1, 0.2])):
        written(runs, record)
    one_claim = {"rms-layer": ROOT / "configs" / "claim" / "rms-layer.yaml"}
    assert CALLS.keys() == PAGE.keys() - OBJECTS.keys()
    with Announcement(runs) as announcement:
        announcement.publish(a_manifest(*grid(norm=["batch", "group"], seed=[0])))
        for name, (words, replaced) in CALLS.items():
            with monkeypatch.context() as patch:
                for target, function in replaced.items():
                    patch.setattr(target, function)
                if name == "claim list":
                    patch.setattr(
                        "normbench.config.choices.choices", returning(one_claim)
                    )
                printed = json.loads(invoke(*words, "--json").stdout)
            check(name, printed)


def check(name: str, printed: Any) -> None:
    """Require that a section describes `printed`, and that its example is like it."""
    section = PAGE[name]
    assert isinstance(printed, list) == section.is_list, name
    assert printed, name
    if section.prints is not None:
        adapter = TypeAdapter[Any](OBJECTS[section.prints])
        for item in printed if section.is_list else [printed]:
            extra = {key.partition(".")[0] for key in section.keys}
            plain = {key: item[key] for key in item if key not in extra}
            assert {*plain} == PAGE[section.prints].keys, name
            assert extra == item.keys() - plain.keys(), name
            adapter.validate_json(json.dumps(plain))
    else:
        assert expected_keys(section.keys, printed) == section.keys, name
    shown = re.findall(r'"([a-z_]+)":', section.example)
    assert {*shown} <= all_keys(printed) | {"layers"}, name
