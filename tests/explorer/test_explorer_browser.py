"""The explorer in a real browser: a Voila server, headless Chromium, and what a person does by pointer and keyboard.

Skipped where there is no Chromium. A test that fails leaves build/explorer_failure.png. With EXPLORER_PICTURE=PATH the
first test also writes there the picture that README shows.
"""

import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = float(os.environ.get("EXPLORER_PATIENCE", 60))  # seconds for one step; a busy machine may need more
PAGE = ROOT / "lib" / "clip_explain" / "explorer" / "page"  # Voila's template, as `make app` finds it
COMPARE = "compare with a second method"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt install chromium)"),
]


@pytest.fixture(scope="module")
def address():
    """A Voila server with the explorer."""
    pytest.importorskip("voila", reason="no voila")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", "00_explorer.ipynb", "--template=clip-explain"]
    command += ["--no-browser", f"--port={port}"]
    environment = {**os.environ, "JUPYTER_PATH": f"{PAGE}{os.pathsep}{Path(sys.prefix, 'share', 'jupyter')}"}
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


# Notes each sentence that the page shows while one waits, also one that is there for a moment.
LISTEN = """
    window.said = [];
    new MutationObserver(() => {
        const sentence = document.getElementById("loading_text")?.textContent;
        if (sentence && said.at(-1) !== sentence) said.push(sentence);
    }).observe(document, {childList: true, subtree: true, characterData: true});
"""


@pytest.fixture(scope="module")
def requested():
    """The address of everything that the page asks for."""
    return []


@pytest.fixture(scope="module")
def page(address, browser, requested):
    """The explorer's page, its first pictures drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 1010}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.on("request", lambda request: requested.append(request.url))
    page.set_default_timeout(1000 * PATIENCE)
    page.add_init_script(LISTEN)
    page.goto(address, timeout=2000 * PATIENCE, wait_until="commit")
    page.wait_for_selector(".cx-card .cx-words button", timeout=2000 * PATIENCE)
    return page


@pytest.fixture(autouse=True)
def whole(request, page, requested):
    """After each test: no widget is one that the browser could not make, and nothing came from another host.

    A failure leaves a screenshot of the page.
    """
    failed = request.session.testsfailed
    yield
    errors = page.locator(".jupyter-widgets-error-widget").all_text_contents()
    if errors or request.session.testsfailed > failed:
        (ROOT / "build").mkdir(exist_ok=True)
        page.screenshot(path=ROOT / "build" / "explorer_failure.png")
    assert not errors
    assert not [url for url in requested if urllib.parse.urlsplit(url).hostname not in ("localhost", None)]


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


def fold(page, title: str, opened: bool) -> None:
    """Open or close one of the folds below the method."""
    button = page.locator(".jupyter-widget-Collapse-header", has_text=title)
    is_open = button.evaluate("each => each.parentElement.classList.contains('jupyter-widget-Collapse-open')")
    if is_open != opened:
        button.click()


OPTIONS = "Options, and a second method"


def write_picture(page, path: str) -> None:
    """README's picture, without the time that this machine took."""
    hidden = page.add_style_tag(content=".cx-status { visibility: hidden; }")
    page.set_viewport_size({"width": 1280, "height": 1050})
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    hidden.evaluate("each => each.remove()")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "png", optimize=True)


def test_the_first_page_has_its_pictures_and_says_what_they_show(page):
    alt, source = until(page, "grad_eclip: what speaks for 'a blue cone'")
    assert source.startswith("data:image/jpeg;base64,") and "Strongest" in alt
    assert page.locator(".cx-card").nth(0).locator("img").get_attribute("alt") == "example 1, as it is"
    assert page.locator(".cx img:not([alt])").count() == 0
    assert page.locator(".cx-thumbs button").all_text_contents()[0] == "example 1"


def test_what_is_loaded_is_said_while_one_waits(page):
    assert page.evaluate("said") == ["Loading PyTorch, then the model, then drawing the first maps: about ten seconds"]


