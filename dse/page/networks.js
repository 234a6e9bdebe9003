// The networks: the plane of accuracy and energy, the numbers of one network, and all networks as a table.

const SEARCHED_SHAPES = ["diamond", "triangle", "square", "down"];

/** `on.preview(network)`, `on.leave()` follow pointer and focus; `on.pin(network)` is a click or Enter. */
function makeNetworks(data, on) {
  const trained = data.networks.some((network) => network.test !== undefined);
  const settings = [...new Set(data.networks.map((network) => network.setting).filter(Boolean))];
  const chart = makeChart({ show: (id) => on.preview(id), leave: on.leave, pick: (id) => on.pin(id) });
  const figures = h("dl", { class: "facts figures" }),
    name = h("h3");
  const card = h("div", { class: "panel network-card" }, name, figures);
  const buttons = new Map();
  const table = networkTable(data, trained, buttons, on);

  function draw() {
    const faded = { colour: "var(--soft)", dashed: true };
    chart.draw({
      label: `Test ${measureOf(data).name} against energy: one point for each trained network`,
      pinnable: true,
      x: { label: "energy per image / all layers T8" },
      y: measureOf(data).percent
        ? { label: `test ${measureOf(data).name} (%)`, to: 100 }
        : { label: `test ${measureOf(data).name}` },
      lines: [
        ...(data.run?.stairs ?? []).map((line) => ({ ...line, colour: "var(--soft)", faint: line.seed !== null })),
        ...(data.run?.lines ?? []).map((line) => ({ ...line, ...faded, faint: line.seed !== null })),
      ],
      marks: data.networks.map((network, id) => ({ id, ...markOf(data, settings, network) })),
    });
  }
  function state(shown, pinned) {
    const network = data.networks[shown];
    name.textContent = network.label;
    figures.replaceChildren(
      ...figureTexts(data, network).map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text))),
    );
    chart.state({ shown, pinned });
    for (const [id, list] of buttons) for (const button of list) button.setAttribute("aria-pressed", id === pinned);
  }
  const plane = h("div", { class: "plane" }, h("div", {}, chart.element, legend(signs(data, settings))), card);
  return { plane, table, draw: trained ? draw : () => {}, state, buttons };
}

/** What networks are judged by: accuracy, unless the run has another measure. */
function measureOf(data) {
  return data.run?.measure ?? { name: "accuracy", percent: true };
}

/** A value of the measure, and a difference of two as text. */
const valueText = (data, v) => (measureOf(data).percent ? percent(v) : String(Number(v.toPrecision(4))));
function gainText(data, v) {
  return measureOf(data).percent ? signed(100 * v) : `${v < 0 ? "−" : "+"}${Number(Math.abs(v).toPrecision(3))}`;
}

function markOf(data, settings, network) {
  const figures = figureTexts(data, network).map((pair) => pair.join(" "));
  return {
    x: network.energy,
    y: measureOf(data).percent ? 100 * network.test : network.test,
    title: `${network.label}: ${figures.join(", ")}`,
    shape: network.setting ? shapeOf(settings.indexOf(network.setting)) : "circle",
    hollow: network.kind === "sampled",
    colour: network.kind === "baseline" ? data.candidates[network.assignment[0]].fill : "var(--found)",
    text: highest(data, network) ? network.candidate : "",
  };
}

const shapeOf = (i) => SEARCHED_SHAPES[i % SEARCHED_SHAPES.length];

/** Entries of the legend, for the marks that occur in the plane. */
function signs(data, settings) {
  const some = (kind) => data.networks.some((network) => network.kind === kind);
  const found = { colour: "var(--found)" };
  const soft = { colour: "var(--soft)" };
  return [
    some("baseline") && { text: "one operator throughout", shape: "circle", ...soft },
    ...settings.map((text, i) => ({ text: `searched, ${text}`, shape: shapeOf(i), ...found })),
    some("sampled") && { text: "hollow: other networks of a population", shape: shapeOf(0), hollow: true, ...found },
    data.run?.stairs?.length && { text: "best uniform network at no more energy: mean, and each seed", ...soft },
    data.run?.lines.length && { text: "uni-operator line: mean, and each seed", dashed: true, ...soft },
  ].filter(Boolean);
}

/** Is this the most accurate uni-operator network of its candidate? Its point has the name for all seeds. */
function highest(data, network) {
  if (network.kind !== "baseline") return false;
  const same = data.networks.filter((other) => other.candidate === network.candidate && other.kind === "baseline");
  return same.every(
    (other) =>
      other.test < network.test ||
      other === network ||
      (other.test === network.test && same.indexOf(other) > same.indexOf(network)),
  );
}

