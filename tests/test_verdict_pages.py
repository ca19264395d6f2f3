"""README.md and results/README.md have the verdicts as scripts/write_results does."""

import runpy
from pathlib import Path

import pytest
from verdicts_made import rich_verdict

from normbench.report import words

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_results"))


def test_the_committed_pages_have_the_committed_verdicts() -> None:
    for path, text in SCRIPT["pages"]().items():
        assert path.read_text() == text, "run scripts/write_results"


def test_a_verdict_replaces_the_answer_of_its_row_alone() -> None:
    verdict = rich_verdict().model_copy(update={"summary": "It is so."})
    other = "| [A.](docs/claims/a.md) | - | no verdict yet | - |"
    readme = f"# X\n{other}\n| [B.](docs/claims/b.md) | - | - |\n"
    scope = SCRIPT["scope"](verdict)
    changed = SCRIPT["with_answers"](readme, {"b": verdict})
    assert changed.splitlines()[:2] == ["# X", other]
    row = f"(docs/claims/b.md) | {verdict.answer} | It is so. | {scope} |\n"
    assert changed.endswith(row)


def test_each_part_has_its_headline_finding_and_scope(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    verdict = rich_verdict()
    section = SCRIPT["section"]
    monkeypatch.setitem(section.__globals__, "CLAIMS", tmp_path)
    name = "group-compromise"
    repeated = verdict.model_copy(update={"first_seed": 1000})
    (tmp_path / name).mkdir()
    file = tmp_path / name / "verdict.seeds-1000.json"
    file.write_text(repeated.model_dump_json())
    text = "\n".join(section({name: verdict}, [name, "larger-rates"]))
    page = "\n".join(SCRIPT["on_page"](verdict))
    assert f"Headlines: {words.headlines(verdict)}." in text
    for part in verdict.parts:
        assert f"- **{words.headline(part)}**: *{part.sentence}*" in page
        assert f"Scope: {part.scope}." in page
        for line in words.findings(part, verdict):
            assert line in page
        shown = words.headline(part)
        assert f"| {part.sentence} | {shown} | {shown} |" in text
    assert "No verdict yet." in text
    assert "| claim | part | seeds 0, 1, .. | from seed 1000 |" in text
