"""The rows of the site's tables and figures in a browser: their order, filters, links and marks."""

import re

from dihal_bench.leaderboard.site.render import render_site

from .boards import board
from .browsing import FIRST, names, numbers


def test_a_table_sorts_best_first_then_worst_first_then_as_it_came(site, visit):
    watched = visit(site[0])
    page = watched.open("index.html")
    original = names(watched)
    head = page.locator(f"{FIRST} thead th", has_text="Brier-1")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers(watched, 6) == sorted(numbers(watched, 6), reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(watched, 6) == sorted(numbers(watched, 6))
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert names(watched) == original


def test_a_likelihood_ranks_every_kind_and_number_of_evaluations_apart(visit, tmp_path):
    given = board(6)
    rows = given["tables"][0]["rows"]
    for row in rows:
        if row["cells"].get("steps") == 16:
            row["cells"] |= {"chains": 1, "kind": "ensemble(1)", "nfe": 16}
    render_site(given, tmp_path)
    watched = visit(tmp_path)
    page = watched.open("index.html")
    page.locator(f"{FIRST} thead button[data-key=nll]").click()
    apart = "ranked apart from other kinds and evaluations"
    kinds = ["exact", "ensemble(1), NFE 1", "ensemble(1), NFE 16"]
    assert watched.texts(f"{FIRST} tr.kind") == [f"{kind}: {apart}" for kind in kinds]
    for body in page.locator(f"{FIRST} tbody").all():
        cells = body.locator("tr:not(.kind) > :nth-child(7)").all_inner_texts()
        values = [float(text.split(" ")[0]) for text in cells]
        assert values == sorted(values)
    gain = page.locator(f"{FIRST} thead button[data-key=gain]")
    for _ in range(2):  # best first, worst first
        gain.click()
        assert watched.texts(f"{FIRST} tr.kind")[-1] == "no Gain"
        last = page.locator(f"{FIRST} tbody").last.locator("tr:not(.kind) > :nth-child(9)")
        assert set(last.all_inner_texts()) == {"–"}
        assert last.count() == sum(not row["cells"].get("gain") for row in rows)


def test_ranks_of_different_rankings_stand_apart(visit, tmp_path):
    given = board(6)
    for row in given["tables"][0]["rows"]:
        cells = row["cells"]
        if cells["rank"]:
            cells["rank"] = {"value": cells["rank"], "among": f"S={cells['steps']}, 2 blocks"}
    render_site(given, tmp_path)
    watched = visit(tmp_path)
    page = watched.open("index.html")
    ranks = watched.texts(f"{FIRST} tbody tr > :nth-child(2)")
    assert any(re.fullmatch(r"1 \(S=\d+, 2 blocks\)", text) for text in ranks)
    page.locator(f"{FIRST} thead button[data-key=rank]").click()
    kinds = watched.texts(f"{FIRST} tr.kind")
    assert sorted(kinds) == [f"S={steps}, 2 blocks: a ranking of its own" for steps in (1, 16)]
    for body in page.locator(f"{FIRST} tbody:has(tr.kind)").all():
        texts = body.locator("tr:not(.kind) > :nth-child(2)").all_inner_texts()
        assert len({text.partition(" ")[2] for text in texts}) == 1


def test_filters_keep_what_they_name_and_the_address_keeps_them(site, visit):
    watched = visit(site[0])
    page = watched.open("index.html")
    everything = page.locator("#shown").inner_text()
    page.select_option("#filter-interface", "latent")
    page.select_option("#filter-role", "interface")
    assert set(names(watched)) == {"latent"}
    assert page.locator("#shown").inner_text() != everything
    page.fill("#search", "no such row")
    assert page.locator("#shown").inner_text().startswith("0 of")
    page.fill("#search", "LATENT")
    page.locator(f"{FIRST} thead button[data-key=kl]").click()
    page.reload()
    assert page.locator("#filter-interface").input_value() == "latent"
    assert page.locator("#search").input_value() == "LATENT"
    assert page.locator(f"{FIRST} [aria-sort=ascending]").inner_text().startswith("KL")
    assert set(names(watched)) == {"latent"}
    page.locator("button[type=reset]").click()
    assert page.locator("#shown").inner_text() == everything


def test_flags_are_marked_as_the_legend_explains_them(site, visit):
    watched = visit(site[0])
    page = watched.open("index.html")
    flag = page.locator(f"{FIRST} .flag[title='tied with rank 1']").first
    assert flag.inner_text().startswith("†")
    assert any(line.startswith("† tied") for line in watched.texts(f"{FIRST} .legend li"))


def test_links_of_a_row_are_named_by_the_seeds_of_their_pages(visit, tmp_path):
    given = board(6)
    task = next(table for table in given["tables"] if table["kind"] == "task")
    for seed, run in zip((7, 12, 3), given["runs"][:3], strict=True):
        run["seed"] = seed
    task["rows"][1]["runs"] = [run["id"] for run in given["runs"][:3]]
    render_site(given, tmp_path)
    watched = visit(tmp_path)
    page = watched.open("index.html")
    for table, row in ((FIRST, 2), (f"#table-{task['id']}", 2)):
        links = f"{table} tbody tr:nth-child({row}) th a"
        page.locator(links).first.wait_for()
        texts = page.locator(links).all_text_contents()
        hrefs = page.locator(links).evaluate_all(
            "all => all.map((one) => one.getAttribute('href'))"
        )
        assert texts[1:] == ["7", "12"]
        assert texts[0].endswith(", seed 3")
        for text, href in zip(texts, hrefs, strict=True):
            shown = (tmp_path / href).read_text(encoding="utf-8")
            assert f"seed {text.rpartition(' ')[2]}</h1>" in shown


def test_every_sweep_is_told_from_the_others(visit, tmp_path):
    given = board(6)
    (sweep,) = given["sweeps"]
    given["sweeps"] = [{**sweep, "id": name, "backbone": name} for name in ("small", "large")]
    render_site(given, tmp_path)
    options = visit(tmp_path).open("index.html").locator("#sweep option").all_inner_texts()
    assert options == [f"{name}: {sweep['title']}" for name in ("small", "large")]


def test_an_interface_keeps_its_controls_and_what_is_of_none(visit, tmp_path):
    given = board(24)
    rows = given["tables"][0]["rows"]
    shared = next(row for row in rows if row["cells"]["row"] == "lm")
    shared["owners"] = ["embedding", "latent"]
    real = {"cells": {**rows[0]["cells"], "row": "real text", "role": "reference"}, "runs": []}
    rows.append(real)
    render_site(given, tmp_path)
    for own, other in (("embedding", "latent"), ("latent", "embedding")):
        page = visit(tmp_path).open("index.html")
        assert "real text" not in page.locator("#filter-interface option").all_inner_texts()
        page.select_option("#filter-interface", own)
        text = page.locator(f"{FIRST} tbody").inner_text()
        assert all(name in text for name in ("teacher", "real text", "lm", own))
        assert other not in text
        assert page.locator(f"{FIRST} tbody tr").count() == 2 + sum(
            own in row.get("owners", [row["cells"]["interface"]]) for row in rows[1:-1]
        )


def test_a_filter_that_nothing_passes_says_so(site, visit):
    page = visit(site[0]).open("index.html")
    page.locator("#chart-rows svg").wait_for()
    page.fill("#search", "no such row")
    assert page.locator("#verdict").inner_text() == "No row of this table matches the filters."
    for part in ("#chart-rows", "#chart-cost", "#key"):
        assert not page.locator(part).is_visible()
    messages = page.locator("[data-section] .nothing")
    assert messages.all_inner_texts() == ["No row matches the filters."] * 2
    page.locator("button[type=reset]").click()
    assert page.locator("#chart-rows").is_visible()
    assert not page.locator(".nothing:visible").count()


def figure(page):
    """The kind of the horizontal axis of the figure of rows, and its caption."""
    page.locator("#chart-rows svg").wait_for()
    kind = page.evaluate(
        "echarts.getInstanceByDom(document.getElementById('chart-rows')).getOption().xAxis[0].type"
    )
    return kind, page.locator("#caption-rows").inner_text()


def test_what_fools_nobody_is_drawn_and_wide_ranges_by_their_logarithm(visit, tmp_path):
    given = board(6)
    table = next(table for table in given["tables"] if table["kind"] == "task")
    keys = [column["key"] for column in table["columns"]]
    ppl = table["columns"].pop(keys.index("gen_ppl"))
    table["columns"].insert(1, {**ppl, "better": "lower"})
    given["tables"] = [table]
    for row in table["rows"]:
        row["cells"]["gen_ppl"]["flags"] = ["fooled"]
    loop = {"value": 30000.0, "lo": -5.0, "hi": 40000.0, "flags": ["fooled"]}
    cells = {"row": "loop", "role": "no model", "gen_ppl": loop}
    table["rows"].append({"cells": {**cells, "interface": "loop"}, "runs": []})
    render_site(given, tmp_path / "fooled")
    kind, caption = figure(visit(tmp_path / "fooled").open("index.html"))
    assert kind == "value"
    assert caption.startswith("MAUVE (higher is better)")
    table["columns"] = [column for column in table["columns"] if column["key"] != "mauve"]
    render_site(given, tmp_path / "only")
    kind, caption = figure(visit(tmp_path / "only").open("index.html"))
    assert kind == "log"
    assert caption.startswith("Gen. PPL (lower is better) with 95 % intervals, on a logarithmic")
    assert "fool it" in caption


def test_a_number_with_intervals_is_drawn_before_one_without(visit, tmp_path):
    given = board(6)
    table = next(table for table in given["tables"] if table["kind"] == "task")
    given["tables"] = [table]
    entropy = next(column for column in table["columns"] if column["key"] == "entropy")
    entropy["better"] = "higher"  # after MAUVE, which comes first where both have intervals
    render_site(given, tmp_path / "both")
    assert figure(visit(tmp_path / "both").open("index.html"))[1].startswith("MAUVE")
    for row in table["rows"]:
        row["cells"]["mauve"] = {"value": row["cells"]["mauve"]["value"], "flags": []}
    render_site(given, tmp_path / "one")
    assert figure(visit(tmp_path / "one").open("index.html"))[1].startswith("Entropy")


def test_the_key_has_the_marks_that_are_drawn(site, visit):
    page = visit(site[0]).open("index.html")
    key = page.locator("#key").inner_text()
    assert "● exact ◆ ensemble" in key
    assert not re.search("estimate|bound|trial", key)
    page.locator("#chart-cost svg").wait_for()
    assert "S=16 K=8" in page.locator("#chart-cost svg").text_content()
