"""Colours of interfaces: one each, whatever table, figure or page they are in."""

import re
from pathlib import Path

import dihal_bench.leaderboard
from dihal_bench.leaderboard import figures
from dihal_bench.leaderboard.board import board_of
from dihal_bench.leaderboard.colours import PALETTE, colours, interfaces
from dihal_bench.leaderboard.site.render import render_site

from .boards import board
from .conftest import Make, configured, told

STYLE = Path(dihal_bench.leaderboard.__file__).parent / "site" / "assets" / "style.css"
RUNS = [
    {"label": "latent (7, 8]", "interface": "latent"},
    {"label": "c2d (7, 8]", "interface": "c2d"},
    {"label": "c2d (0, 8]", "interface": "c2d"},
    {"label": "hidden (0, 1]", "interface": "hidden"},
]


def test_hidden_is_first_and_labels_of_an_interface_share_a_colour() -> None:
    assert interfaces(RUNS) == ["hidden", "c2d", "latent"]
    own = colours(RUNS)
    assert own["hidden (0, 1]"] == PALETTE[0]
    assert own["c2d (7, 8]"] == own["c2d (0, 8]"] == PALETTE[1]
    assert own["latent (7, 8]"] == PALETTE[2]


def test_files_have_the_colours_of_pages_on_white() -> None:
    light = STYLE.read_text(encoding="utf-8").partition('[data-theme="dark"]')[0]
    assert tuple(re.findall(r"--c\d: (#\w+);", light)) == PALETTE


def test_figures_of_all_kinds_agree_on_an_interface(make: Make) -> None:
    given = board_of([told(make(), 40.0, 1), make("embedding")], []).to_dict()
    frontier = [{"task": "samples", "key": "k", "row": "hidden S=4", "temperature": 1.0}]
    for run in given["runs"]:
        run["record"]["frontier"] = [{**one, "entropy": 3.0, "gen_ppl": 9.0} for one in frontier]
    wanted = {kind: what for kind, _, what in figures._wanted(given)}
    by_kind = [
        {name: wanted[kind]["colours"][name] for name in wanted[kind]["colours"]}
        for kind in ("brier", "cost")
    ]
    by_kind.append({run["label"]: run["colour"] for run in wanted["recovery"]["runs"]})
    by_kind.append({k: own["colour"] for k, own in wanted["frontier"]["labels"].items()})
    expected = {run["label"]: PALETTE[run["interface"] == "embedding"] for run in given["runs"]}
    assert by_kind == [expected] * 4


def test_variants_of_an_interface_have_marks_of_their_own(make: Make) -> None:
    given = board_of([make(), configured(make(), 1, bridge__residual="none")], []).to_dict()
    labels = {run["label"]: {"interface": "hidden", "colour": "c"} for run in given["runs"]}
    assert len(labels) == 2
    assert set(figures._marks(labels).values()) == {"os", "D^"}


COLOURS = """() => {
  const chart = echarts.getInstanceByDom(document.getElementById("chart-rows"));
  const [marks] = chart.getOption().series.filter((one) => one.type === "scatter" && one.z === 3);
  return marks.data.map((one) => [one.title.split(" ")[0], one.itemStyle.borderColor]);
}"""


def test_an_interface_keeps_its_colour_in_every_table_of_the_page(visit, tmp_path) -> None:
    given = board(24)
    first = given["tables"][0]
    for table in given["tables"][1:]:  # a table without the first of the others' interfaces
        table["rows"] = [r for r in table["rows"] if r["cells"].get("interface") != "c2d"]
    render_site(given, tmp_path)
    page = visit(tmp_path).open("index.html")
    found: dict[str, set[str]] = {}
    for table in given["tables"]:
        page.select_option("#chosen", table["id"])
        for name, colour in page.evaluate(COLOURS):
            if name in ("hidden", "c2d", "embedding", "latent"):
                found.setdefault(name, set()).add(colour)
    assert len(given["tables"]) > 2
    assert {r["cells"]["interface"] for r in first["rows"]} >= set(found)
    assert {name: len(own) for name, own in found.items()} == dict.fromkeys(found, 1)
    page.select_option("#chosen", first["id"])
    key = page.locator("#key .swatch").all_inner_texts()
    assert key == ["hidden", "c2d", "embedding", "latent"]
