"""Images and sentences from both sides: captions, maps beside words, pictures, and numbers by hand."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

import clip_explain as cx
from clip_explain import papers
from clip_explain.datasets import Record, read
from clip_explain.errors import DatasetError

matplotlib.use("agg")

FILLER = ["a", "and"]


def record(name: str, *texts: str) -> Record:
    """Each text's object is one column of the image."""
    masks = np.zeros((len(texts), 2, len(texts)), dtype=bool)
    for number, mask in enumerate(masks):
        mask[:, number] = True
    return Record(name, Image.new("RGB", (len(texts), 2)), texts, masks)


def test_captions_name_two_objects_and_one_and_a_stranger():
    """The stranger shares no word with any text of the record; every other record is turned."""
    records = [record("x", "a red cube", "a blue ring", "a green cone"), record("y", "a pink cube", "a grey ball")]
    records.append(record("z", "a teal box", "a red pen"))
    captions, mixed = papers.captions_of_two(records, FILLER)
    assert captions == ["a red cube and a blue ring", "a grey ball and a pink cube", "a teal box and a red pen"]
    assert mixed[0] == "a red cube and a grey ball"  # not the pink cube, which shares its shape
    assert mixed[1] == "a teal box and a pink cube"
    assert mixed[2] == "a teal box and a blue ring"  # behind the last record comes the first


def test_without_a_stranger_nothing_is_named():
    records = [record("x", "a red cube", "a blue ring"), record("y", "a red ring", "a blue cube")]
    assert papers.captions_of_two(records, FILLER)[1][0] == "a red cube and a photo of nothing"


def test_pairs_of_records_and_of_photos(tmp_path):
    """A record's pair has its first text, or one that is given, and the masks of what that names."""
    one, two = papers.pairs_of_records([record("x", "a cube", "a ring"), Record("y", Image.new("RGB", (4, 4)), ("a",))])
    assert (one.text, len(one.masks), two.text, two.masks) == ("a cube", 1, "a", None)
    (both,) = papers.pairs_of_records([record("x", "a cube", "a ring")], ["a cube and a ring"], named=2)
    assert both.text == "a cube and a ring" and len(both.masks) == 2
    assert papers.pairs_of_photos("", []) == []
    Image.new("RGB", (3, 5)).save(tmp_path / "p.png")
    found = papers.pairs_of_photos(str(tmp_path), ["a cat", "a dog"])
    assert [(pair.image.size, pair.text) for pair in found] == [((3, 5), "a cat"), ((3, 5), "a dog")]


def words(text: str, *weights: float):
    return text.split(), torch.tensor(weights, dtype=torch.float32)


def rows(heat: list[float], first: tuple, second: tuple) -> dict[str, float]:
    found = papers.rows_of_sides(record("x", "a cube", "a ring"), "m", torch.tensor([[heat]]), [first, second], FILLER)
    assert {(row["image"], row["method"]) for row in found} == {("x", "m")}
    return {row["metric"]: row["value"] for row in found}


def test_numbers_of_both_sides_by_hand():
    """Of six pairs of a naming and a filler word four are right; the map and the words are stronger on the ring."""
    caption = words("a cube and a ring", 0.2, 0.3, 0.4, 0.1, 0.5)
    found = rows([1.0, 2.0], caption, words("a cube and a pen", 0, 0.3, 0, 0, 0.1))
    assert found["pointing_game"] == 1 and found["sides agree"] == 1 and found["words of what is there"] == 1
    assert found["named words above filler"] == pytest.approx(5 / 6)  # "cube" lies below "and"
    other = rows([2.0, 1.0], caption, words("a cube and a pen", 0, 0.1, 0, 0, 0.3))
    assert other["sides agree"] == 0 and other["words of what is there"] == 0


def test_what_has_no_masks_cannot_be_measured():
    bare = Record("x", Image.new("RGB", (2, 2)), ("a cube", "a ring"))
    with pytest.raises(DatasetError, match="x has no masks"):
        papers.rows_of_sides(bare, "m", torch.ones(1, 1, 2), [words("a cube", 0, 1), words("a cube", 0, 1)], FILLER)


def test_noise_has_the_shape_of_what_it_stands_for():
    given = torch.zeros(1, 3, 4), [words("a cube", 0, 0), words("a red cube", 0, 0, 0)]
    heat, said = papers.random_sides(*given, torch.Generator().manual_seed(1))
    assert heat.shape == (1, 3, 4) and [len(weights) for _, weights in said] == [2, 3] and said[0][0] == ["a", "cube"]
    again, _ = papers.random_sides(*given, torch.Generator().manual_seed(1))
    assert torch.equal(heat, again) and heat.std() > 0


def test_both_sides_are_those_of_the_two_calls():
    clip, scene = cx.load("tiny-vit"), next(iter(read("scenes", 1, 0)))
    (pair,) = papers.pairs_of_records([scene])
    maps, said = papers.both_sides(clip, pair, ["grad_eclip", "m2ib"], {"m2ib": {"samples": 1}})
    own = cx.explain(clip, scene.image, scene.texts[0], "m2ib", fit="full", samples=1)
    assert torch.equal(maps[1], own[0, 0]) and len(maps) == len(said) == 2
    spelled, weights = cx.explain_words(clip, scene.image, scene.texts[0], fit="full", per="word")[0]
    assert said[0][0] == spelled and torch.equal(said[0][1], weights[0])


def test_pictures_of_pairs_are_outlined():
    """A gallery outlines image and map by all masks, a comparison the image by the first."""
    clip, scenes = cx.load("tiny-vit"), list(read("scenes", 2, 0))
    pairs = papers.pairs_of_records(scenes, [" and ".join(scene.texts[:2]) for scene in scenes], named=2)
    axes = papers.draw_pairs(clip, pairs)
    assert axes.shape == (1, 4) and [len(ax.collections) for ax in axes.flat] == [4] * 4  # two lines a mask
    axes = papers.draw_by_method(clip, pairs, {"grad_eclip layers=1": "N = 1", "grad_eclip layers=2": "N = 2"})
    assert [len(ax.collections) for ax in axes.flat] == [2, 0, 0] * 2
    written = {text.get_text() for text in axes[0, 0].figure.texts}
    assert {"N = 1", "N = 2"} <= written
    plt.close("all")
