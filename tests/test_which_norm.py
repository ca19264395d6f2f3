"""docs/which-norm.md has the committed verdicts as scripts/write_which_norm does."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "write_which_norm"))


def test_the_page_is_that_of_the_verdicts(script: dict[str, Any]) -> None:
    page = script["page"](*script["committed"]())
    committed = script["PAGE"].read_text(encoding="utf-8")
    assert page == committed, "run scripts/write_which_norm"


@pytest.mark.slow
def test_check_compares_and_writes_nothing(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = script["main"]
    main(["--check"])
    monkeypatch.setitem(main.__globals__, "PAGE", tmp_path / "page.md")
    with pytest.raises(SystemExit, match="run scripts/write_which_norm"):
        main(["--check"])
    assert not (tmp_path / "page.md").exists()
    main([])
    main(["--check"])


def test_without_verdicts_the_page_has_no_order(script: dict[str, Any]) -> None:
    claims, _ = script["committed"]()
    page = script["page"](claims, {})
    assert "| norm |" not in page and "<details>" not in page
    assert page.count("There is no evidence") == len(script["SECTIONS"])
