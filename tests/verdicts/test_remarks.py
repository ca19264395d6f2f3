"""Every view of a verdict shows the remarks on it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages_made import COMMITTED
from typer.testing import CliRunner, Result
from verdicts_made import with_defaults

from normbench.cli import app
from normbench.errors import RequestError
from normbench.report import dashboard, words
from normbench.report.figures import drawing
from normbench.report.figures.verdict import verdict_figures
from normbench.report.page import page
from normbench.report.page.material import gather
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.files import as_recorded, read_verdict
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import (
    Headline,
    Verdict,
    together,
)

NAME = "group-small-batch"
REASON = "A reason that no text repeats."
CONTRAST = "GroupNorm with WS against BatchNorm at 2"
CROSSOVER = "BatchNorm meets GroupNorm with WS"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one committed verdict, without its remarks."""
    folder = tmp_path / "claims" / NAME
    folder.mkdir(parents=True)
    shutil.copy(COMMITTED / NAME / "verdict.json", folder)
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
    where = ["--output", str(folder.parent)]
    return CliRunner().invoke(app, ["claim", *arguments, *where])


def test_a_withdrawn_part_withdraws_the_whole_unless_another_is_refuted() -> None:
    cases: list[tuple[list[Headline], Headline]] = [
        (["supported", "supported"], "supported"),
        (["supported", "withdrawn"], "withdrawn"),
        (["equivalent", "withdrawn"], "withdrawn"),
        (["inconclusive", "withdrawn"], "withdrawn"),
        (["withdrawn", "refuted"], "refuted"),
        ([], "not tested"),
    ]
    for parts, whole in cases:
        assert together(parts) == whole, parts


def test_a_design_is_withdrawn_with_its_contrasts_and_crossovers(folder: Path) -> None:
    verdict = remark(folder, withdrawn=[{"design": "norm_batch", "reason": REASON}])
    norm_batch, joint = verdict.outcomes
    assert (norm_batch.headline, joint.headline) == ("withdrawn", "supported")
    assert (verdict.shown_outcome, verdict.outcome) == ("withdrawn", "inconclusive")
    assert {c.headline for c in norm_batch.contrasts} == {"withdrawn"}
    assert [c.withdrawn for c in norm_batch.crossovers] == [REASON]
    assert {c.headline for c in joint.contrasts} != {"withdrawn"}
    row = words.table_row(verdict)
    assert row.outcome == "norm_batch: withdrawn, joint: supported"
    notice = words.withdrawals([verdict])
    assert notice == f"Withdrawn: {NAME} (norm_batch with its crossover). {REASON}"


def test_only_the_contrasts_that_are_named_are_withdrawn(folder: Path) -> None:
    withdrawn = {"design": "joint", "contrasts": [CONTRAST], "reason": REASON}
    joint = remark(folder, withdrawn=[withdrawn]).outcomes[1]
    headlines = {c.name: c.headline for c in joint.contrasts}
    assert headlines.pop(CONTRAST) == "withdrawn"
    assert "withdrawn" not in headlines.values()
    assert joint.headline == "withdrawn"  # the contrast is primary
    assert joint.reasons == {REASON: [CONTRAST]}

    other = {"design": "joint", "contrasts": ["interaction at 2"], "reason": REASON}
    joint = remark(folder, withdrawn=[other]).outcomes[1]
    assert joint.headline == "supported"  # the contrast is not primary

    crossing = {"design": "norm_batch", "contrasts": [CROSSOVER], "reason": REASON}
    norm_batch = remark(folder, withdrawn=[crossing]).outcomes[0]
    assert norm_batch.crossovers[0].withdrawn == REASON
    assert norm_batch.headline == norm_batch.decision


def test_a_refuted_design_decides_although_another_is_withdrawn(folder: Path) -> None:
    verdict = remark(folder, withdrawn=[{"design": "joint", "reason": REASON}])
    norm_batch = verdict.outcomes[0].model_copy(update={"decision": "refuted"})
    changes = {"outcomes": [norm_batch, verdict.outcomes[1]]}
    assert verdict.model_copy(update=changes).shown_outcome == "refuted"


def test_every_place_shows_what_is_withdrawn_and_what_was_found(folder: Path) -> None:
    verdict = remark(
        folder,
        withdrawn=[{"design": "joint", "reason": REASON}],
        findings={part: f"{part} finding" for part in ("statement", "theorem")},
    )
    claim = read_claim(NAME)
    material = gather(folder / "runs", folder.parent)
    assert "joint: withdrawn" in dashboard.verdict_table([verdict])
    for where, shown in {
        "terminal": verdict_text(verdict, 400),
        "claim list": cli(folder, "list").stdout,
        "claim show": cli(folder, "show", NAME).stdout,
        "page": page.render(material, {}, {}).html,
        "dashboard": dashboard.verdict_table([verdict]),
    }.items():
        # Columns of a table break sentences; a page puts a badge in between.
        assert REASON in " ".join(shown.split()), where
        assert "withdrawn" in shown, where
        for finding in verdict.findings.values():
            assert finding in " ".join(shown.split()), (where, finding)
    drawn = verdict_figures(verdict, claim)
    for name in ("joint", "joint-contrasts"):
        assert "withdrawn" in drawing.svg(drawn[name])
    assert f"withdrawn: {REASON}" in drawing.svg(drawn["joint"])
    assert "withdrawn" not in drawing.svg(drawn["norm_batch-contrasts"])


