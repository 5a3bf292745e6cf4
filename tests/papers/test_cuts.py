"""Mask IoU at the best threshold of each class, as rows: against the same search written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import clip_explain as cx
from clip_explain import datasets
from clip_explain.metrics.segmentation import mask_iou
from clip_explain.papers.cuts import Cut, iou_at_best_cuts, rows_of
from clip_explain.request import make_request


def test_a_class_shares_its_best_threshold():
    drawn = datasets.read("scenes", 2, 0)
    records = [
        replace(each, id=name, texts=("cube",), masks=each.masks[:1]) for each, name in zip(drawn, "ab", strict=True)
    ]
    curves = [torch.tensor([[0.2, 0.6, 0.1]]), torch.tensor([[0.3, 0.4, 0.9]])]  # means: 0.25, 0.5, 0.5
    rows = rows_of("equal footing", "ours", curves, records)
    assert [(row["image"], row["value"]) for row in rows] == [("a", pytest.approx(0.6)), ("b", pytest.approx(0.4))]


def test_rows_are_those_of_the_best_threshold_of_all():
    model, records = cx.load("tiny-vit"), list(datasets.read("scenes", 2, 0))
    rows = iou_at_best_cuts(model, records, [Cut("ours", "maskclip", "maskclip")])
    assert {(row["method"], row["metric"]) for row in rows} == {
        ("maskclip", "iou_searched"),
        ("random", "iou_searched"),
    }
    record = records[0]
    maps = cx.METHODS["maskclip"].image(make_request(model, record.image, record.texts, "full"))[0]
    texts = [text for each in records for text in each.texts]
    alone = [i for i, text in enumerate(record.texts) if texts.count(text) == 1]
    found = [row["value"] for row in rows if row["method"] == "maskclip" and row["image"] == record.id]
    for i in alone:  # a class with one map has the threshold that suits this map
        one, mask = maps[i : i + 1], torch.as_tensor(record.masks[i : i + 1])
        tried = [float(mask_iou(one, mask, at=level / 100)) for level in range(100)]
        assert found[i] == pytest.approx(np.nanmax(tried), abs=1e-6)
