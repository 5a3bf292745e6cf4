"""The explorer in a real browser: a Voila server, headless Chromium, and what a person does by pointer and keyboard.

Skipped where there is no Chromium. A test that fails leaves build/explorer_failure.png. With EXPLORER_PICTURE=PATH the
first test also writes there the picture that README shows.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = float(os.environ.get("EXPLORER_PATIENCE", 60))  # seconds for one step; a busy machine may need more
COMPARE = "compare with a second method"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def address():
    """A Voila server with the explorer."""
    pytest.importorskip("voila", reason="no voila")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", "00_explorer.ipynb", "--no-browser", f"--port={port}"]
    environment = {**os.environ, "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter"))}
    with subprocess.Popen(
        command, cwd=ROOT / "notebooks", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(f"http://localhost:{port}/voila/static/", server)
            yield f"http://localhost:{port}/"
        finally:
            server.terminate()


def wait_for(url: str, server: subprocess.Popen) -> None:
    """Until the server answers anything at all."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.poll() is None, "voila has ended"
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url} in {PATIENCE:.0f} s")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(address, browser):
    """The explorer's page, its first pictures drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 1010}, reduced_motion="reduce")
    page.route(re.compile(r"^https://"), lambda route: route.abort())  # nothing from the network is needed
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(address, timeout=2000 * PATIENCE, wait_until="domcontentloaded")
    page.wait_for_selector(".cx-card .cx-words button")
    return page


@pytest.fixture(autouse=True)
def whole(request, page):
    """After each test: no widget is one that the browser could not make. A failure leaves a screenshot of the page."""
    failed = request.session.testsfailed
    yield
    errors = page.locator(".jupyter-widgets-error-widget").all_text_contents()
    if errors or request.session.testsfailed > failed:
        (ROOT / "build").mkdir(exist_ok=True)
        page.screenshot(path=ROOT / "build" / "explorer_failure.png")
    assert not errors


def shown(page, card: int = 1, panel: int = 0):
    """The picture of a text that is to be seen, as (what it says it shows, its data)."""
    figure = page.locator(".cx-card").nth(card).locator("figure").nth(panel)
    image = figure.locator("img:visible")
    return image.get_attribute("alt"), image.get_attribute("src")


def until(page, says: str, card: int = 1, panel: int = 0):
    """Wait until a visible picture's description holds these words; what is shown then."""
    chosen = f'figure:nth-of-type({panel + 1}) img[alt*="{says}"]'
    page.locator(".cx-card").nth(card).locator(chosen).locator("visible=true").first.wait_for()
    return shown(page, card, panel)


def word(page, text: str, card: int = 1):
    return page.locator(".cx-card").nth(card).locator(".cx-words button", has_text=re.compile(rf"^{text}\W*$")).first


def choose(page, label: str, value: str) -> None:
    page.get_by_label(label, exact=True).select_option(value=value)


def write_picture(page, path: str) -> None:
    """README's picture, without the time that this machine took."""
    page.add_style_tag(content=".cx-status { visibility: hidden; }")
    page.set_viewport_size({"width": 1280, "height": 1050})
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "png", optimize=True)


def test_the_first_page_has_its_pictures_and_says_what_they_show(page):
    alt, source = until(page, "grad_eclip: what speaks for 'a blue cone'")
    assert source.startswith("data:image/jpeg;base64,") and "Strongest" in alt
    assert page.locator(".cx-card").nth(0).locator("img").get_attribute("alt") == "example 1, as it is"
    assert page.locator(".cx img:not([alt])").count() == 0
    assert page.locator(".cx-thumbs button").all_text_contents()[0] == "example 1"


