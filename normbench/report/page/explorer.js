// The explorer: filters, a table of runs or of cells, curves, two runs side by side.
// Its state is one object; every change of it draws what depends on it anew.

const PAGE_ROWS = 50;
const MOST_CHOSEN = 24;
const USUAL_COLUMNS = ["status", "claim", "task", "norm", "batch_size", "norm_batch", "lr", "seed"];
const USUAL_CELLS = ["task", "norm", "batch_size", "norm_batch", "lr"];
const NO_KEY = "";
const GROUPS = ["Cells by", "then by", "and by"];
// The columns of a cell, and how each is written.
const NUMBERS = { n: shown, mean: aligned, sd: aligned, min: aligned, max: aligned, failures: shown, without: shown };

function explorer(runs, place) {
  const metrics = usualMetrics(runs);
  const state = {
    conditions: [],
    view: "runs",
    columns: [...USUAL_COLUMNS.filter((key) => runs.varies(key)), ...metrics],
    sort: { runs: { key: "run_id", descending: false }, cells: { key: "mean", descending: false } },
    page: 0,
    chosen: { runs: new Set(), cells: new Set() },
    by: usualCells(runs),
    metric: metrics[0] ?? [...runs.metrics.keys()][0] ?? "",
    curve: null,
    logY: false,
    columnsOpen: false,
    pair: [NaN, NaN],
    onlyDifferences: true,
  };
  const parts = Object.fromEntries(
    ["filter", "table", "curves", "compare"].map((name) => [name, element("div")]),
  );
  const said = element("p", { className: "small", role: "status" });
  const context = { runs, state, parts, said, update };
  function update(...changed) {
    const wanted = changed.length ? changed : Object.keys(DRAW);
    for (const name of wanted) DRAW[name](context);
  }
  place.replaceChildren(parts.filter, said, parts.table, parts.curves, parts.compare);
  update();
}

// What each part of the explorer shows, by its name.
const DRAW = {
  filter: drawFilter,
  table: (context) => (context.state.view === "runs" ? drawRuns : drawCells)(context),
  curves: drawCurves,
  compare: drawCompare,
};

// The primary metrics of the runs, at most three.
function usualMetrics(runs) {
  return runs.distinct("primary_metric").filter((name) => runs.metrics.has(name)).slice(0, 3);
}

function usualCells(runs) {
  const varying = USUAL_CELLS.filter((key) => runs.varies(key));
  return withEmpty(varying);
}

function withEmpty(keys) {
  return GROUPS.map((_, i) => keys[i] ?? NO_KEY);
}

// Filters.

function drawFilter(context) {
  const { runs, state, parts } = context;
  const key = select(runs.keys, runs.varies("norm") ? "norm" : "status");
  const operator = select(OPERATORS, "=");
  const values = element("datalist", { id: "values" });
  const text = element("input", { type: "text", autocomplete: "off", size: 14 });
  text.setAttribute("list", "values");
  const offer = () => {
    const options = runs.distinct(key.value).slice(0, 200);
    values.replaceChildren(...options.map((value) => element("option", { value: shown(value) })));
  };
  key.addEventListener("change", offer);
  offer();
  const form = element(
    "form",
    { className: "controls" },
    labelled("Show runs with", key),
    labelled("that is", operator),
    labelled("Value", text, values),
    element("button", { type: "submit" }, "Add filter"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = text.value.trim() !== "" && Number.isFinite(Number(text.value));
    const wrong = operator.value in ORDERED && !number;
    text.setCustomValidity(wrong ? "An order needs a number." : "");
    if (!form.reportValidity()) return;
    state.conditions.push({ key: key.value, operator: operator.value, text: text.value });
    changedFilter(context);
  });
  text.addEventListener("input", () => text.setCustomValidity(""));
  parts.filter.replaceChildren(form, chips(context), viewTabs(context));
}

function changedFilter(context) {
  context.state.page = 0;
  context.state.chosen.cells.clear();
  context.update();
}

