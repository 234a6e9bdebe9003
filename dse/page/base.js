// Elements, numbers as text, and keys, used by every part of the page.

/** An element with attributes and children; text becomes text nodes, so nothing in it is ever read as markup. */
function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** Three significant digits, without an exponent at the usual sizes. */
function digits(value, count = 3) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size > 8)
    return value
      .toExponential(count - 1)
      .replace("e", "·10^")
      .replace("+", "");
  return value.toFixed(Math.max(0, count - 1 - size));
}

/** Energies given in pJ as text: of a layer, of a network, and differences of either. */
const energyText = (unit, pj) => (Number.isFinite(pj) ? `${digits(pj / unit.pj)} ${unit.name}` : "no mapping");
const layerText = (data, pj) => energyText(data.layer_unit, pj);
const totalText = (data, pj) => energyText(data.total_unit, pj);
const differenceText = (unit, pj) => `${pj < 0 ? "−" : "+"}${digits(Math.abs(pj) / unit.pj)} ${unit.name}`;

const percent = (share, decimals = 1) => `${(100 * share).toFixed(decimals)} %`;

/** A number in the largest of the units (name, size; the largest first) in which it is at least 1; a dash for NaN. */
function inUnits(value, units) {
  if (!Number.isFinite(value)) return "–";
  const [name, size] = units.find((unit) => value >= unit[1]) ?? units.at(-1);
  return `${digits(value / size)} ${name}`;
}
const bytesText = (bytes) =>
  inUnits(bytes, [
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
    ["B", 1],
  ]);
const timeText = (seconds) =>
  inUnits(seconds, [
    ["s", 1],
    ["ms", 1e-3],
    ["µs", 1e-6],
    ["ns", 1e-9],
  ]);
const shareText = (share) => (Number.isFinite(share) ? percent(share) : "–");

/** A whole number with thin spaces between thousands. */
const whole = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u2009");

const signed = (value, decimals = 1) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(decimals)}`;

/** A candidate's name on its own colour. */
const chip = (candidate, extra = "") =>
  h("span", { class: `chip ${extra}`, "--fill": candidate.fill, "--ink": candidate.ink, "--hatch": candidate.hatch }, candidate.name);

const heading = (text, about) => [h("h2", {}, text), about ? h("p", { class: "soft" }, about) : null];

/** A table in a box that scrolls if it is wider than the page. Cells are text or elements. */
function tableOf(label, head, rows) {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          h(
            "tr",
            {},
            cells.map((cell, i) => (i ? h("td", {}, cell) : h("th", { scope: "row" }, cell))),
          ),
        ),
      ),
    ),
  );
}

/**
 * Makes one of the elements the stop of the Tab key, and lets arrow keys, Home and End move among them.
 * `onFocus(index)` is called when one gets the focus.
 */
function roving(elements, onFocus, start = 0) {
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const stop = (index) => elements.forEach((e, i) => e.setAttribute("tabindex", i === index ? 0 : -1));
  elements.forEach((element, i) => {
    element.addEventListener("focus", () => {
      stop(i);
      onFocus(i);
    });
    element.addEventListener("keydown", (event) => {
      let next = i + (moves[event.key] ?? 0);
      if (event.key === "Home") next = 0;
      if (event.key === "End") next = elements.length - 1;
      if (next === i || !elements[next]) return;
      event.preventDefault();
      elements[next].focus();
    });
  });
  if (elements.length) stop(start);
  return stop;
}
