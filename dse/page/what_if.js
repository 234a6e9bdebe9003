// What if this layer were MF at 4 bits: every layer under every candidate, and the total of the chosen ones.

/** `on.change(assignment)` gets a new assignment, `on.layer(i)` the focused layer; `on.reset()` restores the start. */
function makeWhatIf(data, on) {
  let current = [];
  const note = h("p", { class: "soft note", role: "status" });
  const say = (text) => (note.textContent = text);
  const choose = (i, k) => {
    say("");
    on.change(current.map((old, j) => (i === j ? k : old)));
  };
  const chooseAll = (k) => {
    const all = withAll(data, current, k);
    const stay = `Unchanged, because they have no mapping for ${data.candidates[k].name}: ${all.stay.join(", ")}.`;
    say(all.stay.length ? stay : "");
    on.change(all.assignment);
  };
  const reset = () => {
    say("");
    on.reset();
  };
  const radios = data.layers.map((layer, i) =>
    layer.cells.map((_, k) => radioOf(data, i, k, { onchange: () => choose(i, k), onfocus: () => on.layer(i) })),
  );
  const differences = data.layers.map(() => h("td", { class: "difference" }));
  const result = h("output", { class: "totals", "aria-live": "polite" });
  const text = h("pre", { tabindex: 0 });
  const button = (attributes, onclick, ...children) =>
    h("button", { type: "button", ...attributes, onclick }, ...children);
  const buttons = [
    ...data.candidates.map((one, k) => button({ "data-all": one.name }, () => chooseAll(k), "all to ", chip(one))),
    button({ class: "reset" }, reset, "Reset to the selected network"),
    button({ class: "copy" }, () => copied(text.textContent, say), "Copy as YAML"),
  ];
  const elements = [
    h("div", { class: "totals-box" }, result),
    h("div", { class: "buttons" }, buttons),
    note,
    ...grid(data, radios, differences),
    refusals(data),
    h("details", {}, h("summary", {}, "The assignment as YAML"), text),
  ];

  function draw(assignment, start) {
    current = assignment;
    assignment.forEach((k, i) => {
      radios[i][k].checked = true;
      const difference = data.layers[i].cells[k].pj - data.layers[i].cells[start[i]].pj;
      const told = k !== start[i] && Number.isFinite(difference);
      differences[i].textContent = told ? differenceText(data.layer_unit, difference) : "";
    });
    result.replaceChildren(...totalsOf(data, assignment, start));
    result.dataset.pj = totals(data, assignment).pj;
    text.textContent = yaml(data, assignment);
  }
  return { elements, draw };
}

/** The choice of a candidate for a layer; a candidate without a mapping cannot be chosen. */
function radioOf(data, i, k, handlers) {
  const cell = data.layers[i].cells[k];
  const name = `${data.layers[i].name} ${data.candidates[k].name}`;
  const label = "pj" in cell ? `${name}, ${layerText(data, cell.pj)}` : `${name}: no mapping, ${cell.reason}`;
  const fixed = { type: "radio", name: `layer-${i}`, value: k, disabled: !("pj" in cell), class: "unseen" };
  return h("input", { ...fixed, "aria-label": label, ...handlers });
}

function totalsOf(data, assignment, start) {
  const sum = totals(data, assignment),
    before = totals(data, start),
    used = use(data, assignment);
  const changed = assignment.filter((k, i) => k !== start[i]).length;
  const some = Number.isFinite(sum.pj);
  const parts = [
    [
      "energy",
      some ? totalText(data, sum.pj) : `no mapping: ${sum.lacking.join(", ")}`,
      some ? `${whole(sum.pj)} pJ` : "",
    ],
    [
      "of all T8",
      data.reference_pj && some ? (sum.pj / data.reference_pj).toFixed(3) : "–",
      data.reference_pj ? totalText(data, data.reference_pj) : "",
    ],
    ["compute", totalText(data, sum.compute_pj), some ? percent(sum.compute_pj / sum.pj) : ""],
    ["transmission", totalText(data, sum.tx_pj), data.transmission === "all" ? "all levels" : "on-chip levels"],
    ["cycles", some ? whole(sum.cycles) : "–", some ? `${timeText(used.seconds)} at ${data.clock.text}` : ""],
    ["PEs busy", shareText(used.busy), `${shareText(used.stalled)} with stalls`],
    ["weights", bytesText(used.weight_bytes), `${bytesText(used.off_chip_bytes)} off chip`],
    [
      "change",
      some && changed ? differenceText(data.total_unit, sum.pj - before.pj) : "–",
      `${changed} ${changed === 1 ? "layer" : "layers"} changed`,
    ],
  ];
  return parts.map(([term, value, more]) =>
    h("span", { class: "total" }, h("small", {}, term), h("strong", {}, value), h("small", {}, more)),
  );
}

function grid(data, radios, differences) {
  const least = data.layers.map((layer) => Math.min(...layer.cells.map((cell) => cell.pj ?? Infinity)));
  const row = (layer, i) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, layer.name),
      layer.cells.map((cell, k) =>
        h(
          "td",
          {},
          h(
            "label",
            {
              "--fill": data.candidates[k].fill,
              "--hatch": data.candidates[k].hatch,
              "--ink": data.candidates[k].ink,
              title: cell.reason && `no mapping: ${cell.reason}`,
            },
            radios[i][k],
            h(
              "span",
              { class: cell.pj === least[i] ? "choice least" : "choice", "aria-hidden": true },
              "pj" in cell ? digits(cell.pj / data.layer_unit.pj) : "none",
            ),
          ),
        ),
      ),
      differences[i],
    );
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "layer"),
    data.candidates.map((c) => h("th", { scope: "col" }, chip(c))),
    h("th", { scope: "col" }, "change"),
  );
  const about = h(
    "p",
    { class: "soft", id: "grid-about" },
    `Energy in ${data.layer_unit.name} of each layer under each candidate; the least of each layer is underlined. ` +
      "Choose one per layer: arrow keys move within a layer, Tab moves to the next.",
  );
  return [
    about,
    h(
      "div",
      { class: data.candidates.length <= 10 ? "scroll grid-box narrow" : "scroll grid-box" },
      h(
        "table",
        { class: "grid", "aria-describedby": "grid-about" },
        h("thead", {}, head),
        h("tbody", {}, data.layers.map(row)),
      ),
    ),
  ];
}

/** Why some candidates cannot be chosen; each reason is given once. */
function refusals(data) {
  const byReason = new Map();
  data.layers.forEach((layer) =>
    layer.cells.forEach((cell, k) => {
      if ("pj" in cell) return;
      byReason.set(cell.reason, [...(byReason.get(cell.reason) ?? []), `${layer.name} ${data.candidates[k].name}`]);
    }),
  );
  if (!byReason.size) return null;
  return h(
    "div",
    { class: "soft refusals" },
    h("p", {}, "No mapping:"),
    h(
      "ul",
      {},
      [...byReason].map(([reason, names]) => h("li", {}, `${names.join(", ")}: ${reason}`)),
    ),
  );
}

/** Copies text to the clipboard, in the older way if a browser refuses the newer one. */
async function copied(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    const field = h("textarea", { class: "unseen" }, text);
    document.body.append(field);
    field.select();
    say(document.execCommand("copy") ? "Copied." : "This browser does not allow the page to copy; the text is below.");
    field.remove();
  }
}
