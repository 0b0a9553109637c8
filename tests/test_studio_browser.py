"""The studio's page, that of a run, and reports in a real browser; skipped without Playwright and Chromium.

    pip install playwright && apt-get install chromium && pytest tests/test_studio_browser.py

NPSTYLE_TEST_SCREENSHOTS names a folder for pictures of the page, which are to be looked at.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers import structured_picture
from npstyle import images
from npstyle.cli.main import main
from test_studio import Client, serving, studio_process

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
SCREENSHOTS = os.environ.get("NPSTYLE_TEST_SCREENSHOTS")

# What the page must not do: scroll sideways. Elements whose right edge is beyond the window's.
TOO_WIDE = """() => [...document.querySelectorAll('body *')]
    .filter((e) => e.getClientRects().length && !e.matches('.skip, input[type=file], #before')
                   && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((e) => e.id || e.className || e.tagName)"""
# Fields and buttons without a name for a screen reader.
UNNAMED = """() => [...document.querySelectorAll('input, select, button, a, progress')]
    .filter((e) => e.getClientRects().length && !(e.labels && e.labels.length)
                   && !e.getAttribute('aria-label') && !e.textContent.trim())
    .map((e) => e.id || e.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path / "studio") as client:
        yield client


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photo.png", tmp_path / "painting.png"]
    for seed, path in enumerate(paths):
        Image.fromarray(structured_picture(48, 64, seed)).save(path)
    return paths


def until(page: Any, expression: str) -> None:
    """Wait for an expression; not by `wait_for_function`, whose eval the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"found {expression} not to become true")


class Page:
    """A window at the studio's address; at its end it must have met no error and asked nobody else."""

    def __init__(self, browser: Any, url: str, width: int, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.context.set_default_timeout(60000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.own = url.partition("?")[0]
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", self._see)
        self.page.goto(url)

    def _hear(self, message: Any) -> None:
        expected = "Failed to load resource" in message.text  # a preview that is not there yet, a refusal
        if message.type == "error" and not expected:
            self.errors.append(message.text)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.own, "blob:", "data:")):
            self.foreign.append(request.url)

    def order(self, pictures: list[Path], iterations: int, size: int = 48) -> None:
        """Choose pictures, if any, and random filters, and press the button."""
        page = self.page
        if pictures:
            page.set_input_files("#content", pictures[0])
            page.set_input_files("#styles", pictures[1:])
        page.fill("#size", str(size))
        page.eval_on_selector("#expert", "(e) => { e.open = true }")
        page.select_option("#weights", "random")
        page.fill("#iterations", str(iterations))
        until(page, "document.getElementById('estimate').textContent.includes('of memory')")
        page.eval_on_selector("#expert", "(e) => { e.open = false }")
        page.click("#paint")

    def paint_over(self, number: int, x: float, y: float, right: float, bottom: float) -> None:
        """A stroke with the brush over the masks' canvas, between two points given as parts of it."""
        self.page.check(f"input[name=mask-number][value='{number}']", force=True)
        canvas = self.page.locator("#mask-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        mouse = self.page.mouse
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        mouse.down()
        mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=4)
        mouse.up()

    def screenshot(self, name: str, whole: bool = True) -> None:
        """Keep a picture of the page, or of what is seen of it where a dialog is open."""
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=whole)

    def close(self) -> None:
        self.context.close()
        assert self.errors == []
        assert self.foreign == []


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (360, "dark")])
def test_from_two_pictures_to_the_downloaded_file(
    browser: Any, client: Client, pictures: list[Path], tmp_path: Path, width: int, scheme: str
) -> None:
    window = Page(browser, client.url, width, color_scheme=scheme, accept_downloads=True)
    page = window.page
    assert page.url == window.own  # without the token
    page.wait_for_selector("#color option", state="attached")
    window.screenshot(f"empty-{width}")
    window.order(pictures, 400)
    page.wait_for_selector("#progress", state="visible")
    until(page, "document.getElementById('after').naturalWidth > 0")
    page.wait_for_selector("#legend li", state="attached")
    window.screenshot(f"painting-{width}")
    assert page.evaluate(TOO_WIDE) == []
    page.reload()  # in the middle: everything is there again
    page.wait_for_selector("#legend li", state="attached")
    page.click("#stop")
    page.wait_for_selector("#downloads", state="visible")
    assert "Stopped and kept" in page.text_content("#state")
    with page.expect_download() as download:
        page.click("#download-png")
    assert download.value.suggested_filename == "photo-painting.png"
    target = tmp_path / "downloaded.png"
    download.value.save_as(target)
    assert images.read(target).shape == (36, 48, 3)
    until(page, "document.getElementById('before').naturalWidth > 0")
    page.focus("#slider")
    for _ in range(3):
        page.keyboard.press("PageDown")
    clip = page.eval_on_selector("#before", "(e) => getComputedStyle(e).clipPath")
    assert clip != "inset(0px 100% 0px 0px)"
    assert "--size 48" in page.input_value("#command")
    page.evaluate("window.scrollTo(0, 0)")
    window.screenshot(f"done-{width}")
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(UNNAMED) == []
    page.click("#again")
    until(page, "document.getElementById('estimate').textContent.includes('of memory')")
    assert page.input_value("#iterations") == "400"
    page.click("#delete")
    page.click("#confirm .danger")
    page.wait_for_selector("#no-pictures", state="visible")
    window.close()


