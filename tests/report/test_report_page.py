"""The report in a browser; the tests fail if no browser is installed."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_made import (
    OpenPage,
    add_filter,
    choose_two_runs,
    column,
    open_details,
    show_cells,
    show_runs,
    slider,
    write_report,
)
from pages_made import (
    IMAGE_TAG,
    QUOTES,
    SCRIPT_TAG,
    norm,
    write_hostile,
    write_run,
)
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
NO_VALUE = "\N{EN DASH}"
PHONE = {"width": 360, "height": 740}
METRICS = ("test/error", "test/loss", "val/error", "val/loss", "train/loss")


def test_parts_have_a_headline_a_finding_and_a_scope(
    report: Path, open_page: OpenPage
) -> None:
    page = open_page(report)
    row = page.locator(".verdicts tr").nth(1)
    expect(row).to_contain_text("Partly.")
    claim = page.locator("#claim-padding-tokens")
    expect(claim.locator(".answer")).to_contain_text("Partly.")
    expect(claim.locator(".headlines .badge")).to_have_count(3)
    parts = claim.locator(".part")
    expect(parts.first).not_to_be_visible()
    row.get_by_role("link").click()  # opens the details
    expect(parts.first).to_be_visible()
    page.get_by_role("button", name="Open all details").click()
    page.get_by_role("button", name="Close all details").click()
    expect(parts.first).not_to_be_visible()
    page.evaluate("location.hash = 'claim-padding-tokens-confounds'")
    expect(parts).to_have_count(3)
    expect(parts.first).to_be_visible()
    texts = (" ".join(text.split()) for text in parts.all_inner_texts())
    first, second, third = texts
    assert first.startswith("\N{PLUS-MINUS SIGN} holds in part a is better than b.")
    assert " theorem, confirmed: It is 0. " in first
    assert " made_up, a against b (clear): lower by " in first
    assert first.endswith(" for made-up runs")
    finding = r"a has \u2212[\d.]+ % \[\u2212.*\] errors\."
    sentence = r"holds a has ten per cent fewer errors\."
    assert re.search(rf" {sentence} {finding} for runs$", second)
    assert third.endswith(
        " withdrawn Nobody knows. withdrawn: The data were mixed up. for nothing"
    )
    estimates = page.get_by_text("Estimates with other learning rates")
    expect(estimates).to_have_count(2)
    line = page.get_by_text("a against b (clear), tuned by one seed:")
    expect(line).not_to_be_visible()
    estimates.nth(1).click()
    expect(line).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible(report: Path, open_page: OpenPage, theme: str) -> None:
    page = open_page(report, theme)
    show_runs(page)
    add_filter(page, "status", "=", "ok")
    choose_two_runs(page)
    open_details(page)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    show_cells(page)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_gallery_theme_and_printing_work(report: Path, open_page: OpenPage) -> None:
    page = open_page(report, "light")
    sheet = page.locator(".sheet")
    heads = sheet.locator("thead th").all_inner_texts()
    assert [head.split("\n")[0] for head in heads] == [
        "Content",
        "Style",
        "group",
        "rms",
    ]
    expect(sheet.get_by_role("img")).to_have_count(2 * 4)
    src = sheet.get_by_role("img").first.get_attribute("src") or ""
    assert src.startswith("data:image/webp")
    expect(page.locator("#gallery")).to_contain_text("These pictures have 8 pixels")

    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)))

    assert brightness() == 3 * 255
    page.get_by_label("Dark").check()
    assert brightness() < 3 * 60
    page.get_by_label("Auto").check()
    assert brightness() == 3 * 255

    # Printing opens all details, and closes them again.
    folded = page.locator("#claims details:not([open])")
    assert folded.count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.count() > 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_phone_never_scrolls_sideways(report: Path, open_page: OpenPage) -> None:
    page = open_page(report, size=PHONE)
    contents = page.locator(".contents details")
    expect(contents).not_to_have_attribute("open", "")  # folded on a phone
    open_details(page)
    show_runs(page)
    choose_two_runs(page)
    scroll_width = "document.documentElement.scrollWidth"
    assert page.evaluate(scroll_width) == PHONE["width"]
    show_cells(page)
    assert page.evaluate(scroll_width) == PHONE["width"]
    page.locator(".headlines .badge").first.scroll_into_view_if_needed()
    for badge in page.locator(".headlines .badge, .contents a").all():
        box = badge.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= PHONE["width"]


def test_markup_in_values_is_text(tmp_path: Path, open_page: OpenPage) -> None:
    write_hostile(tmp_path / "runs", tmp_path / "claims")
    page = open_page(write_report(tmp_path, tmp_path / "claims"))
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.title().startswith("normbench")
    open_details(page)
    show_runs(page)
    body = page.locator("body").inner_text()
    for text in (IMAGE_TAG, SCRIPT_TAG, QUOTES, "<img src=x onerror=alert(1)>"):
        assert text in body
    page.get_by_text("Columns: config keys").click()
    page.get_by_role("checkbox", name="data.note").check()
    assert QUOTES in column(page, "data.note")
    assert IMAGE_TAG in column(page, "norm")
    add_filter(page, "norm", "=", IMAGE_TAG)
    assert column(page, "norm") == [IMAGE_TAG]
    page.get_by_role("button", name="Remove the filter").click()
    choose_two_runs(page)
    expect(page.get_by_role("table", name=re.compile("^Config and"))).to_be_visible()
    show_cells(page)
    assert page.locator("img").count() == 0
    assert page.title().startswith("normbench")


@pytest.mark.slow
def test_ten_thousand_runs_stay_usable(tmp_path: Path, open_page: OpenPage) -> None:
    losses: list[float | None] = [1 / (1 + i) + (i * 7919 % 13) / 97 for i in range(60)]
    names = ["batch", "group", "instance", "layer_sample", "rms"]
    for number in range(10_000):
        noise = number * 7919 % 10_007 / 10_007
        write_run(
            tmp_path / "runs",
            number,
            config={
                "norm": norm(names[number % 5]),
                "batch_size": 2 ** (number % 7),
                "seed": number // 35,  # below those of tuning seeds
            },
            metrics={name: noise + i for i, name in enumerate(METRICS)},
            losses=[noise + (loss or 0) for loss in losses],
        )
    file = write_report(tmp_path, tmp_path / "claims")
    assert file.stat().st_size < 5 * 2**20
    page = open_page(file)
    expect(page.get_by_role("status")).to_contain_text("10,000 of 10,000 runs")
    add_filter(page, "norm", "=", "group")
    expect(page.get_by_role("status")).to_contain_text("2,000 of 10,000 runs")
    show_runs(page)
    add_filter(page, "batch_size", "<", "3")
    assert set(column(page, "norm")) == {"group"}
    show_cells(page)
    assert column(page, "batch_size") == ["1", "2"]
    page.get_by_label(re.compile("^Choose .*batch_size 2")).check()
    expect(slider(page, "mean of the runs with its 95 % interval")).to_be_visible()
