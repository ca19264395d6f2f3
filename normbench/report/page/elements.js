// Functions that make HTML and SVG elements. They insert strings as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node && !key.includes("-")) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function small(text) {
  return element("p", { className: "small" }, text);
}

// A text in place of an empty table or chart.
function none(text) {
  return element("p", { className: "none" }, text);
}

function controls(...children) {
  return element("div", { className: "controls" }, ...children);
}

// A section with a heading.
function panel(heading, ...children) {
  return element("section", { className: "panel" }, element("h3", {}, heading), ...children);
}

function button(text, onClick, disabled = false) {
  const node = element("button", { type: "button", disabled }, text);
  node.addEventListener("click", onClick);
  return node;
}

// `onChange` gets the new state, a boolean.
function checkbox(checked, onChange) {
  const node = element("input", { type: "checkbox", checked });
  node.addEventListener("change", () => onChange(node.checked));
  return node;
}

// A control with its label at the right.
function inline(control, text) {
  return element("label", { className: "inline" }, control, text);
}

// `onChange` gets the chosen value; `textOf` returns the text of a value.
function select(values, current, onChange = () => {}, textOf = (value) => value) {
  const options = values.map((value) => element("option", { value, selected: value === current }, textOf(value)));
  const node = element("select", {}, ...options);
  node.addEventListener("change", () => onChange(node.value));
  return node;
}

// A control with its label above it.
function labelled(text, control, ...others) {
  control.id = `control-${text.replaceAll(" ", "-")}`;
  const label = element("label", { htmlFor: control.id }, text);
  return element("div", { className: "field" }, label, control, ...others);
}

function table(caption, heads, rows, className = "") {
  return element(
    "table",
    { className },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  );
}

function scrollBox(label, ...children) {
  const properties = { className: "scroll", role: "group", "aria-label": label };
  return element("div", { ...properties, tabIndex: 0 }, ...children);
}

function count(number) {
  return number.toLocaleString("en");
}

// Call `redraw`, which replaces elements. If the focused element is replaced, focus the
// new element with the same label or text.
function keepFocus(redraw) {
  const label = document.activeElement?.getAttribute("aria-label");
  const text = document.activeElement?.textContent;
  redraw();
  const buttons = [...document.querySelectorAll("#explorer button")];
  if (label) document.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
  else if (text) buttons.find((node) => node.textContent === text)?.focus();
}
