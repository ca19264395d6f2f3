// Runs as data: unpacking, conditions, order, cells. Knows nothing of the page.

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
  constructor({ facts, experiment, metrics, steps, values, curves, colours }) {
    this.facts = new Map(facts.map((fact) => [fact.key, fact]));
    this.experiment = experiment;
    this.metrics = new Map(Object.entries(metrics));
    this.steps = steps;
    this.values = values;
    this.curves = curves;
    this.colours = new Map(Object.entries(colours));
    this.size = curves.length;
    this.all = Array.from({ length: this.size }, (_, run) => run);
  }

  // Every key that can be asked for: facts first, then metrics.
  get keys() {
    return [...this.facts.keys(), ...this.metrics.keys()];
  }

  // A run's value of a key, null where it has none.
  value(run, key) {
    const fact = this.facts.get(key);
    if (fact) return fact.values[fact.codes ? fact.codes[run] : 0];
    return this.metrics.get(key)?.[run] ?? null;
  }

  // The different values of a fact, sorted; none are offered for a metric.
  distinct(key) {
    return [...(this.facts.get(key)?.values ?? [])].sort(compareValues);
  }

  varies(key) {
    const fact = this.facts.get(key);
    return fact ? fact.codes !== null : this.metrics.has(key);
  }

  // What runs logged more than once.
  curveNames(runs) {
    const names = new Set(runs.flatMap((run) => Object.keys(this.curves[run])));
    return [...names].sort();
  }

  // [x, y] pairs of one curve, those that are not finite left out as null.
  curve(run, name) {
    const found = this.curves[run][name];
    if (!found) return [];
    const [steps, values] = found;
    return this.steps[steps].map((x, i) => [x, this.values[values][i]]);
  }

  colour(norm) {
    return this.colours.get(norm) ?? "#868e96";
  }
}

// As a person reads it: text as it is, everything else as JSON writes it.
function shown(value) {
  if (value === null) return "–";
  if (typeof value === "number") return shownNumber(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

function shownNumber(value) {
  if (Number.isInteger(value) || value === 0) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return String(Number(value.toPrecision(3)));
  return String(Number(value.toFixed(4)));
}

// As in a column: always four decimals, where they show something.
function aligned(value) {
  if (value === null) return "–";
  const size = Math.abs(value);
  return value === 0 || (size >= 1e-3 && size < 1e5) ? value.toFixed(4) : value.toExponential(2);
}

// Numbers, then text, then what has no value, which stays last in either direction.
function rank(value) {
  if (value === null) return 2;
  return typeof value === "number" ? 0 : 1;
}

function compareValues(a, b) {
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (typeof a === "number") return a - b;
  return a === null ? 0 : compareText(shown(a), shown(b));
}

function compareText(a, b) {
  return a < b ? -1 : Number(a > b);
}

// As `normbench results --where`: != holds where = does not, so also where there is no
// value; an order holds only between numbers.
function holds({ operator, text }, value) {
  if (operator in ORDERED) {
    return typeof value === "number" && ORDERED[operator](value, Number(text));
  }
  return means(value, text) === (operator === "=");
}

function means(value, text) {
  if (value === null) return text.toLowerCase() === "null" || text === "–";
  if (typeof value === "number") return text.trim() !== "" && Number(text) === value;
  return text === shown(value) || text.toLowerCase() === shown(value);
}

function matching(runs, conditions) {
  return runs.all.filter((run) =>
    conditions.every((condition) => holds(condition, runs.value(run, condition.key))),
  );
}

function inOrder(items, valueOf, descending) {
  const ranked = items.map((item) => [valueOf(item), item]);
  ranked.sort(([a], [b]) => {
    const withoutValue = (a === null) - (b === null);
    return withoutValue || (descending ? compareValues(b, a) : compareValues(a, b));
  });
  return ranked.map(([, item]) => item);
}

// A cell for each combination of the values of `by`. Its numbers are over the runs that
// are ok and have a finite metric; `failures` are those that are not ok.
function cellsOf(runs, chosen, by, metric) {
  const found = new Map();
  for (const run of chosen) {
    const values = by.map((key) => runs.value(run, key));
    const id = JSON.stringify(values);
    if (!found.has(id)) found.set(id, { id, values, runs: [] });
    found.get(id).runs.push(run);
  }
  return [...found.values()].map((cell) => ({ ...cell, ...summary(runs, cell.runs, metric) }));
}

function summary(runs, members, metric) {
  const ok = members.filter((run) => runs.value(run, "status") === "ok");
  const values = ok.map((run) => runs.value(run, metric)).filter((value) => value !== null);
  const n = values.length;
  const mean = n ? values.reduce((sum, value) => sum + value, 0) / n : null;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    n,
    mean,
    sd: n > 1 ? Math.sqrt(squares / (n - 1)) : null,
    min: n ? values.reduce((a, b) => Math.min(a, b)) : null,
    max: n ? values.reduce((a, b) => Math.max(a, b)) : null,
    failures: members.length - ok.length,
    without: ok.length - n,
  };
}

// Of several curves the mean and the least and greatest value, at the steps of the
// first within the reach of all; between the points of another curve a straight line.
function band(curves) {
  const finite = curves
    .map((curve) => curve.filter(([, y]) => y !== null))
    .filter((curve) => curve.length > 1);
  if (!finite.length) return [];
  const from = Math.max(...finite.map((curve) => curve[0][0]));
  const to = Math.min(...finite.map((curve) => curve.at(-1)[0]));
  const steps = finite[0].map(([x]) => x).filter((x) => from <= x && x <= to);
  return steps.map((x) => {
    const at = finite.map((curve) => interpolated(curve, x));
    const mean = at.reduce((sum, y) => sum + y, 0) / at.length;
    return [x, mean, Math.min(...at), Math.max(...at)];
  });
}

function interpolated(curve, x) {
  let right = curve.findIndex(([at]) => at >= x);
  if (right <= 0) right = 1;
  const [[x0, y0], [x1, y1]] = [curve[right - 1], curve[right]];
  return x1 === x0 ? y1 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
}