def test_typing_clicking_and_pointing_change_the_picture(page):
    box = page.locator(".cx-left textarea")
    box.fill("a blue cone and a red ring\na purple sphere")
    whole = until(page, "'a blue cone and a red ring'")
    until(page, "'a purple sphere'", card=2)
    word(page, "ring").click()
    page.mouse.move(0, 0)
    kept = until(page, "the word 'ring' in")
    assert kept[1] != whole[1]
    if os.environ.get("EXPLORER_PICTURE"):
        word(page, "whole text").click()
        page.get_by_label(COMPARE).check()
        until(page, "game: what speaks for", panel=1)
        page.mouse.move(0, 0)
        page.locator(".cx-status:not(:has(.cx-spinner))").wait_for()
        write_picture(page, os.environ["EXPLORER_PICTURE"])
        page.get_by_label(COMPARE).uncheck()
        page.locator(".cx-card").nth(1).locator("figure").nth(1).wait_for(state="detached")
        word(page, "ring").click()
        page.mouse.move(0, 0)
        until(page, "the word 'ring' in")
    page.locator(".cx-card").nth(1).locator("img").nth(3).wait_for(state="attached")  # those for the pointer
    word(page, "cone").hover()
    pointed = until(page, "the word 'cone' in")
    assert pointed[1] not in (whole[1], kept[1])
    page.mouse.move(0, 0)
    assert until(page, "the word 'ring' in")[1] == kept[1]


def test_words_are_buttons_for_the_keyboard(page):
    whole = word(page, "whole text")
    whole.focus()
    page.keyboard.press("Enter")
    alt, _ = until(page, "what speaks for 'a blue cone and a red ring'")
    page.keyboard.press("Tab")  # to the first word
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip("\u200b") == "blue"
    page.keyboard.press("Space")
    until(page, "the word 'blue' in")
    whole.click()
    until(page, "what speaks for 'a blue cone and a red ring'")


def test_another_method_with_its_options_and_both_signs(page):
    before = shown(page)
    choose(page, "method", "game")
    after = until(page, "game: what speaks for")
    assert after[1] != before[1]
    slider = page.locator(".cx-left .widget-slider", has_text="layers").first.locator(".noUi-handle")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "old => document.querySelectorAll('.cx-card')[1].querySelector('img').src !== old", arg=after[1]
    )
    page.get_by_role("button", name="both").click()
    until(page, "game: what speaks for and against")
    page.get_by_role("button", name="for the text").click()
    choose(page, "method", "grad_eclip")
    until(page, "grad_eclip: what speaks for 'a blue")


def test_two_methods_side_by_side(page):
    box = page.get_by_label(COMPARE)
    box.check()
    until(page, "game: what speaks for", panel=1)
    assert shown(page, panel=0)[1] != shown(page, panel=1)[1]
    box.uncheck()
    page.locator(".cx-card").nth(1).locator("figure").nth(1).wait_for(state="detached")


def test_an_uploaded_image_takes_the_place_of_the_example(page, tmp_path):
    ramp = np.linspace(0, 255, 90, dtype=np.uint8)
    colours = np.stack([np.tile(ramp, (60, 1)), np.zeros((60, 90), np.uint8), np.tile(ramp[::-1], (60, 1))], axis=2)
    Image.fromarray(colours).save(tmp_path / "ramp.png")
    before = shown(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Upload an image")).click()
    chooser.value.set_files(tmp_path / "ramp.png")
    page.locator('img[alt="ramp.png, as it is"]').wait_for()
    assert until(page, "'a blue cone and a red ring'")[1] != before[1]  # the user's own texts stay
    page.locator(".cx-thumbs button").first.click()
    page.locator('img[alt="example 1, as it is"]').wait_for()


def test_an_error_is_said_in_plain_words_and_goes_away(page):
    box = page.locator(".cx-left textarea")
    box.fill("")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "there is no text" in alert.text_content()
    box.fill("a red ring")
    alert.wait_for(state="detached")
    until(page, "'a red ring'")


def test_the_figure_and_its_lines_are_handed_out(page):
    page.get_by_text("Figure and code").click()
    assert 'texts = ["a red ring"]' in page.locator(".cx-left pre").text_content()
    page.get_by_role("button", name="Make the figure (PNG)").click()
    link = page.get_by_role("link", name=re.compile("Save explorer.png"))
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "explorer.png"
    assert Image.open(download.value.path()).size[0] > 300
