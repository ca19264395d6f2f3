// The explorer's filters, and the choice between a table of runs and a table of cells.

const MAX_SUGGESTIONS = 200;

function drawFilter(context) {
  const { runs, state, parts } = context;
  const values = element("datalist", { id: "values" });
  const suggestValues = (key) => {
    const options = runs.distinct(key).slice(0, MAX_SUGGESTIONS);
    values.replaceChildren(...options.map((value) => element("option", { value: asText(value) })));
  };
  const key = select(runs.keys, runs.varies("norm") ? "norm" : "status", suggestValues);
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
  parts.filter.replaceChildren(form, chips(context), viewTabs(context));
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

function viewTabs({ state, update }) {
  const tab = (view, text) => {
    const input = element("input", { type: "radio", name: "view", value: view, checked: state.view === view });
    input.addEventListener("change", () => {
      state.view = view;
      update("table", "curves", "compare");
    });
    return element("label", {}, input, text);
  };
  return element(
    "fieldset",
    { className: "tabs" },
    element("legend", {}, "Rows of the table"),
    tab("runs", "Runs"),
    tab("cells", "Cells: means of runs"),
  );
}
