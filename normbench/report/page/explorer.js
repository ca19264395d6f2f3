// The explorer: filters, a table of runs or of cells, curves, and two runs side by side.
// `state` is one object, and `update` redraws the parts that it names, or all.

const MAX_CHOSEN = 24;
const DEFAULT_COLUMNS = ["status", "claim", "task", "norm", "batch_size", "norm_batch", "lr", "seed"];
const DEFAULT_CELL_KEYS = ["task", "norm", "batch_size", "norm_batch", "lr"];
// Runs of these seeds and above chose a learning rate: `verdicts/seeds.py`.
const FIRST_TUNING_SEED = 1000;
const NO_KEY = "";
const GROUPS = ["Cells by", "then by", "and by"];
const DRAW = { filter: drawFilter, table: drawTable, curves: drawCurves, compare: drawCompare };

function explorer(runs, place) {
  // At most three primary metrics are columns from the start.
  const metrics = runs.distinct("primary_metric").filter((name) => runs.metrics.has(name)).slice(0, 3);
  const state = {
    conditions: withoutTuning(runs),
    view: "runs",
    columns: [...DEFAULT_COLUMNS.filter((key) => runs.varies(key)), ...metrics],
    sort: { runs: { key: "run_id", descending: false }, cells: { key: "mean", descending: false } },
    page: 0,
    chosen: { runs: new Set(), cells: new Set() },
    by: padded(DEFAULT_CELL_KEYS.filter((key) => runs.varies(key))),
    metric: metrics[0] ?? [...runs.metrics.keys()][0] ?? "",
    curve: null,
    logY: false,
    columnsOpen: false,
    pair: [NaN, NaN],
    onlyDifferences: true,
  };
  const parts = Object.fromEntries(Object.keys(DRAW).map((name) => [name, element("div")]));
  const message = element("p", { className: "small", role: "status" });
  const update = (...names) => {
    for (const name of names.length ? names : Object.keys(DRAW)) DRAW[name](context);
  };
  const context = { runs, state, parts, message, update };
  place.replaceChildren(parts.filter, message, parts.table, parts.curves, parts.compare);
  update();
}

// The filter from the start: a reader who wants the runs of tuning seeds removes it.
function withoutTuning(runs) {
  const tuned = runs.distinct("seed").some((seed) => seed >= FIRST_TUNING_SEED);
  return tuned ? [{ key: "seed", operator: "<", text: String(FIRST_TUNING_SEED) }] : [];
}

// The first keys, with NO_KEY for each control that is left.
function padded(keys) {
  return GROUPS.map((_, i) => keys[i] ?? NO_KEY);
}

function cellKeys(state) {
  return state.by.filter((key) => key !== NO_KEY);
}

function currentCells({ runs, state }) {
  return cellsOf(runs, matching(runs, state.conditions), cellKeys(state), state.metric);
}

function cellName(by, cell) {
  const names = by.map((key, i) => {
    const value = cell.values[i];
    return typeof value === "string" ? value : `${key} ${asText(value)}`;
  });
  return names.join(", ") || "all runs";
}

function cellColour(runs, by, cell) {
  return runs.colour(by.includes("norm") ? cell.values[by.indexOf("norm")] : null);
}
