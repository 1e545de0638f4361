"use strict";
// Two runs side by side: what differs in their configuration, their scores, their curves.
(() => {
  const { byId, charts, el, entries, finite, isObject, list, loadRun, number, SAFE } = dihal;
  const runs = new Map(window.dihalBoard.runs.map((run) => [run.id, run]));
  const DASHES = ["solid", "dashed", "dotted", [9, 3, 2, 3]]; // of A and B, phase by phase
  const given = new URLSearchParams(location.search);

  function flattened(value, at = "") {
    const inner = entries(value);
    if (inner.length) return inner.flatMap(([key, own]) => flattened(own, at ? `${at}.${key}` : key));
    if (Array.isArray(value)) return [[at, value.join(", ")]];
    return [[at, isObject(value) ? null : value]];
  }

  function scroll(label, heads, rows) {
    return dihal.edged(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", {},
      el("thead", {}, el("tr", {}, heads.map(([text, kind]) => el("th", { scope: "col", class: kind }, text)))),
      el("tbody", {}, rows.map(([head, ...cells]) => el("tr", {}, el("th", { scope: "row" }, head),
        cells.map((text, index) => el("td", { class: heads[index + 1][1] }, text))))))));
  }

  function section(id, title, ...children) {
    return el("section", { "aria-labelledby": id }, el("h2", { id }, title), children);
  }

  function configuration(a, b) {
    const [one, two] = [a, b].map((run) => new Map(flattened(run.config ?? {})));
    const keys = [...new Set([...one.keys(), ...two.keys()])].sort();
    const rows = keys.map((key) => [key, number(one.get(key)), number(two.get(key))]);
    const heads = [["Key"], ["A", "long"], ["B", "long"]];
    const differing = rows.filter(([, left, right]) => left !== right);
    const same = rows.filter(([, left, right]) => left === right);
    return section("configuration", "Configuration",
      differing.length ? scroll("Differing configuration keys", heads, differing) : el("p", {}, "They do not differ."),
      el("details", {}, el("summary", {}, `${same.length} keys are the same`), scroll("Same configuration keys", heads, same)));
  }

  /** A score's key: a run's own interface is called so, for the two may have different names. */
  function keyed(run) {
    return new Map(list(run.scores).filter(isObject).map((score) => {
      const subject = score.subject === run.interface ? "the interface" : number(score.subject);
      const place = [score.task, subject, score.steps, score.chains, score.signal, score.metric];
      return [JSON.stringify(place), { score, place }];
    }));
  }

  /** Both values and their difference, with as many decimals. */
  function points(a, b) {
    const digits = dihal.decimals(Math.min(...[a, b].filter(finite).map(Math.abs)));
    const difference = finite(a) && finite(b) ? `${b > a ? "+" : ""}${number(b - a, digits)}` : number(null);
    return [number(a, digits), number(b, digits), difference];
  }

  /** Whether a score is a difference to the run's own interface: of two runs those are to two different rows. */
  const toItsOwn = ([, { score }]) => String(score.metric).endsWith("_minus_interface");

  /** A metric's name; of a gain with the controls that it is over, which can be two. */
  function metricOf(score, other) {
    const over = [...new Set([score, other].map((one) => one.details?.control).filter((control) => typeof control === "string"))];
    return over.length ? `${number(score.metric)} over ${over.join(" / ")}` : number(score.metric);
  }

  function scores(a, b) {
    const every = [a, b].map((run) => [...keyed(run)]);
    const [one, two] = every.map((some) => new Map(some.filter((entry) => !toItsOwn(entry))));
    const left = every.flat().filter(toItsOwn).length;
    const both = [...one.keys()].filter((key) => two.has(key));
    const tasks = new Map();
    for (const key of both) {
      const { place: [task, subject, steps, chains, signal], score } = one.get(key);
      const other = two.get(key).score;
      const kinds = score.kind === other.kind ? score.kind : `${score.kind} / ${other.kind}`;
      tasks.set(task, [...(tasks.get(task) ?? []), [
        ...[subject, metricOf(score, other), score.unit, steps, chains, signal, kinds].map((value) => number(value)),
        ...points(score.value, other.value)]]);
    }
    const rest = one.size + two.size - 2 * both.length;
    const heads = [["Row"], ["Metric"], ["Unit"], ["S", "num"], ["K", "num"], ["Signal"], ["Kind"], ["A", "num"], ["B", "num"], ["B − A", "num"]];
    return section("scores", "Scores",
      el("p", { class: "note" }, "Unpaired: differences of point values, without intervals."),
      [...tasks].flatMap(([task, rows]) => [el("h3", {}, number(task)), scroll(`Scores on ${number(task)}`, heads, rows)]),
      both.length ? null : el("p", {}, "No score is of both."),
      rest ? el("p", { class: "note" }, `${rest} scores are of one run only.`) : null,
      left ? el("p", { class: "note" }, `${left} scores are left out: differences to a run's own interface, which is another in each run.`) : null);
  }

  function curves(a, b) {
    const phases = [...new Set([a, b].flatMap((run) => entries(run.curves?.[run.interface]).map(([phase]) => phase)))];
    const traces = [a, b].flatMap((run, index) => entries(run.curves?.[run.interface]).map(([phase, points]) => {
      const style = 2 * phases.indexOf(phase) + index;
      return { name: `${"AB"[index]}, ${phase}`, colour: style, dash: DASHES[style % DASHES.length], points: list(points).filter(isObject) };
    }));
    const losses = [...new Set(traces.flatMap(({ points }) => points.flatMap(Object.keys)))].filter((loss) => loss !== "tokens");
    if (!losses.length) return { node: null, draw: () => {} };
    const select = dihal.choices(el("select", { id: "loss" }), losses.map((loss) => [loss, loss]), losses.includes("total") ? "total" : losses[0]);
    const chart = el("div", { class: "chart" });
    const draw = () => charts.lines(chart, traces.map((trace) => ({
      ...trace, points: trace.points.map((one) => [one.tokens, one[select.value]]).filter((pair) => pair.every(finite) && pair[1] > 0),
    })), { x: "tokens", y: select.value, spread: ["y"], text: `Training curves of both runs: ${select.value}` });
    select.addEventListener("change", draw);
    const node = el("section", { "aria-labelledby": "training" },
      el("div", { class: "bar" }, el("h2", { id: "training" }, "Training"), el("label", {}, "Loss ", select)),
      el("figure", {}, el("figcaption", {}, "Loss of the interfaces over the tokens seen."), chart));
    return { node, draw };
  }

  /** Links to the same comparison with the other trainings of a row. */
  function trainings(run, pair, side) {
    const others = [...runs.values()].filter((one) => one.id !== run.id && one.label === run.label && one.table === run.table)
      .sort((x, y) => dihal.compareText(number(x.seed), number(y.seed)));
    if (!others.length) return null;
    const to = (id) => `?${new URLSearchParams(Object.fromEntries(pair.map((one, place) => ["ab"[place], place === side ? id : one.id])))}`;
    return el("small", {}, " · other trainings: ", others.map((one, place) =>
      [place ? ", " : "", el("a", { href: to(one.id) }, `seed ${number(one.seed)}`)]));
  }

  function head(a, b) {
    return el("dl", { class: "facts sides" }, [a, b].map((run, index) => el("div", {}, el("dt", {}, "AB"[index]),
      el("dd", {}, el("a", { href: `runs/${run.id}.html` }, `${number(run.label)}, seed ${number(run.seed)}`),
        el("small", {}, ` ${number(run.regime)} · ${number(run.backbone)} · ${number(run.budget)}`),
        trainings(run, [a, b], index)))));
  }

  async function compare(first, second) {
    const unknown = [first, second].filter((id) => !SAFE.test(id) || !runs.has(id));
    if (unknown.length) {
      byId("message").textContent = `No run is called ${unknown.join(" or ")}; choose among the suggestions.`;
      return;
    }
    try {
      const [a, b] = await Promise.all([loadRun(first), loadRun(second)]);
      const training = curves(a, b);
      const children = [head(a, b), configuration(a, b), scores(a, b), training.node].filter(Boolean);
      byId("result").replaceChildren(...children);
      training.draw();
      byId("message").textContent = "";
    } catch {
      byId("message").textContent = "The data of a run could not be loaded.";
    }
  }

  byId("runs").replaceChildren(...[...runs.values()].map((run) =>
    el("option", { value: run.id }, `${number(run.label)}, ${number(run.regime)}, ${number(run.budget)}, seed ${number(run.seed)}`)));
  for (const side of ["a", "b"]) byId(side).value = given.get(side) ?? "";
  byId("choose").addEventListener("submit", (event) => {
    event.preventDefault();
    const empty = ["a", "b"].map(byId).find((field) => !field.value.trim());
    if (empty) {
      byId("message").textContent = "Both fields take a run: type a part of an interface's name or an id, and choose a suggestion.";
      empty.focus();
      return;
    }
    location.search = new URLSearchParams({ a: byId("a").value.trim(), b: byId("b").value.trim() }).toString();
  });
  if (given.get("a") && given.get("b")) compare(given.get("a"), given.get("b"));
})();
