"""Images of several domains: which are shown, and what is measured of them, by hand."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

import clip_explain as cx
from clip_explain import papers
from clip_explain.datasets import Record

matplotlib.use("agg")


def record(name: str, text: str, covered: int, **facts: str) -> Record:
    """An image of 1 x 4 pixels whose first pixels are the object."""
    mask = np.arange(4)[None, None] < covered
    return Record(name, Image.new("RGB", (4, 1)), (text,), mask, facts=facts)


def test_records_come_from_a_dataset_or_from_a_domain_of_one():
    found = papers.records_of_domains(["sketch", "scene_captions"], "objects", 2, 0)
    assert [len(records) for records in found.values()] == [2, 2]
    assert found["sketch"][0].id.endswith("sketch") and len(found["scene_captions"][0].texts) > 1


def test_the_color_is_named_where_it_does_not_show():
    known = record("x", "a cube", 1, color="red", shape="cube")
    assert papers.color_and_shape([known, known]) == ["a red cube"] * 2
    assert papers.color_and_shape([known, record("y", "a ring", 1)]) == ["a cube", "a ring"]


def test_the_largest_object_of_a_color():
    records = [record("x", "a cube", 1), record("y", "a ring", 3), record("z", "a cone", 2)]
    texts = ["a yellow cube", "a red ring", "a yellow cone"]
    assert papers.largest_object(records, texts, "yellow").id == "z"
    assert papers.largest_object(records, texts, "blue").id == "y"


def test_maps_on_the_object_by_hand():
    """The maximum lies on an object of one in four pixels, with half of the energy; what has no mask has no row."""
    heat = torch.tensor([[[2.0, 1.0, 1.0, 0.0]]])
    rows = papers.on_object([record("x", "a cube", 1), Record("y", Image.new("RGB", (4, 1)), ("a",))], [heat] * 2, "m")
    assert {row["metric"]: row["value"] for row in rows} == {
        "pointing above chance": pytest.approx(0.75),
        "energy above chance": pytest.approx(0.25),
    }
    assert {row["image"] for row in rows} == {"object 0"}


def test_maps_moved_by_hand():
    here, there = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    rows = papers.maps_moved([here, here], [here, there], "m")
    assert [row["value"] for row in rows] == [pytest.approx(0), pytest.approx(1)]


def test_own_text_best_is_what_the_scores_say():
    """Two texts, one of them said twice; the shuffled text is the next image's, behind the last one the first's."""
    clip, records = cx.load("tiny-vit"), papers.records_of_domains(["render"], "objects", 3, 0)["render"]
    rows, maps = papers.own_text_best(clip, records, "render")
    texts = [each.texts[0] for each in records]
    choices = sorted(set(texts))
    for i, each in enumerate(records):
        found = cx.explain(clip, each.image, choices, fit="full")
        best = choices[int(found.scores[0].argmax())]
        said = {row["method"]: row["value"] for row in rows if row["image"] == f"object {i}"}
        assert said == {"render": best == texts[i], "render shuffled": best == texts[(i + 1) % 3]}
        assert torch.allclose(maps[i], found.maps[0, [choices.index(texts[i])]])


def test_color_in_words_skips_what_names_no_color():
    clip, records = cx.load("tiny-vit"), papers.records_of_domains(["render"], "objects", 4, 0)["render"]
    texts = papers.color_and_shape(records)
    rows = papers.color_in_words(clip, [record("y", "a cube", 1), *records], ["a cube", *texts], "m")
    assert [row["image"] for row in rows] == [f"object {i}" for i in range(1, 5)]
    part = papers.color_part_of_words(clip, records[3], texts[3])
    assert 0 <= part <= 1 and rows[3]["value"] == part


def test_domains_are_drawn_with_their_texts():
    clip = cx.load("tiny-vit")
    chosen = {name: some[0] for name, some in papers.records_of_domains(["render", "sketch"], "objects", 1, 0).items()}
    axes = papers.draw_domains(clip, chosen, ["game", "grad_eclip"])
    assert axes.shape == (2, 3) and [len(ax.collections) for ax in axes.flat] == [2, 0, 0] * 2
    assert axes[0, 0].texts[0].get_text().startswith(f"render: {chosen['render'].texts[0]}, 0.")
    plt.close("all")
