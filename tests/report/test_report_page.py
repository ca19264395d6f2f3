"""The report in a browser; the tests fail if no browser is installed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_made import (
    OpenPage,
    add_filter,
    choose_two_runs,
    column,
    launched,
    open_details,
    opening,
    show_cells,
    slider,
    write_report,
)
from pages_made import (
    IMAGE_TAG,
    QUOTES,
    SCRIPT_TAG,
    norm,
    write_hostile,
    write_remarks,
    write_run,
    write_small,
    write_style,
    write_verdict,
)
from playwright.sync_api import Browser, expect

from normbench.records import query, store
from normbench.verdicts.seeds import FIRST_TUNING_SEED

ROOT = Path(__file__).parents[2]
NO_VALUE = "\N{EN DASH}"
PHONE = {"width": 360, "height": 740}
METRICS = ("test/error", "test/loss", "val/error", "val/loss", "train/loss")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with opening(browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
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


def test_filters_match_the_command_line(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    records, _ = store.all_records(report.parent / "runs")
    for conditions in (
        ["norm=batch"],
        ["norm!=batch"],
        ["batch_size<=8", "status=ok"],
        ["test/error>0.08"],
        ["optimizer.nesterov=true"],
        ["diverged_at=null"],
        ["test/error!=0.05"],
    ):
        for condition in conditions:
            match = query.CONDITION.fullmatch(condition)
            assert match is not None
            add_filter(page, *match.group("key", "sign", "text"))
        matches = query.matching(records, conditions)
        status = f"{len(matches)} of {len(records)} runs"
        expect(page.locator("#explorer [role=status]")).to_have_text(status)
        run_ids = sorted(record.run_id for record in matches)
        assert column(page, "run_id") == run_ids != [], conditions
        for _ in conditions:
            page.get_by_role("button", name="Remove the filter").first.click()
        assert len(column(page, "run_id")) == len(records)
    add_filter(page, "norm", "<", "batch")  # refused: the value is not a number
    expect(page.get_by_role("button", name="Remove the filter")).to_have_count(0)


def test_runs_of_tuning_seeds_are_filtered_out_at_first(
    tmp_path: Path, open_page: OpenPage
) -> None:
    script = ROOT / "normbench" / "report" / "page" / "explorer.js"
    assert f"FIRST_TUNING_SEED = {FIRST_TUNING_SEED};" in script.read_text()
    for seed, error in ((0, 0.1), (1, 0.3), (FIRST_TUNING_SEED, 0.8)):
        write_run(tmp_path / "runs", seed, metrics={"test/error": error})
    page = open_page(write_report(tmp_path, tmp_path / "claims"))
    status = page.locator("#explorer [role=status]")
    expect(status).to_have_text("2 of 3 runs")
    show_cells(page)
    assert (column(page, "n"), column(page, "mean")) == (["2"], ["0.2000"])
    page.get_by_role("button", name="Remove the filter seed < 1000").click()
    expect(status).to_contain_text("3 of 3 runs")
    assert column(page, "n") == ["3"]


def test_headings_sort_and_keys_are_columns(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    head = page.get_by_role("button", name="test/error", exact=True)
    head.click()
    numbers = [float(text) for text in column(page, "test/error") if text != NO_VALUE]
    assert numbers == sorted(numbers)
    expect(head).to_be_focused()
    expect(page.get_by_role("columnheader", name="test/error")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.keyboard.press("Enter")
    shown = column(page, "test/error")
    assert [float(text) for text in shown if text != NO_VALUE] == numbers[::-1]
    assert shown[-1] == NO_VALUE  # runs without a value are last in both directions
    page.get_by_text("Columns: config keys").click()
    box = page.get_by_role("checkbox", name="optimizer.weight_decay")
    box.check()
    assert set(column(page, "optimizer.weight_decay")) == {"0.0005"}
    box.uncheck()
    heads = page.get_by_role("columnheader", name="optimizer.weight_decay")
    expect(heads).to_have_count(0)


def test_chosen_runs_are_drawn_and_compared(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    # Two runs are left, one of "batch" and one of "group".
    add_filter(page, "batch_size", "=", "2")
    add_filter(page, "status", "=", "ok")
    add_filter(page, "norm", "!=", "instance")
    add_filter(page, "norm", "!=", "layer_sample")
    choose_two_runs(page)
    chart = slider(page, r"^train\/batch_loss")
    chart.hover(position={"x": 70, "y": 90})
    readout = page.locator(".readout")
    for text in ("step 1", "batch", "1.9"):
        expect(readout).to_contain_text(text)
    chart.focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    values = chart.get_attribute("aria-valuetext") or ""
    assert values.startswith("step 3; ")
    assert values.count("not finite") == 2
    page.get_by_text("Values as a table").click()
    table = page.get_by_role("table", name=re.compile(r"^train\/batch_loss"))
    expect(table).to_be_visible()

    table = page.get_by_role("table", name=re.compile("^Config and metrics"))
    keys = table.locator("tbody th").all_inner_texts()
    assert keys == ["run_id", "norm", "test/error"]
    row = table.get_by_role("row", name=re.compile(r"^test\/error"))
    *values_shown, difference = row.locator("td").all_inner_texts()
    assert sorted(values_shown) == ["0.05", "0.06"]
    assert difference.lstrip("-\N{MINUS SIGN}") == "0.01"
    page.get_by_label("only differences").uncheck()
    assert len(table.locator("tbody th").all_inner_texts()) > 40


def test_cells_have_means_and_ranges(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    show_cells(page)
    page.get_by_label("and by").select_option("")
    page.get_by_label("then by").select_option("")
    page.get_by_label("Cells by").select_option("norm")
    page.get_by_label("Metric", exact=True).select_option("test/error")
    add_filter(page, "norm", "=", "batch")
    assert column(page, "norm") == ["batch"]
    named = ("n", "mean", "min", "max", "failures", "without")
    assert [column(page, name) for name in named] == [
        ["3"], ["0.0700"], ["0.0500"], ["0.0900"], ["1"], ["0"],
    ]  # fmt: skip
    assert "have runs that differ in batch_size" in page.locator("#runs").inner_text()
    page.get_by_label("then by").select_option("batch_size")
    assert column(page, "batch_size") == ["2", "8", "32"]
    chart = slider(page, r"^test\/error by batch_size")
    chart.focus()
    page.keyboard.press("Home")
    values = chart.get_attribute("aria-valuetext")
    assert values == "batch_size 2; batch: 0.05 (0.05 to 0.05)"
    page.get_by_label("Choose batch, batch_size 2").check()
    expect(slider(page, "of the chosen cells")).to_be_visible()


def test_parts_have_a_headline_a_finding_and_a_scope(
    report: Path, open_page: OpenPage
) -> None:
    page = open_page(report)
    for place in (".verdicts", "#claim-padding-tokens"):
        parts = page.locator(f"{place} .part")
        expect(parts).to_have_count(3)
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
    viewer = page.locator(".viewer")
    expect(viewer.locator("output")).to_have_text("group")
    before = viewer.locator(".chosen").get_attribute("src")
    viewer.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("output")).to_have_text("rms")
    after = viewer.locator(".chosen").get_attribute("src") or ""
    assert after.startswith("data:image/webp") and after != before

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
    open_details(page)
    choose_two_runs(page)
    scroll_width = "document.documentElement.scrollWidth"
    assert page.evaluate(scroll_width) == PHONE["width"]
    show_cells(page)
    assert page.evaluate(scroll_width) == PHONE["width"]
    for part in page.locator(".verdicts .part").all():
        box = part.bounding_box()
        assert box is not None and box["width"] > PHONE["width"] / 2
    page.locator(".verdicts .badge").first.scroll_into_view_if_needed()
    for badge in page.locator(".verdicts .badge").all():
        box = badge.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= PHONE["width"]


def test_markup_in_values_is_text(tmp_path: Path, open_page: OpenPage) -> None:
    write_hostile(tmp_path / "runs", tmp_path / "claims")
    page = open_page(write_report(tmp_path, tmp_path / "claims"))
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.title().startswith("normbench")
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
    expect(page.get_by_role("status")).to_have_text("10,000 of 10,000 runs")
    add_filter(page, "norm", "=", "group")
    expect(page.get_by_role("status")).to_have_text("2,000 of 10,000 runs")
    add_filter(page, "batch_size", "<", "3")
    assert set(column(page, "norm")) == {"group"}
    show_cells(page)
    assert column(page, "batch_size") == ["1", "2"]
    page.get_by_label(re.compile("^Choose .*batch_size 2")).check()
    expect(slider(page, "of the chosen cells")).to_be_visible()