def test_errors_stand_beside_their_fields(
    browser: Any, client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    window = Page(browser, client.url, 360)
    page = window.page
    page.wait_for_selector("#color option", state="attached")
    page.click("#paint")
    assert page.text_content("#error-content") == "Choose a photograph first."
    wrong = tmp_path / "no picture.txt"
    wrong.write_text("words")
    page.set_input_files("#content", wrong)
    until(page, "document.getElementById('error-content').textContent.includes('no picture.txt')")
    page.set_input_files("#content", pictures[0])
    page.set_input_files("#styles", pictures[1])
    page.fill("#size", "8")
    until(page, "document.getElementById('error-size').textContent.includes('16')")
    assert page.get_attribute("#size", "aria-invalid") == "true"
    window.screenshot("errors-360")
    assert page.evaluate(TOO_WIDE) == []
    window.close()


def test_two_windows_see_the_same_and_keys_suffice(
    browser: Any, client: Client, pictures: list[Path]
) -> None:
    first, second = Page(browser, client.url, 1600), Page(browser, client.url, 360)
    first.order(pictures, 2)
    for window in (first, second):
        window.page.wait_for_selector("#downloads", state="visible")
    page = second.page
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    wanted = {
        "masks",
        "go-on-strength",
        "go-on",
        "content",
        "styles",
        "size",
        "strength",
        "color",
        "preset",
        "statistics",
        "seed",
        "paint",
    }
    assert wanted | {"slider", "again", "delete", "download-png", "copy"} <= reached
    first.close()
    second.close()


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (360, "dark")])
def test_regions_are_painted_and_sent(
    browser: Any, client: Client, pictures: list[Path], tmp_path: Path, width: int, scheme: str
) -> None:
    window = Page(browser, client.url, width, color_scheme=scheme)
    page = window.page
    page.wait_for_selector("#color option", state="attached")
    page.click("#masks")
    assert "first" in page.text_content("#error-masks")
    page.set_input_files("#content", pictures[0])
    page.set_input_files("#styles", pictures[1:])
    until(page, "document.querySelectorAll('.thumbnails li').length === 2")
    page.click("#masks")
    page.wait_for_selector("#mask-editor", state="visible")
    page.click("#mask-use")
    assert "Nothing is painted yet" in page.text_content("#error-mask")
    page.check("input[name=mask-tool][value=brush]", force=True)
    window.paint_over(1, 0.1, 0.2, 0.4, 0.2)
    assert "region 1" in page.text_content("#mask-status")
    window.paint_over(2, 0.7, 0.5, 0.9, 0.5)
    page.click("#mask-undo")
    assert "region 2" not in page.text_content("#mask-status")
    window.paint_over(2, 0.7, 0.5, 0.9, 0.5)
    page.check("input[name=mask-number][value='9']", force=True)
    page.focus("#mask-canvas")  # the rest by keyboard
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Space", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert "stays as it is" in page.text_content("#mask-status")
    window.screenshot(f"masks-{width}", whole=False)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(UNNAMED) == []
    page.check("input[name=mask-picture][value='1']", force=True)
    page.check("input[name=mask-tool][value=fill]", force=True)
    page.check("input[name=mask-number][value='2']", force=True)
    page.click("#mask-all")
    page.check("input[name=mask-tool][value=brush]", force=True)
    window.paint_over(1, 0.1, 0.1, 0.9, 0.1)
    window.screenshot(f"masks-painting-{width}", whole=False)
    page.click("#mask-use")
    page.wait_for_selector("#masks-remove", state="visible")
    assert page.text_content("#hint-masks") == "Used: 2 regions, and a part that stays as it is."
    window.screenshot(f"filled-{width}")
    window.order([], 2)  # they are chosen already
    page.wait_for_selector("#downloads", state="visible")
    command = page.input_value("#command")
    for words in ("--content-mask photo-content-mask-1.png", "--style-mask painting-style-mask-2.png"):
        assert words in command
    assert "--keep-mask photo-keep-mask.png" in command
    assert page.locator("#command-links a").count() == 5
    (folder,) = (tmp_path / "studio" / "pictures").iterdir()
    inside = {path.name: images.read_mask(path) > 0.5 for path in folder.glob("*-mask*")}
    assert {mask.shape for mask in inside.values()} == {(48, 64)}  # of their pictures
    content, second = inside["content-mask-1"], inside["content-mask-2"]
    assert content[9, 16]
    assert not content[24:].any()
    assert second[24, 51]
    assert not second[:, :32].any()
    assert inside["keep-mask"][32:, 32].any()
    assert inside["style-mask-1"][4, 32]
    assert inside["style-mask-2"][40, 32]
    assert not (inside["style-mask-1"] & inside["style-mask-2"]).any()
    # Again with the same pictures: the regions are there, and can be changed.
    page.click("#masks-remove")
    assert "Used" not in page.text_content("#hint-masks")
    page.click("#again")
    until(page, "document.getElementById('hint-masks').textContent.startsWith('Used: 2 regions')")
    page.click("#masks")
    until(page, "document.getElementById('mask-canvas').getAttribute('aria-label').includes('region 2')")
    page.click("#mask-close")
    window.close()


