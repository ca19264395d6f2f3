// The explorer's table, with a row for each run or for each cell.

const PAGE_ROWS = 50;
// The numeric columns of cells, with the functions that format them.
const NUMBERS = {
  mean: columnText,
  low: columnText,
  high: columnText,
  n: asText,
  sd: columnText,
  failures: asText,
  without: asText,
};

function drawTable(context) {
  (context.state.view === "runs" ? drawRuns : drawCells)(context);
}

function drawRuns(context) {
  const { runs, state, parts, message } = context;
  const { key, descending } = state.sort.runs;
  const matches = inOrder(shownRuns(context), (run) => runs.value(run, key), descending);
  message.textContent = `${count(matches.length)} of ${count(candidates(context).length)} runs`;
  const { rows, pages } = pageOf(state, matches);
  const columns = ["run_id", ...state.columns.filter((column) => column !== "run_id")];
  const first = state.page * PAGE_ROWS;
  const tableOfRuns = table(
    `Runs ${count(first + 1)} to ${count(first + rows.length)} of ${count(matches.length)}; click a heading to sort`,
    [pickHead(), ...columns.map((column) => sortable(context, "runs", column, isNumeric(runs, column), column === state.metric))],
    rows.map((run) =>
      element("tr", {}, pick(context, "runs", run, runs.value(run, "run_id")), ...runCells(context, run, columns)),
    ),
    "runs",
  );
  parts.table.replaceChildren(
    columnChoice(context),
    matches.length ? wideTable("Table of runs", tableOfRuns) : none("No run matches the filters."),
    pager(context, pages),
    chosenControls(context, "runs", rows),
  );
}

function drawCells(context) {
  const { runs, state, parts, message } = context;
  const by = cellKeys(state);
  const matches = shownRuns(context);
  const cells = currentCells(context);
  message.textContent = `${count(matches.length)} of ${count(candidates(context).length)} runs, in ${count(cells.length)} cells`;
  const { key, descending } = state.sort.cells;
  const valueOf = (cell) => (by.includes(key) ? cell.values[by.indexOf(key)] : (cell[key] ?? null));
  const { rows, pages } = pageOf(state, inOrder(cells, valueOf, descending));
  const limits = extent(cells);
  const tableOfCells = table(
    `${state.metric}: mean of the n runs that are ok, with its 95 % t interval from low to high`,
    [
      pickHead(),
      ...by.map((name) => sortable(context, "cells", name, isNumeric(runs, name))),
      element("th", { scope: "col" }, "95 % interval"),
      ...Object.keys(NUMBERS).map((name) => sortable(context, "cells", name, true, name === "mean")),
    ],
    rows.map((cell) => cellRow(context, by, cell, limits)),
    "runs",
  );
  parts.table.replaceChildren(
    cellControls(context),
    cells.length ? wideTable("Table of cells", tableOfCells) : none("No run matches the filters."),
    ...mixtureNote(runs, cells, by),
    pager(context, pages),
    chosenControls(context, "cells", rows.map((cell) => cell.id)),
    ...cellChart(context, cells, by),
  );
}

// The items of the current page. Goes to the last page if the current one is gone.
function pageOf(state, items) {
  const pages = Math.max(1, Math.ceil(items.length / PAGE_ROWS));
  state.page = Math.min(state.page, pages - 1);
  return { rows: items.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS), pages };
}

// A table in a scroll box, in which the first column and that of the metric stay visible.
function wideTable(label, node) {
  const box = scrollBox(label, node);
  box.classList.add("held");
  const measure = () => {
    const first = node.querySelector("thead th:nth-child(2)");
    box.style.setProperty("--first", `${node.querySelector(".pick").offsetWidth + first.offsetWidth}px`);
  };
  new ResizeObserver(measure).observe(node);
  return box;
}

function runCells({ runs, state }, run, columns) {
  return columns.map((column, i) => {
    const value = runs.value(run, column);
    if (i === 0) return element("th", { scope: "row", className: "id" }, asText(value));
    const cell = element("td", { title: asText(value), className: classOf(isNumeric(runs, column), column === state.metric) });
    if (column === "status") {
      cell.append(element("span", { className: `status ${value}` }, value));
    } else {
      cell.textContent = runs.metrics.has(column) ? columnText(value) : asText(value);
    }
    return cell;
  });
}

function cellRow(context, by, cell, limits) {
  const { runs } = context;
  const values = cell.values.map((value, i) => {
    const className = isNumeric(runs, by[i]) ? "n" : "";
    return i ? element("td", { className }, asText(value)) : element("th", { className, scope: "row" }, asText(value));
  });
  return element(
    "tr",
    {},
    pick(context, "cells", cell.id, cellName(by, cell)),
    ...values,
    element("td", {}, spread(cell, limits, cellColour(runs, by, cell))),
    ...Object.entries(NUMBERS).map(([name, format]) =>
      element("td", { className: classOf(true, name === "mean") }, format(cell[name])),
    ),
  );
}

