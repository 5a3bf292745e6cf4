"""Curves as rows of the long table, by hand."""

import pytest
import torch

import small_clip
from clip_explain import papers
from clip_explain.errors import TensorError
from clip_explain.maps import resize
from clip_explain.metrics.faithfulness import auc, auc_until, curves
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
