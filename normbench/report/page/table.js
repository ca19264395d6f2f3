// The table of the explorer: a row for each run, or for each cell of runs.

const PAGE_ROWS = 50;
// The columns of a cell, and how each is written.
const NUMBERS = { n: shown, mean: aligned, sd: aligned, min: aligned, max: aligned, failures: shown, without: shown };

function drawTable(context) {
  (context.state.view === "runs" ? drawRuns : drawCells)(context);
}

function drawRuns(context) {
  const { runs, state, parts, message } = context;
  const { key, descending } = state.sort.runs;
  const found = inOrder(matching(runs, state.conditions), (run) => runs.value(run, key), descending);
  message.textContent = `${count(found.length)} of ${count(runs.size)} runs`;
  const { rows, pages } = pageOf(state, found);
  const columns = ["run_id", ...state.columns.filter((column) => column !== "run_id")];
  const first = state.page * PAGE_ROWS;
  const made = table(
    `Runs ${count(first + 1)} to ${count(first + rows.length)} of ${count(found.length)}; a heading sorts`,
    [pickHead(), ...columns.map((column) => sortable(context, "runs", column, isNumeric(runs, column)))],
    rows.map((run) =>
      element("tr", {}, pick(context, "runs", run, runs.value(run, "run_id")), ...runCells(runs, run, columns)),
    ),
    "runs",
  );
  parts.table.replaceChildren(
    columnChoice(context),
    found.length ? scrollBox("Table of runs", made) : none("No run is like that."),
    pager(context, pages),
    chosenControls(context, "runs", rows),
  );
}

function drawCells(context) {
  const { runs, state, parts, message } = context;
  const by = cellKeys(state);
  const found = matching(runs, state.conditions);
  const cells = currentCells(context);
  message.textContent = `${count(found.length)} of ${count(runs.size)} runs, in ${count(cells.length)} cells`;
  const { key, descending } = state.sort.cells;
  const valueOf = (cell) => (by.includes(key) ? cell.values[by.indexOf(key)] : (cell[key] ?? null));
  const { rows, pages } = pageOf(state, inOrder(cells, valueOf, descending));
  const reach = extent(cells);
  const made = table(
    `${state.metric}: over the n runs that are ok; without: ok, but the metric is missing or not finite`,
    [
      pickHead(),
      ...by.map((name) => sortable(context, "cells", name, isNumeric(runs, name))),
      element("th", { scope: "col" }, "min, mean, max"),
      ...Object.keys(NUMBERS).map((name) => sortable(context, "cells", name, true)),
    ],
    rows.map((cell) => cellRow(context, by, cell, reach)),
    "runs",
  );
  parts.table.replaceChildren(
    cellControls(context),
    cells.length ? scrollBox("Table of cells", made) : none("No run is like that."),
    ...mixtureNote(runs, cells, by),
    pager(context, pages),
    chosenControls(context, "cells", rows.map((cell) => cell.id)),
    ...cellChart(context, cells, by),
  );
}

// The items of the current page, which is moved if there are fewer pages now.
function pageOf(state, items) {
  const pages = Math.max(1, Math.ceil(items.length / PAGE_ROWS));
  state.page = Math.min(state.page, pages - 1);
  return { rows: items.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS), pages };
}

function runCells(runs, run, columns) {
  return columns.map((column, i) => {
    const value = runs.value(run, column);
    if (i === 0) return element("th", { scope: "row", className: "id" }, shown(value));
    const cell = element("td", { title: shown(value), className: isNumeric(runs, column) ? "n" : "" });
    if (column === "status") {
      cell.append(element("span", { className: `status ${value}` }, value));
    } else {
      cell.textContent = runs.metrics.has(column) ? aligned(value) : shown(value);
    }
    return cell;
  });
}

function cellRow(context, by, cell, reach) {
  const { runs } = context;
  const values = cell.values.map((value, i) => {
    const className = isNumeric(runs, by[i]) ? "n" : "";
    return i ? element("td", { className }, shown(value)) : element("th", { className, scope: "row" }, shown(value));
  });
  return element(
    "tr",
    {},
    pick(context, "cells", cell.id, cellName(by, cell)),
    ...values,
    element("td", {}, spread(cell, reach, cellColour(runs, by, cell))),
    ...Object.entries(NUMBERS).map(([name, write]) => element("td", { className: "n" }, write(cell[name]))),
  );
}

function pickHead() {
  return element("th", { scope: "col", className: "pick" }, element("span", { className: "hidden" }, "Choose"));
}

