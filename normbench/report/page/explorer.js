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
  const state = {
    conditions: withoutTuning(runs),
    view: "cells",
    sort: { runs: { key: "run_id", descending: false }, cells: { key: "mean", descending: false } },
    chosen: { runs: new Set(), cells: new Set() },
    curve: null,
    singleRuns: false,
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
  const show = (mine) => {
    chooseSource(context, mine);
    place.replaceChildren(parts.filter, message, parts.table, parts.curves, parts.compare);
    update();
  };
  if (runs.mine.length) show(true);
  else offerOthers(runs, place, () => show(false));
}

// A reader without runs can ask for those of the verdicts.
function offerOthers(runs, place, show) {
  const message = none("You have no runs yet: ");
  message.append(element("code", {}, "normbench train"), " makes one.");
  place.replaceChildren(message, controls(button(`Show the ${count(runs.size)} runs of verdicts`, show)));
}

// Show the reader's runs, or all runs, with the columns and the metric that suit them.
function chooseSource({ runs, state }, mine) {
  const among = mine ? runs.mine : runs.all;
  const metrics = primaryMetrics(runs, among);
  const columns = DEFAULT_COLUMNS.filter((key) => runs.varies(key, among));
  Object.assign(state, {
    mine,
    page: 0,
    // At most three primary metrics are columns from the start.
    columns: [...columns, ...metrics.slice(0, 3)],
    by: padded(DEFAULT_CELL_KEYS.filter((key) => runs.varies(key, among) && !repeats(runs, key, among))),
    metric: metrics[0] ?? [...runs.metrics.keys()][0] ?? "",
  });
  for (const chosen of Object.values(state.chosen)) chosen.clear();
}

// Whether a key has the same value as batch_size in all runs, as norm_batch often has.
function repeats(runs, key, among) {
  return key === "norm_batch" && among.every((run) => runs.value(run, key) === runs.value(run, "batch_size"));
}

// The primary metrics of some runs, the most frequent first.
function primaryMetrics(runs, among) {
  const counts = new Map();
  for (const run of among) {
    const name = runs.value(run, "primary_metric");
    if (runs.metrics.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
}

// The filter from the start: a reader who wants the runs of tuning seeds removes it.
function withoutTuning(runs) {
  const tuned = runs.distinct("seed").some((seed) => seed >= FIRST_TUNING_SEED);
  return tuned ? [{ key: "seed", operator: "<", text: String(FIRST_TUNING_SEED) }] : [];
}

// The runs of the chosen source, and those of them that match the filters.
function candidates({ runs, state }) {
  return state.mine ? runs.mine : runs.all;
}

function shownRuns(context) {
  return matching(context.runs, context.state.conditions, candidates(context));
}

// The first keys, with NO_KEY for each control that is left.
function padded(keys) {
  return GROUPS.map((_, i) => keys[i] ?? NO_KEY);
}

function cellKeys(state) {
  return state.by.filter((key) => key !== NO_KEY);
}

function currentCells(context) {
  const { runs, state } = context;
  return cellsOf(runs, shownRuns(context), cellKeys(state), state.metric);
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
