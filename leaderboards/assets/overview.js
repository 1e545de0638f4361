"use strict";
// The figures at the top: rows of the chosen table, what they cost, and a sweep over layers.
dihal.overview = (() => {
  const { byId, chainsOf, charts, el, estimate, finite, list, number, ownersOf, point } = dihal;
  const MOST = 24; // rows of a figure
  const SPAN = 30; // times the least value: from there on the axis of rows is logarithmic
  const PANEL = 132; // pixels of height of one panel of a sweep
  const SHAPES = { circle: "●", diamond: "◆", triangle: "▲", rect: "■" };
  const SYMBOLS = { exact: "circle", ensemble: "diamond", estimate: "triangle", bound: "rect" };
  const ROLES = ["reference", "interface", "trial", "control", "no model"];

  const label = ({ cells }) => [number(cells.row), chainsOf(cells)].filter(Boolean).join(" ");

  const fooled = (table, column) => table.rows.some((row) => list(row.cells[column.key]?.flags).includes("fooled"));

  const ranged = (table, column) => table.rows.some((row) => finite(row.cells[column.key]?.lo));

  /** The number that a table's rows are compared by: Brier-1, or the first with a direction that nothing fools,
      best with intervals. */
  function mainColumn(table) {
    const directed = table.columns.filter((column) => column.type === "estimate" && column.better);
    const honest = directed.filter((column) => !fooled(table, column));
    return directed.find((column) => column.key === "brier1") ??
      honest.find((column) => ranged(table, column)) ?? honest[0] ?? directed[0];
  }

  function costColumns(table) {
    const flops = table.columns.find((column) => column.type === "flops");
    const nll = table.columns.find((column) => column.likelihood && column.type === "estimate");
    return flops && nll ? [flops, nll] : null;
  }

  /** The best rows, an interface's together, controls right under what they are controls of; real text before
      them, what knows no language below. */
  function chosenRows(rows, column) {
    const sorted = rows
      .filter((row) => row.cells.role !== "teacher" && finite(point(row.cells[column.key])))
      .sort(dihal.table.compareCells(column, column.better === "higher" ? "descending" : "ascending"))
      .slice(0, MOST);
    const group = (row) => row.runs[0] ?? row.cells.interface; // a control is trained beside its interface
    const leading = [...sorted.filter((row) => row.cells.role === "interface"), ...sorted];
    const order = new Map([...new Set(leading.map(group))].map((name, place) => [name, place]));
    const outside = ({ cells }) => ({ reference: -1, "no model": 1 })[cells.role] ?? 0;
    return sorted.sort((a, b) => outside(a) - outside(b) || order.get(group(a)) - order.get(group(b)) ||
      ROLES.indexOf(a.cells.role) - ROLES.indexOf(b.cells.role));
  }

  /** Where an interface's colour stands, the same in all tables and figures; -1: it is of none or of several. */
  const interfaces = list(window.dihalBoard.interfaces).map(String);
  const named = new Map(list(window.dihalBoard.runs).map((run) => [String(run.label), String(run.interface)]));
  function placeOf(row) {
    if (ownersOf(row).length > 1) return -1;
    const name = String(row.cells.interface);
    return interfaces.indexOf(named.get(name) ?? name);
  }

  const colourOf = (row, theme) => theme.series[placeOf(row) % theme.series.length] ?? theme.muted;

  /** Filled: an interface; hollow: a control without diffusion. */
  function mark(row, colour, theme, symbol) {
    const hollow = row.cells.role !== "interface";
    return { symbol, itemStyle: { color: hollow ? theme.paper : colour, borderColor: colour, borderWidth: 1.75 } };
  }

  const shape = (row) => SYMBOLS[String(row.cells.kind).split("(")[0]] ?? "circle";
  const teacherOf = (table, column) => point(table.rows.find((row) => row.cells.role === "teacher")?.cells[column.key]);

  function teacherLine(table, column, theme, along) {
    const value = teacherOf(table, column);
    if (!finite(value)) return {};
    return {
      markLine: {
        silent: true, symbol: "none", animation: false, data: [{ [along]: value }],
        precision: 12, // or the line would stand at two decimals of it
        lineStyle: { color: theme.ink, type: "dashed", width: 1.25 },
        label: { formatter: () => `teacher${along === "xAxis" ? " " : "\n"}${number(value, column.digits)}`, color: theme.ink, fontSize: 11, lineHeight: 13,
          position: along === "xAxis" ? "start" : "end" },
      },
    };
  }

  /** A point that is not seen, so that the axis reaches as far as the teacher's line. */
  function reach(table, column, place) {
    const value = teacherOf(table, column);
    return { type: "scatter", name: "reach", symbolSize: 0, silent: true, data: finite(value) ? [place(value)] : [] };
  }

  const lines = (row, columns) => columns
    .filter((column) => column.key !== "row" && row.cells[column.key] !== undefined && row.cells[column.key] !== null)
    .map((column) => [column.title, estimate(row.cells[column.key], column.type === "estimate" ? column.digits : null)]);

  function drawRows(table, rows) {
    const column = mainColumn(table);
    const shown = column ? chosenRows(rows, column) : [];
    const all = column ? rows.filter((row) => row.cells.role !== "teacher" && finite(point(row.cells[column.key]))).length : 0;
    const values = column ? [...shown.map((row) => point(row.cells[column.key])), teacherOf(table, column)] : [];
    const span = column?.better === "lower" ? SPAN : Infinity; // what is better higher has an end
    const wide = charts.wide(values, span);
    const least = Math.min(...values.filter(finite));
    byId("caption-rows").textContent = column ? [
      `${column.title} (${column.better} is better) with 95 % intervals`,
      wide ? ", on a logarithmic axis" : "",
      fooled(table, column) ? "; samplers without a model fool it" : "",
      all > shown.length ? `; the first ${shown.length} of ${number(all)} rows` : ""].join("")
      : "No number of this table has a direction.";
    const wanted = [column, ...table.columns.filter((one) => one !== column && one.type !== "text")].slice(0, 8);
    const build = (theme, width) => ({
      aria: charts.aria(`${byId("caption-rows").textContent}: ${shown.slice(0, 12).map((row) => `${label(row)} ${estimate(row.cells[column.key], column.digits)}`).join("; ")}`),
      grid: { left: 4, right: 20, top: 22, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "all" },
      xAxis: charts.fitted(theme, column.title, values, {}, span),
      yAxis: {
        type: "category", inverse: true, data: shown.map((_, index) => index),
        axisTick: { show: false }, axisLine: { show: false },
        axisLabel: { color: theme.ink, interval: 0,
          ...(width < 480 ? { fontSize: 10, lineHeight: 11, width: 100, overflow: "break" } : { fontSize: 12, width: 190, overflow: "truncate" }),
          formatter: (index) => label(shown[index]) },
      },
      series: [
        reach(table, column, (value) => [value, 0]),
        charts.whiskers(shown.map((row, index) => {
          const cell = row.cells[column.key];
          const lo = wide ? Math.max(cell.lo ?? NaN, least / 1.2) : cell.lo ?? NaN; // no logarithm reaches below zero
          return { value: [cell.value ?? cell, index, lo, cell.hi ?? NaN], colour: colourOf(row, theme) };
        }), { name: "interval", upright: false }),
        {
          type: "scatter", symbolSize: 10, z: 3, ...teacherLine(table, column, theme, "xAxis"),
          data: shown.map((row, index) => ({
            value: [point(row.cells[column.key]), index], title: label(row), lines: lines(row, wanted),
            ...mark(row, colourOf(row, theme), theme, "circle"),
          })),
        },
      ],
    });
    draw("chart-rows", column && shown.length ? build : null, 78 + 22 * Math.max(shown.length, 4));
    return shown;
  }

  /** The labels of interfaces' points: S and K; of several that nearly coincide one point has all. */
  function labelsOf(rows, across, up) {
    const values = rows.map((row) => point(row.cells[up.key]));
    const near = (Math.max(...values) - Math.min(...values)) / 20;
    const place = ({ cells }) => [String(cells.interface), cells[across.key], point(cells[up.key])];
    const found = new Map();
    for (const row of rows.filter((one) => one.cells.role === "interface" && chainsOf(one.cells))) {
      const [name, x, y] = place(row);
      const beside = [...found.keys()].find((one) => place(one)[0] === name && place(one)[1] === x && Math.abs(place(one)[2] - y) < near);
      found.set(beside ?? row, [...(found.get(beside) ?? []), chainsOf(row.cells)]);
    }
    return found;
  }

  function drawCost(table, rows) {
    const columns = costColumns(table);
    const [flops, nll] = columns ?? [];
    const shown = columns ? rows.filter((row) => row.cells[flops.key] > 0 && finite(point(row.cells[nll.key]))) : [];
    byId("caption-cost").textContent = columns
      ? `${nll.title} (${nll.better} is better) against training FLOPs; what is not trained is not shown`
      : "";
    const order = [...shown].sort(dihal.table.compareCells(nll, "ascending")).slice(0, 10 * MOST);
    const spent = order.map((row) => row.cells[flops.key]);
    const labels = labelsOf(order, flops, nll);
    const marks = order.map((row) => [row.cells[flops.key], point(row.cells[nll.key]), row.cells[nll.key].lo, row.cells[nll.key].hi, labels.has(row)]);
    const build = (theme) => ({
      aria: charts.aria(byId("caption-cost").textContent),
      grid: { left: 8, right: 50, top: 22, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "all" },
      xAxis: charts.fitted(theme, "training FLOPs", spent, { axisLabel: {
        color: theme.muted, fontSize: 11, hideOverlap: true, formatter: (value) => number(value) } }),
      yAxis: charts.axis(theme, nll.title, { nameGap: 34, boundaryGap: ["8%", "4%"] }), // room for labels below the teacher
      series: [
        reach(table, nll, (value) => [order[0].cells[flops.key], value]),
        charts.whiskers(order.map((row) => {
          const cell = row.cells[nll.key];
          return { value: [row.cells[flops.key], cell.value ?? cell, cell.lo ?? NaN, cell.hi ?? NaN], colour: colourOf(row, theme) };
        }), { name: "interval" }),
        {
          type: "scatter", symbolSize: 11, z: 3, ...teacherLine(table, nll, theme, "yAxis"),
          labelLayout: charts.placedLabels(byId("chart-cost"), marks, teacherOf(table, nll)),
          data: order.map((row) => ({
            label: { show: labels.has(row), formatter: () => labels.get(row).join(", ").replaceAll(", S=", ", "), color: theme.ink, fontSize: 10,
              textBorderColor: theme.paper, textBorderWidth: 2 },
            value: [row.cells[flops.key], point(row.cells[nll.key])], title: label(row),
            lines: [["kind", number(row.cells.kind)], ...lines(row, [nll, flops])],
            ...mark(row, colourOf(row, theme), theme, shape(row)),
          })),
        },
      ],
    });
    draw("chart-cost", order.length ? build : null, 360);
    return order;
  }

  /** What the marks of both figures mean: those that are in them. */
  function key(table, rows, costly) {
    const shown = [...rows, ...costly];
    const coloured = new Set(shown.map(placeOf));
    const hollow = [...new Set(shown.map((row) => row.cells.role))].filter((role) => role !== "interface").map(number);
    const shapes = Object.entries(SYMBOLS).filter(([kind]) => costly.some((row) => String(row.cells.kind).split("(")[0] === kind));
    const said = [
      shown.some((row) => row.cells.role === "interface") ? "filled: interface" : "",
      hollow.length ? `hollow: ${hollow.join(", ")}` : "",
      coloured.has(-1) ? "grey: of several interfaces, or of none" : "",
      finite(teacherOf(table, mainColumn(table) ?? {})) ? "dashed line: teacher" : "",
      shapes.length ? `shapes beside training FLOPs: ${shapes.map(([kind, symbol]) => `${SHAPES[symbol]} ${kind}`).join(" ")}` : "",
      table.columns.some((column) => column.key === "rank") ? "ranks come from differences in pairs, which are finer than these intervals" : "",
    ];
    return [
      ...interfaces.map((name, index) => coloured.has(index) ? el("span", { class: `swatch c${index % 8}` }, name) : null).filter(Boolean),
      el("span", {}, said.filter(Boolean).join(" · "))];
  }

  function draw(id, build, height) {
    const node = byId(id);
    node.closest("figure").hidden = !build;
    if (build) charts.mount(node, build, height);
  }

  /** Losses with intervals over the layers, and under them the scores, each on its own scale. */
  function drawSweep(sweep) {
    const losses = ["fvu_mmse", "kl_one_step", "kl"].filter((name) => name in sweep.losses);
    const scores = Object.keys(sweep.predictors).filter((name) => name.startsWith("score"));
    byId("caption-sweep").textContent =
      `${sweep.backbone}, ${sweep.title}. Above, the bridge's losses (lower is better); below, the geometry score ` +
      "(higher: to be chosen). Large marks: the best layer of each. Where they stand in one column, they agree.";
    const panels = [
      ...losses.map((name) => ({ name, title: sweep.losses[name].title, cells: list(sweep.losses[name].cells), best: Math.min })),
      ...scores.map((name) => ({ name, title: name, cells: list(sweep.predictors[name]), best: Math.max, score: true })),
    ];
    const build = (theme) => ({
      aria: charts.aria(`${byId("caption-sweep").textContent} ${panels.map(said(sweep)).join("; ")}.`),
      tooltip: { ...charts.tooltip(theme), trigger: "axis" },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      title: panels.map(({ title }, index) => ({ text: title, left: 0, top: index * PANEL + 8, padding: 0,
        textStyle: { color: theme.ink, fontSize: 12, fontWeight: "normal" } })),
      grid: panels.map((_, index) => ({ left: 44, right: 14, top: index * PANEL + 32, height: PANEL - 58 })),
      xAxis: panels.map((_, index) => charts.axis(theme, index === panels.length - 1 ? "layer" : "", {
        type: "category", gridIndex: index, data: sweep.layers.map(String), nameGap: 22,
        axisPointer: { show: true, type: "shadow", label: { show: false }, shadowStyle: { color: theme.muted, opacity: 0.12 } },
      })),
      yAxis: panels.map((_, index) => charts.axis(theme, "", { gridIndex: index, splitNumber: 3 })),
      series: panels.flatMap((panel, index) => sweepSeries(sweep, panel, index, theme)),
    });
    draw("chart-sweep", panels.length ? build : null, PANEL * panels.length + 16);
  }

  const bestOf = ({ cells, best }) => best(...cells.map(point).filter(finite));

  const said = (sweep) => (panel) =>
    `${panel.title}: best at layer ${sweep.layers[panel.cells.map(point).indexOf(bestOf(panel))]}`;

  function sweepSeries(sweep, panel, index, theme) {
    const place = { xAxisIndex: index, yAxisIndex: index };
    const colour = panel.score ? theme.muted : theme.series[0]; // a bridge's colour is of losses alone
    const best = bestOf(panel);
    return [
      charts.whiskers(panel.cells.map((cell, layer) => ({ value: [layer, point(cell), cell?.lo ?? NaN, cell?.hi ?? NaN] })),
        { name: `${panel.name}, interval`, colour, ...place }),
      { type: "line", name: panel.name, ...place, color: colour, lineStyle: { color: colour, width: 1.75 }, z: 3,
        symbol: panel.score ? "rect" : "circle",
        data: panel.cells.map((cell, layer) => ({
          value: [layer, point(cell) ?? "-"], symbolSize: point(cell) === best ? 14 : 6,
          itemStyle: point(cell) === best ? { color: colour } : { color: theme.paper, borderColor: colour },
          title: index ? "" : `layer ${sweep.layers[layer]}`,
          lines: [[panel.title, `${estimate(cell)}${point(cell) === best ? " (best)" : ""}`]],
        })) },
    ];
  }

  return { drawRows, drawCost, drawSweep, key };
})();
