// The state of the page, and the drawing of its parts when the state changes.

function main(page) {
  const data = JSON.parse(page.getElementById("data").textContent);
  const own = (id) => data.networks[id].assignment;
  const state = {
    pinned: data.start,
    preview: null,
    assignment: own(data.start),
    layer: costliest(data),
    hovered: null,
  };
  const update = (change) => draw(data, parts, Object.assign(state, change));
  const look = (change) => drawLayer(data, parts, Object.assign(state, change));
  const onNetwork = {
    preview: (id) => state.preview !== id && update({ preview: id }),
    leave: () => state.preview !== null && update({ preview: null }),
    pin: (id) => update({ pinned: id, preview: null, assignment: own(id) }),
  };
  const networks = makeNetworks(data, onNetwork);
  const parts = {
    caption: h("p", { class: "caption" }),
    strip: makeStrip(data, {
      hover: (hovered) => look({ hovered }),
      leave: () => look({ hovered: null }),
      select: (layer) => look({ layer, hovered: null }),
    }),
    layer: makeLayerPanel(data),
    whatIf: makeWhatIf(data, {
      change: (assignment) => update({ assignment, preview: null }),
      layer: (layer) => look({ layer }),
      reset: () => update({ assignment: own(state.pinned), preview: null }),
    }),
    networks,
    run: data.run ? makeRun(data, networks.buttons, onNetwork) : null,
    sweep: data.sweep ? makeSweep(data) : null,
  };
  fill(page, data, parts);
  update({});
  networks.draw();
  parts.sweep?.draw();
}

/** The assignment that the strip shows: that of the network under the pointer, else the chosen one. */
const shownAssignment = (data, state) =>
  state.preview === null ? state.assignment : data.networks[state.preview].assignment;

function drawLayer(data, parts, state) {
  const i = state.hovered ?? state.layer;
  parts.strip.mark(state.layer, i);
  parts.layer.show(i, shownAssignment(data, state));
}

function draw(data, parts, state) {
  const assignment = shownAssignment(data, state);
  const shown = state.preview ?? state.pinned;
  const network = data.networks[shown];
  const changed = assignment.filter((k, i) => k !== network.assignment[i]).length;
  parts.strip.draw(assignment);
  parts.caption.replaceChildren(
    h("strong", {}, network.label),
    changed ? `, ${changed} changed` : "",
    `: ${totalText(data, totals(data, assignment).pj)}`,
  );
  drawLayer(data, parts, state);
  parts.networks.state(shown, state.pinned);
  parts.whatIf.draw(state.assignment, data.networks[state.pinned].assignment);
  parts.run?.draw(state.pinned);
}

const ABOUT = {
  plane:
    "Every point is one trained network. Point at one, or focus it, to show it in the strip below; " +
    "a click or Enter keeps it selected.",
  uniform:
    "Networks with one candidate in all layers, if all have a mapping. Click a name to show it in the strip below.",
  whatIf: "Choose another operator or precision for any layer; the total is updated from the energies of the table.",
  networks: "All networks were trained in the same way. Click a name to show the network in the strip.",
};

/** Puts every part into its section of the page. */
function fill(page, data, { caption, strip, layer, whatIf, networks, run, sweep }) {
  if (run) place(page, "plane", "Accuracy and energy", ABOUT.plane, [networks.plane]);
  else place(page, "uniform", "One operator throughout", ABOUT.uniform, [networks.table]);
  const outline = data.reference === null ? "" : `, outlines are those of ${data.candidates[data.reference].name}`;
  const about = `Bars are energies${outline}. Point at a layer, or move with the arrow keys.`;
  const strips = [caption, strip.element, layerLegend(data), layer.element];
  place(page, "network", "The network, layer by layer", about, strips);
  place(page, "what-if", "What if", ABOUT.whatIf, whatIf.elements);
  if (run) place(page, "networks", "Networks", ABOUT.networks, [networks.table]);
  if (run?.elements.length) place(page, "run", "What the searches did", "", run.elements);
  if (sweep) place(page, "sweep", "Energy against size", sweepAbout(data.sweep), sweep.elements);
  const findings = page.getElementById("findings");
  findings.hidden = !findings.querySelector("p");
  contents(page);
  page.querySelector("main").classList.add("ready");
}

const sweepAbout = (sweep) =>
  `The architecture sweep of ${sweep.workload}` +
  (sweep.axes.length > 1 ? "; at each size the other settings have their best values." : ".");

/** The layer that the panel shows first. */
function costliest(data) {
  const cost = data.layers.map((layer, i) => layer.cells[data.networks[data.start].assignment[i]].pj ?? 0);
  return cost.indexOf(Math.max(...cost));
}

function place(page, id, title, about, elements) {
  const section = page.getElementById(id);
  section.replaceChildren(...heading(title, about).filter(Boolean), ...elements.filter(Boolean));
  section.hidden = false;
}

function layerLegend(data) {
  const operators = [...new Set(data.candidates.map((candidate) => candidate.operator))];
  return h(
    "ul",
    { class: "legend" },
    operators.map((operator) => {
      const own = data.candidates.filter((candidate) => candidate.operator === operator);
      return h(
        "li",
        {},
        own.map((candidate) => chip(candidate)),
        ` ${operator.replaceAll("_", " ")}, ${[...new Set(own.map((c) => c.bits))].join(", ")} bits`,
      );
    }),
  );
}

function contents(page) {
  const sections = [...page.querySelectorAll("main > section")].filter((section) => !section.hidden);
  page
    .getElementById("contents")
    .replaceChildren(
      ...sections.map((section) => h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)),
    );
}
