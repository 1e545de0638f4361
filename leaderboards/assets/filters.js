"use strict";
// The state of the leaderboard: in the address, so that a view can be sent to somebody else.
dihal.filters = (() => {
  const { el, byId, choices, compareText, ownersOf } = dihal;
  const FACETS = [ // of the interfaces that a row stands beside, of its cells, or of its table's facts
    { key: "interface", of: "owners" }, { key: "role", of: "row" }, { key: "regime", of: "table" },
    { key: "backbone", of: "table" }, { key: "budget", of: "table" }, { key: "task", of: "table" },
  ];
  const COMMON = ["teacher", "reference", "no model"]; // roles of no interface: each is read beside them
  const read = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  let state = read();

  const get = (key) => state.get(key) ?? "";

  function set(key, value) {
    if (value) state.set(key, value);
    else state.delete(key);
    try {
      history.replaceState(null, "", `#${state}`);
    } catch {
      location.hash = String(state);
    }
  }

  const common = (row) => COMMON.includes(row.cells.role);

  function valuesOf(facet, row, table) {
    if (facet.of === "owners") return common(row) ? [] : ownersOf(row);
    const value = (facet.of === "row" ? row.cells : table.facts)[facet.key];
    return value === null || value === undefined ? [] : [String(value)];
  }

  /** Return the rows of a table that are shown; of an interface its controls too, and what is of none. */
  function accepted(table) {
    const chosen = FACETS.filter((facet) => get(facet.key));
    const words = get("q").toLowerCase().split(/\s+/).filter(Boolean);
    const within = (facet, row) => valuesOf(facet, row, table).includes(get(facet.key));
    const [owners] = chosen.filter((facet) => facet.of === "owners");
    if (owners && !table.rows.some((row) => within(owners, row))) return [];
    return table.rows.filter((row) =>
      chosen.every((facet) => within(facet, row) || (facet === owners && common(row))) &&
      words.every((word) => text(row, table).includes(word)));
  }

  const texts = new WeakMap();
  function text(row, table) {
    if (!texts.has(row)) {
      const cells = Object.values(row.cells).filter((cell) => typeof cell === "string");
      texts.set(row, [...cells, ...ownersOf(row), ...row.runs, table.title].join(" ").toLowerCase());
    }
    return texts.get(row);
  }

  function values(facet, tables) {
    const found = new Set();
    for (const table of tables) {
      const rows = facet.of === "table" ? table.rows.slice(0, 1) : table.rows;
      for (const row of rows) valuesOf(facet, row, table).forEach((value) => found.add(value));
    }
    return [...found].sort(compareText);
  }

  /** Build the form; changed() is called after every change of it or of the address. */
  function build(tables, changed) {
    const form = byId("filters");
    const selects = FACETS.map((facet) => {
      const options = [["", "all"], ...values(facet, tables).map((value) => [value, value])];
      return choices(el("select", { name: facet.key, id: `filter-${facet.key}` }), options, get(facet.key));
    });
    byId("facets").replaceChildren(...selects.map((select) =>
      el("label", {}, `${select.name[0].toUpperCase()}${select.name.slice(1)} `, select)));
    const fill = () => {
      byId("search").value = get("q");
      for (const select of selects) select.value = get(select.name);
    };
    fill();
    byId("search").addEventListener("input", () => {
      set("q", byId("search").value.trim());
      changed();
    });
    for (const select of selects) {
      select.addEventListener("change", () => {
        set(select.name, select.value);
        changed();
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      for (const key of ["q", ...FACETS.map((facet) => facet.key)]) set(key, "");
      fill();
      changed();
    });
    window.addEventListener("hashchange", () => {
      if (!location.hash.includes("=")) return;
      state = read();
      fill();
      changed();
    });
  }

  return { get, set, accepted, build };
})();
