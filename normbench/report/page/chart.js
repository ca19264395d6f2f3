// A chart of lines as SVG: pointer or arrow keys read values, a table lists them.

const CHART = { height: 340, left: 64, right: 16, top: 26, bottom: 40 };
const WIDEST = 720;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];
const FEW_POINTS = 12;
const MOST_IN_READOUT = 12;
const MOST_TABLE_ROWS = 200;

// `lines`: {label, colour, dash, points: [[x, y, low?, high?], ...]}, y null where not
// finite. Options: title, xLabel, yLabel, width (of its place, in pixels), logX, logY.
function lineChart(lines, options) {
  const scales = scalesOf(lines, options);
  if (!scales) {
    return none("There is nothing to draw for this choice.");
  }
  const cross = svg("path", { class: "cross" });
  const dots = svg("g");
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${scales.width} ${CHART.height}`, "aria-hidden": "true", focusable: "false" },
    ...gridOf(scales, options),
    ...lines.map((line) => bandPath(line, scales)),
    ...lines.map((line) => linePath(line, scales)),
    ...lines.flatMap((line) => pointMarks(line, scales)),
    cross,
    dots,
  );
  const readout = element("div", { className: "readout", hidden: true });
  const chart = element("div", { className: "chart" }, picture, readout);
  followPointer(chart, { lines, scales, options, picture, cross, dots, readout });
  return element(
    "figure",
    {},
    element("figcaption", {}, options.title),
    legendOf(lines),
    chart,
    tableOf(lines, options),
  );
}

function scalesOf(lines, { width, logX, logY }) {
  const wide = Math.min(WIDEST, width); // text keeps its size on a phone
  const usable = (y) => y !== null && y !== undefined && (!logY || y > 0);
  const points = lines.flatMap((line) => line.points);
  if (!points.some(([, y]) => usable(y))) return null;
  const xs = points.map(([x]) => x); // also where a value is not finite: the readout says so
  const ys = points.flatMap(([, ...y]) => y).filter(usable);
  const x = axis(xs, logX, CHART.left, wide - CHART.right);
  const y = axis(ys, logY, CHART.height - CHART.bottom, CHART.top);
  return { x, y, usable, width: wide, at: [...new Set(xs)].sort((a, b) => a - b) };
}

// A function from values to pixels, and the values to mark.
function axis(values, logarithmic, start, end) {
  const to = logarithmic ? Math.log10 : (value) => value;
  let low = values.reduce((a, b) => Math.min(a, b));
  let high = values.reduce((a, b) => Math.max(a, b));
  if (low === high) {
    const around = logarithmic ? 0 : Math.abs(low) * 0.1 || 1;
    [low, high] = logarithmic ? [low / 2, high * 2] : [low - around, high + around];
  }
  const place = (value) => start + ((to(value) - to(low)) / (to(high) - to(low))) * (end - start);
  return { place, ticks: logarithmic ? logTicks(low, high) : linearTicks(low, high) };
}

function linearTicks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) {
    ticks.push(Number(tick.toPrecision(12)));
  }
  return ticks;
}

// Powers of ten where there are enough of them, else of two: batch sizes.
function logTicks(low, high) {
  for (const base of [10, 2]) {
    const power = (value) => Math.log(value) / Math.log(base);
    const [first, last] = [Math.ceil(power(low) - 1e-9), Math.floor(power(high) + 1e-9)];
    if (last - first >= 2 || base === 2) {
      const every = Math.max(1, Math.ceil((last - first) / 8));
      const ticks = [];
      for (let i = first; i <= last; i += every) ticks.push(base ** i);
      return ticks;
    }
  }
}

function gridOf({ x, y, width }, { xLabel, yLabel }) {
  const bottom = CHART.height - CHART.bottom;
  const right = width - CHART.right;
  const label = (text, attributes) => svg("text", attributes, text);
  return [
    ...y.ticks.flatMap((tick) => [
      svg("path", { class: "grid", d: `M${CHART.left} ${y.place(tick)}H${right}` }),
      label(shownNumber(tick), { x: CHART.left - 8, y: y.place(tick) + 4, "text-anchor": "end" }),
    ]),
    ...x.ticks.map((tick) =>
      label(shownNumber(tick), { x: x.place(tick), y: bottom + 17, "text-anchor": "middle" }),
    ),
    svg("path", { class: "axis", d: `M${CHART.left} ${bottom}H${right}` }),
    label(xLabel, { x: right, y: CHART.height - 5, "text-anchor": "end" }),
    label(yLabel, { x: 0, y: 12 }),
  ];
}

function linePath({ points, colour, dash }, { x, y, usable }) {
  let pen = "M";
  let d = "";
  for (const [at, value] of points) {
    if (usable(value)) {
      d += `${pen}${x.place(at).toFixed(1)} ${y.place(value).toFixed(1)}`;
      pen = "L";
    } else {
      pen = "M"; // a gap, where the value is not finite
    }
  }
  return svg("path", { class: "line", stroke: colour, "stroke-dasharray": dash ?? "", d });
}

// Few points are marked: a single one would be no line at all.
function pointMarks({ points, colour }, { x, y, usable }) {
  if (points.length > FEW_POINTS) return [];
  return points
    .filter(([, value]) => usable(value))
    .map(([at, value]) => svg("circle", { cx: x.place(at), cy: y.place(value), r: 3, fill: colour }));
}

function bandPath({ points, colour }, { x, y, usable }) {
  const inside = points.filter(([, , low, high]) => usable(low) && usable(high));
  if (inside.length < 2) return svg("g");
  const there = inside.map(([at, , , high]) => `${x.place(at).toFixed(1)} ${y.place(high).toFixed(1)}`);
  const back = inside.map(([at, , low]) => `${x.place(at).toFixed(1)} ${y.place(low).toFixed(1)}`);
  return svg("path", { class: "band", fill: colour, d: `M${[...there, ...back.reverse()].join("L")}Z` });
}

function sample({ colour, dash }) {
  const line = svg("path", {
    d: "M0 5H26",
    stroke: colour,
    "stroke-width": 3,
    "stroke-dasharray": dash ?? "",
  });
  return svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true", focusable: "false" }, line);
}

function legendOf(lines) {
  const items = lines.map((line) => element("li", {}, sample(line), line.label));
  return element("ul", { className: "lines" }, ...items);
}

// The chart is a slider over its x values: pointer and arrow keys move the same line.
function followPointer(chart, parts) {
  const { scales, options } = parts;
  let current = -1;
  const set = (attributes) => {
    for (const [key, value] of Object.entries(attributes)) chart.setAttribute(key, value);
  };
  set({
    role: "slider",
    tabindex: 0,
    "aria-label": `${options.title}; arrow keys read values off`,
    "aria-valuemin": 0,
    "aria-valuemax": scales.at.length - 1,
    "aria-valuenow": 0,
    "aria-valuetext": "no value chosen",
  });
  const move = (index) => {
    current = Math.max(0, Math.min(scales.at.length - 1, index));
    set({ "aria-valuenow": current, "aria-valuetext": showAt(scales.at[current], parts) });
  };
  chart.addEventListener("pointermove", (event) => {
    const box = parts.picture.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * scales.width;
    move(nearest(scales.at.map((x) => scales.x.place(x)), pixel));
  });
  chart.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    const ends = { Home: 0, End: scales.at.length - 1 };
    if (event.key in steps) move(current + steps[event.key]);
    else if (event.key in ends) move(ends[event.key]);
    else return;
    event.preventDefault();
  });
  for (const left of ["pointerleave", "blur"]) {
    chart.addEventListener(left, () => {
      parts.readout.hidden = true;
      parts.cross.removeAttribute("d");
      parts.dots.replaceChildren();
    });
  }
}

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, i) => {
    if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = i;
  });
  return best;
}

// Draw the crosshair at x, list the values there, and return them as a sentence.
function showAt(x, { lines, scales, options, cross, dots, readout }) {
  const pixel = scales.x.place(x);
  const there = lines
    .map((line) => ({ line, point: line.points.find(([at]) => at === x) }))
    .filter(({ point }) => point);
  cross.setAttribute("d", `M${pixel} ${CHART.top}V${CHART.height - CHART.bottom}`);
  dots.replaceChildren(
    ...there
      .filter(({ point }) => scales.usable(point[1]))
      .map(({ line, point }) =>
        svg("circle", { cx: pixel, cy: scales.y.place(point[1]), r: 3.5, fill: line.colour }),
      ),
  );
  const head = `${options.xLabel} ${shown(x)}`;
  const values = there.map(({ line, point }) => [line.label, valueText(point)]);
  readout.replaceChildren(
    element("strong", {}, head),
    ...there.slice(0, MOST_IN_READOUT).map(({ line, point }) => {
      const name = element("span", {}, line.label);
      return element("div", {}, colourSwatch(line.colour), name, element("b", {}, valueText(point)));
    }),
    there.length > MOST_IN_READOUT ? `and ${there.length - MOST_IN_READOUT} more, in the table` : "",
  );
  readout.hidden = false;
  const share = (100 * pixel) / scales.width;
  readout.style.left = share > 50 ? "" : `calc(${share}% + 0.7rem)`;
  readout.style.right = share > 50 ? `calc(${100 - share}% + 0.7rem)` : "";
  return [head, ...values.map(([label, value]) => `${label}: ${value}`)].join("; ");
}

function valueText([, y, low, high]) {
  const value = y === null ? "not finite" : shown(y);
  return low === undefined || low === null ? value : `${value} (${shown(low)} to ${shown(high)})`;
}

function colourSwatch(colour) {
  const made = element("span", { className: "swatch", "aria-hidden": "true" });
  made.style.background = colour;
  return made;
}

// The same numbers for those who do not see the picture; made when it is opened.
function tableOf(lines, options) {
  const details = element("details", {}, element("summary", {}, "These values as a table"));
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) {
      details.append(...valuesTable(lines, options));
    }
  });
  return details;
}

function valuesTable(lines, options) {
  const points = lines.flatMap((line) => line.points.map((point) => [line.label, point]));
  const heads = ["line", options.xLabel, options.yLabel].map((text) => element("th", { scope: "col" }, text));
  const rows = points.slice(0, MOST_TABLE_ROWS).map(([label, point]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, label),
      element("td", {}, shown(point[0])),
      element("td", {}, valueText(point)),
    ),
  );
  const made = [scrollBox(options.title, table(options.title, heads, rows))];
  if (points.length > MOST_TABLE_ROWS) {
    made.push(small(`The first ${MOST_TABLE_ROWS} of ${points.length} values; draw fewer lines for the others.`));
  }
  return made;
}
