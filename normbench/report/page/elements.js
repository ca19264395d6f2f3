// Elements of the page. Text children are text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && !key.includes("-")) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function small(words) {
  return element("p", { className: "small" }, words);
}

function none(words) {
  return element("p", { className: "none" }, words);
}

function controls(...children) {
  return element("div", { className: "controls" }, ...children);
}

// A section with a heading.
function panel(heading, ...children) {
  return element("section", { className: "panel" }, element("h3", {}, heading), ...children);
}

function button(words, act, disabled = false) {
  const made = element("button", { type: "button", disabled }, words);
  made.addEventListener("click", act);
  return made;
}

// `act` gets the new state.
function checkbox(checked, act) {
  const made = element("input", { type: "checkbox", checked });
  made.addEventListener("change", () => act(made.checked));
  return made;
}

function inline(control, words) {
  return element("label", { className: "inline" }, control, words);
}

// `act` gets the value that is chosen; `words` shows a value as text.
function select(values, current, act = () => {}, words = (value) => value) {
  const options = values.map((value) => element("option", { value, selected: value === current }, words(value)));
  const made = element("select", {}, ...options);
  made.addEventListener("change", () => act(made.value));
  return made;
}

function labelled(words, control, ...others) {
  control.id = `control-${words.replaceAll(" ", "-")}`;
  const label = element("label", { htmlFor: control.id }, words);
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

// Redrawing replaces the element that has the focus: focus the one with the same name.
function keepFocus(redraw) {
  const label = document.activeElement?.getAttribute("aria-label");
  const text = document.activeElement?.textContent;
  redraw();
  if (label) document.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
  else if (text) [...document.querySelectorAll("#explorer button")].find((b) => b.textContent === text)?.focus();
}
