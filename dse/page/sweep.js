// Energy against a swept size: a curve a candidate, or one candidate by level.

function makeSweep(data) {
  const sweep = data.sweep;
  const axis = select("against", sweep.axes.map((name, i) => [i, name]));
  const measure = select("energy", [["mac", "pJ per MAC"], ["total", "µJ per image"]]);
  const what = select("lines", [["", "every candidate"], ...sweep.candidates.map((name) => [name, `${name} by level`])]);
  const readout = h("p", { class: "readout", role: "status" });
  const key = h("div"), numbers = h("div");
  const chart = makeChart({ show: (id) => say(id), leave: () => say(null), pick: (id) => say(id) });
  let titles = [];

  function say(id) {
    readout.textContent = id === null ? "Point at a mark, or focus one, for its figures." : titles[id];
    chart.state({ shown: id });
  }
  function draw() {
    const drawn = curves(data, Number(axis.value), measure.value, what.value);
    titles = drawn.spec.marks.map((mark) => mark.title);
    chart.draw(drawn.spec);
    key.replaceChildren(legend(drawn.key));
    numbers.replaceChildren(h("details", {}, h("summary", {}, "The numbers"), tableOf("Sweep", drawn.head, drawn.rows)));
    say(null);
  }
  for (const control of [axis, measure, what]) control.addEventListener("change", draw);
  const label = (text, control) => h("label", {}, `${text} `, control);
  const controls = [...(sweep.axes.length > 1 ? [label("against", axis)] : []), label("energy in", measure), label("lines", what)];
  const missing = sweep.missing.length ? [h("p", { class: "soft" }, `No total: ${sweep.missing.join("; ")}`)] : [];
  return { elements: [h("div", { class: "buttons" }, controls), chart.element, readout, key, numbers, ...missing], draw };
}

function select(name, options) {
  return h("select", { name }, options.map(([value, text]) => h("option", { value }, text)));
}

/** The cheapest point of a candidate at every size along an axis: other settings are at their best there. */
function curveOf(sweep, candidate, axis) {
  const least = new Map();
  for (const point of sweep.points.filter((p) => p.candidate === candidate)) {
    const known = least.get(point.x[axis]);
    if (!known || point.energy_pj < known.energy_pj) least.set(point.x[axis], point);
  }
  return [...least.values()].sort((a, b) => a.x[axis] - b.x[axis]);
}

/** What is drawn and what the table below it says. */
function curves(data, axis, measure, candidate) {
  const sweep = data.sweep, name = sweep.axes[axis];
  const value = (pj, point) => (measure === "mac" ? pj / point.n_ops : pj * 1e-6);
  const unit = measure === "mac" ? "pJ per MAC" : "µJ";
  const fill = (c) => data.candidates.find((known) => known.name === c)?.fill ?? `var(--part-${1 + (sweep.candidates.indexOf(c) % 9)})`;
  const series = candidate === ""
    ? sweep.candidates.map((c) => ({ name: c, colour: fill(c), points: curveOf(sweep, c, axis), pj: (p) => p.energy_pj }))
    : stack(sweep, curveOf(sweep, candidate, axis));
  const marked = candidate === "" ? series : series.slice(-1);
  const bests = new Set(marked.map((one) => one.points.reduce((a, b) => (b && one.pj(b) < one.pj(a) ? b : a), one.points[0])));
  const sizes = [...new Set(sweep.points.map((p) => p.x[axis]))].sort((a, b) => a - b);
  const at = (p, pj) => [p.x[axis], value(pj, p)];
  return {
    spec: {
      label: `${sweep.workload}: energy against ${name}`,
      x: { label: name, log: sizes[0] > 0 && sizes.at(-1) / sizes[0] >= 4, ticks: sizes.length <= 12 ? sizes : undefined },
      y: { label: `energy (${unit})`, from: 0 },
      bands: candidate === "" ? [] : series.map((one) => ({ colour: one.colour, points: [...one.points.map((p) => at(p, one.pj(p))), ...[...one.points].reverse().map((p) => at(p, one.below(p)))] })),
      lines: marked.map((one) => ({ colour: candidate === "" ? one.colour : "var(--ink)", points: one.points.map((p) => at(p, one.pj(p))) })),
      marks: marked.flatMap((one) => one.points.map((p) => ({ p, one }))).map(({ p, one }, id) => ({
        id, x: p.x[axis], y: value(one.pj(p), p), shape: bests.has(p) ? "diamond" : "circle", colour: candidate === "" ? one.colour : "var(--ink)",
        text: bests.has(p) ? digits(value(one.pj(p), p)) : "",
        title: `${p.candidate}, ${name} = ${p.x[axis]}: ${digits(p.energy_pj / p.n_ops, 4)} pJ per MAC, ${digits(p.energy_pj * 1e-6, 4)} µJ, ${whole(p.cycles)} cycles${bests.has(p) ? " (the least)" : ""}`,
      })),
    },
    key: series.map((one) => (candidate === "" ? { text: one.name, shape: "circle", colour: one.colour } : { text: one.name, shape: "square", colour: one.colour })),
    head: [name, ...series.map((one) => `${one.name} (${unit})`)],
    rows: sizes.map((x) => [String(x), ...series.map((one) => {
      const p = one.points.find((q) => q.x[axis] === x);
      return p ? digits(value(one.pj(p) - (one.below?.(p) ?? 0), p), 4) : "–";
    })]),
  };
}

/** The parts of a curve on top of each other; `pj` is the upper edge and `below` the lower one. */
function stack(sweep, points) {
  const sum = (p, n) => p.parts.slice(0, n).reduce((a, b) => a + b, 0);
  return sweep.parts.map((name, i) => ({
    name, colour: `var(--part-${i % 10})`, points, below: (p) => sum(p, i), pj: (p) => sum(p, i + 1),
  }));
}
