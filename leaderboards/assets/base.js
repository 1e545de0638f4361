"use strict";
// What all pages share: elements made of text only, numbers as text, and the data of runs.
window.dihal = (() => {
  const SAFE = /^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*$/;
  const NONE = "–";
  const EXPONENTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

  /** Make an element; children are text or elements, never markup; functions are listeners. */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") made.addEventListener(name, value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  }

  const byId = (id) => document.getElementById(id);
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const entries = (value) => (isObject(value) ? Object.entries(value) : []);
  const list = (value) => (Array.isArray(value) ? value : []);
  const finite = (value) => typeof value === "number" && Number.isFinite(value);
  const compareText = new Intl.Collator("en", { numeric: true }).compare;

  function power(value) {
    const [mantissa, exponent] = value.toExponential(2).split("e");
    const raised = [...String(Math.abs(Number(exponent)))].map((digit) => EXPONENTS[digit]);
    return `${mantissa}·10${Number(exponent) < 0 ? "⁻" : ""}${raised.join("")}`;
  }

  const formats = new Map(); // making one is slow
  function fixed(value, digits) {
    if (!formats.has(digits)) {
      formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
    }
    return formats.get(digits).format(value);
  }

  /** Return a value as text; digits: after the point, null: four that are significant. */
  function number(value, digits = null) {
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (!finite(value)) return value === null || value === undefined || value === "" ? NONE : String(value);
    const size = Math.abs(value);
    let text;
    if (Number.isInteger(value) && digits === null && size < 1e12) text = fixed(value, 0);
    else if (size >= 1e7 || (digits === null && size > 0 && size < 1e-4)) text = power(value);
    else if (digits === null && size >= 1e3) text = fixed(value, 0);
    else if (digits === null) text = String(Number(value.toPrecision(4)));
    else text = fixed(value, digits);
    return text.replaceAll("-", "−");
  }

  /** Return the number of a cell: an estimate's value, or the cell itself. */
  const point = (cell) => (isObject(cell) ? cell.value : cell);

  function interval(cell, digits) {
    if (!isObject(cell) || !finite(cell.lo) || !finite(cell.hi)) return "";
    return `[${number(cell.lo, digits)}, ${number(cell.hi, digits)}]`;
  }

  /** Return how many decimals show four significant digits, four at most. */
  function decimals(value) {
    if (!finite(value)) return null;
    return Math.abs(value) < 1 ? 4 : Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))));
  }

  function estimate(cell, digits = null) {
    const own = digits ?? (isObject(cell) ? decimals(point(cell)) : null);
    return `${number(point(cell), own)} ${interval(cell, own)}`.trim();
  }

  /** Return how a row was drawn: its evaluations per chain, and its chains where there are several. */
  const chainsOf = (cells) => [
    cells.role === "interface" && cells.steps ? `S=${cells.steps}` : "",
    cells.chains > 1 ? `K=${cells.chains}` : "",
  ].filter(Boolean).join(" ");

  /** Return the interfaces that a row is of, or is a control of: a control can be one of several. */
  const ownersOf = (row) => (Array.isArray(row.owners) ? row.owners : [row.cells.interface]).map(String);

  /** Load a run's data by a script element: pages opened as files may not fetch. */
  function loadRun(id) {
    const found = () => (window.dihalRuns ?? {})[id];
    if (!SAFE.test(id)) return Promise.reject(new Error("not an id"));
    if (found()) return Promise.resolve(found());
    return new Promise((resolve, reject) => {
      const source = `${document.body.dataset.root}data/runs/${id}.js`;
      const done = () => (found() ? resolve(found()) : reject(new Error("no data")));
      document.head.append(el("script", { src: source, load: done, error: reject }));
    });
  }

  /** Fill a select; options are pairs of value and text. */
  function choices(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    if (chosen !== undefined && chosen !== null) select.value = chosen;
    return select;
  }

  /** Mark a frame that scrolls sideways while it has more on the right, or has left something on the left. */
  function edged(frame) {
    const mark = () => {
      const left = frame.scrollWidth - frame.clientWidth - Math.abs(frame.scrollLeft);
      frame.classList.toggle("more-right", left > 1);
      frame.classList.toggle("more-left", frame.scrollLeft > 1);
    };
    frame.addEventListener("scroll", mark, { passive: true });
    const sizes = new ResizeObserver(mark); // it is called at once, and when a closed part is opened
    sizes.observe(frame);
    for (const inner of frame.children) sizes.observe(inner);
    return frame;
  }

  document.querySelectorAll(".scroll").forEach(edged);

  return {
    SAFE, edged, el, byId, isObject, entries, list, finite, compareText, number, point, interval, decimals,
    estimate, chainsOf, ownersOf, loadRun, choices,
  };
})();
