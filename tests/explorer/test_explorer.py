"""The explorer without a browser: options as widgets, maps and pictures of a state, its lines of Python, its thread."""

import base64
import inspect
import io
import re
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_readers import resnet

import clip_explain as cx
import small_clip
from clip_explain import explorer
from clip_explain.explainers import names_of
from clip_explain.explainers.registry import names_of_pairs
from clip_explain.explorer import app, lines, pictures
from clip_explain.explorer import code as explorer_code
from clip_explain.explorer import options as explorer_options
from clip_explain.explorer import view as explorer_view
from clip_explain.explorer import widgets as explorer_parts
from clip_explain.explorer.view import Panel, Source, State
from clip_explain.models.openai import OPENAI
from clip_explain.models.trace import HEADS

TEXTS = ("a red cone", "a blue ring and a blue sphere")
CLIP_SURGERY = Panel("clip_surgery", (("layers", 2),))


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, "cpu")


@pytest.fixture(scope="module")
def photo():
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((96, 64), Image.Resampling.BICUBIC)


@pytest.fixture
def state(photo):
    source = Source("photo.png", photo, 'cx.read_image("photo.png")', TEXTS)
    return State(source, TEXTS, (Panel("grad_eclip"),), Panel("grad_eclip", (("layers", 2),)))


def explained(model, state, towards, method="grad_eclip", **options):
    return cx.explain(model, state.source.image, towards, method, fit=state.fit, **options)[0]


def same(got, expected):
    assert small_clip.relative_error(got, expected) < 1e-4


def changed_state(state, **values):
    return State(**{**vars(state), **values})


# -- options


@pytest.mark.parametrize("words", [False, True])
def test_every_option_of_every_explainer_has_a_widget_or_is_named_as_hidden(model, words):
    for name in names_of(words):
        explainer = cx.METHODS[name].words if words else cx.METHODS[name].image
        own = [p for p in inspect.signature(explainer).parameters.values() if p.kind is p.KEYWORD_ONLY]
        found = {each.name: each for each in explorer_options.controls(name, model, words)}
        assert {p.name for p in own} - found.keys() <= explorer_options.HIDDEN
        for option in own:
            if option.annotation is str:  # a closed set, so no free text
                assert found[option.name].kind == "choice", (name, option.name)
                assert (option.default, option.default) in found[option.name].choices
            if option.annotation is bool:
                assert found[option.name].kind == "switch"


@pytest.mark.parametrize("words", [False, True])
def test_untouched_widgets_ask_for_the_defaults_but_where_a_slow_method_begins_small(words):
    model = small_clip.golden_model()  # 8 and 10 layers
    for name in cx.methods_for(model, words):
        found = [
            (each, explorer_parts.control_widget(each).value) for each in explorer_options.controls(name, model, words)
        ]
        asked = dict(explorer_options.changed(found))
        options = cx.METHODS[name].options_for(words)
        small = {option.name: option.quick for option in options.values() if option.quick is not None}
        last = {"m2ib": 8 if words else 6, "nib": 9 if words else 7}  # of 10 and 8 layers; the default is 9
        cut = {"layer": last[name]} if name in last and last[name] != 9 else {}
        assert asked == {**small, **cut}, name


def test_ranges_follow_the_model(model):
    by_name = {each.name: each for each in explorer_options.controls("grad_eclip", model)}
    assert (by_name["layers"].low, by_name["layers"].high) == (1, 2)
    heads = model.network.visual.transformer.resblocks[0].attn.num_heads
    assert [value for _, value in by_name["head"].choices] == ["all", *range(heads)]
    assert by_name["heads"].choices == tuple((name, name) for name in HEADS)
    deep = {each.name: each for each in explorer_options.controls("grad_eclip", small_clip.golden_model(), words=True)}
    assert (deep["layers"].value, deep["layers"].high) == (8, 10)
    (stage, *_) = explorer_options.controls("grad_cam", resnet())
    assert (stage.name, stage.low, stage.high, stage.all) == ("layer", 0, 3, 3)


