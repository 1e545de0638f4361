"use strict";
// Figures by ECharts in SVG. Texts of records reach it as text: labels are drawn as such, and
// tooltips are elements made here, for its own would be read as markup.
dihal.charts = (() => {
  const { el, finite, number } = dihal;
  const mounted = new Map();

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: read("ink"), muted: read("muted"), rule: read("rule"), paper: read("paper"),
      series: [0, 1, 2, 3, 4, 5, 6, 7].map((index) => read(`c${index}`)),
    };
  }

  /** Draw what build(colours, width) returns into a node, anew when the theme or the width changes. */
  function mount(node, build, height = null) {
    if (!node) return;
    if (height) node.style.height = `${height}px`;
    const known = mounted.get(node);
    if (known) {
      known.build = build;
      known.draw();
      return;
    }
    const chart = echarts.init(node, null, { renderer: "svg" });
    const own = { build, chart };
    own.draw = () => {
      chart.resize();
      chart.setOption({ ...shared(colours()), ...own.build(colours(), node.clientWidth) }, true);
    };
    mounted.set(node, own);
    own.draw();
    let width = node.clientWidth;
    new ResizeObserver(() => {
      if (node.clientWidth && node.clientWidth !== width) own.draw();
      width = node.clientWidth;
    }).observe(node);
  }

  document.addEventListener("dihal:theme", () => mounted.forEach((own) => own.draw()));

  function shared(theme) {
    return {
      animation: false,
      color: theme.series,
      backgroundColor: "transparent",
      textStyle: { fontFamily: "system-ui, sans-serif", color: theme.ink },
      tooltip: tooltip(theme),
    };
  }

  const tooltip = (theme) => ({
    trigger: "item", confine: true, backgroundColor: theme.paper, borderColor: theme.rule,
    textStyle: { color: theme.ink, fontSize: 12 }, formatter: tip,
  });

  /** A tooltip: every point carries its own lines of [label, text]. */
  function tip(given) {
    const points = [given].flat().filter((one) => one.data?.lines);
    return el("div", { class: "tip" }, points.flatMap((one) => [
      one.data.title ? el("strong", {}, one.data.title) : null,
      el("dl", {}, one.data.lines.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text)))),
    ]));
  }

  function axis(theme, name, extra = {}) {
    return {
      type: "value", name, nameLocation: "middle", nameGap: 28, scale: true,
      nameTextStyle: { color: theme.muted, fontSize: 12 },
      axisLabel: { color: theme.muted, fontSize: 11, hideOverlap: true },
      axisLine: { show: true, lineStyle: { color: theme.rule } },
      axisTick: { lineStyle: { color: theme.rule } },
      splitLine: { lineStyle: { color: theme.rule, opacity: 0.5 } },
      ...extra,
    };
  }

  /** Intervals as thin lines; data: {value: [x, y, lo, hi]}, upright or lying. */
  function whiskers(data, { name, colour, upright = true, ...extra }) {
    return {
      type: "custom", name, silent: true, data, z: 1, ...extra,
      encode: upright ? { x: 0, y: [1, 2, 3] } : { x: [0, 2, 3], y: 1 },
      renderItem: (_, api) => {
        const [lo, hi] = [api.value(2), api.value(3)];
        if (!finite(lo) || !finite(hi)) return null;
        const from = api.coord(upright ? [api.value(0), lo] : [lo, api.value(1)]);
        const to = api.coord(upright ? [api.value(0), hi] : [hi, api.value(1)]);
        return {
          type: "line",
          shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] },
          style: { stroke: data[_.dataIndex]?.colour ?? colour, lineWidth: 1.5, opacity: 0.75 },
        };
      },
    };
  }

  /** Whether values are all positive, and span more than a factor. */
  function wide(values, factor = 20) {
    const known = values.filter(finite);
    const [least, most] = [Math.min(...known), Math.max(...known)];
    return least > 0 && most > factor * least;
  }

  /** An axis for these values: logarithmic where they span more than a factor. */
  function fitted(theme, name, values, extra = {}, factor = 20) {
    if (!wide(values, factor)) return axis(theme, name, extra);
    return axis(theme, name, {
      type: "log", min: ({ min }) => min / 1.2, max: ({ max }) => max * 1.2, ...extra,
      axisLabel: { color: theme.muted, fontSize: 11, hideOverlap: true, showMinLabel: false, showMaxLabel: false,
        formatter: (value) => number(value).replace(/^1\.00·/, "") },
    });
  }

  const plain = (theme, name, _, extra) => axis(theme, name, extra);

  function legend(theme, names, extra = {}) {
    return {
      type: "scroll", data: names, top: 0, left: 0, itemWidth: 18, itemHeight: 9,
      textStyle: { color: theme.ink, fontSize: 12, width: 220, overflow: "truncate" },
      pageTextStyle: { color: theme.muted }, ...extra,
    };
  }

  const aria = (text) => ({ enabled: true, label: { description: text } });

  /** Lines over a common axis; given: [{name, points: [[x, y]], colour, dashed or dash, right}]; spread: axes fitted to it. */
  function lines(node, given, { x, y, right, text, marks = false, spread = [], whole = false }) {
    const values = (index, side) => given.filter((line) => side === undefined || !line.right === !side)
      .flatMap((line) => line.points.map((pair) => pair[index]));
    const scale = (theme, side, ...rest) => (spread.includes(side) ? fitted : plain)(theme, ...rest);
    mount(node, (theme) => ({
      aria: aria(text),
      legend: legend(theme, given.map((line) => line.name)),
      grid: { left: 8, right: right ? 8 : 16, top: 40, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "all" },
      xAxis: scale(theme, "x", x, values(0), whole ? { minInterval: 1 } : {}),
      yAxis: [
        scale(theme, "y", y, values(1, false), { nameGap: 44 }),
        ...(right ? [scale(theme, "right", right, values(1, true), { nameGap: 44, splitLine: { show: false } })] : []),
      ],
      series: given.map((line, index) => series(theme, line, index, { marks, x })),
    }));
  }

  function series(theme, line, index, { marks, x }) {
    const colour = theme.series[(line.colour ?? index) % theme.series.length];
    return {
      type: "line", name: line.name, yAxisIndex: line.right ? 1 : 0, symbol: line.symbol ?? "circle",
      showSymbol: marks, symbolSize: 6, connectNulls: false, color: colour,
      lineStyle: { width: 1.75, type: line.dash ?? (line.dashed ? "dashed" : "solid"), color: colour },
      data: line.points.map((pair) => ({
        value: pair.slice(0, 2), symbolSize: pair[2] ? 13 : 6,
        title: line.name, lines: [[x, number(pair[0])], ["value", number(pair[1])]],
      })),
    };
  }

  const GAPS = [4, 12]; // pixels between a mark and its label, if need be the second
  const SIDES = [1, -1];
  const DIRECTIONS = [
    ...[[1, 0], [-1, 0], [0, 1], [0, -1]],
    ...[1, -1, 0.15, -0.15, 0.3, -0.3].flatMap((down) => SIDES.map((right) => [right, down])),
  ];

  const overlap = (a, b) =>
    Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x)) *
    Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y));

  /** Where labels of points stand: beside their marks, within the grid, over no other label, mark or line.
      One without such a place is not shown; what it says is in the tooltip, too.
      points: [[x, y, lo, hi, whether it has a label]] of all marks; level: of a horizontal line, or none. */
  function placedLabels(node, points, level) {
    const known = new Map(); // the library asks again and again, and has to be told the same
    const placed = [];
    let [size, taken, whiskers] = ["", [], []]; // of the grid, and what lies in it
    return ({ dataIndex, rect, labelRect }) => {
      if (!points[dataIndex][4]) return {}; // it is asked of those that are not shown, too
      const chart = echarts.getInstanceByDom(node);
      const pixel = (x, y) => chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
      const grid = chart.getModel().getComponent("grid").coordinateSystem.getRect();
      const now = [grid.x, grid.y, grid.width, grid.height].join(" ");
      if (now !== size) {
        known.clear();
        placed.length = 0;
        size = now;
        const around = (x, y, half) => ({ x: x - half, y: y - half, width: 2 * half, height: 2 * half });
        taken = points.map(([x, y]) => around(...pixel(x, y), 6));
        if (finite(level)) taken.push({ x: grid.x, y: pixel(points[0][0], level)[1] - 1, width: grid.width, height: 2 });
        whiskers = points.filter((one) => finite(one[2]) && finite(one[3])).map(([x, , lo, hi]) => {
          const [[left, bottom], [, top]] = [pixel(x, lo), pixel(x, hi)];
          return { x: left - 1, y: top, width: 2, height: bottom - top };
        });
      }
      if (known.has(dataIndex)) return known.get(dataIndex);
      const { width, height } = labelRect;
      const middle = [rect.x + rect.width / 2, rect.y + rect.height / 2];
      let best = null;
      for (const [gap, [right, down]] of GAPS.flatMap((one) => DIRECTIONS.map((way) => [one, way]))) {
        const aside = right && Math.abs(down) === 1 ? gap / 2 - GAPS[0] : gap;
        const own = {
          x: middle[0] - width / 2 + right * (width / 2 + rect.width / 2 + aside),
          y: middle[1] - height / 2 + down * (height / 2 + rect.height / 2 + aside / 2),
          width, height,
        };
        const inside = own.x >= grid.x && own.y >= grid.y &&
          own.x + width <= grid.x + grid.width + GAPS[0] && own.y + height <= grid.y + grid.height;
        const free = [placed, taken].every((some) => some.every((other) => overlap(own, other) < 1));
        const over = whiskers.reduce((sum, other) => sum + overlap(own, other), gap);
        if (inside && free && (!best || over < best.over)) best = { own, over };
      }
      if (best) placed.push(best.own);
      known.set(dataIndex, best ? { x: best.own.x, y: best.own.y, align: "left", verticalAlign: "top" } : { x: -1e4, y: -1e4 });
      return known.get(dataIndex);
    };
  }

  return { mount, placedLabels, tooltip, axis, fitted, wide, whiskers, aria, lines };
})();