function chips(context) {
  const { state } = context;
  const items = state.conditions.map((condition) => {
    const words = `${condition.key} ${condition.operator} ${condition.text}`;
    const remove = element("button", { type: "button" }, `${words} ×`);
    remove.setAttribute("aria-label", `Remove the filter ${words}`);
    remove.addEventListener("click", () => {
      state.conditions.splice(state.conditions.indexOf(condition), 1);
      changedFilter(context);
    });
    return element("li", {}, remove);
  });
  return element("ul", { className: "chips", "aria-label": "Filters" }, ...items);
}

function viewTabs(context) {
  const { state } = context;
  const tab = (view, words) => {
    const input = element("input", { type: "radio", name: "view", value: view });
    input.checked = state.view === view;
    input.addEventListener("change", () => {
      state.view = view;
      context.update("table", "curves", "compare");
    });
    return element("label", {}, input, words);
  };
  return element(
    "fieldset",
    { className: "tabs" },
    element("legend", {}, "What a row is"),
    tab("runs", "Runs"),
    tab("cells", "Cells: mean of runs"),
  );
}

// The table of runs.

function drawRuns(context) {
  const { runs, state, parts, said } = context;
  const { key, descending } = state.sort.runs;
  const found = inOrder(matching(runs, state.conditions), (run) => runs.value(run, key), descending);
  said.textContent = `${count(found.length)} of ${count(runs.size)} runs`;
  const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
  state.page = Math.min(state.page, pages - 1);
  const shownRuns = found.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS);
  const columns = ["run_id", ...state.columns.filter((column) => column !== "run_id")];
  const rows = shownRuns.map((run) =>
    element("tr", {}, pick(context, "runs", run, runs.value(run, "run_id")), ...runCells(runs, run, columns)),
  );
  const table = dataTable(
    `Runs ${count(state.page * PAGE_ROWS + 1)} to ${count(state.page * PAGE_ROWS + shownRuns.length)} of ${count(found.length)}; a heading sorts`,
    [headOfPicks(), ...columns.map((column) => sortable(context, "runs", column, isNumeric(runs, column)))],
    rows,
  );
  parts.table.replaceChildren(
    columnChoice(context),
    found.length ? scrollBox("Table of runs", table) : element("p", { className: "none" }, "No run is like that."),
    pager(context, pages),
    chosenControls(context, "runs", shownRuns),
  );
}

function runCells(runs, run, columns) {
  return columns.map((column, i) => {
    const value = runs.value(run, column);
    if (i === 0) return element("th", { scope: "row", className: "id" }, shown(value));
    const cell = element("td", { title: shown(value) });
    cell.classList.toggle("n", isNumeric(runs, column));
    if (column === "status") {
      cell.append(element("span", { className: `status ${value}` }, value));
    } else {
      cell.textContent = runs.metrics.has(column) ? aligned(value) : shown(value);
    }
    return cell;
  });
}

function headOfPicks() {
  const words = element("span", { className: "hidden" }, "Choose");
  return element("th", { scope: "col", className: "pick" }, words);
}

// A box that chooses a row, for curves and comparison.
function pick(context, view, id, name) {
  const chosen = context.state.chosen[view];
  const box = element("input", { type: "checkbox" });
  box.setAttribute("aria-label", `Choose ${name}`);
  box.checked = chosen.has(id);
  box.disabled = !box.checked && chosen.size >= MOST_CHOSEN;
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(id);
    else chosen.delete(id);
    keepFocus(() => context.update("table", "curves", "compare"));
  });
  return element("td", { className: "pick" }, box);
}

// Redrawing replaces the element that has the focus: give it to the one like it.
function keepFocus(redraw) {
  const label = document.activeElement?.getAttribute("aria-label");
  const text = document.activeElement?.textContent;
  redraw();
  if (label) document.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
  else if (text) [...document.querySelectorAll("#explorer button")].find((b) => b.textContent === text)?.focus();
}