def test_all_layers_is_none_and_an_empty_decimal_is_the_default(model):
    (layers, _) = explorer_options.controls("game", model)
    assert explorer_options.changed([(layers, 2)]) == ()
    assert explorer_options.changed([(layers, 1)]) == (("layers", 1),)
    temperature = explorer_options.controls("gem", model)[-1]
    assert explorer_options.changed([(temperature, " ")]) == ()
    assert explorer_options.changed([(temperature, "0.5")]) == (("temperature", 0.5),)
    with pytest.raises(cx.MethodError, match="temperature takes a number, or nothing; got 'hot'"):
        explorer_options.changed([(temperature, "hot")])


def test_only_methods_that_take_the_model_are_offered(model):
    assert cx.methods_for(model) == names_of()
    assert "grad_cam" in cx.methods_for(resnet()) and "game" not in cx.methods_for(resnet())


# -- maps


def test_maps_are_those_of_explain(model, state):
    panels = (Panel("grad_eclip", (("layers", 2),)), CLIP_SURGERY)
    found = explorer_view.compute(model, changed_state(state, panels=panels), {})
    same(torch.stack(found.maps[0]), explained(model, state, list(TEXTS), layers=2))
    same(torch.stack(found.maps[1]), explained(model, state, list(TEXTS), "clip_surgery", layers=2))
    cosines = cx.encode_text(model, TEXTS) @ cx.encode_image(model, state.source.image).T  # of the middle square
    cropped = explorer_view.compute(model, changed_state(state, fit="crop"), {})
    same(torch.tensor(cropped.scores), cosines[:, 0])
    assert sum(found.shares) == pytest.approx(1) and found.kind == "cosine"


def test_evidence_against_is_that_of_the_negated_target_and_both_is_the_difference(model, state):
    towards = cx.targets(model, list(TEXTS))
    plus, minus = explained(model, state, towards), explained(model, state, -towards)
    for sign, expected in (("against", minus), ("both", plus - minus)):
        found = explorer_view.compute(model, changed_state(state, evidence=sign), {})
        same(torch.stack(found.maps[0]), expected)
    words = cx.explain_words(model, state.source.image, list(TEXTS), fit="full", per="word", layers=2)
    found = explorer_view.compute(model, state, {})
    for (spelled, weights), (expected, values) in zip(found.words, words, strict=True):
        assert spelled == expected
        same(weights, values[0])


@pytest.mark.parametrize("way", ["added", "alone"])
@pytest.mark.parametrize("method", [Panel("grad_eclip"), CLIP_SURGERY], ids=lambda panel: panel.method)
def test_the_map_under_the_pointer_is_the_one_that_a_click_keeps(model, state, way, method):
    state = changed_state(state, panels=(method,), way=way)
    words = explorer_view.compute(model, state, {}).words[1][0]
    (hover,) = explorer_view.word_maps(model, state, 1, words, {}, lambda: False)
    picked = explorer_view.compute(model, changed_state(state, picked=("", "ring")), {})
    same(hover[1 + words.index("ring")], picked.maps[0][1])
    if method.method == "grad_eclip":
        word = cx.without_word(model, TEXTS[1], "ring") if way == "added" else "ring"
        same(picked.maps[0][1], explained(model, state, word)[0])


@pytest.mark.parametrize("sign", ["for", "against", "both"])
def test_a_picked_words_pairs_take_the_place_of_its_map(model, state, sign):
    pairs = Panel("exclip", (("layer", 1), ("steps", 3)))
    state = changed_state(state, panels=(Panel("grad_eclip"), Panel("game")), pairs=pairs, evidence=sign)
    memory, asked = {}, changed_state(state, picked=("", "ring"))
    words = explorer_view.compute(model, state, memory).words[1][0]
    assert explorer_view.word_maps(model, state, 1, words, memory, lambda: False)[0] == []  # until a word is clicked
    found = explorer_view.compute(model, asked, memory)
    expected = cx.explain_pair(model, state.source.image, TEXTS[1], "exclip", fit="full", layer=1, steps=3)
    ring = expected.pairs[expected.names.index("ring")]
    same(found.maps[0][1], -ring if sign == "against" else ring)
    same(found.maps[0][0], explorer_view.compute(model, state, memory).maps[0][0])  # whole texts keep their maps
    same(found.maps[1][1], explorer_view.compute(model, changed_state(asked, pairs=None), {}).maps[1][1])
    hover, _ = explorer_view.word_maps(model, asked, 1, words, memory, lambda: False)
    assert len(hover) == 1 + len(words)
    same(hover[1 + words.index("ring")], found.maps[0][1])
    assert "exclip: which patches go with the word &#x27;ring&#x27;" in pictures.card(asked, found, 1)


