"""The site as files: the same from the same board, and text of strangers stays text."""

import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import dihal_bench.leaderboard
from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.site.pages import about, estimate, number
from dihal_bench.leaderboard.site.render import render_site
from dihal_bench.leaderboard.site.verdict import verdict

from .boards import MARKUP, board

ASSETS = Path(dihal_bench.leaderboard.__file__).parent / "site" / "assets"
ODD: tuple[Any, ...] = (None, True, 5, -1.5, "text", [], ["text"], [[3]], {}, {"a": {"b": [1]}})


class Page(HTMLParser):
    """The elements of a page, its text, and what it refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        self.text += data


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def parsed(text: str) -> Any:
    """What a data file hands to the pages."""
    found = re.search(r'= JSON\.parse\((".*")\);\n$', text)
    assert found
    return json.loads(json.loads(found.group(1)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    return folder, render_site(board(24), folder)


def test_every_file_is_returned_and_is_the_same_when_written_again(site, tmp_path):
    folder, files = site
    again = render_site(board(24), tmp_path)
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == files
    assert [p.relative_to(folder) for p in files] == [p.relative_to(tmp_path) for p in again]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(files, again, strict=True))
    assert len([p for p in files if p.parent.name == "runs"]) == 2 * 24


def test_all_links_lead_to_files_of_the_site(site):
    _, files = site
    for path in (path for path in files if path.suffix == ".html"):
        for link in Page(path.read_text(encoding="utf-8")).links:
            target = re.split("[?#]", link)[0]
            others = ("tables/", "records/")  # of the renderer
            beside = path.name == "index.html" and target.startswith(others)
            known = beside or (path.parent / target).resolve() in files
            assert not target or known, (path.name, link)


def test_pages_load_classic_scripts_of_their_own_only(site):
    folder, _ = site
    for name in ("index.html", "compare.html", *(f"runs/{r['id']}.html" for r in board(1)["runs"])):
        text = read(folder, name)
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in text
        assert not Page(text).handlers
        assert not re.search(r"<script(?![^>]* src=)|type=.module|<style", text)


def test_a_run_reads_without_scripts(site):
    folder, _ = site
    run = board(24)["runs"][0]
    text = Page(read(folder, f"runs/{run['id']}.html")).text
    for part in (
        *(run["record"]["command"], "5c14b748b422", "3.249 [3.239, 3.259]", "1.60·10¹³"),
        *("float64", "denoiser.width", "of the array of the array", "ensemble", "1,086,976"),
    ):
        assert part in text, part


def test_the_verdict_of_a_table_stands_in_the_page(site):
    folder, _ = site
    table = board(24)["tables"][0]
    said = verdict(table)
    assert said.startswith("Noise gains nothing measurable: hidden (layer=1) is not told apart")
    assert ", the teacher 0.2613." in said
    assert said in Page(read(folder, "index.html")).text
    for row in table["rows"]:
        row["cells"]["rank"] = None
    assert verdict(table).startswith("No interface has a rank")


def test_a_table_says_what_its_numbers_rest_on(tmp_path):
    given = board(3)
    facts = given["tables"][0]["facts"]
    facts |= {"architecture": "llama", "blocks": 8, "parameters": 2132096, "vocabulary": 4096}
    facts["training_tokens"] = 496714
    text = about(given["tables"][0])
    assert text == (
        "The model bundled: Llama, 8 blocks, 2.1 M parameters, a vocabulary of 4,096; interfaces "
        "are trained on 496,714 tokens of text. The budget tiny: 524,288 tokens of diffusion "
        "training, 131,072 tokens of recovery training. Scored are 24,433 tokens of 129 documents."
    )
    facts["architecture"] = MARKUP
    render_site(given, tmp_path)
    page = Page(read(tmp_path, "index.html"))
    assert text.replace("Llama", MARKUP) in page.text
    assert "img" not in page.tags
    assert about({"facts": {"backbone": "a", "parameters": "many", "blocks": None}}) == ""


def test_a_run_of_a_sweep_shows_its_own_command(tmp_path):
    given = board(1)
    record = given["runs"][0]["record"]
    alone = "dihal-bench run --budget tiny"
    render_site(given, tmp_path / "run")
    record["command"] = "dihal-bench sweep"
    render_site(given, tmp_path / "sweep")
    page = f"runs/{given['runs'][0]['id']}.html"
    assert alone not in read(tmp_path / "run", page)
    assert alone in read(tmp_path / "sweep", page)


def test_data_files_hold_the_board_and_can_end_no_script(tmp_path):
    given = board(3, hostile=True)
    render_site(given, tmp_path)
    text = read(tmp_path, "data/board.js")
    assert not set("<>&\u2028\u2029") & set(text)
    shown = parsed(text)
    assert shown["tables"] == given["tables"]
    assert shown["sweeps"] == given["sweeps"]
    run = given["runs"][0]
    own = read(tmp_path, f"data/runs/{run['id']}.js")
    assert not set("<>&") & set(own)
    assert parsed(own)["curves"] == run["record"]["bridge"]["curves"]


def test_markup_in_any_text_of_a_board_stays_text(tmp_path):
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    given = board(3, hostile=True)
    render_site(board(3), plain)
    render_site(given, hostile)
    run = given["runs"][0]["id"]
    for name in ("index.html", "compare.html", f"runs/{run}.html"):
        before, after = Page(read(plain, name)), Page(read(hostile, name))
        assert after.tags.count("script") == before.tags.count("script")
        assert "img" not in after.tags
        assert not after.handlers
        assert "49" not in after.text or "49" in before.text  # {{7*7}} is no template of ours
    assert Page(read(hostile, f"runs/{run}.html")).text.count(MARKUP) > 50


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "a/b", "../a", "-a", "a\n", "ä", "a b", 3])
@pytest.mark.parametrize("part", ["tables", "runs", "sweeps"])
def test_an_id_that_is_no_file_name_is_refused(part, name, tmp_path):
    given = board(3)
    given[part][0]["id"] = name
    with pytest.raises(UserError, match=f"{part}: the id"):
        render_site(given, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ids_that_occur_twice_and_rows_of_unknown_runs_are_refused(tmp_path):
    given = board(3)
    given["runs"].append(given["runs"][0])
    with pytest.raises(UserError, match="occurs twice"):
        render_site(given, tmp_path)
    given = board(3)
    given["tables"][0]["rows"][1]["runs"] = ["hidden-elsewhere"]
    with pytest.raises(UserError, match="not among the board's runs"):
        render_site(given, tmp_path)


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    given = board(3)
    given["tables"][0]["rows"][0]["cells"]["nll"]["value"] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        render_site(given, tmp_path)


def test_a_record_may_lack_any_part_or_hold_something_else_there(tmp_path):
    given = board(1)
    record = given["runs"][0]["record"]
    variants = [{}, *({k: v for k, v in record.items() if k != name} for name in record)]
    for path in places(record, depth=3):
        variants.append(replaced(record, path, ODD[len(variants) % len(ODD)]))
    run = given["runs"][0]
    given["tables"] = given["sweeps"] = []
    given["runs"] = [{**run, "id": f"v{i}", "record": v} for i, v in enumerate(variants)]
    assert len(render_site(given, tmp_path)) > 2 * len(variants) > 200


def places(value: Any, *, depth: int) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value, as far as the first entry of lists."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = [(0, value[0])] if isinstance(value, list) and value else inner
    below = [(key, *path) for key, own in inner if depth for path in places(own, depth=depth - 1)]
    return [(), *below] if not isinstance(value, dict) or depth < 3 else below


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    whole = copy.deepcopy(value)
    at = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return whole


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 4, "–"),
        (True, None, "yes"),
        (524288, None, "524,288"),
        (-3, None, "−3"),
        (0.26125, 4, "0.2612"),
        (-0.00047, 4, "−0.0005"),
        (1.603e13, None, "1.60·10¹³"),
        (1.5e-12, None, "1.50·10⁻¹²"),
        (83.25, None, "83.25"),
        (110592.0, None, "110,592"),
        ("hidden", None, "hidden"),
    ],
)
def test_numbers_as_text(value, digits, text):
    assert number(value, digits) == text


def test_an_estimate_has_its_interval_if_there_is_one():
    assert estimate({"value": 0.25, "lo": -0.5, "hi": 1.0}, 2) == "0.25 [−0.50, 1.00]"
    assert estimate({"value": 0.25, "lo": None, "hi": None}, 2) == "0.25"


def test_the_vendored_library_is_the_one_its_note_names():
    note = read(ASSETS, "echarts/README.md")
    digest = hashlib.sha256((ASSETS / "echarts" / "echarts.min.js").read_bytes()).hexdigest()
    assert digest in note


def test_scripts_write_text_never_markup():
    for path in ASSETS.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert "fetch(" not in text
        assert len(text.splitlines()) <= 400
