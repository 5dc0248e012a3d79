"""The page in a real browser: it draws, sorts, filters and opens by mouse and keys, and asks no network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Seen, chromium, find_chromium, missing  # noqa: F401  # a fixture is found by its name
from fake import fake_run
from page_runs import TAU, disagreeing, rich_run, sweep

from kdx.compare.page import write
from kdx.compare.runs import find_runs

pytestmark = pytest.mark.xdist_group("browser")  # one browser is enough
Opened = Callable[..., Seen]
CHARTS = 26  # of the sweep of page_runs: 17 charts, of which 9 show ECE beside accuracy
TOUCHING = """() => [...document.querySelectorAll('.plot')].flatMap((plot) => ['xtick', 'ytick'].flatMap((kind) => {
  const boxes = [...plot.querySelectorAll(`.${kind} text`)].map((it) => [it.textContent, it.getBoundingClientRect()]);
  return boxes.flatMap(([a, first], i) => boxes.slice(i + 1).filter(([, second]) => first.left < second.right
    && second.left < first.right && first.top + 2 < second.bottom && second.top + 2 < first.bottom).map(([b]) =>
    `${plot.closest('.chart').dataset.chart}: ${a} and ${b}`));
}))"""
HOSTILE = "<script>alert('name')</script><img src=x onerror=alert('img')>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write(find_runs([sweep(folder / "runs", seeds=2, epochs=12)]), folder / "page.html")


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:  # noqa: F811  # the fixture, asked for
    """Opens a page; at the end nothing may have gone wrong on it, and nothing may have been asked of a network."""
    every: list[Seen] = []

    def open_it(file: Path, **how: Any) -> Seen:
        every.append(Seen(chromium, file, **how))
        return every[-1]

    yield open_it
    for seen in every:
        errors, abroad = seen.errors, seen.abroad()
        seen.context.close()
        assert not errors and not abroad


def labels(seen: Seen) -> list[str]:
    """Of the rows that are shown, in their order."""
    return seen.page.locator("table.overview:visible tbody tr:visible th a").all_inner_texts()


def column(seen: Seen, key: str) -> list[float]:
    place = seen.page.locator(f"table.overview:visible thead th[data-column='{key}']").evaluate("(head) => head.cellIndex")
    cells = seen.page.locator("table.overview:visible tbody tr:visible")
    return [float(row.locator("th, td").nth(place).get_attribute("data-value") or "nan") for row in cells.all()]


def test_every_chart_is_drawn_when_it_comes_into_sight(page: Path, opened: Opened) -> None:
    seen = opened(page)
    plots = seen.page.locator(".chart .plot")
    drawn = "document.querySelectorAll('.plot[data-drawn]').length"
    assert plots.count() == CHARTS
    assert seen.page.evaluate(drawn) < CHARTS
    seen.scroll_through()
    assert seen.page.evaluate(drawn) == CHARTS
    for plot in plots.all():
        marks = plot.locator("svg .trace path.js-line, svg .trace .points path, svg .bars path")
        assert marks.count() > 0, plot.evaluate("(it) => it.closest('.chart').dataset.chart")


def test_a_choice_draws_another_figure(page: Path, opened: Opened) -> None:
    seen = opened(page)
    chart = seen.page.locator("[data-chart=curves][data-start='0']")
    chart.scroll_into_view_if_needed()
    title = chart.locator(".ytitle")
    title.wait_for()
    assert title.text_content() == "accuracy"
    chart.get_by_label("Metric").select_option(label="ECE (student, val)")
    seen.wait("document.querySelector('[data-chart=curves] .ytitle').textContent === 'ECE'")
    beside = seen.page.locator("[data-chart=curves]").nth(1)
    assert beside.get_by_label("Metric").evaluate("(it) => it.selectedOptions[0].label") == "ECE (student, val)"
    lines = chart.locator(".scatterlayer .trace")
    before = lines.count()
    legend = chart.locator(".legend button").first
    legend.click()
    assert legend.get_attribute("aria-pressed") == "false"
    assert lines.count() < before
    legend.click()
    assert lines.count() == before
    ticks = chart.locator(".yaxislayer-above .ytick")
    tops = "(ticks) => ticks.map((it) => it.getBoundingClientRect().top)"
    linear = ticks.evaluate_all(tops)
    chart.get_by_label("log scale").check()
    assert ticks.evaluate_all(tops) != linear


def test_rows_are_sorted_by_click_and_by_key(page: Path, opened: Opened) -> None:
    seen = opened(page)
    key = "test/student/accuracy"
    head = seen.page.locator(f"table.overview:visible thead th[data-column='{key}']")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(seen, key) == sorted(column(seen, key), reverse=True)
    head.locator("button").focus()
    seen.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(seen, key) == sorted(column(seen, key))
    seen.page.locator("[data-show=runs]").click()
    name = seen.page.locator("table.overview:visible thead th.name")
    name.locator("button").click()
    assert name.get_attribute("aria-sort") == "ascending"
    other = seen.page.locator(f"table.overview:visible thead th[data-column='{key}']")
    other.locator("button").click()
    assert name.get_attribute("aria-sort") == "none"
    values = column(seen, key)
    held = [value for value in values if value == value]
    assert held == sorted(held, reverse=True) and values[: len(held)] == held  # what has no value comes last


def test_words_and_conditions_filter(page: Path, opened: Opened) -> None:
    seen = opened(page)
    assert len(labels(seen)) == 8
    box, status = seen.page.get_by_label("Filter"), seen.page.locator("#filter-status")
    box.fill("temperature.value=4")
    assert labels(seen) == ["px=4 T=4 epochs=150"]
    assert status.inner_text() == "1 of 8 groups shown."
    box.fill("resolution.student>=6")
    assert len(labels(seen)) == 2
    box.fill("scratch")
    assert labels(seen) == ["baseline=scratch"]
    box.fill("")
    least = sorted(column(seen, "test/student/accuracy"))[3]
    box.fill(f"accuracy>{least} T=")
    assert all(value > least for value in column(seen, "test/student/accuracy")) and labels(seen)
    box.fill("acuracy>0.9")
    assert labels(seen) == [] and "Unknown metric or setting “acuracy”" in status.inner_text()
    seen.page.locator("[data-show=runs]").click()
    box.fill("state=damaged")
    assert len(labels(seen)) == 1
    box.fill("seed!=0 state=finished")
    assert len(labels(seen)) == 8
    seen.page.reload()
    assert seen.page.get_by_label("Filter").input_value() == "seed!=0 state=finished"
    assert len(labels(seen)) == 8


def test_columns_are_chosen(page: Path, opened: Opened) -> None:
    seen = opened(page)
    head = seen.page.locator("table.overview:visible th[data-column='test/student/brier']")
    assert head.count() == 1 and not head.is_visible()
    seen.page.get_by_text("Columns", exact=True).click()
    seen.page.locator("#columns label[title='test/student/brier']").click()
    assert head.is_visible()
    seen.page.keyboard.press("Escape")
    assert not seen.page.locator("#columns").is_visible()
    seen.page.reload()
    assert head.is_visible()


def test_keys_open_a_run_and_lead_back(page: Path, opened: Opened) -> None:
    seen = opened(page)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    link = seen.page.locator("table.overview:visible tbody a").nth(1)
    link.focus()
    seen.page.keyboard.press("Enter")
    dialog = seen.page.get_by_role("dialog")
    dialog.wait_for()
    assert seen.page.url.endswith(link.get_attribute("href") or "?")
    for text in ("Metrics", "Provenance", "9d3e8a3ae3d4", "epoch 29 of 150", "2 CPU cores", TAU):
        assert dialog.get_by_text(text).first.is_visible(), text
    assert dialog.locator("img").count() == 1 and dialog.locator(".plot svg.main-svg").count() > 0
    assert dialog.locator("img").evaluate("(it) => it.decode().then(() => it.naturalWidth)") == 900
    dialog.get_by_label("Find").fill("temperature")
    assert dialog.locator("table.settings tr:visible").count() < 6
    seen.page.keyboard.press("Escape")  # empties the box, as in every search box
    seen.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert "#" not in seen.page.url
    assert link.evaluate("(it) => it === document.activeElement")
    assert not seen.page.locator("a[href*='run-']").evaluate_all(
        "(links) => links.some((it) => !document.getElementById('detail'))"
    )


def test_a_link_to_a_run_opens_it_and_a_click_on_its_row_too(page: Path, opened: Opened) -> None:
    seen = opened(page)
    row = seen.page.locator("table.overview:visible tbody tr").first
    row.locator("td").first.click()
    seen.page.get_by_role("dialog").wait_for()
    url = seen.page.url
    seen.page.goto("about:blank")
    seen.requests.clear()
    seen.page.goto(url)
    assert seen.page.get_by_role("dialog").is_visible()
    seen.page.get_by_role("button", name="Close").click()
    assert not seen.page.get_by_role("dialog").is_visible()


def test_two_configs_are_compared(page: Path, opened: Opened) -> None:
    seen = opened(page)
    rows = seen.page.locator("#difference tbody tr")
    assert rows.all_inner_texts() == [f"{TAU}\t1.0\t4.0"]
    assert "1 setting differs" in seen.page.locator("#difference").inner_text()
    seen.page.locator("#second").select_option(seen.page.locator("#first").input_value())
    assert rows.count() == 0 and "configs are equal" in seen.page.locator("#difference").inner_text()


def test_on_a_telephone_only_boxes_scroll_sideways(page: Path, opened: Opened) -> None:
    seen = opened(page, width=390)
    seen.scroll_through()
    wide = "document.documentElement.scrollWidth"
    assert seen.page.evaluate(wide) == 390
    boxes = seen.page.locator("table.overview:visible tbody tr").evaluate_all(
        "(rows) => rows.map((it) => it.getBoundingClientRect())"
    )
    assert all(box["left"] >= 0 and box["right"] <= 390 for box in boxes)
    assert all(above["bottom"] <= below["top"] for above, below in itertools.pairwise(boxes))  # cards, one below the other
    card = seen.page.locator("table.overview:visible tbody tr").first
    for cell in card.locator("td:visible").all():
        text, label = cell.inner_text(), cell.evaluate("(it) => getComputedStyle(it, '::before').content")
        assert not text or label.strip('"'), text
        assert cell.evaluate("(it) => it.scrollWidth <= it.clientWidth"), text
    labels_of_cells = card.locator("td:visible").evaluate_all("(cells) => cells.map((it) => it.dataset.label)")
    assert labels_of_cells[:4] == ["n, seeds", "accuracy", "ECE", "NLL, nats"]
    seen.page.locator("table.overview:visible tbody a").first.click()
    dialog = seen.page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.evaluate("(it) => it.scrollWidth <= it.clientWidth") and seen.page.evaluate(wide) == 390


def test_links_and_columns_fit_into_a_wide_window(page: Path, opened: Opened) -> None:
    seen = opened(page)
    for box in ("nav", ".scroller:has(table.overview:visible)"):
        assert seen.page.locator(box).first.evaluate("(it) => it.scrollWidth <= it.clientWidth"), box
    interval = seen.page.locator("table.overview:visible tbody td small").filter(has_text="[").first
    assert ",\u00a0" in interval.inner_text()  # it is not broken into two lines on a card


def test_the_toolbar_is_above_the_data_and_absent_without_a_mouse(page: Path, opened: Opened) -> None:
    seen = opened(page)
    plot = seen.page.locator("[data-chart=seeds] .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".modebar").wait_for(state="attached")
    assert plot.locator(".modebar").evaluate("(it) => getComputedStyle(it.querySelector('.modebar-group')).opacity") == "0"
    plot.hover()
    inside = "(it) => it.getBoundingClientRect()"
    bar, data = plot.locator(".modebar-group").first.evaluate(inside), plot.locator(".bglayer").first.evaluate(inside)
    assert bar["bottom"] <= data["top"]
    touched = opened(page, width=390, touch=True)
    touched.scroll_through()
    assert touched.page.locator(".modebar-btn").count() == 0


def test_no_two_ticks_of_an_axis_touch(page: Path, opened: Opened) -> None:
    for width in (1400, 390):
        seen = opened(page, width=width)
        seen.scroll_through()
        touching = seen.page.evaluate(TOUCHING)
        assert not touching, (width, touching)


def test_images_of_disagreement_are_shown_by_kind(tmp_path: Path, opened: Opened) -> None:
    folder = fake_run(tmp_path / "a")
    disagreeing(folder)
    (folder / "wandb.json").write_text('{"id": "a1", "url": "https://wandb.ai/me/kdx/runs/a1?apiKey=secret"}')
    file = write(find_runs([folder]), tmp_path / "page.html")
    assert "secret" not in file.read_text()
    seen = opened(file)
    seen.page.locator("table.overview:visible tbody a").first.click()
    dialog = seen.page.get_by_role("dialog")
    tiles = dialog.locator(".tile:visible")
    assert tiles.count() == 3 and "teacher cat 0.900" in tiles.first.inner_text()
    assert tiles.first.locator("img").evaluate("(it) => it.decode().then(() => it.naturalWidth)") == 96
    dialog.get_by_role("button", name="student wrong, teacher right 2").click()
    assert tiles.count() == 2
    dialog.get_by_role("button", name="both wrong 1").click()
    assert tiles.count() == 1 and "label cat" in tiles.inner_text()
    assert dialog.get_by_text("Open the run in W&B").get_attribute("href") == "https://wandb.ai/me/kdx/runs/a1"
    assert dialog.get_by_text("Views of the first").count() == 0 and dialog.locator("img").count() == 3


def test_the_theme_follows_the_system_until_it_is_chosen(page: Path, opened: Opened) -> None:
    seen = opened(page, theme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert seen.page.evaluate(ground) == "rgb(19, 20, 24)"
    seen.scroll_through()
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    assert seen.page.evaluate(ink) == "rgb(160, 160, 168)"
    seen.page.get_by_role("button", name="Switch between light and dark theme").click()
    assert seen.page.evaluate(ground) == "rgb(251, 251, 250)"
    seen.wait(f"{ink} === 'rgb(107, 107, 112)'")
    seen.page.reload()
    assert seen.page.evaluate(ground) == "rgb(251, 251, 250)"


def test_on_paper_every_chart_is_drawn_and_light(page: Path, opened: Opened) -> None:
    seen = opened(page, theme="dark")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    every = "[...document.querySelectorAll('.chart .plot')].every((plot) => plot.querySelector('svg.main-svg'))"
    seen.wait(every)
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "light"
    seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_without_a_browser_tests_skip_unless_one_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDX_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="asks for it"):
        missing("nothing here")
    monkeypatch.setenv("KDX_REQUIRE_BROWSER", "0")
    with pytest.raises(pytest.skip.Exception):
        missing("nothing here")
    monkeypatch.setenv("KDX_CHROMIUM", "/somewhere/chrome")
    assert find_chromium() == "/somewhere/chrome"


def test_nothing_that_a_run_says_is_run(tmp_path: Path, opened: Opened) -> None:
    provenance = {"command": [HOSTILE], "git_commit": HOSTILE, "hardware": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    for seed in (0, 1):
        rich_run(tmp_path / f"{seed}</script>".replace("/", "_"), {"name": HOSTILE, "seed": seed, "tags": [HOSTILE]},
            epochs=4, metrics={f"test/student/{HOSTILE}": 1.0}, provenance=provenance, group=HOSTILE)  # fmt: skip
        rich_run(tmp_path / f"c{seed}", {"name": "javascript:alert(1)", "seed": seed, "data.loader": HOSTILE}, epochs=4)
    seen = opened(write(find_runs([tmp_path]), tmp_path / "page.html", HOSTILE))
    seen.scroll_through()
    assert seen.page.locator("h1").inner_text() == HOSTILE
    for link in seen.page.locator("table.overview:visible tbody a").all():
        link.click()
        seen.page.get_by_role("dialog").wait_for()
        seen.page.keyboard.press("Escape")
    assert seen.page.locator("main img, main script").count() == 0


def test_the_policy_stops_scripts_that_come_in_all_the_same(
    page: Path,
    tmp_path: Path,
    chromium: Any,  # noqa: F811  # the fixture
) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        page.read_text().replace("<main", "<script>window.foreign = 1</script><img src='https://a.invalid/x.png'><main", 1)
    )
    seen = Seen(chromium, file)
    assert seen.page.evaluate("window.foreign") is None
    assert len(seen.errors) == 2 and all("Content Security Policy" in error for error in seen.errors)
    assert seen.refused == seen.abroad() == ["https://a.invalid/x.png"]
    seen.context.close()


def test_a_page_of_a_going_run_keeps_the_place_when_it_loads_itself_anew(tmp_path: Path, opened: Opened) -> None:
    for seed in (0, 1):
        rich_run(tmp_path / f"a{seed}", {"seed": seed}, epochs=4)
    rich_run(tmp_path / "b", {"seed": 2}, "running", epochs=8)
    seen = opened(write(find_runs([tmp_path]), tmp_path / "page.html", refresh=2))
    press = "document.querySelector('#pause').click();"  # by script: a click by mouse may scroll
    seen.page.evaluate(press)  # nothing that follows is cut off by a reload
    seen.wait("document.readyState === 'complete' && document.querySelector('#pause')?.textContent === 'Resume'")
    assert seen.page.locator("#pause").get_attribute("aria-pressed") == "true"
    seen.page.get_by_label("Filter").fill("cqkd")
    seen.page.get_by_label("Filter").blur()
    seen.scroll_through()
    top = "[...document.querySelectorAll('.chart')].at(-2).getBoundingClientRect().top"
    seen.page.evaluate(f"scrollBy(0, {top} - 100); {press}")
    for _ in range(2):  # the charts above have another height until they are drawn
        with seen.page.expect_event("load", timeout=60_000):
            pass
        seen.wait(f"document.querySelector('#filter')?.value === 'cqkd' && Math.abs({top} - 100) < 60")


def test_few_or_no_runs_make_a_page_too(tmp_path: Path, opened: Opened) -> None:
    empty = opened(write([], tmp_path / "empty.html"))
    assert "No runs found" in empty.page.locator("main").inner_text()
    fake_run(tmp_path / "runs" / "torn", state="damaged")
    seen = opened(write(find_runs([tmp_path / "runs"]), tmp_path / "torn.html"))
    assert labels(seen) == ["cqkd_digits"]
    seen.page.locator("table.overview:visible tbody a").click()
    assert "incomplete or invalid" in seen.page.get_by_role("dialog").inner_text()
    fake_run(tmp_path / "one" / "a")
    one = opened(write(find_runs([tmp_path / "one"]), tmp_path / "one.html"))
    one.scroll_through()
    assert "all 98 settings have the same value" in one.page.locator("#difference").inner_text()