// The classes of a cell of the table: whether it is a number, and of the metric.
function classOf(numeric, isMetric) {
  return [numeric ? "n" : "", isMetric ? "metric" : ""].join(" ").trim();
}

function pickHead() {
  return element("th", { scope: "col", className: "pick" }, element("span", { className: "hidden" }, "Choose"));
}

// A table cell with a checkbox that chooses the row for curves and comparison.
function pick(context, view, id, name) {
  const chosen = context.state.chosen[view];
  const box = checkbox(chosen.has(id), (checked) => {
    if (checked) chosen.add(id);
    else chosen.delete(id);
    keepFocus(() => context.update("table", "curves", "compare"));
  });
  box.setAttribute("aria-label", `Choose ${name}`);
  box.disabled = !box.checked && chosen.size >= MAX_CHOSEN;
  return element("td", { className: "pick" }, box);
}

// A column heading that sorts by the column; a second click reverses the order.
function sortable({ state, update }, view, key, numeric, isMetric = false) {
  const sort = state.sort[view];
  const sortByKey = () => {
    sort.descending = sort.key === key ? !sort.descending : false;
    sort.key = key;
    state.page = 0;
    keepFocus(() => update("table"));
  };
  const head = element("th", { scope: "col", className: classOf(numeric, isMetric) }, button(key, sortByKey));
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
    element("summary", {}, "Columns: config keys and metrics"),
    element("fieldset", { className: "choices" }, element("legend", { className: "hidden" }, "Columns"), ...boxes),
  );
  details.addEventListener("toggle", () => (state.columnsOpen = details.open));
  return details;
}

function pager({ state, update }, pages) {
  const step = (text, change) => {
    const turn = () => {
      state.page += change;
      keepFocus(() => update("table"));
    };
    const target = state.page + change;
    return button(text, turn, target < 0 || target >= pages);
  };
  const position = element("span", { className: "small" }, `page ${state.page + 1} of ${pages}`);
  const buttons = controls(step("Previous page", -1), position, step("Next page", 1));
  buttons.hidden = pages === 1;
  return buttons;
}

function chosenControls(context, view, ids) {
  const chosen = context.state.chosen[view];
  const free = ids.filter((id) => !chosen.has(id)).slice(0, MAX_CHOSEN - chosen.size);
  const redrawAfter = (change) => () => {
    change();
    keepFocus(() => context.update("table", "curves", "compare"));
  };
  const chooseFree = redrawAfter(() => free.forEach((id) => chosen.add(id)));
  const chooseNone = redrawAfter(() => chosen.clear());
  const limit = chosen.size >= MAX_CHOSEN ? ` (at most ${MAX_CHOSEN})` : "";
  return controls(
    element("span", { className: "small" }, `${chosen.size} chosen${limit}`),
    button(`Choose ${free.length} from this page`, chooseFree, !free.length),
    button("Choose none", chooseNone, !chosen.size),
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
      state.by = padded([...new Set(cellKeys(state))]);
      redraw();
    };
    return labelled(GROUPS[i], select(keys, key, change, (name) => name || "(none)"));
  });
  const metric = select([...runs.metrics.keys()], state.metric, (value) => {
    state.metric = value;
    redraw();
  });
  return controls(...groups, labelled("Metric", metric));
}

// A note if cells have runs of different experiments, not only of different seeds.
function mixtureNote(runs, cells, by) {
  const mixed = mixedKeys(runs, cells, by);
  if (!mixed.length) return [];
  const keys = mixed.join(", ");
  const note = `Some cells have runs that differ in ${keys}. Filter the runs, or make cells by these keys.`;
  return [element("p", { className: "note" }, note)];
}

// The keys of an experiment, other than `by`, in which the runs of a group differ. The
// options of different tasks, norms and so on are not named beside their key.
function mixedKeys(runs, groups, by) {
  const differ = (key) => groups.some((group) => runs.varies(key, group.runs));
  const mixed = runs.experiment.filter((key) => !by.includes(key) && differ(key));
  return mixed.filter((key) => !key.includes(".") || !mixed.includes(key.split(".")[0]));
}

// The least and the greatest end of the intervals of all cells.
function extent(cells) {
  const ends = cells.filter((cell) => cell.n).flatMap(({ mean, low, high }) => [low ?? mean, high ?? mean]);
  return [ends.reduce((a, b) => Math.min(a, b), Infinity), ends.reduce((a, b) => Math.max(a, b), -Infinity)];
}

// A line along the interval of a cell, with a tick at the mean.
function spread({ n, mean, low: start, high: end }, [low, high], colour) {
  const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 50);
  const picture = svg("svg", {
    class: "spread",
    viewBox: "0 0 100 12",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
    focusable: "false",
  });
  if (n) {
    picture.append(svg("path", { stroke: colour, d: `M${place(start ?? mean)} 6H${place(end ?? mean)}M${place(mean)} 1V11` }));
  }
  return picture;
}
