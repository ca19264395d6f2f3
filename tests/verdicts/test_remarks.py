"""Every view of a verdict shows the remarks on it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result
from verdicts_made import rich_verdict

from normbench.cli import app
from normbench.errors import RequestError
from normbench.report import dashboard, words
from normbench.report.page import page
from normbench.report.page.material import gather
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.files import as_recorded, read_verdict
from normbench.verdicts.verdict import Verdict

NAME = "padding-tokens"
REASON = "A reason that no text repeats."
FINDING = (
    "Runs of a have {made_up | a against b (clear)}, {how-digits | a against b | "
    "effect}, n {made_up | a against b (clear) | n}, p {made_up | a against b (clear) "
    "| p}, error {made_up | a@2 | test/error}, loss {made_up | a@2 | test/loss}."
)
COUNTED = "Of models, {census | some} have it."
NO_RULE = (
    ("{census | sone}", "no such census rule; did you mean 'some'"),
    ("{census | some | n}", "no such census rule"),
)


pytestmark = pytest.mark.usefixtures("no_package_verdicts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a full verdict without remarks."""
    folder = tmp_path / "claims" / NAME
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(as_recorded(rich_verdict()))
    return folder


def remark(folder: Path, **changes: Any) -> Verdict:
    """Write remarks on the verdict's registration, and read the verdict again."""
    plain = json.loads((folder / "verdict.json").read_text())
    remarks = {"registration": plain["registration"]} | changes
    (folder / "remarks.yaml").write_text(yaml.safe_dump(remarks))
    verdict = read_verdict(folder / "verdict.json")
    assert verdict is not None
    return verdict


def cli(folder: Path, *arguments: str) -> Result:
    where = ["--claims", str(folder.parent)]
    return CliRunner().invoke(app, ["claim", *arguments, *where])


def test_a_finding_has_numbers_in_its_places(folder: Path) -> None:
    better = remark(folder, findings={"better": FINDING}).parts[0]
    verdict = rich_verdict()
    (clear, *_) = verdict.outcomes[0].contrasts
    (relative, _) = verdict.mechanisms[0].contrasts
    assert clear.effect is not None and relative.effect is not None
    mean = next(c for c in verdict.outcomes[0].cells if c.cell == "a@2").mean
    assert f"have {100 * clear.effect:+.2f} points [" in better.finding
    assert f", {100 * (2.718281828459045**relative.effect - 1):+.1f} %," in (
        better.finding
    )
    assert f"n 12, p {clear.p_shown}" in better.finding
    assert f"error {100 * mean['test/error']:.2f} %" in better.finding
    assert better.finding.endswith(f"loss {mean['test/loss']:.4g}.")
    assert "{" not in better.finding


def test_a_summary_has_numbers_and_follows_the_answer(folder: Path) -> None:
    verdict = remark(folder, summary="Runs of a have {made_up | a@2 | test/error}.")
    (cells,) = [design.cells for design in verdict.designs if design.name == "made_up"]
    (mean,) = [cell.mean["test/error"] for cell in cells if cell.cell == "a@2"]
    assert mean is not None
    error = f"{100 * mean:.2f} %"
    assert verdict.summary == f"Runs of a have {error}."
    answer = f"{verdict.answer.capitalize()}. {verdict.summary}"
    assert words.short_answer(verdict) == answer
    assert answer in verdict_text(verdict, 500)
    plain = verdict.model_copy(update={"summary": ""})
    assert words.short_answer(plain) == f"{verdict.answer.capitalize()}."


@pytest.mark.parametrize(
    ("headlines", "answer"),
    [
        (["holds", "holds"], "yes"),
        (["holds", "not decided"], "partly"),
        (["holds in part"], "partly"),
        (["does not hold", "holds"], "partly"),
        (["does not hold", "not tested"], "no"),
        (["does not hold"], "no"),
        (["not decided", "not tested"], "not known"),
    ],
)
def test_the_answer_follows_from_the_headlines(
    headlines: list[str], answer: str
) -> None:
    verdict = rich_verdict()
    part = verdict.parts[0]
    parts = [part.model_copy(update={"headline": shown}) for shown in headlines]
    assert verdict.model_copy(update={"parts": parts}).answer == answer
    withdrawn = [*parts, part.model_copy(update={"withdrawn": "Wrong data."})]
    expected = "partly" if answer == "yes" else answer
    assert verdict.model_copy(update={"parts": withdrawn}).answer == expected


def test_a_finding_has_the_numbers_of_a_census_rule(folder: Path) -> None:
    better = remark(folder, findings={"better": COUNTED}).parts[0]
    assert better.finding.startswith("Of models, 1 of 3 models of torchvision 0.29.1,")
    for wrong, message in NO_RULE:
        with pytest.raises(RequestError, match=message):
            remark(folder, findings={"better": wrong})


def test_a_headline_is_withdrawn_with_its_reason(folder: Path) -> None:
    verdict = remark(folder, withdrawn={"better": REASON})
    better, size, _ = verdict.parts
    assert (better.shown, better.headline) == ("withdrawn", "holds in part")
    assert size.shown == size.headline == "holds"
    assert words.headline(better) == f"withdrawn ({REASON})"
    assert words.withdrawals([verdict]) == f"Withdrawn: {NAME}, better: {REASON}"


