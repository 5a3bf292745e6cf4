"""Attention and its gradient layer by layer, against autograd in float64; the overlap of maps; images for texts."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import oracles_readers
import small_clip
from clip_explain import datasets, plots
from clip_explain.errors import MethodError, TensorError
from clip_explain.explainers.gradients import by_layer
from clip_explain.metrics.concentration import overlap
from clip_explain.metrics.intervals import Interval
from clip_explain.models.model import unit
from clip_explain.request import Request
from small_clip import exact_model, relative_error


def request(targets=2):
    generator = torch.Generator().manual_seed(3)
    pixels = small_clip.marked(torch.cat([small_clip.pixels(seed, 64, 96) for seed in (1, 2)]).double())
    return Request(exact_model(), pixels, unit(torch.randn(targets, 64, generator=generator, dtype=torch.float64)))


@pytest.mark.parametrize("tokens", ["class", "all"])
def test_both_are_those_of_autograd(tokens):
    asked = request()
    attention, gradient = by_layer(asked, tokens=tokens)
    grid = attention.shape[-2:]
    assert attention.shape == (2, 2, *grid) and gradient.shape == (2, 2, 2, *grid) and gradient.any()
    model = asked.model.network
    for image in range(2):
        for number, target in enumerate(asked.targets):
            found, embedding, *_ = oracles_readers.forward(
                model.state_dict(), asked.pixels[image], model.visual.transformer.resblocks[0].attn.num_heads
            )
            score = unit(embedding) @ target
            for layer, each in enumerate(found):
                slope = oracles_readers.attention_gradient(score, each)
                for got, whole in (
                    (attention[image, layer], each["attention"]),
                    (gradient[image, number, layer], slope),
                ):
                    mean = whole.mean(dim=0)
                    expected = (mean[0] if tokens == "class" else mean.mean(dim=0))[1:].reshape(grid)
                    assert relative_error(got, expected) < 1e-5


def test_the_last_layers_gradient_is_in_the_class_row_alone():
    asked = request()
    of_class, of_all = (by_layer(asked, tokens=tokens)[1][:, :, -1] for tokens in ("class", "all"))
    count = of_class[0, 0].numel() + 1
    assert relative_error(of_all * count, of_class) < 1e-5


def test_a_negated_target_negates_the_gradient():
    asked = request()
    against = Request(asked.model, asked.pixels, -asked.targets)
    assert relative_error(by_layer(against)[1], -by_layer(asked)[1]) < 1e-6


def test_unknown_tokens_are_told_the_known_ones():
    with pytest.raises(MethodError, match="'class', 'all'"):
        by_layer(request(), tokens="patches")


def test_overlap_by_hand():
    maps = torch.tensor([[[1.0, 1.0], [0.0, -5.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -1.0]]])
    others = torch.tensor([[[0.0, 3.0], [1.0, 0.0]], [[0.0, 2.0], [2.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]])
    shared = overlap(maps, others)
    assert shared[:2].tolist() == [0.5, 0.0] and shared[2].isnan()
    assert overlap(maps[:2], 7 * maps[:2]).tolist() == [1.0, 1.0]
    with pytest.raises(TensorError, match="same shape"):
        overlap(maps, others[:2])


def test_images_of_texts_show_what_the_text_names():
    texts = {record.texts[0] for record in datasets.read("objects", 3, 0, size=32)}
    found = datasets.images_of([*texts, "a thing that is nowhere"], "objects", 5, 0, size=32)
    assert set(found) == texts
    own = {record.texts[0]: record.image for record in reversed(list(datasets.read("objects", 3, 0, size=32)))}
    assert all((np.asarray(found[text]) == np.asarray(own[text])).all() for text in texts)


def test_an_image_is_bare_where_the_map_is_highest_and_black_where_it_is_lowest():
    image = np.full((2, 2, 3), 0.5)
    assert plots.darkened(image, np.array([[0.0, 1.0], [3.0, 4.0]]))[:, :, 0].tolist() == [[0.0, 0.125], [0.375, 0.5]]


def test_layers_are_counted_from_zero_and_named():
    rows = {"a": [Interval(0.2, 0.1, 0.3, 12), Interval(0.4, 0.3, 0.5, 12)]}
    ax = plots.by_layer(rows, plt.figure().subplots(), Interval(0.1, 0.0, 0.2, 12))
    assert ax.lines[0].get_xydata().tolist() == [[0, 0.2], [1, 0.4]]
    assert [text.get_text() for text in ax.legend().get_texts()] == ["a", "chance"]
