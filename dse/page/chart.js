// Points, lines and bands over two axes, drawn at the available width. Points can be hovered, focused and picked.

const MARGIN = { top: 14, right: 16, bottom: 44, left: 58 };
const REACH = 26; // pixels; a point within this distance of the pointer is shown

const SHAPES = {
  circle: "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
  diamond: "M0,-7L7,0L0,7L-7,0Z",
  triangle: "M0,-6.5L6.5,5L-6.5,5Z",
  square: "M-5,-5H5V5H-5Z",
  down: "M0,6.5L6.5,-5L-6.5,-5Z",
};

/**
 * A chart in a box of constant height. `draw` takes its content:
 * `label`; `pinnable`, whether a click selects a point; `x`, `y`: `{label, log, from}`;
 * `bands` and `lines`: `{points, colour, dashed, faint}`;
 * `marks`: `{x, y, id, title, shape, colour, hollow, text}`.
 * `on.show(id)` follows the pointer and the focus, `on.leave()` ends it, `on.pick(id)` is a click or Enter.
 */
function makeChart(on) {
  const svg = s("svg", { class: "chart", role: "group" });
  const box = h("div", { class: "chart-box" }, svg);
  let spec = null,
    width = 0,
    placed = [],
    pinned = null,
    shown = null;

  function draw(next) {
    spec = next;
    width = box.clientWidth;
    if (width) placed = drawn(svg, spec, width, box.clientHeight);
    roving(
      placed.map((mark) => mark.element),
      (i) => on.show(placed[i].id),
    );
    for (const mark of placed) {
      mark.element.addEventListener("blur", on.leave);
      mark.element.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        on.pick(mark.id);
      });
    }
    state({});
  }
  function state(change) {
    if ("pinned" in change) pinned = change.pinned;
    if ("shown" in change) shown = change.shown;
    for (const mark of placed) {
      mark.element.classList.toggle("pinned", mark.id === pinned);
      mark.element.classList.toggle("shown", mark.id === shown);
      if (spec.pinnable) mark.element.setAttribute("aria-pressed", mark.id === pinned);
    }
  }
  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const distance = (mark) => Math.hypot(mark.px - event.clientX + box.left, mark.py - event.clientY + box.top);
    const found = placed.reduce((best, mark) => (!best || distance(mark) < distance(best) ? mark : best), null);
    return found && distance(found) <= REACH ? found : null;
  }
  svg.addEventListener("pointermove", (event) => {
    const mark = nearest(event);
    if (mark) on.show(mark.id);
    else on.leave();
  });
  svg.addEventListener("pointerleave", on.leave);
  svg.addEventListener("click", (event) => {
    const mark = nearest(event);
    if (mark) on.pick(mark.id);
  });
  new ResizeObserver(() => {
    if (spec && box.clientWidth !== width) draw(spec);
  }).observe(box);
  return { element: box, draw, state };
}

/** Fills the SVG element; returns the marks with their elements and positions. */
function drawn(svg, spec, width, height) {
  const points = [
    ...spec.marks.map((m) => [m.x, m.y]),
    ...[...spec.lines, ...(spec.bands ?? [])].flatMap((l) => l.points),
  ];
  const x = scale(
    spec.x,
    points.map((p) => p[0]),
    MARGIN.left,
    width - MARGIN.right,
  );
  const y = scale(
    spec.y,
    points.map((p) => p[1]),
    height - MARGIN.bottom,
    MARGIN.top,
  );
  const path = (list) =>
    list.map((p, i) => `${i ? "L" : "M"}${x.at(p[0]).toFixed(1)},${y.at(p[1]).toFixed(1)}`).join("");
  const placed = spec.marks.map((mark) => {
    const px = x.at(mark.x),
      py = y.at(mark.y);
    const element = s(
      "g",
      {
        class: "mark",
        role: spec.pinnable ? "button" : "img",
        "aria-label": mark.title,
        transform: `translate(${px} ${py})`,
        "--c": mark.colour,
      },
      s("circle", { class: "halo", r: 12 }),
      s("path", { d: SHAPES[mark.shape] ?? SHAPES.circle, class: mark.hollow ? "hollow" : "" }),
      mark.text ? s("text", { y: -11, class: "mark-text" }, mark.text) : null,
    );
    return { ...mark, px, py, element };
  });
  svg.replaceChildren(
    ...axes(spec, x, y, width, height),
    ...(spec.bands ?? []).map((band) => s("path", { d: `${path(band.points)}Z`, class: "band", "--c": band.colour })),
    ...spec.lines.map((line) =>
      s("path", {
        d: path(line.points),
        class: `line ${line.dashed ? "dashed" : ""} ${line.faint ? "faint" : ""}`,
        "--c": line.colour,
      }),
    ),
    ...placed.map((mark) => mark.element),
  );
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", spec.label);
  return [...placed].sort((a, b) => a.px - b.px || a.py - b.py);
}

/** From values to pixels, with a margin around the values and ticks at round numbers. */
function scale(axis, values, from, to) {
  const convert = axis.log ? Math.log2 : (v) => v;
  const known = axis.ticks ?? [];
  let low = Math.min(...values, ...known),
    high = Math.max(...values, ...known);
  if (!axis.log) {
    const pad = 0.06 * (high - low || Math.abs(high) || 1);
    low = axis.from ?? low - pad;
    high = axis.to === undefined ? high + pad : Math.min(axis.to, high + pad);
  }
  const [a, b] = [convert(low), convert(high)];
  const inset = axis.log ? 14 * Math.sign(to - from) : 0;
  const at = (v) => from + inset + ((convert(v) - a) / (b - a || 1)) * (to - from - 2 * inset);
  const shownTicks = axis.ticks ?? ticks(low, high, Math.max(2, Math.abs(to - from) / 70));
  return { at, ticks: shownTicks.filter((t) => t >= low && t <= high) };
}

function axes(spec, x, y, width, height) {
  const bottom = height - MARGIN.bottom,
    middle = (MARGIN.top + bottom) / 2;
  const crowded = x.ticks.length * 46 > width - MARGIN.left; // then only every other tick has a number
  return [
    ...y.ticks.flatMap((t) => [
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y.at(t), y2: y.at(t) }),
      s("text", { class: "tick end", x: MARGIN.left - 7, y: y.at(t) + 4, "aria-hidden": true }, String(t)),
    ]),
    ...x.ticks
      .flatMap((t, i) => [
        s("line", { class: "axis", x1: x.at(t), x2: x.at(t), y1: bottom, y2: bottom + 4 }),
        crowded && i % 2
          ? null
          : s("text", { class: "tick", x: x.at(t), y: bottom + 17, "aria-hidden": true }, String(t)),
      ])
      .filter(Boolean),
    s("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
    s("text", { class: "tick", x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 6 }, spec.x.label),
    s("text", { class: "tick", transform: `translate(14 ${middle}) rotate(-90)` }, spec.y.label),
  ];
}

/** The legend of a chart; an entry without `shape` is a line. */
function legend(entries) {
  return h(
    "ul",
    { class: "legend" },
    entries.map(({ text, shape, colour, hollow, dashed }) =>
      h(
        "li",
        {},
        s(
          "svg",
          { width: 18, height: 14, viewBox: "-9 -7 18 14", "aria-hidden": true },
          shape
            ? s("path", { d: SHAPES[shape], class: hollow ? "hollow" : "solid", "--c": colour })
            : s("path", { d: "M-9,0H9", class: `line ${dashed ? "dashed" : ""}`, "--c": colour }),
        ),
        text,
      ),
    ),
  );
}
