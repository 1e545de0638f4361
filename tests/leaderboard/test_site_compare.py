"""Two runs side by side in a browser: what is compared, and what is said of what is not."""

from dihal_bench.leaderboard.site.render import render_site

from .boards import board
from .browsing import FIRST


def test_differences_to_a_runs_own_interface_are_not_compared(visit, tmp_path):
    given = board(6)
    pair = (given["runs"][0], given["runs"][-1])
    for place, run in enumerate(pair):
        scores = run["record"]["scores"]
        own = {**scores[0], "subject": "teacher"}
        for metric in ("nll_minus_interface", "first_token_kl_minus_interface"):
            scores.append({**own, "metric": metric})
        details = {"control": ("regress", "lm")[place]}
        scores.append({**own, "metric": "diffusion_gain", "details": details})
        scores.append({**own, "metric": "nll_minus_teacher"})
    render_site(given, tmp_path)
    watched = visit(tmp_path)
    page = watched.open(f"compare.html?a={pair[0]['id']}&b={pair[1]['id']}")
    page.locator("#result h2").first.wait_for()
    rows = "section[aria-labelledby=scores] tbody tr"
    metrics = set(watched.texts(f"{rows} > :nth-child(2)"))
    assert {"nll", "nll_minus_teacher", "diffusion_gain over regress / lm"} <= metrics
    assert not [name for name in metrics if name.endswith("_minus_interface")]
    notes = page.locator("section[aria-labelledby=scores] .note").all_inner_texts()
    assert notes[-1].startswith("4 scores are left out: differences to a run's own interface")


def test_empty_fields_are_named_and_nothing_is_loaded(site, visit):
    folder, runs = site
    page = visit(folder).open("compare.html")
    assert all(page.get_attribute(field, "placeholder") for field in ("#a", "#b"))
    page.locator("#choose button").click()
    said = page.locator("#message", has_text="Both fields take a run")
    said.wait_for()
    assert page.evaluate("document.activeElement.id") == "a"
    page.fill("#a", runs[0])
    page.locator("#choose button").click()
    assert page.evaluate("document.activeElement.id") == "b"
    assert "?" not in page.url


def test_other_trainings_of_a_row_are_one_link_away(site, visit):
    folder, runs = site
    page = visit(folder).open(f"compare.html?a={runs[0]}&b={runs[3]}")
    page.locator("#result h2").first.wait_for()
    side = page.locator("#result .sides > div").first
    links = side.locator("small a")
    assert links.all_inner_texts() == ["seed 1", "seed 2"]
    links.first.click()
    page.wait_for_url("**/compare.html?a=*")
    page.locator("#result h2").first.wait_for()
    assert page.locator("#a").input_value() == runs[1]
    assert page.locator("#b").input_value() == runs[3]


def test_a_third_tick_says_which_row_it_drops(site, visit):
    page = visit(site[0]).open("index.html")
    rows = page.locator(f"{FIRST} tbody tr:has(input)")
    names = rows.locator("th .name").all_inner_texts()
    boxes = page.locator(f"{FIRST} input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(2).check()
    said = page.locator("#picks [role=status]")
    assert "seed 0 of 0, 1, 2" in said.inner_text()
    assert "no longer" not in said.inner_text()
    boxes.nth(4).check()
    assert f"Two rows are compared: {names[0]} S=1 is no longer ticked." in said.inner_text()
    boxes.nth(2).uncheck()
    assert "no longer" not in said.inner_text()
