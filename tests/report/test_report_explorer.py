"""The runs in the report, in a browser: filters, tables, curves and comparisons."""

import re
from pathlib import Path

from browser_made import (
    OpenPage,
    add_filter,
    choose_two_runs,
    column,
    show_runs,
    slider,
    write_report,
)
from pages_made import write_run, write_small, write_verdict
from playwright.sync_api import expect

from normbench.records import query, store
from normbench.verdicts.seeds import FIRST_TUNING_SEED

ROOT = Path(__file__).parents[2]
NO_VALUE = "\N{EN DASH}"
PHONE = {"width": 360, "height": 740}


def test_filters_match_the_command_line(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    show_runs(page)
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
    expect(status).to_have_text("2 of 3 runs, in 1 cells")
    assert (column(page, "n"), column(page, "mean")) == (["2"], ["0.2000"])
    page.get_by_role("button", name="Remove the filter seed < 1000").click()
    expect(status).to_contain_text("3 of 3 runs")
    assert column(page, "n") == ["3"]


def test_headings_sort_and_keys_are_columns(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    show_runs(page)
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
    show_runs(page)
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


def test_cells_have_means_and_intervals(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    means = [float(text) for text in column(page, "mean") if text != NO_VALUE]
    assert means == sorted(means) != []  # the first view
    page.get_by_label("and by").select_option("")
    page.get_by_label("then by").select_option("")
    page.get_by_label("Cells by").select_option("norm")
    page.get_by_label("Metric", exact=True).select_option("test/error")
    add_filter(page, "norm", "=", "batch")
    assert column(page, "norm") == ["batch"]
    (cell,) = query.cells(
        query.matching(store.all_records(report.parent / "runs")[0], ["norm=batch"]),
        ["norm"],
        ["test/error"],
    )
    for name in ("n", "mean", "low", "high", "sd", "failures"):
        value = cell.plain()[name]
        text = str(value) if isinstance(value, int) else f"{value:.4f}"
        assert column(page, name) == [text], name
    assert column(page, "without") == ["0"]
    assert "have runs that differ in batch_size" in page.locator("#runs").inner_text()
    page.get_by_label("then by").select_option("batch_size")
    assert column(page, "batch_size") == ["2", "8", "32"]
    chart = slider(page, r"^test\/error by batch_size")
    chart.focus()
    page.keyboard.press("Home")
    values = chart.get_attribute("aria-valuetext")
    assert values == "batch_size 2; batch: 0.05"
    page.get_by_label("Choose batch, batch_size 2").check()
    chart = slider(page, r"^train\/batch_loss: mean of the runs")
    expect(chart).to_be_visible()
    lines = page.locator("#explorer .panel .lines li")
    expect(lines).to_have_text(["batch, batch_size 2 (1 run)"])


def test_curves_are_means_by_norm_and_single_runs_on_demand(
    report: Path, open_page: OpenPage
) -> None:
    page = open_page(report)
    lines = page.locator("#explorer .panel .lines li")
    norms = ["batch", "group", "instance", "layer_sample"]
    expect(lines).to_have_text([f"cnn, {norm} (3 runs)" for norm in norms])
    assert page.locator("#explorer .band").count() == 4
    single = page.locator("#explorer .quiet")
    expect(single).to_have_count(0)
    page.get_by_label("single runs").check()
    expect(single).to_have_count(12)
    expect(lines).to_have_count(4)


def test_runs_of_verdicts_are_hidden_until_asked_for(
    tmp_path: Path, open_page: OpenPage
) -> None:
    claims = tmp_path / "claims"
    write_verdict(claims)
    page = open_page(write_report(tmp_path, claims))
    expect(page.locator("#explorer")).to_contain_text("You have no runs yet")
    page.get_by_role("button", name="Show the 1 runs of verdicts").click()
    expect(page.locator("#explorer [role=status]")).to_have_text(
        "1 of 1 runs, in 1 cells"
    )
    write_small(tmp_path / "runs")
    page = open_page(write_report(tmp_path, claims))
    status = page.locator("#explorer [role=status]")
    expect(status).to_contain_text("14 of 14 runs")
    page.get_by_text("Mine and those of verdicts (15)").click()
    expect(status).to_contain_text("15 of 15 runs")
    # The first column and that of the metric stay visible.
    page.set_viewport_size(PHONE)
    for where in ("0", "9999"):
        page.locator("#explorer .held").evaluate(f"box => box.scrollLeft = {where}")
        for cell in (
            page.locator("#explorer tbody tr").first.locator("th, .metric").all()
        ):
            box = cell.bounding_box()
            assert box is not None and 0 <= box["x"] <= PHONE["width"] - box["width"]