def test_withdrawn_contrasts_show_no_needed_seeds(folder: Path) -> None:
    before = remark(folder)
    assert "seeds would settle it" in verdict_text(before)
    designs = [{"design": d.name, "reason": REASON} for d in before.designs]
    after = remark(folder, withdrawn=designs)
    shown = verdict_text(after, 400)
    assert "would settle it" not in shown
    for contrast in after.outcomes[0].contrasts:
        assert f"{contrast.effect:+.4f}" in shown  # numbers stay in the details


def test_json_has_the_record_and_what_was_remarked(folder: Path) -> None:
    recorded = json.loads((folder / "verdict.json").read_text())
    verdict = remark(
        folder,
        withdrawn=[{"design": "joint", "reason": REASON}],
        findings={"theorem": "a finding"},
    )
    # What a check writes has no remarks.
    assert json.loads(as_recorded(verdict)) == with_defaults(recorded)
    (row,) = (
        r for r in json.loads(cli(folder, "list", "--json").stdout) if r["name"] == NAME
    )
    assert (recorded["outcome"], row["outcome"]) == ("inconclusive", "withdrawn")
    assert row["mechanism"] == recorded["mechanism"]
    assert row["withdrawn"] == [{"design": "joint", "contrasts": [], "reason": REASON}]
    assert row["findings"] == {"theorem": "a finding"}
    shown = json.loads(cli(folder, "show", NAME, "--json").stdout)["verdict"]
    assert shown["outcome"] == recorded["outcome"]
    assert shown["findings"] == {"theorem": "a finding"}
    reasons = [design["withdrawn"] for design in shown["outcomes"]]
    assert reasons == [None, REASON]
    for design, before in zip(shown["outcomes"], recorded["outcomes"], strict=True):
        for contrast, old in zip(design["contrasts"], before["contrasts"], strict=True):
            assert contrast.items() >= old.items()


def test_json_of_the_list_has_the_decisions_that_are_shown() -> None:
    """Of each committed verdict: theorem, mechanism, outcome, designs withdrawn."""
    listed = CliRunner().invoke(
        app, ["claim", "list", "--json", "--output", str(COMMITTED)]
    )
    shown = {}
    for row in json.loads(listed.stdout):
        for withdrawal in row["withdrawn"]:
            assert withdrawal.keys() == {"design", "contrasts", "reason"}, row["name"]
            assert withdrawal["reason"] and withdrawal["contrasts"] == [], row["name"]
        designs = [withdrawal["design"] for withdrawal in row["withdrawn"]]
        decisions = (row["theorem"], row["mechanism"], row["outcome"])
        shown[row["name"]] = (*decisions, designs)
    withdrawn = ["between", "adjacency", "real_adjacency"]
    assert shown == {
        "batch-default": ("supported", "not tested", "supported", []),
        "batch-size-dependence": ("supported", "inconclusive", "supported", []),
        "group-compromise": ("supported", "equivalent", "withdrawn", withdrawn),
        "group-small-batch": ("supported", "not tested", "withdrawn", ["norm_batch"]),
        "instance-classification": ("supported", "not tested", "supported", []),
        "instance-style-transfer": ("supported", "supported", "supported", []),
        "layernorm-axes": ("supported", "not tested", "withdrawn", ["images"]),
        "padding-tokens": ("supported", "supported", "equivalent", []),
    }


def test_remarks_of_another_registration_do_not_apply(folder: Path) -> None:
    withdrawn = [{"design": "joint", "reason": REASON}]
    verdict = remark(folder, registration="0" * 16, withdrawn=withdrawn)
    assert words.withdrawals([verdict]) == ""
    # Those of a full check say nothing about a quick one beside it.
    remark(folder, withdrawn=withdrawn)
    plain = json.loads((folder / "verdict.json").read_text()) | {"budget": "quick"}
    (folder / "verdict.quick.json").write_text(json.dumps(plain))
    quick = read_verdict(folder / "verdict.quick.json")
    assert quick is not None and words.withdrawals([quick]) == ""


def test_remarks_that_are_wrong_are_named(folder: Path) -> None:
    own = json.loads((folder / "verdict.json").read_text())["registration"]
    for remarks, message in (
        ("- joint", "valid dictionary"),
        ("{", "remarks.yaml cannot be read"),
        ("registration: OWN\nwithdrawal: []", "withdrawal"),
        ("registration: OWN\nfindings: {outcomes: a}", "outcomes"),
        ("registration: OWN\nwithdrawn: [{design: joint, reason: ''}]", "reason"),
        ("registration: OWN\nwithdrawn: [{design: joint}]", "reason"),
        (
            "registration: OWN\nwithdrawn: [{design: joints, reason: a}]",
            "there is no design 'joints'; did you mean 'joint'?",
        ),
        (
            "registration: OWN\n"
            "withdrawn: [{design: joint, contrasts: [interaction at 3], reason: a}]",
            "joint has no contrast 'interaction at 3'; did you mean 'interaction at 2'",
        ),
    ):
        (folder / "remarks.yaml").write_text(remarks.replace("OWN", own))
        with pytest.raises(RequestError, match=r"remarks\.yaml"):
            read_verdict(folder / "verdict.json")
        done = cli(folder, "list")
        assert done.exit_code == 2, remarks
        assert message in " ".join(done.stderr.split()), remarks
        assert "Traceback" not in done.stderr, remarks
