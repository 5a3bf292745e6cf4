"""Curves as rows of the long table, by hand."""

from dataclasses import replace

import pytest
import torch

import small_clip
from clip_explain import papers
from clip_explain.errors import TensorError
from clip_explain.explainers import METHODS
from clip_explain.images import colours
from clip_explain.maps import resize
from clip_explain.metrics.faithfulness import auc, auc_until, curves, perturbed_embeddings
from clip_explain.metrics.pixel_order import untied_share
from clip_explain.metrics.readouts import classification
from clip_explain.models.model import unit
from clip_explain.request import Request

CURVES = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 0.0]])


def test_areas_of_curves():
    """Points at 0, 1 and 4: the first curve has 0.75 + 3 x 0.25 of 4, the second 1 + 1.5 of 4."""
    drawn = {"top1": CURVES, "top5": 1 - CURVES, "IR@1": CURVES}
    table = papers.long_table(papers.areas("x", ["a", "b"], drawn, "deletion", "fair", at=[0, 1, 4]))
    values = table.set_index(["metric", "method"])["value"]
    assert values["deletion"].tolist() == values["deletion_ir@1"].tolist() == pytest.approx([1.5 / 4, 2.5 / 4])
    assert values["deletion_top5"].tolist() == pytest.approx([2.5 / 4, 1.5 / 4])
    assert set(table["image"]) == {"x"} and set(table["setting"]) == {"fair"}
    even = papers.areas("x", ["a"], {"top1": torch.ones(1, 10)}, "positive", protocol="chefer")
    assert [row["value"] for row in even] == pytest.approx([90.0])


def test_heights_of_curves():
    rows = papers.heights("x", ["a", "b"], CURVES, "deletion", at=[0, 0.005, 0.02])
    table = papers.long_table(rows + papers.heights("y", ["a", "b"], CURVES / 2, "deletion", at=[0, 0.005, 0.02]))
    found = papers.summarize(table, ["metric", "method", "target"])
    assert found["target"].tolist() == [0, 0.005, 0.02] * 2
    assert found["mean"].tolist() == pytest.approx([0.75, 0.375, 0, 0.75, 0.75, 0])
    with pytest.raises(TensorError, match="3 values for 2 targets"):
        papers.heights("x", ["a", "b"], CURVES, "deletion", at=[0, 1])


def test_both_curves_of_an_image():
    """The same rows as curves and areas asked for by themselves; where there is one target it serves for both names."""
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    pixels = small_clip.marked(small_clip.pixels(1, 64, 64))
    texts = unit(torch.rand(3, 64, generator=torch.Generator().manual_seed(1)) - 0.5)
    read = classification(texts, torch.tensor([1]))
    read = {name: read[name] for name in ("score", "top1")}
    maps = {"a": random(2, 4, 4, seed=2), "mask": (random(2, 64, 64, seed=3) > 0.5).float()}
    given = dict(at=[0, 20, 100], seed=4, ties="raster")
    found, points = papers.deletion_and_insertion("x", model, pixels, maps, read, "s", endings=("", "_p"), **given)
    values = papers.long_table(found).set_index(["metric", "method"])["value"]
    for metric, method, mode, target in [
        ("deletion_score", "a", "deletion", 0),
        ("insertion_p", "mask", "insertion", 1),
    ]:
        heat = resize(maps[method], (64, 64))[target][None, None]
        alone = curves(model, pixels, heat, read, mode=mode, **given)["score" if "score" in metric else "top1"]
        assert values[metric, method] == pytest.approx(auc(alone, at=given["at"]).item(), abs=1e-6)
    drawn = {"deletion curve_score", "deletion curve", "insertion curve_score", "insertion curve"}
    assert {row["metric"] for row in points} == drawn
    assert [row["target"] for row in points][:3] == [0, 0.1, 0.5] and len(points) == 4 * 2 * 3
    assert values["untied share", "a"] == pytest.approx(untied_share(resize(maps["a"], (64, 64)), (64, 64))[0].item())
    heat = maps["mask"][0][None, None]
    heights = curves(model, pixels, heat, read, mode="insertion", **given)["score"][0, 0]
    until = auc_until(heights, untied_share(maps["mask"], (64, 64))[0], [0, 0.1, 0.5]).item()
    assert values["insertion to the untied share", "mask"] == pytest.approx(until, abs=1e-6)
    one = {name: each[:1] for name, each in maps.items()}
    found, _ = papers.deletion_and_insertion("x", model, pixels, one, read, endings=("", "_p"), **given)
    single = papers.long_table(found).set_index(["metric", "method"])["value"]
    assert single["deletion_p_score"].tolist() == single["deletion_score"].tolist()
    with pytest.raises(TensorError, match="maps of 2 targets, expected 1"):
        papers.deletion_and_insertion("x", model, pixels, maps, read, **given)
    with pytest.raises(TensorError, match=r"maps of \[2, 1\] targets"):
        papers.deletion_and_insertion("x", model, pixels, {"a": maps["a"], "b": one["a"]}, read, **given)


