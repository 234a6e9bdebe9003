// The network as a strip: one column per layer, with its energy as a bar and its candidate as a coloured word.

/** `on.hover(i)`, `on.leave()` follow the pointer; `on.select(i)` a click and the focus. */
function makeStrip(data, on) {
  const highest = Math.max(...data.layers.flatMap((layer) => layer.cells.map((cell) => cell.pj ?? 0))) || 1;
  const height = (pj) => `${((100 * (pj ?? 0)) / highest).toFixed(2)}%`;
  const columns = data.layers.map((layer, i) => {
    const parts = {
      reference: h("i", {
        class: "ghost",
        "--size": height(data.reference === null ? 0 : layer.cells[data.reference].pj),
      }),
      bar: h("i", { class: "bar" }),
      name: h("b", { class: "chip" }),
    };
    const element = h(
      "div",
      {
        class: "column",
        role: "option",
        "aria-selected": false,
        "aria-controls": "layer",
        onpointerenter: () => on.hover(i),
        onpointerleave: on.leave,
        onclick: () => on.select(i),
      },
      h("span", { class: "bars" }, parts.reference, parts.bar),
      parts.name,
      h("span", { class: "layer-name" }, layer.name),
    );
    return { element, ...parts };
  });
  const stop = roving(
    columns.map((column) => column.element),
    on.select,
  );
  const longest = Math.max(...data.layers.map((layer) => layer.name.length));
  const element = h(
    "div",
    {
      class: "strip scroll",
      "--name-room": `${Math.min(13, 1.2 + 0.47 * longest).toFixed(2)}rem`,
      role: "listbox",
      "aria-orientation": "horizontal",
      "aria-label": "Layers in order of execution",
    },
    columns.map((column) => column.element),
  );

  function draw(assignment) {
    const total = totals(data, assignment).pj;
    columns.forEach((column, i) => {
      const candidate = data.candidates[assignment[i]],
        pj = data.layers[i].cells[assignment[i]].pj;
      column.name.textContent = candidate.name.replace("@", "\n@"); // a column is narrow
      column.element.style.setProperty("--fill", candidate.fill);
      column.element.style.setProperty("--hatch", candidate.hatch);
      column.element.style.setProperty("--ink", candidate.ink);
      column.bar.style.setProperty("--size", height(pj));
      const share = Number.isFinite(total) ? `, ${percent(pj / total)} of the network` : "";
      column.element.setAttribute(
        "aria-label",
        `${data.layers[i].name}: ${candidate.name}, ${layerText(data, pj)}${share}`,
      );
    });
  }
  let last = null;
  function mark(selected, shown) {
    if (selected !== last) inView(element, columns[selected].element);
    last = selected;
    columns.forEach((column, i) => {
      column.element.setAttribute("aria-selected", i === selected);
      column.element.classList.toggle("shown", i === shown);
    });
    stop(selected);
  }
  return { element, draw, mark };
}

/** Scrolls a positioned box sideways, and nothing else, until one of its children is visible. */
function inView(box, child) {
  const left = child.offsetLeft,
    right = left + child.offsetWidth;
  if (left < box.scrollLeft || right > box.scrollLeft + box.clientWidth) box.scrollLeft = left - box.clientWidth / 2;
}

/** An assignment as a row of small squares, with a text for screen readers; null is an undecided layer. */
function miniStrip(data, assignment, changed = -1) {
  const text = data.layers.map(
    (layer, i) => `${layer.name} ${assignment[i] === null ? "open" : data.candidates[assignment[i]].name}`,
  );
  return h(
    "span",
    { class: "mini", role: "img", "aria-label": text.join(", ") },
    assignment.map((k, i) =>
      k === null
        ? h("i")
        : h("i", { class: i === changed ? "new" : "", "--fill": data.candidates[k].fill, "--hatch": data.candidates[k].hatch, title: text[i] }),
    ),
  );
}
