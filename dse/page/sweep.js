// Energy against a swept size: one curve per candidate, or one candidate by level.

function makeSweep(data) {
  const sweep = data.sweep;
  const axis = select(
    "against",
    sweep.axes.map((name, i) => [i, name]),
  );
  const measure = select("energy", [
    ["mac", "pJ per MAC"],
    ["total", "µJ per image"],
  ]);
  const what = select("lines", [
    ["", "every candidate"],
    ...sweep.candidates.map((name) => [name, `${name} by level`]),
  ]);
  const readout = h("p", { class: "readout", role: "status" });
  const key = h("div"),
    numbers = h("div");
  const chart = makeChart({ show: (id) => say(id), leave: () => say(null), pick: (id) => say(id) });
  let titles = [];

  function say(id) {
    readout.textContent = id === null ? "Point at a mark, or focus it, to see its numbers." : titles[id];
    chart.state({ shown: id });
  }
  function draw() {
    const drawn = curves(data, Number(axis.value), measure.value, what.value);
    titles = drawn.spec.marks.map((mark) => mark.title);
    chart.draw(drawn.spec);
    key.replaceChildren(legend(drawn.key));
    numbers.replaceChildren(
      h("details", {}, h("summary", {}, "The numbers"), tableOf("Sweep", drawn.head, drawn.rows)),
    );
    say(null);
  }
  for (const control of [axis, measure, what]) control.addEventListener("change", draw);
  const label = (text, control) => h("label", {}, `${text} `, control);
  const controls = [
    ...(sweep.axes.length > 1 ? [label("against", axis)] : []),
    label("energy in", measure),
    label("lines", what),
  ];
  const missing = sweep.missing.length ? [h("p", { class: "soft" }, `No total: ${sweep.missing.join("; ")}`)] : [];
  return {
    elements: [h("div", { class: "buttons" }, controls), chart.element, readout, key, numbers, ...missing],
    draw,
  };
}

function select(name, options) {
  return h(
    "select",
    { name },
    options.map(([value, text]) => h("option", { value }, text)),
  );
}

/** The cheapest point of a candidate at every size along an axis: other settings have their best values. */
function curveOf(sweep, candidate, axis) {
  const least = new Map();
  for (const point of sweep.points.filter((p) => p.candidate === candidate)) {
    const known = least.get(point.x[axis]);
    if (!known || point.energy_pj < known.energy_pj) least.set(point.x[axis], point);
  }
  return [...least.values()].sort((a, b) => a.x[axis] - b.x[axis]);
}

/** The chart and the rows of the table below it. */
function curves(data, axis, measure, candidate) {
  const sweep = data.sweep;
  const name = sweep.axes[axis];
  const unit = measure === "mac" ? "pJ per MAC" : "µJ";
  const value = (pj, point) => (measure === "mac" ? pj / point.n_ops : pj * 1e-6);
  const series = candidate === "" ? candidateLines(data, axis) : stack(sweep, curveOf(sweep, candidate, axis));
  const marked = candidate === "" ? series : [{ ...series.at(-1), colour: "var(--ink)" }];
  const sizes = [...new Set(sweep.points.map((p) => p.x[axis]))].sort((a, b) => a - b);
  const edge = (one, height) => one.points.map((p) => [p.x[axis], value(height(p), p)]);
  const ticks = sizes.length <= 12 ? sizes : undefined;
  return {
    spec: {
      label: `${sweep.workload}: energy against ${name}`,
      x: { label: name, log: sizes[0] > 0 && sizes.at(-1) / sizes[0] >= 4, ticks },
      y: { label: `energy (${unit})`, from: 0 },
      bands: series
        .filter((one) => one.below)
        .map((one) => ({ colour: one.colour, points: [...edge(one, one.pj), ...edge(one, one.below).reverse()] })),
      lines: marked.map((one) => ({ colour: one.colour, points: edge(one, one.pj) })),
      marks: marked.flatMap((one) => marksOf(one, name, axis, value)).map((mark, id) => ({ ...mark, id })),
    },
    key: series.map((one) => ({ text: one.name, shape: one.below ? "square" : "circle", colour: one.colour })),
    head: [name, ...series.map((one) => `${one.name} (${unit})`)],
    rows: sizes.map((x) => [
      String(x),
      ...series.map((one) => {
        const p = one.points.find((q) => q.x[axis] === x);
        return p ? digits(value(one.pj(p) - (one.below?.(p) ?? 0), p), 4) : "–";
      }),
    ]),
  };
}

/** One mark per point of a curve; the point of least energy has another shape, a number, and a note in its title. */
function marksOf(one, name, axis, value) {
  const least = one.points.reduce((a, b) => (one.pj(b) < one.pj(a) ? b : a), one.points[0]);
  return one.points.map((p) => {
    const figures = [
      `${digits(p.energy_pj / p.n_ops, 4)} pJ per MAC`,
      `${digits(p.energy_pj * 1e-6, 4)} µJ`,
      `${whole(p.cycles)} cycles${p === least ? " (the least)" : ""}`,
    ];
    return {
      x: p.x[axis],
      y: value(one.pj(p), p),
      shape: p === least ? "diamond" : "circle",
      colour: one.colour,
      text: p === least ? digits(value(one.pj(p), p)) : "",
      title: `${p.candidate}, ${name} = ${p.x[axis]}: ${figures.join(", ")}`,
    };
  });
}

/** One line per candidate, in the candidate's colour in the strip; a candidate that is not in the table has another. */
function candidateLines(data, axis) {
  return data.sweep.candidates.map((name, i) => {
    const known = data.candidates.find((candidate) => candidate.name === name);
    const colour = known?.fill ?? `var(--part-${1 + (i % 9)})`;
    return { name, colour, points: curveOf(data.sweep, name, axis), pj: (p) => p.energy_pj };
  });
}

/** The parts of a curve, stacked; `pj` is the upper edge and `below` the lower one. */
function stack(sweep, points) {
  const sum = (p, n) => p.parts.slice(0, n).reduce((a, b) => a + b, 0);
  return sweep.parts.map((name, i) => ({
    name,
    colour: `var(--part-${i % 10})`,
    points,
    below: (p) => sum(p, i),
    pj: (p) => sum(p, i + 1),
  }));
}