def test_regions_outlive_a_reload_of_the_page(browser: Any, client: Client, pictures: list[Path]) -> None:
    window = Page(browser, client.url, 1600)
    page = window.page

    def choose() -> None:
        page.wait_for_selector("#color option", state="attached")
        page.set_input_files("#content", pictures[0])
        page.set_input_files("#styles", pictures[1:])
        until(page, "document.querySelectorAll('.thumbnails li').length === 2")

    def painted() -> str:
        page.click("#masks")
        page.wait_for_selector("#mask-editor", state="visible")
        return str(page.get_attribute("#mask-canvas", "aria-label"))

    choose()
    assert "nothing painted yet" in painted()
    window.paint_over(1, 0.1, 0.2, 0.4, 0.2)
    page.check("input[name=mask-number][value='2']", force=True)
    page.focus("#mask-canvas")
    page.keyboard.press("Shift+ArrowDown")
    until(page, "document.getElementById('mask-canvas').getAttribute('aria-label').includes('region 2')")
    label = page.get_attribute("#mask-canvas", "aria-label")
    page.reload()  # with the editor open, and nothing used
    choose()
    assert page.is_hidden("#masks-remove")
    assert painted() == label
    assert "region 1" in label
    page.click("#mask-use")
    page.wait_for_selector("#masks-remove", state="visible")
    page.reload()
    choose()
    assert page.text_content("#hint-masks") == "Used: 2 regions."
    until(page, "document.getElementById('estimate').textContent.includes('of memory')")  # masks are known
    assert painted() == label
    # Where the browser can't keep them, the page says so.
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    window.paint_over(1, 0.1, 0.8, 0.4, 0.8)
    assert "no room to keep these regions" in page.text_content("#error-mask")
    window.close()