def test_every_view_shows_headline_finding_and_reason(folder: Path) -> None:
    verdict = remark(
        folder, withdrawn={"size": REASON}, findings={"better": "Words of a finding."}
    )
    material = gather(folder / "runs", folder.parent)
    for where, shown in {
        "terminal": verdict_text(verdict, 400),
        "claim show": cli(folder, "show", NAME).stdout,
        "page": page.render(material, {}, {}).html,
        "dashboard": dashboard.verdict_table([verdict]),
    }.items():
        text = " ".join(shown.split())
        assert REASON in text, where
        assert "withdrawn" in text.lower(), where
        assert "holds in part" in text.lower(), where
        assert "Words of a finding." in text, where
        assert "made-up runs" in text, where  # the scope
    listed = " ".join(cli(folder, "list").stdout.split())
    assert "better: holds in part" in listed


def test_json_has_the_record_and_what_was_remarked(folder: Path) -> None:
    recorded = json.loads((folder / "verdict.json").read_text())
    verdict = remark(folder, withdrawn={"size": REASON}, findings={"better": "Found."})
    # What a check writes has no remarks.
    assert json.loads(as_recorded(verdict)) == recorded
    (row,) = (
        r for r in json.loads(cli(folder, "list", "--json").stdout) if r["name"] == NAME
    )
    shown = json.loads(cli(folder, "show", NAME, "--json").stdout)["verdict"]
    for parts in (row["parts"], shown["parts"]):
        assert [part["withdrawn"] for part in parts] == [None, REASON, None]
        assert [part["finding"] for part in parts] == ["Found.", "", ""]
        headlines = [part["headline"] for part in recorded["parts"]]
        assert [part["headline"] for part in parts] == headlines


def test_remarks_of_another_registration_do_not_apply(folder: Path) -> None:
    verdict = remark(folder, registration="0" * 16, withdrawn={"size": REASON})
    assert words.withdrawals([verdict]) == ""
    # Those of a full check say nothing about a quick one beside it.
    remark(folder, withdrawn={"size": REASON})
    plain = json.loads((folder / "verdict.json").read_text()) | {"budget": "quick"}
    (folder / "verdict.quick.json").write_text(json.dumps(plain))
    quick = read_verdict(folder / "verdict.quick.json")
    assert quick is not None and words.withdrawals([quick]) == ""


def test_remarks_that_are_wrong_are_named(folder: Path) -> None:
    own = json.loads((folder / "verdict.json").read_text())["registration"]
    for remarks, message in (
        ("- joint", "valid dictionary"),
        ("{", "remarks.yaml cannot be read"),
        ("registration: OWN\nwithdrawal: {}", "withdrawal"),
        ("registration: OWN\nwithdrawn: {size: ''}", "size"),
        ("registration: OWN\nwithdrawn: {sise: a}", "did you mean 'size'"),
        ("registration: OWN\nfindings: {sise: a}", "no part 'sise'"),
        ("registration: OWN\nfindings_ko: {sise: a}", "no part 'sise'"),
        (
            'registration: OWN\nfindings: {size: "{a}"}',
            "{a} is not {DESIGN | CONTRAST}",
        ),
        (
            'registration: OWN\nfindings: {size: "{made_down | a@2 | test/error}"}',
            "no design 'made_down'; did you mean 'made_up'",
        ),
        (
            'registration: OWN\nfindings: {size: "{how-digits | a against c}"}',
            "no contrast or cell 'a against c'; did you mean 'a against b'",
        ),
        (
            'registration: OWN\nfindings: {size: "{how-digits | a against b | efect}"}',
            "no quantity 'efect'; did you mean 'effect'",
        ),
        (
            'registration: OWN\nfindings: {size: "{made_up | f against b (skipped)}"}',
            "the contrast has no effect",
        ),
        (
            'registration: OWN\nfindings: {size: "{made_up | a@2 | test/eror}"}',
            "no metric 'test/eror'; did you mean 'test/error'",
        ),
        (
            'registration: OWN\nfindings: {size: "{made_up | a@2}"}',
            "a cell needs a METRIC",
        ),
        (
            'registration: OWN\nfindings: {size: "It is {made_up | a@2."}',
            "has a { or } that belongs to no place",
        ),
    ):
        (folder / "remarks.yaml").write_text(remarks.replace("OWN", own))
        with pytest.raises(RequestError, match=r"remarks\.yaml"):
            read_verdict(folder / "verdict.json")
        done = cli(folder, "list")
        assert done.exit_code == 2, remarks
        assert message in " ".join(done.stderr.split()), remarks
        assert "Traceback" not in done.stderr, remarks


def test_a_place_cannot_reach_into_objects(folder: Path) -> None:
    for place in ("{verdict.__class__}", "{0.x}", "{made_up.name | a}"):
        with pytest.raises(RequestError, match=r"remarks\.yaml"):
            remark(folder, findings={"size": place})
