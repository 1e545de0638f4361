"""Labels of the figures in a browser: over no other label, and not over the teacher's line."""

import itertools

import pytest

from dihal_bench.leaderboard.site.render import render_site

from .board_records import estimate
from .boards import board

TEXTS = """() => [...document.querySelectorAll("#chart-cost svg text")].map((one) => {
  const { left, right, top, bottom } = one.getBoundingClientRect();
  return [one.textContent, left, right, top, bottom];
})"""
TEACHER = """() => {
  const node = document.getElementById("chart-cost");
  const chart = echarts.getInstanceByDom(node);
  const { data } = chart.getOption().series.find((one) => one.markLine).markLine;
  const [, y] = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [1e13, data[0].yAxis]);
  return y + node.getBoundingClientRect().top;
}"""


@pytest.mark.parametrize("width", [1400, 390])
def test_no_label_lies_over_another_or_over_the_teachers_line(visit, tmp_path, width):
    given = board(6)
    rows = [r for r in given["tables"][0]["rows"] if r["cells"]["role"] == "interface"]
    for place, row in enumerate(rows):  # just above the teacher, and as dear as another
        row["cells"]["nll"] = estimate(3.3 + 1.2 * place, 0.01)
        row["cells"]["flops"] = 1.5e13 + 1e11 * (place % 3)
    assert len(rows) == 4
    render_site(given, tmp_path)
    page = visit(tmp_path, viewport={"width": width, "height": 844}).open("index.html")
    page.locator("#chart-cost svg").wait_for()
    found = [text for text in page.evaluate(TEXTS) if text[1] >= 0]
    labels = [text for text in found if text[0].startswith("S=")]
    assert len(labels) == 4
    y = page.evaluate(TEACHER)
    for name, _, _, top, bottom in labels:
        assert not top + 1 < y < bottom - 1, name
    for one, two in itertools.combinations(found, 2):
        apart = one[1] >= two[2] - 1 or two[1] >= one[2] - 1
        apart |= one[3] >= two[4] - 2 or two[3] >= one[4] - 2
        assert apart, (one, two)
