"""The page of a report in a browser."""

import os
import re
import shutil

import pytest
from PIL import Image

from tests.reporting.reports import World, write
from tinyjax import report
from tinyjax.reporting import findings, summary, tables
from tinyjax.reporting.page import PageFigure, render
from tinyjax.reporting.run_folders import parse_number
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

SMALL = {"images": 60, "resamples": 60, "steps": (50, 300), "corrupt": False}
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def tab():
    """A page of a headless Chromium.

    Without Chromium, tests are skipped, or fail if TINYJAX_REQUIRE_DATA is 1.
    """
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        message = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("TINYJAX_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium.new_page(viewport={"width": 1280, "height": 800})
        chromium.close()


@pytest.fixture
def opened(tab):
    """Return a function that opens a folder's report.

    Fails if the page logs an error or requests anything but itself.
    """
    errors, requests = [], []
    listeners = {
        "console": lambda message: errors.append(message.text),
        "pageerror": lambda error: errors.append(str(error)),
        "request": lambda request: requests.append(request.url),
    }

    def open(folder):
        if not (folder / "report.html").exists():
            report.main([str(folder)])
        tab.goto((folder / "report.html").as_uri())
        return tab

    for event, listener in listeners.items():
        tab.on(event, listener)
    yield open
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [tab.url]


def column(page, title):
    """The exact values of a column, from top to bottom."""
    index = titles(page).index(title)
    return page.eval_on_selector_all(
        "table.members tbody tr",
        "(rows, k) => rows.map(r => r.cells[k].dataset.v ?? r.cells[k].textContent)",
        index,
    )


def titles(page):
    return page.eval_on_selector_all("table.members thead th", "all => all.map(h => h.textContent)")


def click(page, title):
    page.get_by_role("button", name=title, exact=True).click()
    return column(page, title)


def choose(page, title, value):
    page.locator(f'select[data-column="{titles(page).index(title)}"]').select_option(value)


@pytest.mark.parametrize("title", ["in domain", "parameters", "gap", "eff. rob.", "RGN"])
def test_click_on_a_title_sorts_numbers_in_both_directions(opened, sweep, title):
    page = opened(sweep)
    ascending = sorted(map(float, column(page, title)))
    assert list(map(float, click(page, title))) == ascending[::-1]
    assert list(map(float, click(page, title))) == ascending
    directions = page.locator("th[aria-sort]").evaluate_all("all => all.map(h => h.ariaSort)")
    assert directions == ["ascending"]


def test_empty_cells_come_last_in_both_directions(opened, sweep, tmp_path, without_figures):
    ignore = shutil.ignore_patterns("report.html")
    folder = shutil.copytree(sweep, tmp_path / "copy", ignore=ignore)
    rows = read_rows(folder / "results.csv")
    for row in rows[:4]:
        row["rgn"] = ""
    write_rows(folder / "results.csv", rows, rows[0])
    page = opened(folder)
    for _ in range(2):
        assert [value == "" for value in click(page, "RGN")] == [False] * 22 + [True] * 2


def test_names_are_sorted_by_their_numbers(opened, sweep):
    page = opened(sweep)
    names = [f"mobilenetv3/s-{k}" for k in (1, 2, 4, 6) for _ in range(6)]
    assert click(page, "backbone") == names
    assert click(page, "backbone") == names[::-1]


def test_filters_select_rows(opened, sweep):
    page = opened(sweep)
    search = page.get_by_role("searchbox")
    search.fill("S-4 caltech")
    assert set(column(page, "backbone")) == {"mobilenetv3/s-4"}
    assert column(page, "start") == ["caltech101"] * 3
    assert page.locator("output").inner_text() == "3 of 24 members"
    choose(page, "start", "scratch")
    assert column(page, "start") == []
    search.fill("")
    assert column(page, "start") == ["scratch"] * 12
    choose(page, "backbone", "mobilenetv3/s-1")
    assert len(click(page, "in domain")) == 3  # sorting keeps the filters
    choose(page, "start", "all")
    choose(page, "backbone", "all")
    assert len(column(page, "start")) == 24


def test_field_values_are_escaped(opened, tmp_path):
    markup = "<img src=http://x.invalid onerror='document.title=1'>"
    write(tmp_path, sizes=["s-2", "s-1"], varied={"freeze": markup}, **SMALL)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    sentences = [*findings.make_findings(contents, numbers), markup]
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8)).save(picture)
    figure = PageFigure("x", "Images", picture, 8, alt=markup, note=markup)
    html = render(contents, numbers, sentences, [figure], [markup])
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    page = opened(tmp_path)
    assert column(page, "freeze") == [markup] * 12
    assert page.get_by_alt_text(markup, exact=True).count() == 1
    assert page.title().endswith("tinyjax report")


def test_nothing_external_is_referenced(opened, sweep):
    opened(sweep)
    html = (sweep / "report.html").read_text()
    links = re.findall(r"""(?:src|href|action|srcset)\s*=\s*["']?([^"'\s>]+)""", html)
    assert links
    assert {link.partition(",")[0] for link in links if link[0] != "#"} <= {
        "data:", "data:image/png;base64",
    }  # fmt: skip
    assert "@import" not in html
    assert "url(" not in html


@pytest.mark.slow
def test_a_report_of_a_thousand_members(opened, tmp_path):
    ids = write(
        tmp_path, World(gain=0.02), sizes=[f"m{k}" for k in range(9)], seeds=56,
        **SMALL | {"corrupt": True},
    )  # fmt: skip
    assert len(ids) == 1008
    page = opened(tmp_path)
    page.get_by_role("button", name="show all 1008").click()
    assert set(column(page, "member")) == {*ids}
    exact = {
        row["member"]: parse_number(row["AP50"])
        for row in read_rows(tmp_path / "evaluations" / "last.csv")
        if row["suite"] == "val" and not row["slice"]
    }
    best = sorted(exact, key=exact.get, reverse=True)
    click(page, "in domain")
    assert column(page, "member") == best
    choose(page, "start", "caltech101")
    assert len(column(page, "member")) == 504
    images = page.locator("figure img").evaluate_all(
        "all => all.map(i => [i.closest('figure').id, i.complete && i.naturalWidth > 300, i.alt])"
    )
    assert {name for name, _, _ in images} == {
        "size", "shift", "gain", "rgn", "slices", "corruptions", "classes", "calibration",
        "learning", "images0", "images1",
    }  # fmt: skip
    assert all(drawn and alt for _, drawn, alt in images)
