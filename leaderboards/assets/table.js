"use strict";
// One table of the leaderboard: sortable, drawn a hundred rows at a time.
dihal.table = (() => {
  const { chainsOf, el, compareText, finite, interval, isObject, list, number, point, SAFE } = dihal;
  const PAGE = 100;
  const SHORT = 40;
  const MARKS = ["†", "‡", "§", "¶", "‖", "#", "∗∗", "††", "‡‡", "§§"];
  const ARROWS = { higher: "↑", lower: "↓" };
  const KINDS = ["exact", "ensemble", "estimate", "bound"];
  const TEXTUAL = "text";
  const NOTHING = ""; // the group of rows without a number
  const seeds = new Map(list(window.dihalBoard.runs).map((run) => [run.id, run.seed]));

  /** Return a row's runs as [id, seed], in the order of their seeds. */
  function runsOf(row) {
    const known = row.runs.filter((run) => SAFE.test(run)).map((run) => [run, number(seeds.get(run))]);
    return known.sort(([, a], [, b]) => compareText(a, b));
  }

  /** Kinds of likelihood are never ranked together: exact first, ensembles by their size. */
  function kindOrder(kind) {
    const [, name, size] = /^([^(]*)(?:\((\d+)\))?/.exec(String(kind ?? "")) ?? [];
    const place = KINDS.indexOf(name);
    return (place < 0 ? KINDS.length : place) * 1e6 + Number(size ?? 0);
  }

  function compareKinds(a, b) {
    return kindOrder(a) - kindOrder(b) || compareText(String(a), String(b));
  }

  function compareCells(column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    return (a, b) => {
      const [one, two] = [point(a.cells[column.key]), point(b.cells[column.key])];
      const [noOne, noTwo] = [one, two].map((value) => value === null || value === undefined);
      if (noOne || noTwo) return noOne - noTwo;
      return sign * (finite(one) && finite(two) ? one - two : compareText(String(one), String(two)));
    };
  }

  /** What a cell's number is among, of a rank: others' ranks are of other rankings. */
  const among = (cell) => (isObject(cell) && cell.among ? String(cell.among) : null);

  /** What sets a row apart from others when it is sorted by a column: of a likelihood its kind and evaluations. */
  function apartBy(column, row) {
    const cell = row.cells[column.key];
    if (!column.likelihood) return among(cell);
    if (point(cell) === null || point(cell) === undefined) return NOTHING;
    const { kind, nfe } = row.cells;
    return finite(nfe) ? `${kind ?? "–"}, NFE ${number(nfe)}` : String(kind ?? "–");
  }

  /** Return the rows in order, as groups of [what sets them apart or null, rows]; those without a number last. */
  function grouped(rows, column, direction) {
    if (!column) return [[null, rows]];
    const groups = new Map();
    for (const row of [...rows].sort(compareCells(column, direction))) {
      const apart = apartBy(column, row);
      if (!groups.has(apart)) groups.set(apart, []);
      groups.get(apart).push(row);
    }
    if (!column.likelihood) return [...groups];
    return [...groups].sort(([a], [b]) => (a === NOTHING) - (b === NOTHING) || compareKinds(a, b));
  }

  /** Give every flag of a table its mark: the legend's where it explains the flag. */
  function marksOf(table) {
    const flags = new Set();
    for (const row of table.rows) {
      for (const cell of Object.values(row.cells)) if (isObject(cell)) list(cell.flags).forEach((flag) => flags.add(flag));
    }
    const legend = list(table.legend).map((line) => [line.split(" ")[0], line]);
    const free = MARKS.filter((mark) => !legend.some(([own]) => own === mark));
    const marks = new Map();
    const added = [];
    for (const flag of [...flags].sort(compareText)) {
      const known = legend.find(([, line]) => line.includes(flag));
      marks.set(flag, known ? known[0] : free[added.length] ?? "∗");
      if (!known) added.push(`${marks.get(flag)} ${flag}`);
    }
    return { marks, added };
  }

  function cellOf(row, column, marks) {
    const cell = row.cells[column.key];
    const digits = ["estimate", "number"].includes(column.type) ? column.digits ?? null : null;
    if (column.type === TEXTUAL) return el("td", {}, number(cell));
    const range = interval(cell, digits);
    return el("td", { class: "num" },
      number(point(cell), digits),
      range ? el("small", {}, ` ${range}`) : null,
      among(cell) ? el("small", { class: "among" }, ` (${among(cell)})`) : null,
      (isObject(cell) ? list(cell.flags) : []).map((flag) =>
        el("abbr", { title: flag, class: "flag" },
          el("span", { "aria-hidden": "true" }, marks.get(flag)), el("span", { class: "vh" }, ` (${flag})`))));
  }

  function headCell(row, column, picks) {
    const { cells } = row;
    const name = number(cells[column.key]);
    const [first, ...others] = runsOf(row);
    const page = (run) => `runs/${run}.html`;
    return el("th", { scope: "row", "data-role": cells.role },
      first ? picks.box(row) : null,
      first ? el("a", { href: page(first[0]), title: `seed ${first[1]}` },
        el("span", { class: "name" }, name),
        others.length ? [el("span", { class: "vh" }, ", seed "), el("span", { class: "seed" }, first[1])] : null) : name,
      others.map(([run, seed]) => el("a", { href: page(run), class: "seed", title: `seed ${seed}`, "aria-label": `${name}, seed ${seed}` }, seed)),
      chainsOf(cells) ? el("small", {}, ` ${chainsOf(cells)}`) : null,
      cells.role && ![name, "interface"].includes(cells.role) ? el("small", {}, ` ${cells.role}`) : null);
  }

  /** Put a table into a node; sort: {get() -> "key direction", set(text)}; picks: ticked rows. */
  function build(given, node, { sort, picks }) {
    const columns = given.columns.some((column) => column.key === "kind") ? given.columns :
      [...given.columns, { key: "kind", title: "Kind", type: TEXTUAL, better: null, help: "Kind of number." }];
    const { marks, added } = marksOf(given);
    let limit = PAGE;
    let kept = given.rows;

    const heads = columns.map((column) => el("th", { scope: "col", class: column.type === TEXTUAL ? null : "num" },
      el("button", { type: "button", title: column.help, "data-key": column.key, click: () => cycle(column) },
        column.title,
        ARROWS[column.better] ? el("span", { "aria-hidden": "true", class: "arrow" }, ARROWS[column.better]) : null,
        ARROWS[column.better] ? el("span", { class: "vh" }, ` (${column.better} is better)`) : null)));
    const table = el("table", {}, el("caption", { class: "vh" }, given.title), el("thead", {}, el("tr", {}, heads)));
    const more = el("button", { type: "button", class: "more", hidden: true, click: () => {
      limit += PAGE;
      draw();
    } });
    const frame = dihal.edged(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": given.title }, table));
    node.replaceChildren(
      frame, more,
      ...(added.length ? [el("ul", { class: "legend" }, added.map((line) => el("li", {}, line)))] : []));

    function current() {
      const [, key, direction] = /^(.*) (ascending|descending)$/.exec(sort.get()) ?? [];
      const column = columns.find((one) => one.key === key);
      return { column, direction: column && direction };
    }

    /** Best first, then worst first, then the table's own order. */
    function cycle(column) {
      const first = column.better === "higher" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = current();
      const next = now.column !== column ? first : now.direction === first ? second : "";
      sort.set(next && `${column.key} ${next}`);
      limit = PAGE;
      draw();
    }

    function body(apart, rows, column) {
      const title = apart === NOTHING ? `no ${column.title}`
        : column?.likelihood ? `${apart}: ranked apart from other kinds and evaluations` : `${apart}: a ranking of its own`;
      const head = apart === null ? null :
        el("tr", { class: "kind" }, el("th", { colspan: columns.length, scope: "rowgroup" }, el("span", {}, title)));
      return el("tbody", {}, head, rows.map((row) => el("tr", {},
        columns.map((column, index) => index ? cellOf(row, column, marks) : headCell(row, column, picks)))));
    }

    function draw() {
      const { column, direction } = current();
      heads.forEach((head, index) => {
        if (columns[index] === column) head.setAttribute("aria-sort", direction);
        else head.removeAttribute("aria-sort");
      });
      let left = limit;
      const bodies = [];
      for (const [apart, rows] of grouped(kept, column, direction)) {
        if (left > 0 && rows.length) bodies.push(body(apart, rows.slice(0, left), column));
        left -= rows.length;
      }
      [...table.tBodies].forEach((old) => old.remove());
      table.append(...bodies);
      frame.classList.toggle("short", kept.length <= SHORT); // it scrolls with the page
      const hidden = Math.max(0, kept.length - limit);
      more.hidden = !hidden;
      more.textContent = `Show ${Math.min(PAGE, hidden)} more of ${number(hidden)}`;
      picks.show();
    }

    return {
      /** Show these rows, from the first. */
      show(rows) {
        kept = rows;
        limit = PAGE;
        draw();
      },
    };
  }

  return { build, compareCells, runsOf };
})();