def test_typing_clicking_and_pointing_change_the_picture(page):
    box = page.locator(".cx-given textarea")
    box.fill("a blue cone and a red ring\na purple sphere")
    whole = until(page, "'a blue cone and a red ring'")
    until(page, "'a purple sphere'", card=2)
    word(page, "ring").click()
    page.mouse.move(0, 0)
    kept = until(page, "the word 'ring' in")
    assert kept[1] != whole[1]
    if os.environ.get("EXPLORER_PICTURE"):
        word(page, "whole text").click()
        fold(page, OPTIONS, True)
        page.get_by_label(COMPARE).check()
        until(page, "game: what speaks for", panel=1)
        fold(page, OPTIONS, False)
        page.mouse.move(0, 0)
        page.locator(".cx-status:not(:has(.cx-spinner))").wait_for()
        write_picture(page, os.environ["EXPLORER_PICTURE"])
        fold(page, OPTIONS, True)
        page.get_by_label(COMPARE).uncheck()
        fold(page, OPTIONS, False)
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
    fold(page, OPTIONS, True)
    slider = page.locator(".cx-chosen .widget-slider", has_text="layers").first.locator(".noUi-handle")
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
    fold(page, OPTIONS, False)


def test_two_methods_side_by_side(page):
    fold(page, OPTIONS, True)
    box = page.get_by_label(COMPARE)
    box.check()
    until(page, "game: what speaks for", panel=1)
    assert shown(page, panel=0)[1] != shown(page, panel=1)[1]
    box.uncheck()
    page.locator(".cx-card").nth(1).locator("figure").nth(1).wait_for(state="detached")
    fold(page, OPTIONS, False)


@pytest.fixture
def ramp(tmp_path):
    """A small picture that is not of the embedded world."""
    ramp = np.linspace(0, 255, 90, dtype=np.uint8)
    colours = np.stack([np.tile(ramp, (60, 1)), np.zeros((60, 90), np.uint8), np.tile(ramp[::-1], (60, 1))], axis=2)
    Image.fromarray(colours).save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