/** Names and values; a value that this kind of network does not have is a dash, so the box keeps its height. */
function figureTexts(data, network) {
  const known = (key, format) => (network[key] == null ? "–" : format(network[key]));
  return [
    ["energy", totalText(data, network.energy_pj)],
    ["of all T8", known("energy", (v) => v.toFixed(3))],
    ["expected before discretisation", known("expected", (v) => v.toFixed(3))],
    ["validation", known("validation", (v) => valueText(data, v))],
    ["test", known("test", (v) => valueText(data, v))],
    ["gain over the best uniform one at no more energy", gainOver(data, network)],
    ["above the uni-operator line", known("above_line", (v) => gainText(data, v) + pointsOf(data))],
    ["validation before relearning", known("validation_before", (v) => valueText(data, v))],
    ["image passes in all", known("passes", whole)],
    ["cycles, of all T8", known("latency", (v) => v.toFixed(3))],
    ["drawn", known("count", (v) => (v === 1 ? "once" : `${v} times`))],
  ];
}

const pointsOf = (data) => (measureOf(data).percent ? " points" : "");

/** The gain and the uniform network that it is over, or why there is none. */
function gainOver(data, network) {
  if (network.gain != null) return `${gainText(data, network.gain)}${pointsOf(data)}, over all ${network.over}`;
  return network.gain_reason ?? "–";
}

/** A button that pins a network. A network may have several. */
function networkButton(network, id, buttons, on, text = network.label) {
  const button = h(
    "button",
    {
      type: "button",
      "aria-pressed": false,
      onclick: () => on.pin(id),
      onpointerenter: () => on.preview(id),
      onpointerleave: on.leave,
      onfocus: () => on.preview(id),
      onblur: on.leave,
    },
    text,
  );
  buttons.set(id, [...(buttons.get(id) ?? []), button]);
  return button;
}

/** A difference in points, coloured by its sign; without colour if it rounds to 0. */
function gapOf(data, difference) {
  if (difference == null) return "";
  const text = gainText(data, difference);
  return h("span", { class: Number(text.slice(1)) === 0 ? "" : text[0] === "+" ? "good" : "bad" }, text);
}

/** The cell of a gain: its value and what it is over; for networks that are cheaper than all uniform ones, that. */
function gainCell(data, network) {
  if (network.gain != null) return h("span", {}, gapOf(data, network.gain), ` (${network.over})`);
  return network.kind !== "baseline" && network.gain_reason ? "none as cheap" : "";
}

function networkTable(data, trained, buttons, on) {
  const own = data.networks.map((network, id) => [network, id]).filter(([network]) => network.kind !== "sampled");
  const passes = data.networks.some((network) => network.passes != null);
  const of = (format) => (value) => (value == null ? "" : format(value));
  const rows = own.map(([network, id]) => {
    const sum = totals(data, network.assignment),
      used = use(data, network.assignment);
    const first = networkButton(network, id, buttons, on);
    return trained
      ? [
          first,
          String(network.seed),
          totalText(data, network.energy_pj),
          network.energy.toFixed(3),
          of((v) => v.toFixed(3))(network.expected),
          valueText(data, network.validation),
          valueText(data, network.test),
          gainCell(data, network),
          gapOf(data, network.above_line),
          ...(passes ? [of(whole)(network.passes)] : []),
          miniStrip(data, network.assignment),
        ]
      : [
          first,
          totalText(data, sum.pj),
          network.energy == null ? "" : network.energy.toFixed(3),
          totalText(data, sum.compute_pj),
          totalText(data, sum.tx_pj),
          whole(sum.cycles),
          timeText(used.seconds),
          shareText(used.busy),
          shareText(used.stalled),
          bytesText(used.weight_bytes),
          bytesText(used.off_chip_bytes),
        ];
  });
  const head = trained
    ? [
        ...["network", "seed", "energy", "of all T8", "expected", "validation", "test", "gain over uniform"],
        ...["above the line", ...(passes ? ["image passes"] : []), "assignment"],
      ]
    : [
        ...["network", "energy", "of all T8", "compute", "transmission", "cycles", `at ${data.clock.text}`],
        ...["PEs busy", "with stalls", "weights", "off chip"],
      ];
  return tableOf("Networks", head, rows);
}