def explained(seed: int, texts: torch.Tensor) -> papers.Explained:
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    request = Request(model, small_clip.marked(small_clip.pixels(seed, 64, 64)), texts[:2])
    maps = {"grad_eclip": METHODS["grad_eclip"].image(request)[0], "random": random(2, 4, 4, seed=seed)}
    return papers.Explained(f"image {seed}", request, maps, classification(texts, torch.tensor([0])), seed)


def test_curves_of_several_images():
    """Each image's rows are those that it has alone, with its own seed; methods and readouts can be chosen."""
    each = [explained(seed, directions(3)) for seed in (1, 2)]
    found, points = papers.curves_of(each, "s", ["random"], ["score"], at=[0, 50, 100])
    alone, drawn = papers.deletion_and_insertion(
        each[1].image,
        each[1].request.model,
        each[1].request.pixels,
        {"random": each[1].maps["random"][:1]},
        {"score": each[1].readouts["score"]},
        "s",
        at=[0, 50, 100],
        seed=2,
    )
    assert found[len(found) // 2 :] == alone and points[len(points) // 2 :] == drawn
    assert {row["image"] for row in found} == {"image 1", "image 2"}
    both = papers.curves_of(each[:1], endings=("", "_p"), readouts=["top1"], at=[0, 100])[0]
    assert {"deletion", "deletion_p"} <= {row["metric"] for row in both}


def test_traces_are_not_kept():
    """An image's traces take much memory; of many images only one has them at a time."""
    each = explained(1, directions(3))
    assert each.request._traces == {}
    papers.curves_of([each], readouts=["score"], ties="raster", at=[0, 100])
    papers.curves_of([each], "", ["grad_eclip"], ["score"], ties="signed", at=[0, 100])
    papers.positive_perturbation([each], ["game"])
    assert each.request._traces == {}


def test_tied_pixels_go_as_before_the_relu():
    """A map of zeros leaves the order to the map before its ReLU, so its curve is that of the signed map itself."""
    each = explained(1, directions(3))
    flat = replace(each, maps={"grad_eclip": torch.zeros(2, 4, 4)})
    itself = replace(each, maps=papers.signed_by_name(each.request, ["grad_eclip"]))
    given = {"readouts": ["score"], "at": [0, 50, 100]}
    by_sign, raster = (papers.curves_of([flat], ties=ties, **given)[1] for ties in ("signed", "raster"))
    assert by_sign == papers.curves_of([itself], ties="raster", **given)[1] != raster


def test_areas_of_the_cosine_alone():
    each = explained(1, directions(3))
    request = Request(each.request.model, each.request.pixels, each.request.targets[:1])
    rows = papers.score_areas("x", request, each.maps, every=50, seed=1)
    both = papers.curves_of([each], readouts=["score"], at=[0, 50, 100])[0]
    expected = {(row["method"], row["metric"]): row["value"] for row in both}
    assert len(rows) == 4
    for row in rows:
        assert row["value"] == pytest.approx(expected[row["method"], row["metric"]], abs=1e-6)


def test_pictures_of_the_steps():
    """The first of each curve is the whole image, or black; half of the pixels are changed in the end."""
    each = explained(1, directions(3))
    pictures, titles = papers.perturbed_pictures(each, ["random"], at=[0, 50, 100])
    assert pictures.shape == (6, 64, 64, 3) and pictures.min() >= 0 and pictures.max() <= 1
    assert [title.split()[0] for title in titles] == ["0%", "25%", "50%"] * 2
    whole = colours(each.request.model, each.request.pixels)[0]
    assert torch.equal(pictures[0], whole) and pictures[3].max() < 1e-6
    assert (pictures[2] != whole).any(dim=-1).float().mean() == pytest.approx(100 * 20 / 64**2)  # 20 pixels a step
    assert (pictures[5] == whole).all(dim=-1).float().mean() >= 2000 / 64**2
    score = each.request.model.embed_images(each.request.pixels) @ each.request.targets[0]
    assert titles[0] == f"0%\n{score.item():.2f}"


def test_perturbation_in_percent():
    """A class that is first at every point has the whole area, 90."""
    each = explained(1, directions(3))
    always = {"top1": lambda embeddings: torch.ones(embeddings.shape[:3])}
    rows = papers.positive_perturbation([replace(each, readouts=always)], ["game", "random"], "s")
    assert [(row["method"], row["metric"], row["value"]) for row in rows] == [
        ("game", "positive_perturbation", pytest.approx(90)),
        ("random", "positive_perturbation", pytest.approx(90)),
    ]


def test_true_and_predicted_class():
    """The same maps asked of both classes in turn: the two means of the cosine's area swap with the classes."""
    texts, each = directions(3), explained(1, directions(3))
    given = (texts, (0, 1), "wrong", [0, 50, 100], 1)
    rows = papers.true_and_predicted("x", each.request, *given)
    values = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert set(values) == {
        ("grad_eclip for the true class", "deletion"),
        ("grad_eclip for the predicted class", "deletion"),
        ("grad_eclip for its own class", "deletion_score"),
        ("grad_eclip for the other class", "deletion_score"),
    }
    maps = each.maps["grad_eclip"][None]
    seen = perturbed_embeddings(each.request.model, each.request.pixels, maps, at=[0, 50, 100], seed=1)
    area = auc((seen[0] @ texts[:2].T).movedim(1, -1), at=[0, 50, 100])  # by map and class
    own, other = area.diagonal().mean().item(), area.fliplr().diagonal().mean().item()
    assert values["grad_eclip for its own class", "deletion_score"] == pytest.approx(own, abs=1e-6)
    assert values["grad_eclip for the other class", "deletion_score"] == pytest.approx(other, abs=1e-6)


def directions(count: int) -> torch.Tensor:
    return unit(torch.rand(count, 64, generator=torch.Generator().manual_seed(1)) - 0.5)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_areas_of_the_perturbation_test():
    """Each method's rows are the areas under the two curves, of the accuracy, that faithfulness.curves draws."""
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    pixels = small_clip.marked(small_clip.pixels(1, 64, 64))
    texts = unit(torch.rand(3, 64, generator=torch.Generator().manual_seed(1)) - 0.5)
    read = {"top1": classification(texts, torch.tensor([1]), ks=(1,))["top1"]}
    request = Request(model, pixels, texts[1:2])
    maps = {"a": random(1, 4, 4, seed=2), "b": random(1, 4, 4, seed=3)}
    table = papers.long_table(papers.perturbation_areas("x", request, maps, read, "s"))
    values = table.set_index(["metric", "method"])["value"]
    for mode in ("positive", "negative"):
        for name, heat in maps.items():
            curve = curves(model, pixels, heat[None], read, "chefer", mode)["top1"]
            assert values[f"{mode}_perturbation", name] == pytest.approx(float(auc(curve, "chefer")))
