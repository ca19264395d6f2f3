// The explorer's comparison of two runs, side by side.

function drawCompare(context) {
  const { state, parts } = context;
  const heading = "Two runs side by side";
  const chosen = [...state.chosen.runs];
  if (state.view === "cells") {
    parts.compare.replaceChildren();
  } else if (chosen.length < 2) {
    const hint = "Choose two runs in the table to compare their configs and metrics.";
    parts.compare.replaceChildren(panel(heading, none(hint)));
  } else {
    if (!state.pair.every((run) => chosen.includes(run))) state.pair = chosen.slice(0, 2);
    const comparison = scrollBox("Comparison", compareTable(context, ...state.pair));
    parts.compare.replaceChildren(panel(heading, compareControls(context, chosen), comparison));
  }
}

function compareControls({ runs, state, update }, chosen) {
  const choice = (label, position) => {
    const others = chosen.filter((run) => run !== state.pair[1 - position]).map(String);
    const change = (value) => {
      state.pair[position] = Number(value);
      update("compare");
    };
    const name = (run) => runs.value(Number(run), "run_id");
    return labelled(label, select(others, String(state.pair[position]), change, name));
  };
  const only = checkbox(state.onlyDifferences, (checked) => {
    state.onlyDifferences = checked;
    update("compare");
  });
  return controls(choice("First run", 0), choice("Second run", 1), inline(only, "only differences"));
}

function compareTable({ runs, state }, first, second) {
  const rows = runs.keys
    .map((key) => ({ key, a: runs.value(first, key), b: runs.value(second, key) }))
    .filter(({ a, b }) => a !== null || b !== null)
    .map((row) => ({ ...row, same: JSON.stringify(row.a) === JSON.stringify(row.b) }));
  const same = rows.filter((row) => row.same).length;
  const kept = state.onlyDifferences ? rows.filter((row) => !row.same) : rows;
  const heads = ["Key", runs.value(first, "run_id"), runs.value(second, "run_id"), "Second minus first"];
  return table(
    `Config and metrics of both runs; ${same} of ${rows.length} keys have equal values`,
    heads.map((text, i) => element("th", { scope: "col", className: i === 3 ? "n" : "" }, text)),
    kept.map((row) => {
      const numbers = typeof row.a === "number" && typeof row.b === "number" && runs.metrics.has(row.key);
      return element(
        "tr",
        { className: row.same ? "same" : "" },
        element("th", { scope: "row" }, row.key),
        element("td", {}, asText(row.a)),
        element("td", {}, asText(row.b)),
        element("td", { className: "n" }, numbers ? numberText(row.b - row.a) : ""),
      );
    }),
    "runs",
  );
}