def test_methods_for_pairs_are_offered_with_layers_that_the_model_has(model):
    assert explorer_options.pair_methods(model) == names_of_pairs()
    assert explorer_options.pair_methods(resnet()) == []
    assert dict(explorer_options.quick_pairs("exclip", model)) == {"layer": 1, "steps": 10}
    for name in names_of_pairs():
        options = dict(explorer_options.quick_pairs(name, small_clip.golden_model()))
        cx.METHODS[name].check_pair_options(options)


def test_a_sampling_method_is_drawn_first_from_fewer_samples(model, state):
    sampled = changed_state(state, panels=(Panel("rise", (("masks", 160), ("center", True))), Panel("game")))
    (first, said), (second, _), (last, none) = explorer_view.drafts(sampled)
    assert dict(first.panels[0].options) == {"masks": 10, "center": True} and said == "rise: 10 of 160 masks"
    assert dict(second.panels[0].options)["masks"] == 40
    assert (last, none) == (sampled, "") and first.panels[1] == Panel("game")
    assert explorer_view.drafts(state) == [(state, "")]
    (few, said), *_ = explorer_view.drafts(changed_state(state, panels=(Panel("shapley"),)))
    assert said == "shapley: 125 of 2000 samples"  # the default of its record
    for name, option in explorer_view.SAMPLED.items():
        assert cx.METHODS[name].options_for()[option].kind == "count"


def test_the_page_names_the_slow_methods_that_it_waits_for(state):
    assert explorer_view.waiting(state) == "computing"
    slow = changed_state(state, panels=(Panel("rise"), Panel("game")))
    assert explorer_view.waiting(slow) == "computing RISE, which takes some seconds"
    paired = changed_state(state, pairs=Panel("fixlip"), picked=("",))
    assert explorer_view.waiting(paired) == "computing"
    clicked = changed_state(paired, picked=("red",))
    assert explorer_view.waiting(clicked) == "computing FIxLIP, which takes some seconds"


def test_slow_methods_wait_for_a_click_and_nobody_computes_what_is_stale(model, state):
    slow = changed_state(state, panels=(Panel("rise"),))
    assert explorer_view.word_maps(model, slow, 0, ["a", "red"], {}, lambda: False) == [[]]
    assert explorer_view.word_maps(model, state, 0, ["a", "red"], {}, lambda: True) is None
    memory = {}
    assert explorer_view.compute(model, state, memory, lambda: True) is None
    assert not memory


def test_maps_are_remembered_but_not_without_end(model, state, monkeypatch):
    memory = {}
    first = explorer_view.compute(model, state, memory)
    assert explorer_view.compute(model, state, memory).maps[0][0] is first.maps[0][0]
    monkeypatch.setattr(explorer_view, "KEPT", 1)
    explorer_view.compute(model, changed_state(state, evidence="against"), memory)
    assert len(memory) == 1


def test_texts_are_lines():
    assert explorer_view.texts_of(" a cone \n\n a ring") == ("a cone", "a ring")
    with pytest.raises(cx.TextError, match="no text"):
        explorer_view.texts_of(" \n")
    with pytest.raises(cx.TextError, match="got 7 texts, at most 6"):
        explorer_view.texts_of("\n".join("abcdefg"))


# -- pictures and words


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [(0, 0, "at the top left"), (1, 1, "in the middle"), (2, 1, "at the bottom"), (1, 2, "at the right")],
)
def test_where_a_map_is_strongest_is_said_in_words(row, column, expected):
    map = torch.zeros(3, 3)
    map[row, column] = 1
    assert pictures.strongest(map) == expected


def test_every_picture_says_what_it_shows(model, state):
    found = explorer_view.compute(model, state, {})
    page = pictures.card(changed_state(state, texts=("<b>", TEXTS[1])), found, 0, [found.maps[0]])
    assert page.count("<img") == 3 and page.count('alt="grad_eclip: what speaks for ') == 3
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "among these texts" in page
    flat = pictures.described(Panel("rollout"), "a cone", "", "both", torch.ones(2, 2))
    assert flat == "rollout: what speaks for and against 'a cone'. The map is the same everywhere."
    none = pictures.described(Panel("rollout"), "a cone", "", "for", torch.zeros(2, 2))
    assert none == "rollout: what speaks for 'a cone'. There is no positive evidence."