// A box that chooses a row, for curves and comparison.
function pick(context, view, id, name) {
  const chosen = context.state.chosen[view];
  const box = checkbox(chosen.has(id), (checked) => {
    if (checked) chosen.add(id);
    else chosen.delete(id);
    keepFocus(() => context.update("table", "curves", "compare"));
  });
  box.setAttribute("aria-label", `Choose ${name}`);
  box.disabled = !box.checked && chosen.size >= MOST_CHOSEN;
  return element("td", { className: "pick" }, box);
}

function sortable({ state, update }, view, key, numeric) {
  const sort = state.sort[view];
  const act = () => {
    sort.descending = sort.key === key ? !sort.descending : false;
    sort.key = key;
    state.page = 0;
    keepFocus(() => update("table"));
  };
  const head = element("th", { scope: "col", className: numeric ? "n" : "" }, button(key, act));
  if (sort.key === key) head.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
  return head;
}

function isNumeric(runs, key) {
  return runs.metrics.has(key) || runs.distinct(key).every((value) => typeof value === "number");
}

function columnChoice({ runs, state, update }) {
  const boxes = runs.keys
    .filter((key) => key !== "run_id")
    .map((key) => {
      const box = checkbox(state.columns.includes(key), (checked) => {
        state.columns = checked ? [...state.columns, key] : state.columns.filter((column) => column !== key);
        update("table");
      });
      return element("label", {}, box, ` ${key}`);
    });
  const details = element(
    "details",
    { className: "more", open: state.columnsOpen },
    element("summary", {}, "Columns: any key of the config, any metric"),
    element("fieldset", { className: "choices" }, element("legend", { className: "hidden" }, "Columns"), ...boxes),
  );
  details.addEventListener("toggle", () => (state.columnsOpen = details.open));
  return details;
}

function pager({ state, update }, pages) {
  const step = (words, by) => {
    const act = () => {
      state.page += by;
      keepFocus(() => update("table"));
    };
    return button(words, act, state.page + by < 0 || state.page + by >= pages);
  };
  const place = element("span", { className: "small" }, `page ${state.page + 1} of ${pages}`);
  const made = controls(step("Previous page", -1), place, step("Next page", 1));
  made.hidden = pages === 1;
  return made;
}

function chosenControls(context, view, ids) {
  const chosen = context.state.chosen[view];
  const free = ids.filter((id) => !chosen.has(id)).slice(0, MOST_CHOSEN - chosen.size);
  const act = (change) => () => {
    change();
    keepFocus(() => context.update("table", "curves", "compare"));
  };
  const more = chosen.size >= MOST_CHOSEN ? ", which is the most; cells sum up more" : "";
  return controls(
    element("span", { className: "small" }, `${chosen.size} chosen${more}`),
    button(`Choose ${free.length} of these`, act(() => free.forEach((id) => chosen.add(id))), !free.length),
    button("Choose none", act(() => chosen.clear()), !chosen.size),
  );
}

function cellControls({ runs, state, update }) {
  const redraw = () => {
    state.page = 0;
    state.chosen.cells.clear();
    update("table", "curves");
  };
  const keys = [NO_KEY, ...runs.facts.keys()];
  const groups = state.by.map((key, i) => {
    const change = (value) => {
      state.by[i] = value;
      state.by = withEmpty([...new Set(cellKeys(state))]);
      redraw();
    };
    return labelled(GROUPS[i], select(keys, key, change, (name) => name || "nothing more"));
  });
  const metric = select([...runs.metrics.keys()], state.metric, (value) => {
    state.metric = value;
    redraw();
  });
  return controls(...groups, labelled("Metric", metric));
}

// A mean over different experiments is not one of seeds: say in what they differ.
function mixtureNote(runs, cells, by) {
  const same = (key, a, b) => {
    const { codes } = runs.facts.get(key);
    return codes === null || codes[a] === codes[b];
  };
  const mixed = runs.experiment.filter(
    (key) =>
      !by.includes(key) &&
      runs.varies(key) &&
      cells.some((cell) => cell.runs.some((run) => !same(key, run, cell.runs[0]))),
  );
  if (!mixed.length) return [];
  const words = `There are cells whose runs differ in ${mixed.join(", ")}: choose with filters, or make cells by these.`;
  return [element("p", { className: "note" }, words)];
}

function extent(cells) {
  const present = cells.filter((cell) => cell.n);
  return [Math.min(...present.map((cell) => cell.min)), Math.max(...present.map((cell) => cell.max))];
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
