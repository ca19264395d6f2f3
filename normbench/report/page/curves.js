// Charts of the explorer: a metric of cells over a key, and curves of runs.

const MAX_SINGLE_RUNS = 200;

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
      cell.low,
      cell.high,
    ]),
  }));
  const chart = lineChart(dashed(lines), {
    title: `${state.metric} by ${by[xIndex]}: mean of the runs that are ok, with its 95 % interval`,
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

// Draw a curve of the chosen cells or runs, or of all runs in the table: a line is the
// mean of a group of runs.
function drawCurves(context) {
  const { runs, state, parts } = context;
  const groups = curveGroups(context);
  const names = runs.curveNames(groups.flatMap((group) => group.runs));
  if (!names.length) {
    parts.curves.replaceChildren(panel("Curves", none("This page has no curves of these runs.")));
    return;
  }
  if (!names.includes(state.curve)) {
    state.curve = names.find((name) => /^train.*loss$/.test(name)) ?? names[0];
  }
  const curvesOf = (group) => group.runs.map((run) => runs.curve(run, state.curve)).filter((curve) => curve.length);
  const drawn = groups.map((group) => ({ ...group, curves: curvesOf(group) })).filter((group) => group.curves.length);
  const means = drawn
    .map(({ label, colour, curves }) => ({ label: `${label} (${numberOf(curves)})`, colour, points: band(runs, curves) }))
    .filter((line) => line.points.length);
  const chart = lineChart([...(state.singleRuns ? singleRuns(drawn) : []), ...dashed(means)], {
    title: `${state.curve}: mean of the runs with its 95 % interval`,
    width: parts.table.clientWidth,
    xLabel: "step",
    yLabel: state.curve,
    logY: state.logY,
  });
  parts.curves.replaceChildren(
    panel("Curves", curveControls(context, names), chart, ...curveNotes(context, groups, drawn)),
  );
}

function curveNotes({ runs, state }, groups, drawn) {
  const chosen = state.chosen[state.view].size;
  const notes = [];
  if (!chosen) notes.push(`These are all runs of the table. Choose ${state.view} in the table to draw only those.`);
  const mixed = mixedKeys(runs, groups, state.view === "cells" && chosen ? cellKeys(state) : ["task", "norm"]);
  if (mixed.length) notes.push(`Some lines have runs that differ in ${mixed.join(", ")}: filter the runs, or choose cells.`);
  const missing = groups.length - drawn.length;
  if (missing) notes.push(`${missing} of the ${groups.length} lines have no such curve.`);
  if (state.singleRuns && drawn.flatMap((group) => group.curves).length > MAX_SINGLE_RUNS) {
    notes.push(`Only the first ${MAX_SINGLE_RUNS} single runs are drawn.`);
  }
  return notes.map(small);
}

// The groups of runs that are lines: the chosen cells, or other runs by task and norm.
function curveGroups(context) {
  const { runs, state } = context;
  if (state.view === "cells" && state.chosen.cells.size) return chosenCells(context);
  const members = state.chosen[state.view].size ? [...state.chosen.runs] : shownRuns(context);
  const by = ["task", "norm"].filter((key) => key === "norm" || runs.varies(key, members));
  const groups = inOrder(cellsOf(runs, members, by, state.metric), (group) => group.id, false);
  return groups.map((group) => ({
    runs: group.runs,
    label: cellName(by, group),
    colour: cellColour(runs, by, group),
  }));
}

// A thin line for each run, without an entry in the legend.
function singleRuns(groups) {
  return groups
    .flatMap(({ curves, colour, label }) => curves.map((points) => ({ points, colour, label: `${label}, one run`, quiet: true })))
    .slice(0, MAX_SINGLE_RUNS);
}

function numberOf(curves) {
  return curves.length === 1 ? "1 run" : `${count(curves.length)} runs`;
}

// The chosen cells as groups of runs.
function chosenCells(context) {
  const { runs, state } = context;
  const by = cellKeys(state);
  return currentCells(context)
    .filter((cell) => state.chosen.cells.has(cell.id))
    .map((cell) => ({
      runs: cell.runs,
      label: cellName(by, cell),
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
  const single = checkbox(state.singleRuns, (checked) => {
    state.singleRuns = checked;
    update("curves");
  });
  return controls(labelled("Curve", curve), inline(single, "single runs"), inline(log, "logarithmic scale"));
}