def test_a_caption_says_what_the_colours_do_not():
    zero, flat, signed = torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([[-1.0, 2.0]])
    assert [pictures.remark(map, "for") for map in (zero, flat, signed, signed.abs())] == [
        ": no positive evidence",
        ": the same everywhere",
        ": orange: for the text; purple: against it",
        "",
    ]


def test_labels_of_repeated_words_differ_and_read_the_same():
    labels = pictures.unlike(["a", "cone", "a", "a"])
    assert len(set(labels)) == 4
    assert [label.replace("\u200b", "") for label in labels] == ["a", "cone", "a", "a"]


def test_a_words_button_has_the_colour_of_its_weight():
    css = pictures.word_colours(".x", ["a", "dax"], torch.tensor([0.0, 1.0]), ["dax"])
    first, second = css.splitlines()
    assert first.startswith(".x button:nth-of-type(2) {background: #ffffff") and "underline" not in first
    assert second.startswith(".x button:nth-of-type(3) {background: #") and "underline" in second  # never learned


# -- lines of Python

SHOWN = {
    "one method": {},
    "options, crop": {"panels": (Panel("grad_eclip", (("spatial", "softmax"), ("layers", 2))),), "fit": "crop"},
    "against": {"evidence": "against"},
    "two methods, both signs, a word": {
        "panels": (Panel("grad_eclip"), Panel("game", (("layers", 1),))),
        "evidence": "both",
        "picked": ("", "ring"),
    },
    "a word's pairs with patches": {
        "picked": ("", "ring"),
        "pairs": Panel("exclip", (("layer", 1), ("steps", 2))),
        "evidence": "against",
    },
    "a word's pairs beside its map": {
        "panels": (Panel("grad_eclip"), Panel("game", (("layers", 1),))),
        "picked": ("red", ""),
        "pairs": Panel("fixlip", (("images", 8), ("texts", 8))),
    },
    "a word alone, no weights": {"picked": ("red", ""), "way": "alone", "words": None},
}


@pytest.mark.parametrize("values", SHOWN.values(), ids=SHOWN)
def test_the_lines_of_python_make_the_figure(model, weights, state, values, tmp_path, monkeypatch):
    state = changed_state(state, **values)
    monkeypatch.chdir(tmp_path)
    state.source.image.save("photo.png")
    with explorer_code.plt.rc_context():
        exec(explorer_code.code(state, str(weights)), {})
    explorer_code.plt.close("all")
    drawn, own = (
        np.asarray(Image.open(each)) for each in ("explorer.png", io.BytesIO(explorer_code.png(model, state)))
    )
    assert drawn.shape == own.shape and (drawn == own).all()
    assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 100


def test_text_with_quotes_stays_text(state):
    lines = explorer_code.drawing(changed_state(state, texts=('he said "hi"', "l'été")))
    assert 'texts = ["he said \\"hi\\"", "l\'été"]' in lines


# -- the thread, and the widgets


def test_what_is_asked_for_during_a_computation_is_done_once():
    runs, started, go = [], threading.Event(), threading.Event()

    def work(stale):
        started.set()
        assert go.wait(10)
        runs.append(stale())

    newest = explorer_parts.Newest(work)
    newest.ask()
    assert started.wait(10)
    for _ in range(5):
        newest.ask()
    go.set()
    newest.wait()
    assert runs == [True, False]
    newest.ask()
    newest.wait()
    assert runs == [True, False, False]


