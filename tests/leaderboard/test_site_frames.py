"""The frames that tables scroll in: they show that there is more, and their lines keep step."""

import pytest

from .browsing import FIRST


def classes(frame):
    return set(frame.get_attribute("class").split()) & {"more-left", "more-right"}


def test_a_frame_fades_where_it_goes_on_until_its_end(site, visit):
    folder, runs = site
    page = visit(folder, viewport={"width": 390, "height": 844}).open("index.html")
    frame = page.locator(f"{FIRST} .scroll")
    frame.scroll_into_view_if_needed()
    page.locator(f"{FIRST} .scroll.more-right").wait_for()
    assert classes(frame) == {"more-right"}
    assert "gradient" in frame.evaluate("node => getComputedStyle(node).maskImage")
    frame.evaluate("node => { node.scrollLeft = 40 }")
    page.locator(f"{FIRST} .scroll.more-left.more-right").wait_for()
    frame.evaluate("node => { node.scrollLeft = node.scrollWidth }")
    page.locator(f"{FIRST} .scroll:not(.more-right)").wait_for()
    assert frame.evaluate("node => getComputedStyle(node).maskImage") == "none"
    for name, part in (
        (f"runs/{runs[0]}.html", "#main .scroll"),
        (
            f"compare.html?a={runs[0]}&b={runs[3]}",
            "#result section[aria-labelledby=scores] .scroll",
        ),
    ):
        page = visit(folder, viewport={"width": 390, "height": 844}).open(name)
        page.locator(f"{part}.more-right").first.wait_for()


@pytest.mark.parametrize("width", [1400, 390])
def test_rows_are_whole_pixels_high(site, visit, width):
    page = visit(site[0], viewport={"width": width, "height": 844}).open("index.html")
    page.locator(f"{FIRST} tbody tr").first.wait_for()
    heights = page.evaluate(
        "[...document.querySelectorAll('.scroll tr')].map(r => r.getBoundingClientRect().height)"
    )
    assert len(heights) > 20
    assert [height for height in heights if height != round(height)] == []


def test_on_a_phone_no_text_touches_the_choice_above_it(site, visit):
    page = visit(site[0], viewport={"width": 390, "height": 844}).open("index.html")
    page.locator("#chart-sweep svg").wait_for()
    select, caption = (page.locator(part).bounding_box() for part in ("#sweep", "#caption-sweep"))
    assert caption["y"] >= select["y"] + select["height"] + 6
