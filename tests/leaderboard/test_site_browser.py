"""The site in a browser, from file://: no errors, no other requests, and no script of a record."""

import time

import pytest

from dihal_bench.leaderboard.site.render import render_site

from .boards import board
from .browsing import FIRST

INTERACTIVE_SECONDS = 2.0
PHASES = ("diffusion", "recovery")


def test_all_pages_draw_their_figures(site, visit):
    folder, runs = site
    for name, figures in (
        ("index.html", 3),
        (f"runs/{runs[0]}.html", 4),
        (f"compare.html?a={runs[0]}&b={runs[6]}", 1),
    ):
        page = visit(folder).open(name)
        page.locator(".chart svg").nth(figures - 1).wait_for()
        assert page.locator(".chart svg").count() == figures
        assert page.locator(".chart[aria-label]").count() == figures


def test_the_teacher_stands_where_its_number_is(site, visit):
    page = visit(site[0]).open("index.html")
    page.locator("#chart-rows svg").wait_for()
    value, digits, most = page.evaluate(
        """() => {
          const chart = echarts.getInstanceByDom(document.getElementById("chart-rows"));
          const { data, precision } = chart.getOption().series.find((one) => one.markLine).markLine;
          const { scale } = chart.getModel().getComponent("xAxis").axis;
          return [data[0].xAxis, precision, scale.getExtent()[1]];
        }"""
    )
    assert round(value, digits or 2) == pytest.approx(value, rel=1e-9)
    assert value <= most


def test_two_ticked_rows_are_compared(site, visit):
    watched = visit(site[0])
    page = watched.open("index.html")
    boxes = page.locator(f"{FIRST} input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    assert "the same run" in page.locator("#picks").inner_text()
    boxes.nth(4).check()
    assert page.locator(f"{FIRST} input:checked").count() == 2
    page.locator(f"{FIRST} thead button[data-key=nll]").click()
    assert page.locator(f"{FIRST} input:checked").count() == 2
    page.locator("#picks a").click()
    page.locator("#result h2").first.wait_for()
    assert page.locator("#a").input_value() != page.locator("#b").input_value()
    keys = watched.texts("section[aria-labelledby=configuration] > .scroll tbody th")
    assert {"interface", "layer"} <= set(keys)
    assert "denoiser.width" not in keys
    row = page.locator("section[aria-labelledby=scores] tbody tr", has_text="the interface").first
    a, b, difference = (
        float(t.replace("−", "-")) for t in row.locator("td").all_inner_texts()[-3:]
    )
    assert difference == pytest.approx(b - a, abs=2e-4)


def test_the_form_compares_and_says_so_of_ids_that_are_none(site, visit):
    folder, runs = site
    page = visit(folder).open("compare.html")
    page.fill("#a", runs[0])
    page.fill("#b", runs[3])
    page.locator("#choose button").click()
    page.locator("#result h2").first.wait_for()
    for bad in ("../index", "constructor", "hidden-elsewhere"):
        page.fill("#b", bad)
        page.locator("#choose button").click()
        page.locator("#message", has_text=f"No run is called {bad}").wait_for()
        assert page.locator("#result > *").count() == 0


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_kept(site, visit):
    folder, runs = site
    page = visit(folder, color_scheme="dark").open("index.html")

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = paper()
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.locator("#theme").click()
    light = paper()
    assert light == "rgb(255, 255, 255)" != dark
    for name in ("index.html", f"runs/{runs[0]}.html", "compare.html"):
        page.goto(f"{folder.as_uri()}/{name}")
        assert paper() == light, name


def test_commands_are_copied_or_selected_to_be_copied(visit, tmp_path):
    given = board(1)
    given["runs"][0]["record"]["command"] = "dihal-bench sweep"
    render_site(given, tmp_path)
    page = visit(tmp_path).open(f"runs/{given['runs'][0]['id']}.html")
    commands = page.locator(".command").all()
    assert len(commands) == 2  # of the sweep, and of the run alone
    for command in commands:
        command.locator("button").click()
        command.locator("[role=status]", has_text="cop").wait_for()


def test_phases_of_two_runs_are_told_apart(visit, tmp_path):
    given = board(6)
    for run in given["runs"]:
        curves = run["record"]["bridge"]["curves"][run["interface"]]
        curves["recovery"] = curves["diffusion"]
    render_site(given, tmp_path)
    ids = [run["id"] for run in given["runs"]]
    page = visit(tmp_path).open(f"compare.html?a={ids[0]}&b={ids[3]}")
    page.locator("#result .chart svg").wait_for()
    lines = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('#result .chart')).getOption().series"
        ".map(({ name, lineStyle }) => [name, lineStyle.color, String(lineStyle.type)])"
    )
    assert [name for name, *_ in lines] == [f"{run}, {p}" for run in "AB" for p in PHASES]
    for place in (1, 2):
        assert len({line[place] for line in lines}) == 4


def test_what_is_first_read_is_in_view(visit, tmp_path):
    given = board(24)
    for row in given["tables"][0]["rows"]:
        if row["cells"].get("rank"):
            row["cells"]["rank"] = {"value": row["cells"]["rank"], "among": "S=16, 1 block"}
    for table in given["tables"]:
        table["columns"].sort(key=lambda column: column["key"] not in ("row", "rank", "brier1"))
    render_site(given, tmp_path)
    page = visit(tmp_path, viewport={"width": 390, "height": 844}).open("index.html")
    frame = page.locator(f"{FIRST} .scroll")
    frame.scroll_into_view_if_needed()
    cell = page.locator(f"{FIRST} tbody tr > :nth-child(3)").first
    one, two = frame.bounding_box(), cell.bounding_box()
    assert two["x"] + two["width"] <= one["x"] + one["width"]
    page = visit(tmp_path, viewport={"width": 1440, "height": 900}).open("index.html")
    page.locator(f"{FIRST} tbody tr").first.wait_for()
    assert page.locator(f"{FIRST} .scroll").evaluate("n => n.scrollHeight - n.clientHeight") < 2


