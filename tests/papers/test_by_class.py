"""ICLIP's metrics as rows: worked by hand on two images, three maps and two classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.errors import TensorError


def record(name: str, *texts: str) -> Record:
    """A picture of 2 x 2 pixels, and for each text a mask of the pixel with its number."""
    masks = np.zeros((len(texts), 4), dtype=bool)
    for number, mask in enumerate(masks):
        mask[number] = True
    return Record(name, Image.new("RGB", (2, 2)), texts, masks.reshape(-1, 2, 2))


RECORDS = [record("x", "cube", "ring"), record("y", "ring")]
MAPS = [torch.tensor([[[1.0, 0], [0, 0]], [[1, 0], [0, 0]]]), torch.tensor([[[1.0, 1], [0, 0]]])]


def test_maps_by_hand():
    """The cube's map is right, both rings' maps are not: one is beside the object, one is twice as large."""
    rows, ious = papers.maps_by_class("itsm", MAPS, RECORDS, "s")
    assert ious.tolist() == [1.0, 0.0, 0.5]
    table = papers.long_table(rows)
    means = table.groupby("metric")["value"].mean()
    assert means["searched_iou"] == pytest.approx((1 + (0 + 0.5) / 2) / 2)
    gaps = 1.0, -1 / 3, 1 - 1 / 3
    assert means["foreground_minus_background"] == pytest.approx((gaps[0] + (gaps[1] + gaps[2]) / 2) / 2)
    assert means["background_preferred"] == pytest.approx((0 + 1 / 2) / 2)
    assert set(table["image"]) == {"x", "y"} and set(table["setting"]) == {"s"}
    with pytest.raises(TensorError, match="got 2 maps of 1 images"):
        papers.maps_by_class("itsm", MAPS[:1], RECORDS)


def test_scores_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.2]])
    present = torch.tensor([[True, True], [False, True]])
    rows = papers.scores_by_class("CLIP", scores, present, ["cube", "ring"])
    assert [(row["image"], row["metric"], row["value"]) for row in rows] == [
        ("cube", "class_average_precision", 1.0),
        ("ring", "class_average_precision", 1.0),
    ]


def test_means_by_record():
    found = papers.means_by_record(torch.tensor([1.0, 0.5, float("nan")]), [RECORDS[0], record("z", "cone")])
    assert found[0] == 0.75 and np.isnan(found[1])


def test_present_classes():
    seen = Record("x", Image.new("RGB", (2, 2)), (), labels=(0, 2))
    assert papers.present_in([seen, record("y")], 3).tolist() == [[True, False, True], [False, False, False]]


def labelled(name: str, *texts: str) -> Record:
    """A record as above whose labels are places in CLASSES."""
    labels = tuple(CLASSES.index(text) for text in texts)
    return Record(name, Image.new("RGB", (2, 2)), texts, record(name, *texts).masks, labels)


CLASSES = ["cube", "ring", "cone"]


def test_the_qualities_of_classes_by_hand():
    """The ring is best recognized in the image that shows it alone; no image shows a cone."""
    records = [labelled("x", "cube", "ring"), labelled("y", "ring")]
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.2, 0.5]])
    table = papers.qualities_of_classes(MAPS, torch.tensor([1.0, 0.0, 0.5]), scores, records, CLASSES)
    assert list(table.index) == ["cube", "ring"]
    assert table["IoU"].tolist() == [1.0, 0.25]
    assert table["FMB"].tolist() == pytest.approx([1.0, (-1 / 3 + 1 - 1 / 3) / 2])
    assert table["size"].tolist() == [0.25, 0.25]
    assert table["AP"].tolist() == [1.0, 1.0]


def test_halves_by_score_by_hand():
    """Of four images of a ring two are scored higher; the cube has one image, and so no lower half."""
    records = [labelled(name, "ring") for name in "abcd"] + [labelled("e", "cube")]
    scores = torch.zeros(5, 3)
    scores[:4, 1] = torch.tensor([0.4, 0.1, 0.2, 0.3])
    halves = papers.halves_by_score(torch.tensor([0.9, 0.1, 0.3, 0.5, 1.0]), scores, records, CLASSES)
    assert list(halves.index) == ["ring"]
    assert halves["higher half by score"].item() == pytest.approx(0.7)
    assert halves["lower half by score"].item() == pytest.approx(0.2)
