"""Files that are not as published: each is refused with its place, and none ends the process or never ends."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import small_datasets as small
from clip_explain import datasets
from clip_explain.datasets.coco_masks import decode_segmentation, decompress
from clip_explain.errors import DatasetError

RENDERED = ("scenes", "objects", "scene_captions", "attributes", "paintings", "faces", "dominant_objects")
NOT_SEGMENTATIONS = [
    None,
    [],
    {},
    "runs",
    [[0, 0, 1, 1]],
    [[0, 0, 1, 0, 1]],
    [[0, 0, 1e9, 0, 1e9, 1e9]],
    [[0, 0, float("nan"), 0, 1, 1]],
    [["0", "0", "1", "0", "1", "1"]],
    {"size": [4, 6]},
    {"size": [10**6, 10**6], "counts": [10**12]},
    {"size": [4, 6], "counts": [2, 10**8]},
    {"size": [4, 6], "counts": [-1, 25]},
    {"size": [4, 6], "counts": [12.0, 12.0]},
    {"size": [4, 6], "counts": "~~~~~~~~~~~~~~~~~~~~~~"},
    {"size": [4, 6], "counts": b"\x00\xff"},
]
ROWS = [
    ("images", {"height": 10**6, "width": 10**6}, "expected"),
    ("images", {"height": "4"}, "height='4', expected 1 to"),
    ("images", {"height": None}, "height=None"),
    ("images", {"file_name": 3}, "not an image of COCO"),
    ("annotations", {"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "annotation"),
    ("annotations", {"segmentation": 3}, "annotation"),
    ("annotations", {"category_id": {}}, "annotation file of COCO"),
]


@pytest.mark.parametrize("number", range(len(NOT_SEGMENTATIONS)))
def test_a_segmentation_that_does_not_fit_is_refused_before_it_is_decoded(number):
    with pytest.raises((ValueError, TypeError)):
        decode_segmentation(NOT_SEGMENTATIONS[number], 4, 6)


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_decoded_as_by_pycocotools(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 40), rng.integers(1, 40))) < rng.random()
    mask[len(mask) // 2 :] = True
    written = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (decode_segmentation(written, *mask.shape) == mask).all()
    runs = {"size": list(mask.shape), "counts": decompress(written["counts"])}
    assert (decode_segmentation(runs, *mask.shape) == mask).all()


@pytest.mark.parametrize("kind, change, message", ROWS)
def test_rows_of_coco_are_named(tmp_path, kind, change, message):
    small.coco(tmp_path)
    path = tmp_path / "coco/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for row in content[kind]:
        row.update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        list(datasets.load("coco", root=tmp_path))


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "3", "null", '"scenes"', '{"scenes": 3}', '{"scenes": [3, {}]}', "\ud800"]
)
@pytest.mark.parametrize(
    "name, path", [("clevr", "clevr/scenes/CLEVR_val_scenes.json"), ("coco_karpathy", "coco/dataset_coco.json")]
)
def test_json_of_another_form_is_named(tmp_path, name, path, content):
    small.clevr(tmp_path)
    small.karpathy(tmp_path)
    (tmp_path / path).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DatasetError, match=path):
        list(datasets.load(name, root=tmp_path))


def test_a_map_of_synsets_that_is_no_text_is_named(tmp_path):
    small.imagenet(tmp_path)
    (tmp_path / "imagenet/LOC_synset_mapping.txt").write_bytes(b"n01440764 \xff\xfe")
    with pytest.raises(DatasetError, match="LOC_synset_mapping.txt: not readable as text"):
        datasets.load("imagenet", root=tmp_path)


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("size", [0, 1, 15, 4097, -224, 224.0, "224", None, True])
def test_a_picture_too_small_to_show_anything_is_refused(name, size):
    with pytest.raises(DatasetError, match="size="):
        datasets.load(name, 1, size=size)


@pytest.mark.parametrize("name", RENDERED)
def test_the_smallest_pictures_end(name):
    record = datasets.load(name, 1, size=16)[0]
    assert record.image.size == (16, 16)


@pytest.mark.parametrize("given", [dict(count=1.5), dict(count="2"), dict(seed="0"), dict(seed=-1), dict(root=3)])
def test_arguments_of_load(given):
    with pytest.raises(DatasetError, match=next(iter(given))):
        datasets.load("scenes", **({"count": 1} | given))


@pytest.mark.parametrize("name", [None, 3, ["scenes"], "", "scene"])
def test_names_of_datasets(name):
    with pytest.raises(DatasetError):
        datasets.load(name)


@pytest.mark.parametrize("index", [1.0, "0", None, slice(0, 2)])
def test_a_record_is_asked_for_by_a_whole_number(index):
    with pytest.raises(DatasetError, match="got index=.*expected a whole number"):
        datasets.load("scenes", 2)[index]
