// The explorer's filters, and the choice between a table of runs and a table of cells.

const MAX_SUGGESTIONS = 200;

function drawFilter(context) {
  const { runs, state, parts } = context;
  const values = element("datalist", { id: "values" });
  const suggestValues = (key) => {
    const options = runs.distinct(key).slice(0, MAX_SUGGESTIONS);
    values.replaceChildren(...options.map((value) => element("option", { value: asText(value) })));
  };
  const key = select(runs.keys, runs.varies("norm", candidates(context)) ? "norm" : "status", suggestValues);
  suggestValues(key.value);
  const operator = select(OPERATORS, "=");
  const text = element("input", { type: "text", autocomplete: "off", size: 14 });
  text.setAttribute("list", "values");
  text.addEventListener("input", () => text.setCustomValidity(""));
  const form = element(
    "form",
    { className: "controls" },
    labelled("Show runs with", key),
    labelled("Condition", operator),
    labelled("Value", text, values),
    element("button", { type: "submit" }, "Add filter"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = text.value.trim() !== "" && Number.isFinite(Number(text.value));
    const invalid = operator.value in ORDERED && !number;
    text.setCustomValidity(invalid ? `${operator.value} needs a number.` : "");
    if (!form.reportValidity()) return;
    state.conditions.push({ key: key.value, operator: operator.value, text: text.value });
    filtersChanged(context);
  });
  const sources = element("div", { className: "controls" }, ...sourceTabs(context), viewTabs(context));
  parts.filter.replaceChildren(sources, form, chips(context));
}

function filtersChanged(context) {
  context.state.page = 0;
  context.state.chosen.cells.clear();
  context.update();
}

function chips(context) {
  const { conditions } = context.state;
  const items = conditions.map((condition) => {
    const text = `${condition.key} ${condition.operator} ${condition.text}`;
    const remove = button(`${text} ×`, () => {
      conditions.splice(conditions.indexOf(condition), 1);
      filtersChanged(context);
    });
    remove.setAttribute("aria-label", `Remove the filter ${text}`);
    return element("li", {}, remove);
  });
  return element("ul", { className: "chips", "aria-label": "Filters" }, ...items);
}

// The choice between the reader's runs and all runs, if there are others.
function sourceTabs(context) {
  const { runs, state } = context;
  if (!runs.mine.length || runs.mine.length === runs.size) return [];
  const change = (value) => {
    chooseSource(context, value === "mine");
    keepFocus(() => context.update());
  };
  const options = { mine: `My runs (${count(runs.mine.length)})`, all: `Mine and those of verdicts (${count(runs.size)})` };
  return [tabs("Source of the runs", "source", options, state.mine ? "mine" : "all", change)];
}

function viewTabs({ state, update }) {
  const change = (view) => {
    state.view = view;
    state.page = 0;
    update("table", "curves", "compare");
  };
  const options = { cells: "Cells: means of runs", runs: "Runs" };
  return tabs("Rows of the table", "view", options, state.view, change);
}

// Radio buttons as tabs; `options` maps values to texts.
function tabs(legend, name, options, current, onChange) {
  const labels = Object.entries(options).map(([value, text]) => {
    const input = element("input", { type: "radio", name, value, checked: value === current });
    input.setAttribute("aria-label", text);
    input.addEventListener("change", () => onChange(value));
    return element("label", {}, input, text);
  });
  return element("fieldset", { className: "tabs" }, element("legend", {}, legend), ...labels);
}