function sortable(context, view, key, numeric) {
  const sort = context.state.sort[view];
  const button = element("button", { type: "button" }, key);
  button.addEventListener("click", () => {
    sort.descending = sort.key === key ? !sort.descending : false;
    sort.key = key;
    context.state.page = 0;
    keepFocus(() => context.update("table"));
  });
  const head = element("th", { scope: "col" }, button);
  head.classList.toggle("n", numeric);
  if (sort.key === key) {
    head.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
  }
  return head;
}

function isNumeric(runs, key) {
  return runs.metrics.has(key) || runs.distinct(key).every((value) => typeof value === "number");
}

function columnChoice(context) {
  const { runs, state } = context;
  const boxes = runs.keys
    .filter((key) => key !== "run_id")
    .map((key) => {
      const box = element("input", { type: "checkbox" });
      box.checked = state.columns.includes(key);
      box.addEventListener("change", () => {
        state.columns = box.checked
          ? [...state.columns, key]
          : state.columns.filter((column) => column !== key);
        context.update("table");
      });
      return element("label", {}, box, ` ${key}`);
    });
  const details = element(
    "details",
    { className: "more" },
    element("summary", {}, "Columns: any key of the config, any metric"),
    element("fieldset", { className: "choices" }, element("legend", { className: "hidden" }, "Columns"), ...boxes),
  );
  details.open = state.columnsOpen;
  details.addEventListener("toggle", () => (state.columnsOpen = details.open));
  return details;
}

function pager(context, pages) {
  const { state } = context;
  const step = (words, by) => {
    const button = element("button", { type: "button" }, words);
    button.disabled = state.page + by < 0 || state.page + by >= pages;
    button.addEventListener("click", () => {
      state.page += by;
      keepFocus(() => context.update("table"));
    });
    return button;
  };
  const place = element("span", { className: "small" }, `page ${state.page + 1} of ${pages}`);
  const buttons = [step("Previous page", -1), place, step("Next page", 1)];
  return element("div", { className: "controls", hidden: pages === 1 }, ...buttons);
}

function chosenControls(context, view, ids) {
  const chosen = context.state.chosen[view];
  const free = ids.filter((id) => !chosen.has(id)).slice(0, MOST_CHOSEN - chosen.size);
  const button = (words, disabled, act) => {
    const made = element("button", { type: "button", disabled }, words);
    made.addEventListener("click", () => {
      act();
      keepFocus(() => context.update("table", "curves", "compare"));
    });
    return made;
  };
  const more = chosen.size >= MOST_CHOSEN ? `, which is the most; cells sum up more` : "";
  return element(
    "div",
    { className: "controls" },
    element("span", { className: "small" }, `${chosen.size} chosen${more}`),
    button(`Choose ${free.length} of these`, !free.length, () => free.forEach((id) => chosen.add(id))),
    button("Choose none", !chosen.size, () => chosen.clear()),
  );
}

// The table of cells.

function drawCells(context) {
  const { runs, state, parts, said } = context;
  const by = state.by.filter((key) => key !== NO_KEY);
  const found = matching(runs, state.conditions);
  const cells = currentCells(context);
  said.textContent = `${count(found.length)} of ${count(runs.size)} runs, in ${count(cells.length)} cells`;
  const { key, descending } = state.sort.cells;
  const valueOf = (cell) => (by.includes(key) ? cell.values[by.indexOf(key)] : (cell[key] ?? null));
  const ordered = inOrder(cells, valueOf, descending);
  const pages = Math.max(1, Math.ceil(ordered.length / PAGE_ROWS));
  state.page = Math.min(state.page, pages - 1);
  const rowsShown = ordered.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS);
  const reach = extent(cells);
  const numbers = Object.keys(NUMBERS);
  const rows = rowsShown.map((cell) =>
    element(
      "tr",
      {},
      pick(context, "cells", cell.id, cellName(by, cell)),
      ...cell.values.map((value, i) => element(i ? "td" : "th", cellProperties(runs, by[i], i), shown(value))),
      element("td", {}, spread(cell, reach, cellColour(runs, by, cell))),
      ...numbers.map((name) => element("td", { className: "n" }, NUMBERS[name](cell[name]))),
    ),
  );
  const heads = [
    headOfPicks(),
    ...by.map((name) => sortable(context, "cells", name, isNumeric(runs, name))),
    element("th", { scope: "col" }, "min, mean, max"),
    ...numbers.map((name) => sortable(context, "cells", name, true)),
  ];
  const caption = `${state.metric}: over the n runs that are ok; without: ok, but the metric is missing or not finite`;
  parts.table.replaceChildren(
    cellControls(context),
    cells.length ? scrollBox("Table of cells", dataTable(caption, heads, rows)) : element("p", { className: "none" }, "No run is like that."),
    ...mixtureNote(runs, cells, by),
    pager(context, pages),
    chosenControls(context, "cells", rowsShown.map((cell) => cell.id)),
    ...cellChart(context, cells, by),
  );
}

