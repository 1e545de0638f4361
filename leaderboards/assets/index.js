"use strict";
// The leaderboard: filters over all tables, tables drawn when they are opened, figures of one.
(() => {
  const { byId, choices, el, filters, number, overview } = dihal;
  const { tables, sweeps } = window.dihalBoard;

  /** Two ticked rows; they stay ticked when tables are drawn anew. */
  const picks = (() => {
    const bar = byId("picks");
    const [said, actions] = [el("span", { role: "status" }), el("span", { class: "actions" })]; // the first stays: it is read aloud
    bar.append(said, actions);
    const called = ({ cells }) => [number(cells.row), dihal.chainsOf(cells)].filter(Boolean).join(" "); // rows of one interface differ in S and K
    const boxes = new Map(); // of the rows that are drawn
    let chosen = [];
    let dropped = "";

    function show() {
      for (const [row, box] of boxes) box.checked = chosen.includes(row);
      bar.hidden = !chosen.length;
      const trainings = chosen.map((row) => dihal.table.runsOf(row));
      const [a, b] = trainings.map((own) => own[0]?.[0]);
      const named = chosen.map((row, place) => {
        const [first, ...others] = trainings[place];
        return `${called(row)}${others.length ? `, seed ${first[1]} of ${[first, ...others].map(([, seed]) => seed).join(", ")}` : ""}`;
      });
      const href = chosen.length === 2 && a !== b ? `compare.html?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}` : null;
      const hint = chosen.length < 2 ? " · Tick another row." : a === b ? " · Both rows are of the same run; tick another." : "";
      const text = `${named.join(" and ")}${hint}${dropped && ` · Two rows are compared: ${dropped} is no longer ticked.`}`;
      if (said.textContent !== text) said.textContent = text;
      actions.replaceChildren(
        href ? el("a", { href, class: "button" }, "Compare") : "",
        el("button", { type: "button", click: () => choose([]) }, "Clear"));
    }

    function choose(rows, without = "") {
      chosen = rows;
      dropped = without;
      show();
    }

    function box(row) {
      const change = ({ target }) => {
        const others = chosen.filter((one) => one !== row);
        if (!target.checked) choose(others);
        else choose([...others.slice(-1), row], others.slice(0, -1).map(called).join());
      };
      boxes.set(row, el("input", { type: "checkbox", "aria-label": `Compare ${number(row.cells.row)}`, change }));
      return boxes.get(row);
    }

    return { box, show };
  })();

  const sortOf = (id) => ({ get: () => filters.get(`sort.${id}`), set: (text) => filters.set(`sort.${id}`, text) });

  const views = tables.map((table) => {
    const node = byId(`table-${table.id}`);
    const view = { table, node, kept: [], drawn: null };
    node.addEventListener("toggle", () => open(view));
    return view;
  });

  /** Draw a table that is open, and whose rows are not those that it shows. */
  function open(view) {
    if (!view.node.open || view.drawn === view.kept) return;
    view.body ??= dihal.table.build(view.table, view.node.querySelector(".rows"), { sort: sortOf(view.table.id), picks });
    view.drawn = view.kept;
    view.body.show(view.kept);
  }

  function chosenView() {
    const asked = views.find((view) => view.table.id === filters.get("table"));
    return asked ?? views.find((view) => view.kept.length) ?? views[0];
  }

  function update() {
    const total = tables.reduce((sum, table) => sum + table.rows.length, 0);
    let left = 0;
    for (const view of views) {
      view.kept = filters.accepted(view.table);
      left += view.kept.length;
      view.node.hidden = !view.kept.length;
      const all = view.table.rows.length;
      view.node.querySelector(".count").textContent =
        view.kept.length === all ? `${number(all)} rows` : `${number(view.kept.length)} of ${number(all)} rows`;
      open(view);
    }
    for (const section of document.querySelectorAll("[data-section]")) {
      const own = views.filter((view) => section.contains(view.node));
      section.querySelector(".nothing").hidden = !own.length || own.some((view) => view.kept.length);
    }
    byId("shown").textContent = `${number(left)} of ${number(total)} rows`;
    if (views.length) figures();
  }

  function figures() {
    const view = chosenView();
    byId("chosen").value = view.table.id;
    byId("verdict").textContent = view.kept.length
      ? view.node.querySelector(".verdict")?.textContent ?? "" : "No row of this table matches the filters.";
    const drawn = overview.drawRows(view.table, view.kept);
    const cost = overview.drawCost(view.table, view.kept);
    byId("key").hidden = !view.kept.length;
    byId("key").replaceChildren(...overview.key(view.table, drawn, cost));
  }

  function chooseSweep(id) {
    const sweep = sweeps.find((one) => one.id === id) ?? sweeps[0];
    byId("sweep").value = sweep.id;
    for (const node of document.querySelectorAll("[data-sweep]")) node.hidden = node.dataset.sweep !== sweep.id;
    overview.drawSweep(sweep);
  }

  filters.build(tables, update);
  if (sweeps.length) {
    choices(byId("sweep"), sweeps.map((sweep) => [sweep.id, `${number(sweep.backbone)}: ${number(sweep.title)}`]));
    byId("sweep").addEventListener("change", (event) => {
      filters.set("sweep", event.target.value);
      chooseSweep(event.target.value);
    });
  }
  if (views.length) {
    choices(byId("chosen"), tables.map((table) => [table.id, table.title]));
    byId("chosen").addEventListener("change", (event) => {
      filters.set("table", event.target.value);
      chosenView().node.open = true;
      figures();
    });
    (tables.length > 4 ? [chosenView()] : views).forEach((view) => { view.node.open = true; });
    update();
    if (filters.get("table")) chosenView().node.scrollIntoView();
  }
  if (sweeps.length) chooseSweep(filters.get("sweep"));
})();
