// The page's state, and what is drawn when it changes.

function main(page) {
  const data = JSON.parse(page.getElementById("data").textContent);
  const state = { pinned: data.start, preview: null, assignment: [...data.networks[data.start].assignment], layer: costliest(data), hovered: null };
  const own = () => data.networks[state.pinned].assignment;
  const shownNetwork = () => state.preview ?? state.pinned;

  const onNetwork = {
    preview: (id) => { if (state.preview !== id) { state.preview = id; draw(); } },
    leave: () => { if (state.preview !== null) { state.preview = null; draw(); } },
    pin: (id) => { state.pinned = id; state.preview = null; state.assignment = [...data.networks[id].assignment]; draw(); },
  };
  const strip = makeStrip(data, {
    hover: (i) => { state.hovered = i; drawLayer(); },
    leave: () => { state.hovered = null; drawLayer(); },
    select: (i) => { state.layer = i; state.hovered = null; drawLayer(); },
  });
  const layer = makeLayerPanel(data);
  const whatIf = makeWhatIf(data, {
    change: (assignment) => { state.assignment = assignment; state.preview = null; draw(); },
    layer: (i) => { state.layer = i; drawLayer(); },
    reset: () => { state.assignment = [...own()]; draw(); },
  });
  const networks = makeNetworks(data, onNetwork);
  const run = data.run ? makeRun(data, networks.buttons, onNetwork) : null;
  const sweep = data.sweep ? makeSweep(data) : null;
  const caption = h("p", { class: "caption" });

  const shownAssignment = () => (state.preview === null ? state.assignment : data.networks[state.preview].assignment);
  function drawLayer() {
    const i = state.hovered ?? state.layer;
    strip.mark(state.layer, i);
    layer.show(i, shownAssignment());
  }
  function draw() {
    const assignment = shownAssignment();
    const changed = assignment.filter((k, i) => k !== data.networks[shownNetwork()].assignment[i]).length;
    strip.draw(assignment);
    caption.replaceChildren(h("strong", {}, data.networks[shownNetwork()].label), changed ? `, ${changed} changed` : "", `: ${totalText(data, totals(data, assignment).pj)}`);
    drawLayer();
    networks.state(shownNetwork(), state.pinned);
    whatIf.draw(state.assignment, own());
    run?.draw(state.pinned);
  }

  const show = (id, title, about, elements) => place(page, id, title, about, elements);
  if (run) show("plane", "Accuracy and energy",
    "Every point is one trained network. Point at it or focus it, and the strip below shows it; a click or Enter keeps it there.", [networks.plane]);
  else show("uniform", "One operator throughout",
    "The same candidate in every layer, where all layers have a mapping. A click on a name puts it in the strip below.", [networks.table]);
  show("network", "The network, layer by layer",
    `Bars are energies${data.reference === null ? "" : `, their outline that of ${data.candidates[data.reference].name}`}. Point at a layer, or move with the arrow keys.`,
    [caption, strip.element, layerLegend(data), layer.element]);
  show("what-if", "What if", "Another operator or precision for any layer: the total follows at once, from the table's own energies.", whatIf.elements);
  if (run) show("networks", "Networks", "The same training for all. A click on a name puts the network in the strip.", [networks.table]);
  if (run?.elements.length) show("run", "What the searches did", "", run.elements);
  if (sweep) show("sweep", "Energy against size", `The architecture sweep of ${data.sweep.workload}; where several settings vary, the others are at their best at each size.`, sweep.elements);
  const findings = page.getElementById("findings");
  findings.hidden = !findings.querySelector("p");
  contents(page);
  page.querySelector("main").classList.add("ready");
  draw();
  networks.draw();
  sweep?.draw();
}

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
  return h("ul", { class: "legend" }, operators.map((operator) => {
    const own = data.candidates.filter((candidate) => candidate.operator === operator);
    return h("li", {}, own.map((candidate) => chip(candidate)), ` ${operator.replaceAll("_", " ")}, ${own.map((c) => c.bits).join(", ")} bits`);
  }));
}

function contents(page) {
  const sections = [...page.querySelectorAll("main > section")].filter((section) => !section.hidden);
  page.getElementById("contents").replaceChildren(...sections.map((section) =>
    h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)));
}
