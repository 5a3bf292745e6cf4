"""Which cases are drawn, what is drawn of them, and the noise beside them."""

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.models import load

matplotlib.use("agg")


def record(name: str, *texts: str) -> Record:
    masks = np.zeros((len(texts), 8, 8), dtype=bool)
    masks[:, :4] = True
    return Record(name, Image.new("RGB", (8, 8)), texts, masks)


RECORDS = [record("x", "a cube", "a ring", "a cone"), record("y", "a ring"), record("z", "a cone")]


def test_first_cases():
    assert papers.first_cases(RECORDS, 2, texts=2) == [(0, 0), (0, 1), (1, 0)]
    assert papers.first_cases(RECORDS, 9) == [(0, 0), (1, 0), (2, 0)]


def test_noise_is_the_same_for_the_same_seed():
    found, again = (papers.random_maps(RECORDS, (2, 3), 7) for _ in range(2))
    assert [each.shape for each in found] == [(3, 2, 3), (1, 2, 3), (1, 2, 3)]
    assert all(map(torch.equal, found, again)) and not torch.equal(found[0], papers.random_maps(RECORDS, (2, 3), 8)[0])


def test_what_is_drawn_of_cases():
    """A row a case: its picture, then its own map of each method. One method is drawn with a sign, less its mean."""
    ramp = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    maps = {"a": [ramp.expand(len(each.texts), 2, 2) for each in RECORDS]}
    maps["b"] = [torch.stack([number + ramp.T for number in range(len(each.texts))]) for each in RECORDS]
    cases = [(0, 1), (2, 0)]
    axes = papers.draw_cases(RECORDS, cases, maps, {"a": "A", "b": "B"}, less_mean=["b"])
    assert axes.shape == (2, 3)
    assert [len(ax.collections) for ax in axes.flat] == [2] * 6  # the outlines: a dark line, a white one in it
    plain, signed = (np.asarray(axes[0, column].images[0].get_array()) for column in (1, 2))
    assert plain[0, 0].tolist() == [0, 0, 0]  # 0 is bare, of a black picture
    assert signed[0, 0][2] > signed[0, 0][1]  # below the mean is purple
    written = {text.get_text() for text in axes[0, 0].figure.texts} | {axes[0, 0].texts[0].get_text()}
    assert {"A", "B", "a ring"} <= written
    plt.close("all")


def test_targets_that_are_images_stand_first():
    """They keep their own size and the text above them, and are not outlined."""
    maps = {"a": [torch.eye(2).expand(len(each.texts), 2, 2) for each in RECORDS]}
    targets = {"a ring": Image.new("RGB", (4, 2), "white"), "a cone": Image.new("RGB", (8, 8))}
    axes = papers.draw_cases(RECORDS, [("y", 0), ("x", 2)], maps, {"a": "A"}, first=targets)
    assert [len(ax.collections) for ax in axes.flat] == [0, 2, 0, 2]
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes[:, 0]]
    assert [each.shape for each in shown] == [(2, 4, 3), (8, 8, 3)] and shown[0].min() == 1
    assert [ax.texts[0].get_text() for ax in axes[:, 0]] == ["a ring", "a cone"]
    plt.close("all")


def test_the_cases_whose_map_is_higher_on_another_object():
    """Of the first record the second text is off by 1, of the second record the first by 0.5; the third is right."""
    masks = np.eye(4, dtype=bool)[:2].reshape(2, 2, 2)
    records = [Record(name, Image.new("RGB", (2, 2)), ("a cube", "a ring"), masks) for name in "abc"]
    on_first, on_second = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 1], [0, 0]])
    half = torch.tensor([[0.5, 1], [0, 0]])
    maps = [torch.stack([on_first, on_first]), torch.stack([half, on_second]), torch.stack([on_first, on_second])]
    assert papers.misplaced_cases(records, maps, 2) == [(0, 1), (1, 0)]
    alone = Record("d", Image.new("RGB", (2, 2)), ("a cube",), masks[:1])
    assert papers.misplaced_cases([alone, *records[:1]], [on_first[None], maps[0]], 1) == [(1, 1)]


def test_pictures_with_scored_maps():
    """The picture, then a map a text, in rows of two: with its text and cosine, and outlined if masks are known."""
    scene = record("s", "a red cube", "a blue ring", "a cone")
    bare = Record("t", scene.image, ("a red cube",))
    axes = papers.draw_scored(load("tiny-vit"), [scene, bare], 2)
    assert axes.shape == (3, 2)
    titles = [" ".join(ax.get_title().split()) for ax in axes.flat]
    assert titles[0] == titles[4] == "" and titles[1] == titles[5]
    assert titles[1].startswith("a red cube 0.") or titles[1].startswith("a red cube -0.")
    assert [len(ax.collections) for ax in axes.flat] == [0, 2, 2, 2, 0, 0]
    plt.close("all")


def test_texts_that_are_asked_of_records_stand_in_a_row():
    clip, bare = load("tiny-vit"), Record("y", Image.new("RGB", (8, 8)), ("a ring",))
    axes = papers.draw_asked(clip, [(RECORDS[0], ["a cube", "a red cone"]), (bare, ["a ring", "a cube"])])
    assert axes.shape == (2, 3) and [len(ax.collections) for ax in axes.flat] == [2, 0, 0, 0, 0, 0]
    assert [ax.get_title().partition("\n")[0] for ax in axes.flat] == [
        "",
        "a cube",
        "a red cone",
        "",
        "a ring",
        "a cube",
    ]
    plt.close("all")
