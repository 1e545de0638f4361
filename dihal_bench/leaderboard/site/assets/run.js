"use strict";
// A run's page: its figures, and buttons that copy its commands. All else stands in the page.
(() => {
  const { byId, charts, choices, el, entries, finite, list, loadRun, number, point } = dihal;

  for (const command of document.querySelectorAll(".command")) {
    const [node, said] = ["code", "[role=status]"].map((part) => command.querySelector(part));
    command.querySelector("button").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(node.textContent);
        said.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(node);
        said.textContent = "selected: copy it with the keyboard";
      }
    });
  }

  function curves(run) {
    if (!byId("chart-curves")) return;
    const traces = entries(run.curves).flatMap(([subject, phases]) => entries(phases).map(([phase, points]) => ({
      name: `${subject}, ${phase}`, points: list(points).filter(dihal.isObject),
    })));
    const losses = [...new Set(traces.flatMap(({ points }) => points.flatMap(Object.keys)))].filter((loss) => loss !== "tokens");
    const select = choices(byId("loss"), losses.map((loss) => [loss, loss]), losses.includes("total") ? "total" : losses[0]);
    const draw = () => charts.lines(byId("chart-curves"), traces.map(({ name, points }) => ({
      name, points: points.map((one) => [one.tokens, one[select.value]]).filter((pair) => pair.every(finite) && pair[1] > 0),
    })), { x: "tokens", y: select.value, spread: ["y"], text: `Training curves: ${select.value} over tokens` });
    select.addEventListener("change", draw);
    draw();
  }

  function noise({ oracle }) {
    const points = (values) => list(oracle?.sigmas).map((sigma, index) => [sigma, list(values)[index]]).filter((pair) => pair.every(finite));
    charts.lines(byId("chart-noise"), [
      { name: "agreement", points: points(oracle?.agreement_under_noise) },
      { name: "KL", points: points(oracle?.kl_under_noise), dashed: true, right: true },
    ], { x: "σ", y: "agreement", right: "KL, nats per token", marks: true, spread: ["x", "right"], text: "Agreement and KL of recovery under noise" });
  }

  function layers({ cells }) {
    const views = ["paper", "matched"].filter((view) => dihal.isObject(cells?.[view])).map((view, index) => ({
      name: view, right: index > 0, dashed: index > 0, symbol: index ? "rect" : "circle",
      points: list(cells[view].layers).filter(dihal.isObject).map((row) => [row.layer, point(row.score), row.layer === cells[view].selected]),
    }));
    charts.lines(byId("chart-layers"), views.map((view) => ({ ...view, points: view.points.filter((pair) => finite(pair[0]) && finite(pair[1])) })),
      { x: "layer", y: `score, ${views[0]?.name}`, right: views[1] && `score, ${views[1].name}`, marks: true, whole: true, text: "Score of every layer" });
  }

  function frontier(run) {
    const rows = new Map();
    const several = new Set(list(run.frontier).map((one) => one.task)).size > 1;
    for (const one of [...list(run.frontier), ...list(run.beside)]) {
      const name = several ? `${one.task}: ${one.row}` : one.row;
      rows.set(name, [...(rows.get(name) ?? []), [one.entropy, one.gen_ppl]]);
    }
    charts.lines(byId("chart-frontier"), [...rows].map(([name, points]) => ({ name: number(name), points: points.filter((pair) => pair.every(finite) && pair[1] > 0) })),
      { x: "entropy, nats", y: "generative perplexity", marks: true, spread: ["y"], text: "Generative perplexity against entropy" });
  }

  loadRun(byId("run-id").textContent).then((run) => {
    curves(run);
    noise(run);
    layers(run);
    frontier(run);
  }).catch(() => byId("main").append(el("p", { role: "status" }, "The data of the figures could not be loaded.")));
})();