def test_each_of_several_paintings_has_a_region(
    browser: Any, client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.fromarray(structured_picture(40, 64, 2)).save(other)
    window = Page(browser, client.url, 1600)
    page = window.page
    page.wait_for_selector("#color option", state="attached")
    page.set_input_files("#content", pictures[0])
    page.set_input_files("#styles", [*pictures[1:], other])
    until(page, "document.querySelectorAll('.thumbnails li').length === 3")
    page.click("#masks")
    page.wait_for_selector("#mask-editor", state="visible")
    assert page.is_hidden("#mask-more")
    window.paint_over(1, 0.1, 0.2, 0.4, 0.2)
    page.click("#mask-use")
    assert "Region 2 is not painted over the photograph" in page.text_content("#error-mask")
    window.paint_over(2, 0.1, 0.8, 0.9, 0.8)
    page.check("input[name=mask-picture][value='2']", force=True)
    assert page.is_disabled("input[name=mask-number][value='1']")
    window.paint_over(2, 0.1, 0.5, 0.5, 0.5)
    page.click("#mask-use")
    page.wait_for_selector("#masks-remove", state="visible")
    window.order([], 1)
    page.wait_for_selector("#downloads", state="visible")
    masks = "--style-mask painting-style-mask-1.png --style-mask other-style-mask-2.png"
    assert masks in page.input_value("#command")
    (folder,) = (tmp_path / "studio" / "pictures").iterdir()
    assert images.read_mask(folder / "style-mask-1").min() == 1  # nothing painted: all of it
    part = images.read_mask(folder / "style-mask-2")
    assert part.shape == (40, 64)
    assert 0 < part.mean() < 0.5
    # Other pictures have no regions, and these have them again.
    page.click("#styles-pictures li:last-child button")
    until(page, "!document.getElementById('hint-masks').textContent.startsWith('Used')")
    page.set_input_files("#styles", other)
    until(page, "document.getElementById('hint-masks').textContent.startsWith('Used: 2 regions')")
    window.close()


@pytest.mark.parametrize(("width", "scheme"), [(1600, "dark"), (360, "light")])
def test_next_level_another_strength_order_and_side_by_side(
    browser: Any, client: Client, pictures: list[Path], width: int, scheme: str
) -> None:
    window = Page(browser, client.url, width, color_scheme=scheme)
    page = window.page
    page.wait_for_selector("#color option", state="attached")
    page.eval_on_selector("#expert", "(e) => { e.open = true }")
    page.fill("#min_size", "32")
    window.order(pictures, 10000)
    page.wait_for_selector("#next[aria-disabled=false]")
    for strength in ("1", "-1"):  # two that wait
        page.eval_on_selector("#strength", f"(e) => {{ e.value = {strength} }}")
        page.click("#paint")
    until(page, "document.querySelectorAll('#waiting li').length === 2")
    page.click("#cards li:last-child button")  # the first one, which is being painted
    page.wait_for_selector("#next[aria-disabled=false]")
    window.screenshot(f"queue-{width}")
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(UNNAMED) == []
    names = "[...document.querySelectorAll('#waiting li')].map((e) => e.dataset.id)"
    first, second = page.evaluate(names)
    page.focus("#waiting li:last-child [data-move=up]")
    page.keyboard.press("Enter")
    until(page, f"{names}[0] === '{second}'")
    assert page.evaluate("document.activeElement.dataset.move") == "up"  # the focus went with it
    assert page.evaluate(names) == [second, first]
    page.click("#next")
    until(page, "document.getElementById('state').textContent.startsWith('Size 2 of 2')")
    assert page.get_attribute("#next", "aria-disabled") == "true"
    page.reload()  # in the middle
    until(page, "document.getElementById('state').textContent.startsWith('Size 2 of 2')")
    page.eval_on_selector("#go-on-strength", "(e) => { e.value = 1; e.dispatchEvent(new Event('input')) }")
    assert "10 times as much" in page.text_content("#go-on-value")
    page.click("#go-on")
    until(page, "document.getElementById('command').value.includes('--init photo-painting.tiff')")
    page.click("#stop")
    page.wait_for_selector("#downloads", state="visible")
    until(page, "document.querySelectorAll('#cards img').length >= 2")
    window.screenshot(f"gallery-{width}")
    boxes = page.locator("#cards .chooser:visible input")
    boxes.nth(0).check()
    boxes.nth(boxes.count() - 1).check()
    page.click("#compare-two")
    page.wait_for_selector("#pair", state="visible")
    until(page, "[...document.querySelectorAll('#pair img')].every((e) => e.naturalWidth > 0)")
    window.screenshot(f"compare-{width}", whole=False)
    differing = page.locator("#pair tr.differs th").all_text_contents()
    assert "How much of the painting" in differing
    assert "Starts from" in differing
    assert "Photograph" not in differing
    assert page.evaluate(TOO_WIDE) == []
    page.keyboard.press("Escape")
    window.close()


def test_a_server_that_has_gone_is_said(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "studio") as client:
        window = Page(browser, client.url, 360)
        window.page.wait_for_selector("#color option", state="attached")
        assert window.page.text_content("#connection") == ""
    text = "document.getElementById('connection').textContent"
    until(window.page, f"{text}.includes('trying again')")
    window.page.click("#examples")
    until(window.page, "document.getElementById('error-content').textContent.includes('does not answer')")
    with serving(tmp_path / "studio", client.port):  # another token
        until(window.page, f"{text}.includes('has ended')")
    window.close()


def test_a_server_that_was_killed_is_said_and_the_next_one_is_found(
    browser: Any, tmp_path: Path, pictures: list[Path]
) -> None:
    """The page that was open all the time shows the same picture to its end."""
    with studio_process(tmp_path / "studio") as (_, client):
        window = Page(browser, client.url, 1600)
        window.page.wait_for_selector("#color option", state="attached")
        window.order(pictures, 300)
        until(window.page, "document.getElementById('after').naturalWidth > 0")
    text = "document.getElementById('connection').textContent"
    until(window.page, f"{text}.includes('trying again')")
    assert window.page.is_visible("#progress")  # what was there stays
    window.screenshot("server-killed-1600")
    with studio_process(tmp_path / "studio", client.port) as (_, client):
        until(window.page, f"{text}.includes('open the address')")
        second = window.context.new_page()
        second.goto(client.url)  # brings the new token
        until(window.page, f"{text} === ''")
        until(window.page, "document.getElementById('state').textContent.includes('iteration')")
        window.page.click("#stop")
        window.page.wait_for_selector("#downloads", state="visible")
        assert "Stopped and kept" in window.page.text_content("#state")
        window.close()


# ------------------------------------------------------------------------------------------------
# A run of the command line
# ------------------------------------------------------------------------------------------------

RUN = ["--weights", "random", "--threads", "1", "--quiet", "--no-checkpoint", "--min-size", "32"]


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (360, "dark")])
def test_report_opens_as_a_file(
    browser: Any, pictures: list[Path], tmp_path: Path, width: int, scheme: str
) -> None:
    words = [*map(str, pictures), *RUN, "--iterations", "3", "-o", str(tmp_path / "out.png")]
    assert main([*words, "--report", str(tmp_path / "run.html")]) == 0
    window = Page(browser, (tmp_path / "run.html").as_uri(), width, color_scheme=scheme, offline=True)
    page = window.page
    assert page.title() == "photo.png in the manner of painting.png · npstyle"
    for name in ("after", "before"):
        assert page.evaluate(f"document.getElementById('{name}').naturalWidth") == 64
    assert page.locator("#chart path").count() >= 3
    assert page.locator("#chart .level").count() == 2
    assert page.text_content("#legend li").startswith("loss ")
    page.focus("#slider")
    page.keyboard.press("Home")
    clip = page.eval_on_selector("#before", "(e) => getComputedStyle(e).clipPath")
    assert clip in ("inset(0px)", "inset(0px 0% 0px 0px)")
    page.click("#copy")
    until(page, "document.getElementById('copy').textContent === 'Copied'")
    page.click("summary")
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(UNNAMED) == []
    page.keyboard.press("Home")
    window.screenshot(f"report-{width}")
    window.close()


