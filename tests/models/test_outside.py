"""What an embedded model has never learned: words by its token rows, pictures by the mark of what was rendered."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import clip_explain as cx
import small_clip
from clip_explain import datasets
from clip_explain.cli import main
from clip_explain.models import outside
from clip_explain.models.embed import tokenize
from clip_explain.models.embedded import embedded_path

LEARNED = "a red cube and cylinder,"
needs_tiny_vit = pytest.mark.skipif(not embedded_path("tiny-vit").is_file(), reason="no embedded model here")


@pytest.fixture(scope="module")
def small():
    """A small CLIP that has learned the tokens of LEARNED alone, as a packed file leaves it."""
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    weight = model.network.token_embedding.weight.detach()
    rows = torch.zeros(len(weight), 1)
    rows[tokenize(model, LEARNED)[0].long()] = 1
    model.network.token_embedding.weight = torch.nn.Parameter(weight * rows, requires_grad=False)
    return model


@pytest.fixture
def embedded(small, monkeypatch):
    """The same, its checksum on a card."""
    monkeypatch.setattr(outside, "_cards", lambda folder: frozenset({"ab"}))
    return replace(small, sha256="ab")


def photo(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_unknown_words_are_those_with_a_token_that_was_never_trained(small):
    assert outside.unknown_words(small, ["a red cube, and a cylinder"]) == []
    assert outside.unknown_words(small, ["a red giraffe", "two GIRAFFES and a giraffe"]) == [
        "giraffe",
        "two",
        "giraffes",
    ]
    assert outside.unknown_words(small, ["cylindrical"]) == ["cylindrical"]  # one token of it is known


def test_a_model_that_was_trained_on_all_words_knows_all():
    assert outside.unknown_words(small_clip.wrap(small_clip.build(**small_clip.SMALL)), ["a giraffe"]) == []


def test_rendered_pictures_stay_marked_and_files_are_none(embedded, small, tmp_path):
    image = datasets.load("scenes", size=64)[0].image
    for same in (
        image,
        ImageOps.mirror(image),
        image.resize((32, 32)),
        image.crop((0, 0, 32, 32)),
        cx.read_image(image),
    ):
        assert not outside.is_foreign(embedded, same)
    for other in (cx.read_image(photo(tmp_path)), Image.fromarray(np.asarray(image))):
        assert outside.is_foreign(embedded, other) and not outside.is_foreign(small, other)


def test_all_embedded_datasets_mark_what_they_render(embedded):
    for name in ("scenes", "objects", "scene_captions", "attributes", "paintings", "faces", "dominant_objects"):
        assert not outside.is_foreign(embedded, datasets.load(name, size=64)[0].image), name


def test_explaining_warns_and_the_figure_says_so(embedded, tmp_path):
    with pytest.warns(cx.OutsideWorldWarning) as caught:
        found = cx.explain(embedded, photo(tmp_path), ["a red giraffe", "a cube"])
    assert [str(each.message).split(":")[0] for each in caught] == [
        "small has learned from rendered scenes, paintings and faces alone",
        "small has never learned 'giraffe'",
    ]
    titles = [" ".join(ax.get_title().split()) for ax in found.show()[0]]
    assert "no picture of the world it learned from" in titles[0]
    assert "never learned: giraffe" in titles[1] and "never learned" not in titles[2]
    with pytest.warns(cx.OutsideWorldWarning, match="'giraffe'"):
        cx.explain_words(embedded, cx.targets(embedded, "a cube"), "a giraffe", layers=2)


def test_what_lies_within_the_world_gives_no_warning(embedded, small, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cx.explain(embedded, datasets.load("scenes", size=64)[0].image, "a red cube")
        cx.explain(small, photo(tmp_path), "a red cube")
        cx.explain(embedded, cx.pixels(embedded, photo(tmp_path)), cx.targets(embedded, "a red cube"))


@needs_tiny_vit
def test_the_command_line_warns_on_stderr(tmp_path, capsys):
    said = ["a giraffe", "--model", "tiny-vit", "--device", "cpu", "--out", str(tmp_path / "map.png")]
    assert main([str(photo(tmp_path)), *said]) == 0
    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert first.startswith("clip-explain: warning: tiny-vit has never learned 'giraffe'")
    assert second.startswith("clip-explain: warning: tiny-vit has learned from rendered scenes")
    assert "giraffe" in shown.out


@needs_tiny_vit
def test_every_word_of_the_scenes_is_known_to_tiny_vit():
    model = cx.load("tiny-vit", "cpu")
    texts = [text for index in range(5) for text in datasets.load("scenes", size=64)[index].texts]
    assert outside.outside(model, texts=texts) == []
    assert outside.outside(model, texts=["two dogs"]) == [
        "tiny-vit has never learned 'two', 'dogs': what it says of a text with such a word means little"
    ]
