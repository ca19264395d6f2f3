// A line chart as SVG. The pointer or the arrow keys show values; a table lists them.

const CHART = { height: 340, left: 64, right: 16, top: 26, bottom: 40 };
const MAX_CHART_WIDTH = 720;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];
const MAX_MARKED_POINTS = 12;
const MAX_READOUT_LINES = 12;
const MAX_VALUE_ROWS = 200;

// Draw `lines`: {label, colour, dash, points: [[x, y, low?, high?], ...]}, with y null
// if it is not finite. Options: title, xLabel, yLabel, width (of the page in pixels),
// logX, logY. A line that is `quiet` is thin, and is neither in the legend nor in the readout.
function lineChart(lines, options) {
  const scales = scalesOf(lines, options);
  if (!scales) {
    return none("There are no values to draw.");
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
  const chartWidth = Math.min(MAX_CHART_WIDTH, width); // so text keeps its size on a phone
  const usable = (y) => y !== null && y !== undefined && (!logY || y > 0);
  const points = lines.flatMap((line) => line.points);
  const loud = lines.filter((line) => !line.quiet).flatMap((line) => line.points);
  if (!points.some(([, y]) => usable(y))) return null;
  const xs = points.map(([x]) => x);
  const ys = points.flatMap(([, ...values]) => values).filter(usable);
  const x = axis(xs, logX, CHART.left, chartWidth - CHART.right);
  const y = axis(ys, logY, CHART.height - CHART.bottom, CHART.top);
  return { x, y, usable, width: chartWidth, xs: stepsOf(loud) };
}

// The distinct x values, sorted, also of values that are not finite: for the readout.
function stepsOf(points) {
  return [...new Set(points.map(([x]) => x))].sort((a, b) => a - b);
}

// Return `place`, a function from values to pixels, and `ticks`.
function axis(values, logarithmic, start, end) {
  const scaled = logarithmic ? Math.log10 : (value) => value;
  let low = values.reduce((a, b) => Math.min(a, b));
  let high = values.reduce((a, b) => Math.max(a, b));
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    [low, high] = logarithmic ? [low / 2, high * 2] : [low - room, high + room];
  }
  const share = (value) => (scaled(value) - scaled(low)) / (scaled(high) - scaled(low));
  const place = (value) => start + share(value) * (end - start);
  return { place, ticks: logarithmic ? logTicks(low, high) : linearTicks(low, high) };
}

function linearTicks(low, high) {
  const minStep = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(minStep));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= minStep);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) {
    ticks.push(Number(tick.toPrecision(12)));
  }
  return ticks;
}

// Powers of ten if at least three are in the range, otherwise powers of two.
function logTicks(low, high) {
  const tens = powers(10, low, high);
  return tens.length > 2 ? tens : powers(2, low, high);
}

// At most nine powers of `base` from `low` to `high`.
function powers(base, low, high) {
  const logarithm = (value) => Math.log(value) / Math.log(base);
  const first = Math.ceil(logarithm(low) - 1e-9);
  const last = Math.floor(logarithm(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first) / 8));
  const ticks = [];
  for (let exponent = first; exponent <= last; exponent += step) ticks.push(base ** exponent);
  return ticks;
}

function gridOf({ x, y, width }, { xLabel, yLabel }) {
  const bottom = CHART.height - CHART.bottom;
  const right = width - CHART.right;
  const label = (text, attributes) => svg("text", attributes, text);
  return [
    ...y.ticks.flatMap((tick) => [
      svg("path", { class: "grid", d: `M${CHART.left} ${y.place(tick)}H${right}` }),
      label(numberText(tick), { x: CHART.left - 8, y: y.place(tick) + 4, "text-anchor": "end" }),
    ]),
    ...x.ticks.map((tick) =>
      label(numberText(tick), { x: x.place(tick), y: bottom + 17, "text-anchor": "middle" }),
    ),
    svg("path", { class: "axis", d: `M${CHART.left} ${bottom}H${right}` }),
    label(xLabel, { x: right, y: CHART.height - 5, "text-anchor": "end" }),
    label(yLabel, { x: 0, y: 12 }),
  ];
}

function linePath({ points, colour, dash, quiet }, { x, y, usable }) {
  let pen = "M";
  let d = "";
  for (const [xValue, yValue] of points) {
    if (usable(yValue)) {
      d += `${pen}${x.place(xValue).toFixed(1)} ${y.place(yValue).toFixed(1)}`;
      pen = "L";
    } else {
      pen = "M"; // leaves a gap at a value that is not finite
    }
  }
  return svg("path", { class: quiet ? "line quiet" : "line", stroke: colour, "stroke-dasharray": dash ?? "", d });
}

// Mark the points of a short line; a line with a single point would be invisible.
function pointMarks({ points, colour, quiet }, { x, y, usable }) {
  if (quiet || points.length > MAX_MARKED_POINTS) return [];
  return points
    .filter(([, yValue]) => usable(yValue))
    .map(([xValue, yValue]) =>
      svg("circle", { cx: x.place(xValue), cy: y.place(yValue), r: 3, fill: colour }),
    );
}

// The area between `low` and `high`: along the upper edge, then back along the lower.
function bandPath({ points, colour }, { x, y, usable }) {
  const inBand = points.filter(([, , low, high]) => usable(low) && usable(high));
  if (inBand.length < 2) return svg("g");
  const corner = (xValue, yValue) => `${x.place(xValue).toFixed(1)} ${y.place(yValue).toFixed(1)}`;
  const upper = inBand.map(([xValue, , , high]) => corner(xValue, high));
  const lower = inBand.map(([xValue, , low]) => corner(xValue, low));
  return svg("path", { class: "band", fill: colour, d: `M${[...upper, ...lower.reverse()].join("L")}Z` });
}