def test_the_keyboard_reaches_and_works_everything(site, visit):
    page = visit(site[0]).open("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(f"{FIRST} thead button").first.focus()
    for _ in range(5):
        page.keyboard.press("Tab")
    focused = "document.activeElement.dataset.key"
    assert page.evaluate(focused) == "brier1"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "brier1"
    assert page.evaluate("document.activeElement.closest('th').ariaSort") == "descending"
    page.locator(f"{FIRST} input[type=checkbox]").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#picks").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches(':focus-visible')")


def test_controls_and_regions_have_names(site, visit):
    folder, runs = site
    for name in ("index.html", f"runs/{runs[0]}.html", f"compare.html?a={runs[0]}&b={runs[3]}"):
        page = visit(folder).open(name)
        unnamed = page.evaluate(
            "[...document.querySelectorAll('select, input, button, [role=region]')].filter(e => "
            "!e.hidden && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
        assert page.locator("main").count() == page.locator("h1").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(site, visit, scheme):
    page = visit(site[0], color_scheme=scheme).open("index.html")
    ratios = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const light = (name) => {
            const hex = style.getPropertyValue(`--${name}`).trim().slice(1).match(/../g);
            const [r, g, b] = hex.map((h) => parseInt(h, 16) / 255)
              .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          const names = ["ink", "muted", "accent", ...[...Array(8).keys()].map((i) => `c${i}`)];
          return Object.fromEntries(names.map((name) => [name,
            Math.min(...["paper", "soft"].map((under) => ratio(light(name), light(under))))]));
        }"""
    )
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("which", ["site", "hostile"])
def test_no_page_scrolls_sideways_on_a_phone(which, request, visit):
    folder, runs = request.getfixturevalue(which)
    for name in ("index.html", f"runs/{runs[0]}.html", f"compare.html?a={runs[0]}&b={runs[3]}"):
        page = visit(folder, viewport={"width": 360, "height": 740}).open(name)
        page.locator(".chart svg").first.wait_for()
        for details in page.locator("details").all():
            details.evaluate("node => { node.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth") == 360, name
    page = visit(folder, viewport={"width": 360, "height": 740}).open("index.html")
    page.locator(f"{FIRST} .scroll").evaluate("node => node.scrollBy(300, 0)")
    box = page.locator(f"{FIRST} tbody th[scope=row]").first.bounding_box()
    assert 0 <= box["x"] < 40


def test_no_script_of_a_record_runs(hostile, visit):
    folder, runs = hostile
    for name in ("index.html", f"runs/{runs[0]}.html", f"compare.html?a={runs[0]}&b={runs[6]}"):
        page = visit(folder).open(name)
        page.locator(".chart svg").first.wait_for()
        for chart in page.locator(".chart:has(svg)").all():  # tooltips, too
            box = chart.bounding_box()
            for share in (0.3, 0.5, 0.7, 0.85):
                chart.hover(position={"x": box["width"] * share, "y": box["height"] * 0.4})
        page.wait_for_timeout(100)
        found = page.evaluate(
            "[window.owned ?? null, document.querySelectorAll('img, iframe, object').length, "
            "document.querySelectorAll('script:not([src])').length]"
        )
        assert found == [None, 0, 0], name
        assert "<script>window.owned=1</script>" in page.locator("main").inner_text()


def test_tooltips_show_the_text_of_a_record_as_it_stands(hostile, visit):
    folder, _ = hostile
    page = visit(folder).open("index.html")
    page.locator("#chart-rows svg").wait_for()
    box = page.locator("#chart-rows").bounding_box()
    for x in range(60, 100, 2):
        page.mouse.move(box["x"] + box["width"] * x / 100, box["y"] + 33)
        if page.locator("#chart-rows .tip dt").count():
            break
    tip = page.locator("#chart-rows .tip")
    assert "<script>window.owned=1</script>" in tip.inner_text()
    assert tip.locator("script, img").count() == 0


@pytest.mark.nightly
def test_thousands_of_rows_are_sortable_within_two_seconds(tmp_path, visit, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # of 4,000 files takes most of the time
    given = board(2000, seeds=1)
    for run in given["runs"][1:]:
        run["record"] = {}  # the leaderboard reads none of them
    render_site(given, tmp_path)
    watched = visit(tmp_path)
    start = time.perf_counter()
    watched.page.goto(f"{tmp_path.as_uri()}/index.html", wait_until="commit")
    button = watched.page.locator(f"{FIRST} thead button[data-key=brier1]")
    button.click()
    watched.page.locator(f"{FIRST} th[aria-sort=descending]").wait_for()
    seconds = time.perf_counter() - start
    rows = f"{FIRST} tbody tr"
    assert watched.page.locator(rows).count() == 100
    watched.page.locator(f"{FIRST} .more").click()
    assert watched.page.locator(rows).count() == 200
    watched.page.fill("#search", given["runs"][777]["id"])
    assert "3 of 6,009" in watched.page.locator("#shown").inner_text()
    assert seconds < INTERACTIVE_SECONDS
