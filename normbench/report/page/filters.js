// The filters of the explorer, and the choice between runs and cells.

function drawFilter(context) {
  const { runs, state, parts } = context;
  const values = element("datalist", { id: "values" });
  const offer = (key) => {
    const options = runs.distinct(key).slice(0, 200);
    values.replaceChildren(...options.map((value) => element("option", { value: shown(value) })));
  };
  const key = select(runs.keys, runs.varies("norm") ? "norm" : "status", offer);
  offer(key.value);
  const operator = select(OPERATORS, "=");
  const text = element("input", { type: "text", autocomplete: "off", size: 14 });
  text.setAttribute("list", "values");
  text.addEventListener("input", () => text.setCustomValidity(""));
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
    const words = `${condition.key} ${condition.operator} ${condition.text}`;
    const remove = button(`${words} ×`, () => {
      conditions.splice(conditions.indexOf(condition), 1);
      filtersChanged(context);
    });
    remove.setAttribute("aria-label", `Remove the filter ${words}`);
    return element("li", {}, remove);
  });
  return element("ul", { className: "chips", "aria-label": "Filters" }, ...items);
}

function viewTabs({ state, update }) {
  const tab = (view, words) => {
    const input = element("input", { type: "radio", name: "view", value: view, checked: state.view === view });
    input.addEventListener("change", () => {
      state.view = view;
      update("table", "curves", "compare");
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