// A mean over different experiments is not one of seeds: say in what they differ.
function mixtureNote(runs, cells, by) {
  const mixed = runs.experiment.filter(
    (key) =>
      !by.includes(key) &&
      runs.varies(key) &&
      cells.some((cell) => cell.runs.some((run) => !sameValue(runs, key, run, cell.runs[0]))),
  );
  if (!mixed.length) return [];
  const words = `There are cells whose runs differ in ${mixed.join(", ")}: choose with filters, or make cells by these.`;
  return [element("p", { className: "note" }, words)];
}

function sameValue(runs, key, a, b) {
  const { codes } = runs.facts.get(key);
  return codes === null || codes[a] === codes[b];
}

function cellProperties(runs, key, i) {
  const className = isNumeric(runs, key) ? "n" : "";
  return i ? { className } : { className, scope: "row" };
}

function currentCells({ runs, state }) {
  const by = state.by.filter((key) => key !== NO_KEY);
  return cellsOf(runs, matching(runs, state.conditions), by, state.metric);
}

function cellName(by, cell) {
  const words = by.map((key, i) => {
    const value = cell.values[i];
    return typeof value === "string" ? value : `${key} ${shown(value)}`;
  });
  return words.join(", ") || "all runs";
}

function cellColour(runs, by, cell) {
  const norm = by.includes("norm") ? cell.values[by.indexOf("norm")] : null;
  return runs.colour(norm);
}

function extent(cells) {
  const there = cells.filter((cell) => cell.n);
  return [Math.min(...there.map((cell) => cell.min)), Math.max(...there.map((cell) => cell.max))];
}

// A line from the least to the greatest value, with a tick at the mean.
function spread({ n, min, mean, max }, [low, high], colour) {
  const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 50);
  const made = svg("svg", {
    class: "spread",
    viewBox: "0 0 100 12",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
    focusable: "false",
  });
  if (n) {
    made.append(svg("path", { stroke: colour, d: `M${place(min)} 6H${place(max)}M${place(mean)} 1V11` }));
  }
  return made;
}

function cellControls(context) {
  const { runs, state } = context;
  const redraw = () => {
    state.page = 0;
    state.chosen.cells.clear();
    context.update("table", "curves");
  };
  const keys = [NO_KEY, ...runs.facts.keys()];
  const groups = state.by.map((key, i) => {
    const made = select(keys, key, (name) => name || "nothing more");
    made.addEventListener("change", () => {
      state.by[i] = made.value;
      const named = [...new Set(state.by.filter((name) => name !== NO_KEY))];
      state.by = withEmpty(named);
      redraw();
    });
    return labelled(GROUPS[i], made);
  });
  const metric = select([...runs.metrics.keys()], state.metric);
  metric.addEventListener("change", () => {
    state.metric = metric.value;
    redraw();
  });
  return element("div", { className: "controls" }, ...groups, labelled("Metric", metric));
}

