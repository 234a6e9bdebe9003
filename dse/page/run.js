// What a run's searches did: operator weights of the shown network, cycles (Fig. 6a), populations (Fig. 6b).

function makeRun(data, buttons, on) {
  const weights = h("div");
  const title = h("h3");
  const about =
    "Softmax of the operator weights at the end of the search. The coloured part is the weight; the choice is framed.";
  const any = data.networks.some((network) => network.weights != null);
  const elements = [
    ...(any ? [title, h("p", { class: "soft" }, about), weights] : []),
    ...data.run.cycles.map((search, i) =>
      folded(
        search.title,
        i === 0,
        "One row per cycle: the layer that was decided, its softmax weight, and the network so far.",
        cycleTable(data, search),
      ),
    ),
    ...data.run.populations.map((population, i) =>
      folded(
        population.title,
        i === 0,
        "Networks drawn from the operator weights and relearnt; * marks the best one on the validation images.",
        populationTable(data, population, buttons, on),
      ),
    ),
  ];
  let drawnFor = null;

  function draw(id) {
    const network = data.networks[id];
    const shown = network.weights == null ? data.networks.findIndex((other) => other.weights != null) : id;
    if (!any || drawnFor === shown) return;
    drawnFor = shown;
    title.textContent = `Choices and their weights: ${data.networks[shown].label}`;
    weights.replaceChildren(weightTable(data, data.networks[shown]));
  }
  return { elements, draw };
}

function folded(title, open, about, table) {
  return h("details", { open }, h("summary", {}, h("h3", {}, title)), h("p", { class: "soft" }, about), table);
}

function weightTable(data, network) {
  const weights = data.run.weights[network.weights];
  const cell = (k, i) => {
    const weight = weights[i][k];
    if (weight == null) return "";
    const chosen = network.assignment[i] === k ? "weight chosen" : "weight";
    return h(
      "span",
      { class: chosen, "--fill": data.candidates[k].fill, "--hatch": data.candidates[k].hatch, "--share": `${(100 * weight).toFixed(1)}%` },
      weight.toFixed(2),
    );
  };
  const used = data.candidates.map((_, k) => k).filter((k) => weights.some((row) => row[k] != null));
  return tableOf(
    "Operator weights",
    ["layer", ...used.map((k) => chip(data.candidates[k]))],
    data.layers.map((layer, i) => [layer.name, ...used.map((k) => cell(k, i))]),
  );
}

function cycleTable(data, search) {
  const soFar = data.layers.map(() => null);
  return tableOf(
    search.title,
    ["cycle", "layer", "candidate", "weight", "network so far"],
    search.rows.map((row) => {
      soFar[row.layer] = row.candidate;
      return [
        String(row.cycle),
        data.layers[row.layer].name,
        chip(data.candidates[row.candidate]),
        row.weight.toFixed(3),
        miniStrip(data, soFar, row.layer),
      ];
    }),
  );
}

function populationTable(data, population, buttons, on) {
  const rows = population.networks.map((id) => {
    const network = data.networks[id];
    return [
      networkButton(network, id, buttons, on, `sample ${network.sample}${network.selected ? " *" : ""}`),
      String(network.count),
      totalText(data, network.energy_pj),
      network.energy.toFixed(3),
      valueText(data, network.validation),
      valueText(data, network.test),
      gainCell(data, network),
      gapOf(data, network.above_line),
      miniStrip(data, network.assignment),
    ];
  });
  return tableOf(
    population.title,
    ["network", "drawn", "energy", "of all T8", "validation", "test", "gain over uniform", "above the line", "assignment"],
    rows,
  );
}
