// The runs as data: unpacking, filter conditions, sorting, cells. No code for elements.

const OPERATORS = ["=", "!=", "<", "<=", ">", ">="];
const ORDERED = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream();
  const text = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Runs(await new Response(text).json());
}

class Runs {
  constructor({ facts, experiment, metrics, steps, values, curves, colours, max_metric, half_widths }) {
    this.facts = new Map(facts.map((fact) => [fact.key, fact]));
    this.experiment = experiment;
    this.metrics = new Map(Object.entries(metrics));
    this.steps = steps;
    this.values = values;
    this.curves = curves;
    this.colours = new Map(Object.entries(colours));
    this.maxMetric = max_metric;
    this.halfWidths = half_widths; // of 95 % t intervals, for 2 values and more, in sd
    this.size = curves.length;
    this.all = Array.from({ length: this.size }, (_, run) => run);
    this.mine = this.all.filter((run) => this.value(run, "source") === "mine");
  }

  // The keys of all values: facts first, then metrics.
  get keys() {
    return [...this.facts.keys(), ...this.metrics.keys()];
  }

  // The value of a key in a run; null if there is none.
  value(run, key) {
    const fact = this.facts.get(key);
    if (fact) return fact.values[fact.codes ? fact.codes[run] : 0];
    return this.metrics.get(key)?.[run] ?? null;
  }

  // The distinct values of a fact, sorted; empty for a metric.
  distinct(key) {
    return [...(this.facts.get(key)?.values ?? [])].sort(compareValues);
  }

  // Whether some runs differ in a fact; true for a metric.
  varies(key, among = this.all) {
    const fact = this.facts.get(key);
    if (!fact) return this.metrics.has(key);
    return fact.codes !== null && among.some((run) => fact.codes[run] !== fact.codes[among[0]]);
  }

  // Half the width of the 95 % t interval of `n` values with the standard deviation `sd`.
  halfWidth(sd, n) {
    if (n < 2) return null;
    if (n - 2 < this.halfWidths.length) return this.halfWidths[n - 2] * sd;
    const [z, df] = [1.959964, n - 1]; // Abramowitz & Stegun 1964, 26.7.5
    const t = z + (z ** 3 + z) / (4 * df) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * df ** 2);
    return (t * sd) / Math.sqrt(n);
  }

  // The names of all curves of some runs, sorted.
  curveNames(runs) {
    const names = new Set(runs.flatMap((run) => Object.keys(this.curves[run])));
    return [...names].sort();
  }

  // The [step, value] pairs of a curve; a value is null if it is not finite.
  curve(run, name) {
    const indices = this.curves[run][name];
    if (!indices) return [];
    const [steps, values] = [this.steps[indices[0]], this.values[indices[1]]];
    return steps.map((step, i) => [step, values[i]]);
  }

  colour(norm) {
    return this.colours.get(norm) ?? "#868e96";
  }
}

