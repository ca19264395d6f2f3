"""Fixtures of the tests of the report in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_made import OpenPage, launched, opening, write_report
from pages_made import write_remarks, write_small, write_style, write_verdict
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with opening(browser) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of sixteen runs, two of them with pictures, and a verdict."""
    folder = tmp_path_factory.mktemp("small")
    write_small(folder / "runs")
    write_style(folder / "runs", 80, "group", "red")
    write_style(folder / "runs", 81, "rms", "blue")
    claims = folder / "claims"
    verdict = write_verdict(claims)
    write_remarks(claims, verdict)
    # Its run would be in the page too.
    (claims / verdict.claim / "records.jsonl.gz").unlink()
    return write_report(folder, claims)