def test_an_uploaded_image_takes_the_place_of_the_example_and_is_counted(page, ramp):
    before = shown(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload (0)").click()
    chooser.value.set_files(ramp)
    page.locator('img[alt="ramp.png, as it is"]').wait_for()
    assert until(page, "'a blue cone and a red ring'")[1] != before[1]  # the user's own texts stay
    page.get_by_role("button", name="Upload (1)").wait_for()
    page.locator(".cx-warning", has_text="what it says of any other picture means little").wait_for()
    page.locator(".cx-thumbs button").first.click()
    page.locator('img[alt="example 1, as it is"]').wait_for()
    page.locator(".cx-warning").wait_for(state="detached")


DROP = """([base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, {type: 'image/png'}));
    const dropped = new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true});
    document.querySelector('.cx-drop').dispatchEvent(dropped);
}"""


def test_an_image_can_be_dropped(page, ramp):
    page.evaluate(DROP, [base64.b64encode(ramp.read_bytes()).decode(), "dropped.png"])
    page.locator('img[alt="dropped.png, as it is"]').wait_for()
    page.get_by_role("button", name="Upload (2)").wait_for()
    page.locator(".cx-thumbs button").first.click()
    page.locator('img[alt="example 1, as it is"]').wait_for()
    with page.expect_file_chooser():  # a click asks for a file as before
        page.get_by_role("button", name="Upload (2)").click()


def test_an_example_text_is_a_click_away(page):
    page.locator(".cx-offers button", has_text="a blue sphere").click()
    until(page, "what speaks for 'a blue sphere'")
    assert page.locator(".cx-given textarea").input_value() == "a blue sphere"


def test_a_word_that_the_model_never_learned_is_marked(page):
    page.locator(".cx-given textarea").fill("a blue zeppelin")
    until(page, "what speaks for 'a blue zeppelin'")
    page.locator(".cx-warning", has_text="never learned 'zeppelin'").wait_for()
    marks = [
        word(page, each).evaluate("each => getComputedStyle(each).textDecorationStyle") for each in ("blue", "zeppelin")
    ]
    assert marks == ["solid", "wavy"]  # solid: the style of no line
    assert "never learned it" in word(page, "zeppelin").get_attribute("title")


@pytest.mark.parametrize("title", ["exCLIP", "FIxLIP"])
def test_a_click_on_a_word_shows_its_interaction_with_each_patch(page, title):
    method = title.lower()
    page.locator(".cx-given textarea").fill("a red ring")
    whole_text = until(page, "grad_eclip: what speaks for 'a red ring'")
    choose(page, "a word is", f"its pairs with patches, {title}")
    word(page, "ring").click()
    page.mouse.move(0, 0)
    kept = until(page, f"{method}: which patches go with the word 'ring'")
    assert kept[1] != whole_text[1]
    ground = page.locator(".cx-card .cx-map").first  # the bare image, which a longer caption must not widen
    assert ground.bounding_box()["width"] == ground.locator("img:visible").bounding_box()["width"]
    page.locator(".cx-card").nth(1).locator("img").nth(4).wait_for(state="attached")  # those for the pointer
    word(page, "red").hover()
    assert until(page, f"{method}: which patches go with the word 'red'")[1] != kept[1]
    page.mouse.move(0, 0)
    word(page, "whole text").click()
    choose(page, "a word is", "what it adds to the text")
    page.mouse.move(0, 0)
    until(page, "grad_eclip: what speaks for 'a red ring'")


def test_a_slow_method_says_how_far_it_is_and_ends_on_all_samples(page):
    page.evaluate("""() => {
        window.seen = [];
        const note = () => seen.push(document.querySelector('.cx-status')?.textContent);
        new MutationObserver(note).observe(document.querySelector('.cx-found'), {childList: true, subtree: true});
    }""")
    choose(page, "method", "rise")
    until(page, "rise: what speaks for")
    page.locator(".cx-status", has_text="drawn in").wait_for()
    said = page.evaluate("seen")
    assert "rise: 12 of 200 masks" in said and "rise: 50 of 200 masks" in said
    choose(page, "method", "grad_eclip")
    until(page, "grad_eclip: what speaks for")


def test_quick_changes_dim_what_is_old_and_end_on_the_last(page):
    box = page.locator(".cx-given textarea")
    for typed in ("a green", "a green cone", "a green cone and", "a green cone and a ring"):
        box.fill(typed)
    page.locator(".cx-stage.cx-old").wait_for()
    until(page, "what speaks for 'a green cone and a ring'")
    page.locator(".cx-stage:not(.cx-old)").wait_for()
    page.locator(".cx-status", has_text="drawn in").wait_for()
    assert "what speaks for 'a green cone and a ring'" in shown(page)[0]


def test_maps_fade_to_the_image_and_are_saved_with_what_they_show(page):
    opacity = "value => getComputedStyle(document.querySelector('.cx-map img')).opacity === value"
    for value in ("0", "0.5", "1"):
        page.locator(".cx-look input").fill(value)
        page.wait_for_function(opacity, arg=value)
    with page.expect_download() as download:
        page.locator(".cx-card").nth(1).get_by_role("link", name="save").click()
    assert download.value.suggested_filename.startswith("grad_eclip__a_green_cone")
    picture = Image.open(download.value.path())
    assert picture.height > picture.width  # the square map, and lines below it


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_result_stands_beside_or_directly_under_image_and_text(page, width):
    page.set_viewport_size({"width": width, "height": 1010})
    given, found, chosen = (page.locator(f".cx-{part}").bounding_box() for part in ("given", "found", "chosen"))
    if width > 820:
        assert found["y"] == given["y"] and found["x"] > given["x"] + given["width"]
    else:
        assert given["y"] + given["height"] <= found["y"] <= given["y"] + given["height"] + 20
        assert found["y"] + found["height"] <= chosen["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".jupyter-widget-Collapse-open").count() == 0  # options are folded
    assert page.locator(".cx-card:visible").last.bounding_box()["width"] <= width
    page.set_viewport_size({"width": 1280, "height": 1010})


def test_models_that_are_downloaded_stand_in_the_menu_with_what_they_need(page):
    labels = page.get_by_label("model", exact=True).locator("option").all_text_contents()
    labels = [label.replace("\xa0", " ") for label in labels]
    assert "ViT-B/16 (OpenAI's: 350 MB, downloaded once)" in labels and labels[0] == "tiny-vit"


def test_an_error_is_said_in_plain_words_and_goes_away(page):
    box = page.locator(".cx-given textarea")
    box.fill("")
    alert = page.get_by_role("alert")
    alert.filter(has_text="there is no text").wait_for()
    box.fill("a red ring")
    alert.wait_for(state="detached")
    until(page, "'a red ring'")


def test_the_figure_and_its_lines_are_handed_out(page):
    fold(page, "Figure and code", True)
    code = page.locator(".cx-chosen pre", has_text='texts = ["a red ring"]')
    code.wait_for()
    assert code.evaluate("each => each.scrollWidth <= each.clientWidth")  # long lines are broken, not cut
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").strip() == code.text_content().strip()
    page.get_by_role("button", name="Make the figure (PNG)").click()
    link = page.get_by_role("link", name=re.compile("Save explorer.png"))
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "explorer.png"
    assert Image.open(download.value.path()).size[0] > 300