@pytest.fixture
def page(weights, photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.save(path)
    made = explorer.Explorer(str(weights), "cpu", path, TEXTS)
    made.wait()
    return made


def test_a_change_is_drawn_and_an_error_is_said_and_mended(page):
    before = page._cards[0].picture.value
    assert "grad_eclip: what speaks for" in before and page._error.value == "", page._error.value + page._status.value
    page._first.method.value = "game"
    page.wait()
    assert "game: what speaks for" in page._cards[0].picture.value
    page._texts.value = "word " * 100
    page.wait()
    assert "the text has 102 tokens" in page._error.value and "cx-old" in page._stage._dom_classes
    page._texts.value = "a red cone"
    page._first.method.value = "grad_eclip"
    page.wait()
    assert page._error.value == "" and "cx-old" not in page._stage._dom_classes
    assert len(page._stage.children) == 2  # the image, and one text


def test_a_click_on_a_word_keeps_its_map_until_the_text_changes(page):
    card = page._cards[1]
    assert [label for label, _ in card.words.options][:3] == ["whole text", "a", "blue"]
    card.words.index = 3
    page.wait()
    assert "the word &#x27;ring&#x27; in" in card.picture.value.split("<img")[1]
    assert 'cx.without_word(model, texts[1], "ring")' in page.code()
    page._texts.value = "a red cone\na ring"
    page.wait()
    assert card.words.index == 0 and "the word" not in card.picture.value.split("<img")[1]


def test_only_the_last_of_many_changes_is_computed(page, monkeypatch):
    compute, computed, started, go = explorer_view.compute, [], threading.Event(), threading.Event()

    def slowly(model, state, memory, stale):
        computed.append(state.texts[0])
        started.set()
        assert go.wait(10)
        return compute(model, state, memory, stale)

    monkeypatch.setattr(explorer_view, "compute", slowly)
    page._texts.value = "a"
    assert started.wait(10)
    for typed in ("a g", "a gr", "a green", "a green ring"):
        page._texts.value = typed
    go.set()
    page.wait()
    assert computed == ["a", "a green ring"]
    assert "a green ring" in page._cards[0].picture.value


def test_another_model_brings_its_own_methods_and_ranges(page, monkeypatch):
    monkeypatch.setitem(page._models, "tiny-resnet", resnet())
    page._first.method.value = "legrad"
    page._choice.value = app.OTHER
    page._other.value = "tiny-resnet"
    page.wait()
    assert "legrad" not in page._first.method.options and page._first.method.value == "grad_cam"
    page._choice.index = 0
    page.wait()
    assert page._first.method.value == "legrad"  # as it was chosen
    page._choice.value = app.OTHER
    page._other.value = "tiny-vitt"
    page.wait()
    assert "unknown model &#x27;tiny-vitt&#x27;" in page._error.value


def test_an_uploaded_file_is_shown_and_a_broken_one_is_refused(page, photo):
    file = io.BytesIO()
    photo.rotate(90).save(file, "png")
    sent = {"name": "mine.png", "type": "image/png", "size": 1, "last_modified": datetime.now()}
    page._upload.value = ({**sent, "content": file.getvalue()},)
    page.wait()
    assert "mine.png, as it is" in page._bare.value
    assert [(each["name"], bytes(each["content"])) for each in page._upload.value] == [("mine.png", b"")]  # counted
    assert 'cx.read_image("mine.png")' in page.code()
    page._upload.value = ({**sent, "name": "notes.txt", "content": b"no image"},)
    page.wait()
    assert "notes.txt cannot be read as an image" in page._error.value
    assert [each["name"] for each in page._upload.value] == ["mine.png"]


def test_the_figure_is_offered_as_a_file_until_something_changes(page, tmp_path):
    page._save.click()
    page.wait()
    assert 'download="explorer.png" href="data:image/png;base64,' in page._file.value
    page._fit.value = "squash"
    page.wait()
    assert page._file.value == ""
    assert page.save(tmp_path / "out").name == "explorer_figure.png"
    assert (tmp_path / "out" / "explorer_figure.pdf").is_file()


def test_the_shipped_figure_is_what_notebook_00_leaves(tmp_path):
    """By the present weights: rounding moves a pixel's colour a little, another model moves the maps."""
    shipped = Path(explorer.__file__).parents[3] / "figures" / "00_explorer" / "explorer_figure.png"
    drawn = app.Explorer("tiny-vit").save(tmp_path)
    ours, theirs = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (drawn, shipped))
    assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 0.5


def test_examples_run_as_they_are_written():
    first, *others = app.examples()
    assert (np.asarray(eval(first.python, {"cx": cx})) == np.asarray(first.image)).all()
    assert all(source.texts for source in (first, *others))


