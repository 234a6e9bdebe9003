// One layer under one candidate: numbers, loop nest, energy by level and tensor, and the other candidates.

function makeLayerPanel(data) {
  const longest = Math.max(1, ...data.nests.map((nest) => (typeof nest === "string" ? 3 : nestLines(nest).length)));
  const bars = spent(
    data,
    data.layers.flatMap((layer) => layer.cells).find((cell) => "pj" in cell) ?? { parts: [] },
  ).length;
  const shape = data.layers.some((layer) => layer.kind !== null) ? h("p", { class: "soft shape" }) : null;
  const title = h("h3"),
    facts = h("dl", { class: "facts" });
  const nest = h("div", { class: "nest", tabindex: 0, role: "region", "aria-label": "Loop nest" });
  const energy = h("div", { class: "spent" }),
    others = h("div");
  const element = h(
    "div",
    { id: "layer", class: "panel", "--nest-lines": longest, "--bars": bars, "--candidates": data.candidates.length },
    title,
    shape,
    facts,
    h(
      "div",
      { class: "three" },
      h("section", {}, h("h4", {}, "Mapping"), nest),
      h("section", {}, h("h4", {}, "Energy by level and tensor"), energy),
      h("section", {}, h("h4", {}, "Candidates by energy"), others),
    ),
  );

  function show(i, assignment) {
    const layer = data.layers[i],
      k = assignment[i],
      cell = layer.cells[k];
    title.replaceChildren(layer.name, " ", chip(data.candidates[k]));
    const inputs = { true: "; inputs can be negative", false: "; inputs are never negative" }[layer.signed] ?? "";
    shape?.replaceChildren(`${layer.kind ?? "–"}: ${layer.shape ?? "–"}${inputs}`);
    facts.replaceChildren(...factsOf(data, layer, cell, totals(data, assignment).pj));
    nest.replaceChildren(...nestOf(data, layer, cell));
    energy.replaceChildren(...("pj" in cell ? spentOf(data, cell) : []));
    others.replaceChildren(rankingOf(data, layer, k));
  }
  return { element, show };
}

function factsOf(data, layer, cell, total) {
  const ok = "pj" in cell;
  const off =
    data.transmission === "on_chip"
      ? [["not counted (off chip)", ok ? layerText(data, cell.not_counted_pj) : "–"]]
      : [];
  return [
    ["energy", ok ? layerText(data, cell.pj) : "no mapping"],
    ["share of the network", ok && Number.isFinite(total) ? percent(cell.pj / total) : "–"],
    ["operations", whole(layer.n_ops)],
    ["cycles", ok ? whole(cell.cycles) : "–"],
    ["utilisation", ok ? percent(cell.utilisation) : "–"],
    ["mapping is", ok ? (cell.optimal ? "proven optimal" : "not proven optimal") : "–"],
    ...off,
  ].map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)));
}

function nestOf(data, layer, cell) {
  if (!("pj" in cell)) return [h("p", {}, `No mapping: ${cell.reason}`)];
  if (layer.kind === "embedding")
    return [h("p", {}, "Nothing is mapped: rows of a table are read and written at the outermost memory.")];
  if (cell.nest === null) return [h("p", {}, "The table has no mapping column for this layer.")];
  const nest = data.nests[cell.nest];
  if (typeof nest === "string") return [h("p", {}, nest)];
  return nestLines(nest).map((line) =>
    h(
      "div",
      { class: line.spatial ? "spatial" : "" },
      h("span", { class: "level", title: line.level }, line.level),
      h("code", {}, line.text),
    ),
  );
}

function spentOf(data, cell) {
  const rows = spent(data, cell);
  const most = Math.max(...rows.map((row) => row.pj)) || 1;
  return rows.map((row) =>
    h(
      "div",
      { class: `${row.kind} ${row.skipped ? "skipped" : ""}` },
      h("span", { title: row.name }, row.name),
      h("i", { "--size": `${(100 * row.pj) / most}%` }),
      h("span", { class: "number" }, layerText(data, row.pj)),
    ),
  );
}

function rankingOf(data, layer, chosen) {
  const rows = ranking(layer, chosen).map((entry) => {
    const differs = entry.k !== chosen && Number.isFinite(entry.difference);
    const cells = [
      entry.reason === undefined ? layerText(data, entry.pj) : "no mapping",
      entry.k === chosen ? "chosen" : differs ? differenceText(data.layer_unit, entry.difference) : "",
      differs ? `${signed(100 * entry.relative)} %` : "",
    ];
    return h(
      "tr",
      { class: entry.k === chosen ? "chosen" : "", title: entry.reason },
      h("th", { scope: "row" }, chip(data.candidates[entry.k])),
      cells.map((text) => h("td", {}, text)),
    );
  });
  return h("table", { class: "ranking" }, h("tbody", {}, rows));
}
