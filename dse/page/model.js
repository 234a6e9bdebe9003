// The arithmetic of the page: pure functions of the data and of assignments (the index of a candidate per layer).

/** The cost of a network under an assignment; `pj` is Infinity if layers have no mapping, and `lacking` names them. */
function totals(data, assignment) {
  const sum = { pj: 0, compute_pj: 0, tx_pj: 0, cycles: 0, lacking: [] };
  data.layers.forEach((layer, i) => {
    const cell = layer.cells[assignment[i]];
    if (!("pj" in cell)) sum.lacking.push(layer.name);
    for (const key of ["pj", "compute_pj", "tx_pj", "cycles"]) sum[key] += cell[key] ?? Infinity;
  });
  return sum;
}

/** What a network takes beside energy; a number is NaN if the table does not say, or a layer has no mapping.
 *
 * `busy` is the share of the PEs that work while the array computes, `stalled` that over all cycles. */
function use(data, assignment) {
  const sum = { operations: 0, computing: 0, possible: 0, cycles: 0, weight_bits: 0, off_chip_bits: 0 };
  data.layers.forEach((layer, i) => {
    const cell = layer.cells[assignment[i]];
    sum.operations += layer.n_ops;
    sum.computing += layer.n_ops ? layer.n_ops / (cell.utilisation ?? NaN) : 0;
    sum.possible += cell.cycles * (data.candidates[assignment[i]].pes ?? NaN);
    sum.cycles += cell.cycles ?? NaN;
    sum.weight_bits += cell.weight_bits ?? NaN;
    sum.off_chip_bits += cell.off_chip_bits ?? NaN;
  });
  return {
    busy: sum.operations / sum.computing,
    stalled: sum.operations / sum.possible,
    seconds: sum.cycles * data.clock.seconds,
    weight_bytes: Math.ceil(sum.weight_bits / 8),
    off_chip_bytes: Math.ceil(sum.off_chip_bits / 8),
  };
}

/** Candidates of a layer by energy, those without a mapping last, each with its difference from the chosen one. */
function ranking(layer, chosen) {
  const own = layer.cells[chosen].pj;
  return layer.cells
    .map((cell, k) => ({
      k,
      pj: cell.pj ?? Infinity,
      difference: cell.pj - own,
      relative: cell.pj / own - 1,
      reason: cell.reason,
    }))
    .sort((a, b) => (a.pj === b.pj ? a.k - b.k : a.pj - b.pj));
}

/** The parts of a layer's energy: compute first, then the levels from the innermost outwards. */
function spent(data, cell) {
  const counted = data.transmission === "all";
  const rows = [{ name: "compute", pj: cell.compute_pj, kind: "compute" }];
  data.parts.forEach((part, i) => {
    const kind = part.off_chip ? "off-chip" : "on-chip";
    rows.push({ name: `${part.level} ${part.tensor}`, pj: cell.parts[i], kind, skipped: part.off_chip && !counted });
  });
  if (!data.parts.length) rows.push({ name: "transmission", pj: cell.tx_pj, kind: "on-chip" });
  if (data.layers.some((layer) => layer.cells.some((c) => c.rest_pj)))
    rows.push({ name: "leakage", pj: cell.rest_pj, kind: "compute" });
  return rows;
}

/** A loop nest as lines `{level, text, spatial}`, outermost first; the first line of a level has its name. */
function nestLines(nest) {
  const lines = [];
  for (const [level, loops] of nest)
    loops.forEach(([dimension, bound, axis, last], i) => {
      const indent = " ".repeat(Math.min(lines.length, 16));
      const remainder = last ? `, last run ${last}` : "";
      const kind = `for ${dimension} in 0..${bound - 1}${axis ? ` across ${axis.toUpperCase()}` : ""}`;
      lines.push({ level: i ? "" : level, text: `${indent}${kind}${remainder}`, spatial: Boolean(axis) });
    });
  return lines;
}

/** All layers changed to one candidate; layers without a mapping for it are unchanged, and `stay` names them. */
function withAll(data, assignment, k) {
  const possible = data.layers.map((layer) => "pj" in layer.cells[k]);
  return {
    assignment: assignment.map((old, i) => (possible[i] ? k : old)),
    stay: data.layers.filter((_, i) => !possible[i]).map((layer) => layer.name),
  };
}

/** The assignment as YAML, in the format of a run's assignment.yaml. */
function yaml(data, assignment) {
  return data.layers
    .map((layer, i) => `${scalar(layer.name)}: ${scalar(data.candidates[assignment[i]].name)}\n`)
    .join("");
}

function scalar(text) {
  const reserved = /^(y|n|yes|no|on|off|true|false|null)$/i;
  return /^[A-Za-z_][\w.-]*$/.test(text) && !reserved.test(text) ? text : JSON.stringify(text);
}

/** Round numbers that cover a range, for an axis. */
function ticks(low, high, count = 5) {
  const raw = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}