def test_what_a_method_and_its_options_do_is_said_in_the_words_of_their_records(page):
    for name in ("grad_eclip", "game"):
        page._first.method.value = name
        page.wait()
        assert cx.METHODS[name].says in page._first.says.value
        says = {option.name: option.says for option in cx.METHODS[name].options}
        rows = zip(page._first._rows, page._first.options.children, strict=True)
        assert all(says[each.name] in row.children[1].value for (each, _), row in rows)


def test_a_click_on_an_example_text_asks_for_it(page):
    assert [button.description for button in page._offers.children] == list(TEXTS)
    page._offers.children[1].click()
    page.wait()
    assert page._texts.value == TEXTS[1] and TEXTS[1] in page._cards[0].picture.value


def test_what_is_shown_is_dimmed_as_soon_as_something_else_is_asked_for(page, monkeypatch):
    compute, started, go = explorer_view.compute, threading.Event(), threading.Event()

    def slowly(*asked):
        started.set()
        assert go.wait(10)
        return compute(*asked)

    monkeypatch.setattr(explorer_view, "compute", slowly)
    page._texts.value = "a green ring"
    assert "cx-old" in page._stage._dom_classes
    assert started.wait(10)
    go.set()
    page.wait()
    assert "cx-old" not in page._stage._dom_classes


def test_it_says_which_model_it_loads(weights, photo, tmp_path, monkeypatch):
    photo.save(tmp_path / "photo.png")
    said, load, go = [], app.load, threading.Event()

    def slowly(*asked):
        assert go.wait(10)
        said.append(made._status.value)
        return load(*asked)

    monkeypatch.setattr(app, "load", slowly)
    made = explorer.Explorer(str(weights), "cpu", tmp_path / "photo.png", TEXTS)
    go.set()
    made.wait()
    assert len(said) == 1 and f"loading {weights}" in said[0]
    assert "loading" not in made._status.value and "grad_eclip" in made._cards[0].picture.value


def test_a_cell_that_shows_it_ends_when_it_is_drawn(weights, photo, tmp_path, monkeypatch):
    photo.save(tmp_path / "photo.png")
    load, go = app.load, threading.Event()

    def slowly(*asked):
        assert go.wait(10)
        return load(*asked)

    monkeypatch.setattr(app, "load", slowly)
    monkeypatch.setattr(app, "display", lambda box: go.set())
    made = explorer.Explorer(str(weights), "cpu", tmp_path / "photo.png", TEXTS)
    made._ipython_display_()
    assert "grad_eclip" in made._cards[0].picture.value


def test_code_can_be_copied_and_a_map_saved(page):
    assert 'class="cx-copy"' in page._code.value and "<pre>" in page._code.value
    saved = re.search(
        r'<a download="grad_eclip__a_red_cone.jpg" href="data:image/jpeg;base64,([^"]+)"', page._cards[0].picture.value
    )
    picture = Image.open(io.BytesIO(base64.b64decode(saved[1])))
    assert picture.width == 96 and picture.height > 64 + 2 * pictures.LETTERS  # what it shows stands below it


def test_models_that_are_downloaded_say_what_they_need(page):
    labels = {name: label for label, name in page._choice.options}
    assert labels["ViT-B/16"] == "ViT-B/16 (OpenAI's: 350 MB, downloaded once)"
    assert set(lines.SIZES) == set(OPENAI)
    assert lines.loading("RN50") == "loading RN50 (260 MB, downloaded from OpenAI the first time)"


def test_a_sampling_method_shows_its_drafts_and_ends_on_all_samples(page, monkeypatch):
    shown, show = [], page._show

    def noted(name, state, found):
        show(name, state, found)
        shown.append(page._cards[0].picture.value)

    monkeypatch.setattr(page, "_show", noted)
    page._first.method.value = "rise"
    page.wait()
    assert len(shown) == 3 and len(set(shown)) == 3
    assert "masks=200" in page.code() and "drawn in" in page._status.value


def test_the_colours_of_a_map_are_shown_and_follow_the_sign(page):
    before = page._legend.value
    assert 'alt="colours from 0 to most"' in before
    page._evidence.value = "both"
    page.wait()
    assert 'alt="colours from against to for"' in page._legend.value
    strip = np.asarray(pictures.colour_strip("for"), dtype=float)
    assert (strip[0, 0] > 250).all() and (strip[:, -1].mean(axis=0) < 245).any()
