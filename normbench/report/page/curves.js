// Charts of the explorer: a metric of cells over a key, and curves of chosen runs or cells.

// A chart of the metric over the first key that has several values, all numbers. Cells
// with equal values of the other keys are one line.
function cellChart({ runs, state, parts }, cells, by) {
  const present = cells.filter((cell) => cell.n);
  const xIndex = by.findIndex((_, i) => {
    const values = new Set(present.map((cell) => cell.values[i]));
    return values.size > 1 && [...values].every((value) => typeof value === "number");
  });
  if (xIndex < 0) return [];
  const withoutX = (values) => values.filter((_, i) => i !== xIndex);
  const groups = Map.groupBy(present, (cell) => JSON.stringify(withoutX(cell.values)));
  const lines = [...groups.values()].slice(0, MAX_CHOSEN).map((members) => ({
    label: cellName(withoutX(by), { values: withoutX(members[0].values) }),
    colour: cellColour(runs, by, members[0]),
    points: inOrder(members, (cell) => cell.values[xIndex], false).map((cell) => [
      cell.values[xIndex],
      cell.mean,
      cell.min,
      cell.max,
    ]),
  }));
  const chart = lineChart(dashed(lines), {
    title: `${state.metric} by ${by[xIndex]}: mean of the runs that are ok, with a band from minimum to maximum`,
    width: parts.table.clientWidth,
    xLabel: by[xIndex],
    yLabel: state.metric,
    logX: present.every((cell) => cell.values[xIndex] > 0),
  });
  const hidden = groups.size - lines.length;
  return hidden > 0 ? [chart, small(`${hidden} more lines are not drawn. Filter the runs to see them.`)] : [chart];
}

// Give lines of the same colour different dashes.
function dashed(lines) {
  const counts = new Map();
  return lines.map((line) => {
    const count = counts.get(line.colour) ?? 0;
    counts.set(line.colour, count + 1);
    return { ...line, dash: DASHES[count % DASHES.length] };
  });
}

function drawCurves(context) {
  const { runs, state, parts } = context;
  const ofRuns = state.view === "runs";
  const groups = ofRuns ? chosenRuns(context) : chosenCells(context);
  const names = runs.curveNames(groups.flatMap((group) => group.runs));
  if (!names.length) {
    const hint = groups.length
      ? "This page has no curves of the chosen runs."
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
  const subject = ofRuns ? "runs" : "cells: mean, with a band from minimum to maximum";
  const chart = lineChart(dashed(lines), {
    title: `${state.curve} of the chosen ${subject}`,
    width: parts.table.clientWidth,
    xLabel: "step",
    yLabel: state.curve,
    logY: state.logY,
  });
  const missing = groups.length - lines.length;
  const note = missing ? [small(`${missing} of the chosen ${ofRuns ? "runs" : "cells"} have no such curve.`)] : [];
  parts.curves.replaceChildren(panel("Curves", curveControls(context, names), chart, ...note));
}

// The chosen runs as groups of one run. A label has the norm and what differs.
function chosenRuns({ runs, state }) {
  const chosen = [...state.chosen.runs];
  const differing = DEFAULT_COLUMNS.filter(
    (key) => key !== "claim" && new Set(chosen.map((run) => runs.value(run, key))).size > 1,
  );
  const keys = [...new Set(["norm", ...differing])];
  return chosen.map((run) => {
    const values = keys.map((key) => runs.value(run, key));
    const label = `${cellName(keys, { values })} (${runs.value(run, "run_id").slice(0, 6)})`;
    return { runs: [run], label, colour: runs.colour(runs.value(run, "norm")) };
  });
}

// The chosen cells as groups of runs.
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
  return controls(labelled("Curve", curve), inline(log, "logarithmic scale"));
}
