// Charts of the explorer: a metric over a key of cells, and curves of what is chosen.

// The metric against the first numeric key of the cells, a line for each of the others.
function cellChart({ runs, state, parts }, cells, by) {
  const present = cells.filter((cell) => cell.n);
  const numeric = by.findIndex((_, i) => {
    const values = new Set(present.map((cell) => cell.values[i]));
    return values.size > 1 && [...values].every((value) => typeof value === "number");
  });
  if (numeric < 0) return [];
  const without = (values) => values.filter((_, i) => i !== numeric);
  const groups = Map.groupBy(present, (cell) => JSON.stringify(without(cell.values)));
  const lines = [...groups.values()].slice(0, MOST_CHOSEN).map((members) => ({
    label: cellName(without(by), { values: without(members[0].values) }),
    colour: cellColour(runs, by, members[0]),
    points: inOrder(members, (cell) => cell.values[numeric], false).map((cell) => [
      cell.values[numeric],
      cell.mean,
      cell.min,
      cell.max,
    ]),
  }));
  const chart = lineChart(dashed(lines), {
    title: `${state.metric} by ${by[numeric]}: mean of the runs that are ok, band from the least to the greatest`,
    width: parts.table.clientWidth,
    xLabel: by[numeric],
    yLabel: state.metric,
    logX: present.every((cell) => cell.values[numeric] > 0),
  });
  const left = groups.size - lines.length;
  return left > 0 ? [chart, small(`${left} more lines are not drawn; filter the runs.`)] : [chart];
}

// Lines of one colour are told apart by their dashes.
function dashed(lines) {
  const seen = new Map();
  return lines.map((line) => {
    const before = seen.get(line.colour) ?? 0;
    seen.set(line.colour, before + 1);
    return { ...line, dash: DASHES[before % DASHES.length] };
  });
}

function drawCurves(context) {
  const { runs, state, parts } = context;
  const ofRuns = state.view === "runs";
  const groups = ofRuns ? chosenRuns(context) : chosenCells(context);
  const names = runs.curveNames(groups.flatMap((group) => group.runs));
  if (!names.length) {
    const hint = groups.length
      ? "The chosen runs have no curves here: their histories are not in this page."
      : "Choose runs or cells in the table to draw their curves.";
    parts.curves.replaceChildren(panel("Curves", none(hint)));
    return;
  }
  if (!names.includes(state.curve)) {
    state.curve = names.find((name) => /^train.*loss$/.test(name)) ?? names[0];
  }
  const lines = groups
    .map(({ runs: members, label, colour }) => {
      const curves = members.map((run) => runs.curve(run, state.curve));
      return { label, colour, points: ofRuns ? curves[0] : band(curves) };
    })
    .filter((line) => line.points.length);
  const what = ofRuns ? "runs" : "cells: mean, and band from the least to the greatest run";
  const chart = lineChart(dashed(lines), {
    title: `${state.curve} of the chosen ${what}`,
    width: parts.table.clientWidth,
    xLabel: "step",
    yLabel: state.curve,
    logY: state.logY,
  });
  const missing = groups.length - lines.length;
  const note = missing ? [small(`${missing} of the chosen have no such curve here.`)] : [];
  parts.curves.replaceChildren(panel("Curves", curveControls(context, names), chart, ...note));
}

function chosenRuns({ runs, state }) {
  const chosen = [...state.chosen.runs];
  const differing = USUAL_COLUMNS.filter(
    (key) => key !== "claim" && new Set(chosen.map((run) => runs.value(run, key))).size > 1,
  );
  const keys = [...new Set(["norm", ...differing])];
  return chosen.map((run) => {
    const values = keys.map((key) => runs.value(run, key));
    const label = `${cellName(keys, { values })} (${runs.value(run, "run_id").slice(0, 6)})`;
    return { runs: [run], label, colour: runs.colour(runs.value(run, "norm")) };
  });
}

function chosenCells(context) {
  const { runs, state } = context;
  const by = cellKeys(state);
  return currentCells(context)
    .filter((cell) => state.chosen.cells.has(cell.id))
    .map((cell) => ({
      runs: cell.runs,
      label: `${cellName(by, cell)} (${cell.runs.length} runs)`,
      colour: cellColour(runs, by, cell),
    }));
}

function curveControls({ state, update }, names) {
  const curve = select(names, state.curve, (value) => {
    state.curve = value;
    update("curves");
  });
  const log = checkbox(state.logY, (checked) => {
    state.logY = checked;
    update("curves");
  });
  return controls(labelled("Curve", curve), inline(log, "logarithmic"));
}