function lineSample({ colour, dash }) {
  const line = svg("path", {
    d: "M0 5H26",
    stroke: colour,
    "stroke-width": 3,
    "stroke-dasharray": dash ?? "",
  });
  return svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true", focusable: "false" }, line);
}

function legendOf(lines) {
  const items = lines.filter((line) => !line.quiet).map((line) => element("li", {}, lineSample(line), line.label));
  return element("ul", { className: "lines" }, ...items);
}

// Make the chart a slider over its x values: pointer and arrow keys move the crosshair.
function followPointer(chart, parts) {
  const { scales, options } = parts;
  let current = -1;
  const set = (attributes) => {
    for (const [key, value] of Object.entries(attributes)) chart.setAttribute(key, value);
  };
  set({
    role: "slider",
    tabindex: 0,
    "aria-label": `${options.title}; press arrow keys to read values`,
    "aria-valuemin": 0,
    "aria-valuemax": scales.xs.length - 1,
    "aria-valuenow": 0,
    "aria-valuetext": "no value chosen",
  });
  const move = (index) => {
    current = Math.max(0, Math.min(scales.xs.length - 1, index));
    set({ "aria-valuenow": current, "aria-valuetext": showAt(scales.xs[current], parts) });
  };
  chart.addEventListener("pointermove", (event) => {
    const box = parts.picture.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * scales.width;
    move(nearest(scales.xs.map((x) => scales.x.place(x)), pixel));
  });
  chart.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    const ends = { Home: 0, End: scales.xs.length - 1 };
    if (event.key in steps) move(current + steps[event.key]);
    else if (event.key in ends) move(ends[event.key]);
    else return;
    event.preventDefault();
  });
  for (const event of ["pointerleave", "blur"]) {
    chart.addEventListener(event, () => {
      parts.readout.hidden = true;
      parts.cross.removeAttribute("d");
      parts.dots.replaceChildren();
    });
  }
}

// The index of the value that is nearest to `target`.
function nearest(values, target) {
  let best = 0;
  values.forEach((value, i) => {
    if (Math.abs(value - target) < Math.abs(values[best] - target)) best = i;
  });
  return best;
}

// Draw the crosshair at x, list the values at x, and return them as one line of text.
function showAt(x, { lines, scales, options, cross, dots, readout }) {
  const pixel = scales.x.place(x);
  const present = lines
    .filter((line) => !line.quiet)
    .map((line) => ({ line, point: line.points.find(([pointX]) => pointX === x) }))
    .filter(({ point }) => point);
  cross.setAttribute("d", `M${pixel} ${CHART.top}V${CHART.height - CHART.bottom}`);
  dots.replaceChildren(
    ...present
      .filter(({ point }) => scales.usable(point[1]))
      .map(({ line, point }) =>
        svg("circle", { cx: pixel, cy: scales.y.place(point[1]), r: 3.5, fill: line.colour }),
      ),
  );
  const head = `${options.xLabel} ${asText(x)}`;
  const values = present.map(({ line, point }) => [line.label, valueText(point)]);
  readout.replaceChildren(
    element("strong", {}, head),
    ...present.slice(0, MAX_READOUT_LINES).map(({ line, point }) => {
      const name = element("span", {}, line.label);
      return element("div", {}, colourSwatch(line.colour), name, element("b", {}, valueText(point)));
    }),
    present.length > MAX_READOUT_LINES ? `${present.length - MAX_READOUT_LINES} more are in the table` : "",
  );
  readout.hidden = false;
  const share = (100 * pixel) / scales.width;
  readout.style.left = share > 50 ? "" : `calc(${share}% + 0.7rem)`;
  readout.style.right = share > 50 ? `calc(${100 - share}% + 0.7rem)` : "";
  return [head, ...values.map(([label, value]) => `${label}: ${value}`)].join("; ");
}

function valueText([, y, low, high]) {
  const value = y === null ? "not finite" : asText(y);
  return low === undefined || low === null ? value : `${value} (${asText(low)} to ${asText(high)})`;
}

function colourSwatch(colour) {
  const swatch = element("span", { className: "swatch", "aria-hidden": "true" });
  swatch.style.background = colour;
  return swatch;
}

// The values as a table, for readers who cannot see the chart. Opening it makes the rows.
function tableOf(lines, options) {
  const details = element("details", {}, element("summary", {}, "Values as a table"));
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) {
      details.append(...valuesTable(lines, options));
    }
  });
  return details;
}

function valuesTable(lines, options) {
  const inOrderOfLegend = [...lines].sort((a, b) => Boolean(a.quiet) - Boolean(b.quiet));
  const points = inOrderOfLegend.flatMap((line) => line.points.map((point) => [line.label, point]));
  const heads = ["line", options.xLabel, options.yLabel].map((text) => element("th", { scope: "col" }, text));
  const rows = points.slice(0, MAX_VALUE_ROWS).map(([label, point]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, label),
      element("td", {}, asText(point[0])),
      element("td", {}, valueText(point)),
    ),
  );
  const parts = [scrollBox(options.title, table(options.title, heads, rows))];
  if (points.length > MAX_VALUE_ROWS) {
    parts.push(small(`The first ${MAX_VALUE_ROWS} of ${points.length} values. Draw fewer lines to see the others.`));
  }
  return parts;
}