// A value as text: strings unchanged, other values as JSON.
function asText(value) {
  if (value === null) return "–";
  if (typeof value === "number") return numberText(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

function numberText(value) {
  if (Number.isInteger(value) || value === 0) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return String(Number(value.toPrecision(3)));
  return String(Number(value.toFixed(4)));
}

// A number as text for a column: four decimals, or exponential form if those do not suit.
function columnText(value) {
  if (value === null) return "–";
  const size = Math.abs(value);
  return value === 0 || (size >= 1e-3 && size < 1e5) ? value.toFixed(4) : value.toExponential(2);
}

// The order of values: numbers, then text, then null.
function rank(value) {
  if (value === null) return 2;
  return typeof value === "number" ? 0 : 1;
}

function compareValues(a, b) {
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (typeof a === "number") return a - b;
  return a === null ? 0 : compareText(asText(a), asText(b));
}

function compareText(a, b) {
  return a < b ? -1 : Number(a > b);
}

// Whether a condition holds for a value, with the rules of `normbench results --where`:
// != is the opposite of =, also for runs without a value; < and > need numbers.
function holds({ operator, text }, value) {
  if (operator in ORDERED) {
    return typeof value === "number" && ORDERED[operator](value, Number(text));
  }
  return equalsText(value, text) === (operator === "=");
}

function equalsText(value, text) {
  if (value === null) return text.toLowerCase() === "null" || text === "–";
  if (typeof value === "number") return text.trim() !== "" && Number(text) === value;
  return text === asText(value) || text.toLowerCase() === asText(value);
}

function matching(runs, conditions, candidates) {
  return candidates.filter((run) =>
    conditions.every((condition) => holds(condition, runs.value(run, condition.key))),
  );
}

// Sort items by value. Items without a value are last, also in descending order.
function inOrder(items, valueOf, descending) {
  const pairs = items.map((item) => [valueOf(item), item]);
  pairs.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? compareValues(b, a) : compareValues(a, b);
  });
  return pairs.map(([, item]) => item);
}

// Group runs into cells: runs with equal values of the keys `by` are one cell.
function cellsOf(runs, chosen, by, metric) {
  const cells = new Map();
  for (const run of chosen) {
    const values = by.map((key) => runs.value(run, key));
    const id = JSON.stringify(values);
    if (!cells.has(id)) cells.set(id, { id, values, runs: [] });
    cells.get(id).runs.push(run);
  }
  return [...cells.values()].map((cell) => ({ ...cell, ...summary(runs, cell.runs, metric) }));
}

// Statistics of the metric, as in `normbench results --by`: over the `n` runs that are ok
// and whose value counts. `low` and `high` are the 95 % t interval of the mean, null if
// n is below 2. `failures` counts the runs that are not ok or whose value is too large,
// `without` the runs that are ok but lack the metric.
function summary(runs, members, metric) {
  const ok = members.filter((run) => runs.value(run, "status") === "ok");
  const having = ok.map((run) => runs.value(run, metric)).filter((value) => value !== null);
  const values = having.filter((value) => Math.abs(value) < runs.maxMetric);
  return {
    ...meanInterval(runs, values),
    failures: members.length - ok.length + having.length - values.length,
    without: ok.length - having.length,
  };
}

function meanInterval(runs, values) {
  const n = values.length;
  const mean = n ? values.reduce((sum, value) => sum + value, 0) / n : null;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const sd = n > 1 ? Math.sqrt(squares / (n - 1)) : null;
  const half = runs.halfWidth(sd, n);
  return { n, mean, sd, low: half === null ? null : mean - half, high: half === null ? null : mean + half };
}

// The mean of several curves with its 95 % t interval: [step, mean, low, high]. The steps
// are those of the first curve that all curves cover; the other curves are interpolated
// linearly. A single curve has no interval.
function band(runs, curves) {
  if (curves.length === 1) return curves[0];
  const finite = curves
    .map((curve) => curve.filter(([, y]) => y !== null))
    .filter((curve) => curve.length > 1);
  if (!finite.length) return [];
  const first = Math.max(...finite.map((curve) => curve[0][0]));
  const last = Math.min(...finite.map((curve) => curve.at(-1)[0]));
  const steps = finite[0].map(([x]) => x).filter((x) => first <= x && x <= last);
  const values = finite.map((curve) => interpolated(curve, steps));
  return steps.map((x, i) => {
    const { mean, low, high } = meanInterval(runs, values.map((ofCurve) => ofCurve[i]));
    return [x, mean, low, high];
  });
}

// The values of a curve at ascending steps, which it covers.
function interpolated(curve, steps) {
  let right = 1;
  return steps.map((x) => {
    while (right < curve.length - 1 && curve[right][0] < x) right += 1;
    const [[x0, y0], [x1, y1]] = [curve[right - 1], curve[right]];
    return x1 === x0 ? y1 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
  });
}