// The metric against the first numeric key of the cells, a line for each of the others.
function cellChart({ runs, state, parts }, cells, by) {
  const numeric = by.findIndex((_, i) => {
    const values = new Set(cells.filter((cell) => cell.n).map((cell) => cell.values[i]));
    return values.size > 1 && [...values].every((value) => typeof value === "number");
  });
  if (numeric < 0) return [];
  const groups = Map.groupBy(
    cells.filter((cell) => cell.n),
    (cell) => JSON.stringify(cell.values.filter((_, i) => i !== numeric)),
  );
  const others = by.filter((_, i) => i !== numeric);
  const lines = [...groups.values()].slice(0, MOST_CHOSEN).map((members) => ({
    label: cellName(others, { values: members[0].values.filter((_, i) => i !== numeric) }),
    colour: cellColour(runs, by, members[0]),
    points: inOrder(members, (cell) => cell.values[numeric], false).map((cell) => [
      cell.values[numeric],
      cell.mean,
      cell.min,
      cell.max,
    ]),
  }));
  const above = cells.every((cell) => !cell.n || cell.values[numeric] > 0);
  const chart = lineChart(dashed(lines), {
    title: `${state.metric} by ${by[numeric]}: mean of the runs that are ok, band from the least to the greatest`,
    width: parts.table.clientWidth,
    xLabel: by[numeric],
    yLabel: state.metric,
    logX: above,
  });
  const left = groups.size - lines.length;
  const note = element("p", { className: "small" }, `${left} more lines are not drawn; filter the runs.`);
  return left > 0 ? [chart, note] : [chart];
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

// Curves of what is chosen.

function drawCurves(context) {
  const { runs, state, parts } = context;
  const groups = state.view === "runs" ? chosenRuns(context) : chosenCells(context);
  const names = runs.curveNames(groups.flatMap((group) => group.runs));
  const head = element("h3", {}, "Curves");
  if (!names.length) {
    const hint = groups.length
      ? "The chosen runs have no curves here: their histories are not in this page."
      : "Choose runs or cells in the table to draw their curves.";
    parts.curves.replaceChildren(panel(head, element("p", { className: "none" }, hint)));
    return;
  }
  if (!names.includes(state.curve)) {
    state.curve = names.find((name) => /^train.*loss$/.test(name)) ?? names[0];
  }
  const lines = groups.map((group) => {
    const curves = group.runs.map((run) => runs.curve(run, state.curve));
    return { label: group.label, colour: group.colour, points: state.view === "runs" ? curves[0] : band(curves) };
  });
  const without = lines.filter((line) => !line.points.length).length;
  const chart = lineChart(dashed(lines.filter((line) => line.points.length)), {
    title: state.view === "runs" ? `${state.curve} of the chosen runs` : `${state.curve} of the chosen cells: mean, and band from the least to the greatest run`,
    width: parts.table.clientWidth,
    xLabel: "step",
    yLabel: state.curve,
    logY: state.logY,
  });
  const note = without ? [element("p", { className: "small" }, `${without} of the chosen have no such curve here.`)] : [];
  parts.curves.replaceChildren(panel(head, curveControls(context, names), chart, ...note));
}

function panel(...children) {
  return element("section", { className: "panel" }, ...children);
}

function chosenRuns({ runs, state }) {
  const chosen = [...state.chosen.runs];
  const differing = USUAL_COLUMNS.filter(
    (key) => key !== "claim" && new Set(chosen.map((run) => runs.value(run, key))).size > 1,
  );
  const keys = [...new Set(["norm", ...differing])];
  return chosen.map((run) => {
    const values = keys.map((key) => runs.value(run, key));
    const id = runs.value(run, "run_id").slice(0, 6);
    return {
      runs: [run],
      label: `${cellName(keys, { values })} (${id})`,
      colour: runs.colour(runs.value(run, "norm")),
    };
  });
}

function chosenCells(context) {
  const { runs, state } = context;
  const by = state.by.filter((key) => key !== NO_KEY);
  return currentCells(context)
    .filter((cell) => state.chosen.cells.has(cell.id))
    .map((cell) => ({
      runs: cell.runs,
      label: `${cellName(by, cell)} (${cell.runs.length} runs)`,
      colour: cellColour(runs, by, cell),
    }));
}

function curveControls(context, names) {
  const { state } = context;
  const curve = select(names, state.curve);
  curve.addEventListener("change", () => {
    state.curve = curve.value;
    context.update("curves");
  });
  const log = element("input", { type: "checkbox", checked: state.logY });
  log.addEventListener("change", () => {
    state.logY = log.checked;
    context.update("curves");
  });
  const inline = element("label", { className: "inline" }, log, "logarithmic");
  return element("div", { className: "controls" }, labelled("Curve", curve), inline);
}

// Two runs side by side.

function drawCompare(context) {
  const { state, parts } = context;
  const chosen = [...state.chosen.runs];
  const head = element("h3", {}, "Two runs side by side");
  if (state.view === "cells") {
    parts.compare.replaceChildren();
  } else if (chosen.length < 2) {
    const words = "Choose two runs in the table to compare their configs and metrics.";
    parts.compare.replaceChildren(panel(head, element("p", { className: "none" }, words)));
  } else {
    if (!state.pair.every((run) => chosen.includes(run))) state.pair = chosen.slice(0, 2);
    const table = scrollBox("Comparison", compareTable(context, ...state.pair));
    parts.compare.replaceChildren(panel(head, compareControls(context, chosen), table));
  }
}

function compareControls(context, chosen) {
  const { runs, state } = context;
  const choose = (words, place) => {
    const others = chosen.filter((run) => run !== state.pair[1 - place]);
    const name = (run) => runs.value(Number(run), "run_id");
    const made = select(others.map(String), String(state.pair[place]), name);
    made.addEventListener("change", () => {
      state.pair[place] = Number(made.value);
      context.update("compare");
    });
    return labelled(words, made);
  };
  const only = element("input", { type: "checkbox", checked: state.onlyDifferences });
  only.addEventListener("change", () => {
    state.onlyDifferences = only.checked;
    context.update("compare");
  });
  const inline = element("label", { className: "inline" }, only, "only what differs");
  const controls = [choose("First run", 0), choose("Second run", 1), inline];
  return element("div", { className: "controls" }, ...controls);
}

function compareTable({ runs, state }, first, second) {
  const rows = runs.keys
    .map((key) => ({ key, values: [runs.value(first, key), runs.value(second, key)] }))
    .filter(({ values }) => values.some((value) => value !== null))
    .map((row) => ({ ...row, same: row.values[0] === row.values[1] || JSON.stringify(row.values[0]) === JSON.stringify(row.values[1]) }));
  const kept = state.onlyDifferences ? rows.filter((row) => !row.same) : rows;
  const made = kept.map(({ key, values: [a, b], same }) => {
    const numbers = typeof a === "number" && typeof b === "number" && runs.metrics.has(key);
    const difference = numbers ? shownNumber(b - a) : "";
    return element(
      "tr",
      { className: same ? "same" : "" },
      element("th", { scope: "row" }, key),
      element("td", {}, shown(a)),
      element("td", {}, shown(b)),
      element("td", { className: "n" }, difference),
    );
  });
  const same = rows.length - rows.filter((row) => !row.same).length;
  const heads = ["Key", runs.value(first, "run_id"), runs.value(second, "run_id"), "Second minus first"];
  return dataTable(
    `Config, then metrics; ${same} of ${rows.length} keys are the same in both`,
    heads.map((text, i) => element("th", { scope: "col", className: i === 3 ? "n" : "" }, text)),
    made,
  );
}

// Small things that all of them use.

function dataTable(caption, heads, rows) {
  return element(
    "table",
    { className: "runs" },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  );
}

function labelled(words, control, ...others) {
  control.id = `control-${words.replaceAll(" ", "-")}`;
  const label = element("label", { htmlFor: control.id }, words);
  return element("div", { className: "field" }, label, control, ...others);
}

function select(values, current, words = (value) => value) {
  const options = values.map((value) => {
    const selected = value === current;
    return element("option", { value, selected }, words(value));
  });
  return element("select", {}, ...options);
}

function count(number) {
  return number.toLocaleString("en");
}
