"""A report in a browser: opening it, and using its controls."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from typer.testing import CliRunner

from normbench.cli import app

ROOT = Path(__file__).parents[1]
DESKTOP = {"width": 1280, "height": 900}
OpenPage = Callable[..., Page]


@contextmanager
def launched() -> Iterator[Browser]:
    """Launch the browser that scripts/system names; fail if there is none."""
    command = [ROOT / "scripts" / "system", "--browser"]
    path = subprocess.run(command, capture_output=True, text=True)
    if path.returncode != 0:
        pytest.fail(path.stderr.strip(), pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path.stdout.strip())
        yield browser
        browser.close()


@contextmanager
def opening(browser: Browser) -> Iterator[OpenPage]:
    """Open files; at the end, fail if a page logged a message or made a request."""
    pages: list[Page] = []
    messages: list[str] = []
    requests: list[str] = []

    def open_page(file: Path, theme: str = "light", size: object = DESKTOP) -> Page:
        page = browser.new_page(viewport=size, color_scheme=theme)  # type: ignore[arg-type]  # a str
        pages.append(page)
        page.set_default_timeout(10_000)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        expect(page.locator("#loading")).to_have_count(0)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert messages == []
    urls = [url for url in requests if not url.startswith("data:")]
    assert len(urls) == len(pages)
    assert all(url.startswith("file://") for url in urls)


def write_report(folder: Path, claims: Path) -> Path:
    """Write the page of the runs in `folder` and of the verdicts in `claims` only."""
    output = folder / "report.html"
    claims.mkdir(exist_ok=True)
    arguments = ["--results", str(folder / "runs"), "--claims", str(claims)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normbench.verdicts.folders.package_claims", lambda: claims)
        # The files of figures take seconds; a page has its figures inside.
        patch.setattr("normbench.report.figures.drawing.save", lambda *_, **__: [])
        done = CliRunner().invoke(app, ["report", *arguments, "--output", str(output)])
    assert done.exit_code == 0, done.output
    return output


def add_filter(page: Page, key: str, operator: str, value: str) -> None:
    page.get_by_label("Show runs with").select_option(key)
    page.get_by_label("Condition").select_option(operator)
    page.get_by_label("Value", exact=True).fill(value)
    page.get_by_role("button", name="Add filter").click()


def column(page: Page, name: str) -> list[str]:
    """The texts of a column of the explorer's table."""
    table = page.locator("#explorer table").first
    heads = table.locator("thead th").all_inner_texts()
    (index,) = [i for i, head in enumerate(heads) if head.strip() == name]
    return table.locator(f"tbody tr > :nth-child({index + 1})").all_inner_texts()


def choose_two_runs(page: Page) -> None:
    for number in (0, 1):
        page.get_by_label(re.compile("^Choose [0-9a-f]{16}$")).nth(number).check()


def show_cells(page: Page) -> None:
    page.get_by_text("Cells: means of runs").click()


def show_runs(page: Page) -> None:
    page.locator("#explorer .tabs").get_by_text("Runs", exact=True).click()


def slider(page: Page, name: str) -> Locator:
    """The chart whose name matches a regular expression."""
    return page.get_by_role("slider", name=re.compile(name))


def open_details(page: Page) -> None:
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