@pytest.mark.parametrize(("width", "scheme"), [(1600, "dark"), (360, "light")])
def test_run_is_watched_stopped_and_stays_on_its_page(
    browser: Any, pictures: list[Path], tmp_path: Path, monkeypatch: Any, width: int, scheme: str
) -> None:
    urls: queue.Queue[str] = queue.Queue()

    def opened(url: str) -> bool:
        urls.put(url)
        return True

    monkeypatch.setattr("npstyle.studio.watch.webbrowser.open", opened)
    words = [*map(str, pictures), *RUN, "--iterations", "400", "-o", str(tmp_path / "out.png"), "--watch"]
    ended: list[int] = []
    run = threading.Thread(target=lambda: ended.append(main(words)))
    run.start()
    window = Page(browser, urls.get(timeout=60), width, color_scheme=scheme)
    page = window.page
    assert page.url == window.own
    until(page, "document.getElementById('after').naturalWidth > 0")
    page.wait_for_selector("#legend li", state="attached")
    assert not page.is_visible("#form")
    assert not page.is_visible("#gallery")
    assert [page.is_visible(f"#{name}") for name in ("stop", "pause", "delete")] == [True, False, False]
    window.screenshot(f"watched-{width}")
    page.click("#stop")
    run.join()
    assert ended == [0]
    until(page, "document.getElementById('connection').textContent.startsWith('The run is over')")
    assert page.text_content("#state").endswith("Stopped and kept as it was. Saved as out.png.")
    for name in ("after", "before"):  # without a server
        assert page.evaluate(f"document.getElementById('{name}').naturalWidth") == 64
    page.focus("#slider")
    page.keyboard.press("Home")
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(UNNAMED) == []
    window.screenshot(f"watched-end-{width}")
    window.close()
