"""Readers of datasets with places of objects: ImageNet-S, PASCAL VOC 2012, COCO's instances, CLEVR and MS-CXR.

Above record.py. torchvision and pycocotools do the parsing.
"""

import contextlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from torchvision.datasets import VOCDetection, VOCSegmentation

from clip_explain.checks import checked, count, one_of
from clip_explain.datasets.classified import class_names_of, list_folders, synset_names
from clip_explain.datasets.coco_masks import coco_tools, decode_segmentation
from clip_explain.datasets.embedded import KINDS, probes
from clip_explain.datasets.record import (
    Dataset,
    Record,
    box_mask,
    image_size,
    malformed,
    number,
    open_codes,
    pick,
    picked,
    read_json,
    read_rows,
    stack_masks,
)
from clip_explain.embedded.scenes.world import ATTRIBUTES
from clip_explain.errors import DatasetError, nearest

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOC_SPLITS = ("train", "val", "trainval")
VOC_NAMES = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}  # as texts
VOID = 255  # VOC's outlines
IGNORED = 1000  # ImageNet-S
IMAGENET_S_CLASSES = (50, 300, 919)


# -- ImageNet-S


@checked(DatasetError)
def imagenet_s(folder: Path, subset: int = 919, class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet-S's validation set (Grad-ECLIP Table 3), as its own scripts lay it out: ImageNetS919/validation.

    A mask's pixel is class R + 256 G, from 1 in the order of the sorted synsets; 0 is anything else, 1000 is ignored.
    Texts: the image's class, then others in its mask.
    """
    one_of("subset", subset, IMAGENET_S_CLASSES, DatasetError)
    listed = list_folders(folder / f"ImageNetS{subset}" / "validation")
    if len(listed.classes) != subset:
        raise DatasetError(f"{listed.root} has {len(listed.classes)} class folders, expected {subset}")
    classes = class_names_of(listed, synset_names(folder, class_names))
    masks = folder / f"ImageNetS{subset}" / "validation-segmentation"
    return Dataset("imagenet_s", classes, range(len(listed.samples)), partial(_imagenet_s, listed, classes, masks))


def _imagenet_s(listed: Any, classes: tuple[str, ...], masks: Path, i: int) -> Record:
    path, label = Path(listed.samples[i][0]), listed.samples[i][1]
    name = f"{path.parent.name}/{path.name}"
    coded = open_codes(masks / path.parent.name / f"{path.stem}.png", name, ("RGB",)).astype(int)
    codes = coded[..., 0] + 256 * coded[..., 1]
    found = sorted(set(np.unique(codes).tolist()) - {0, IGNORED}, key=lambda code: (code != label + 1, code))
    if beyond := [code for code in found if code > len(classes)]:
        raise DatasetError(f"{name}: its mask holds class {beyond[0]}, but there are {len(classes)} classes")
    regions = stack_masks([codes == code for code in found], *codes.shape)
    texts = tuple(classes[code - 1] for code in found)
    return Record(name, path, texts, regions, (label,), codes == IGNORED)


# -- PASCAL VOC 2012


@checked(DatasetError)
def voc(folder: Path, split: str = "val") -> Dataset:
    """VOC 2012's segmentation set (ICLIP 4.1: "val", 1449 images), read from the indexed PNG masks by class.

    Labels are the classes in the mask; the outlines that VOC leaves undecided are `ignore`.
    """
    files = _voc_files(VOCSegmentation, folder, split)
    return Dataset("voc", VOC_CLASSES, range(len(files.images)), partial(_voc, files.images, files.masks))


def _voc(images: Sequence[str], masks: Sequence[str], i: int) -> Record:
    name = Path(images[i]).stem
    codes = open_codes(Path(masks[i]), name, ("P",))
    found = sorted(set(np.unique(codes).tolist()) - {0, VOID})
    if found and found[-1] > len(VOC_CLASSES):
        raise DatasetError(f"{name}: its mask {masks[i]} holds class {found[-1]}, but VOC has {len(VOC_CLASSES)}")
    labels = tuple(code - 1 for code in found)
    regions = stack_masks([codes == code for code in found], *codes.shape)
    return Record(name, Path(images[i]), _voc_texts(labels), regions, labels, codes == VOID)


@checked(DatasetError)
def voc_detection(folder: Path, split: str = "val", difficult: bool = False) -> Dataset:
    """VOC 2012's detection set, from its XML; the mask of a class is all of its boxes.

    `difficult`: also the objects that are marked so. `facts["boxes"]`: (class, (left, top, right, bottom)) in pixels.
    """
    files = _voc_files(VOCDetection, folder, split)
    paths = (files.images, files.annotations)
    return Dataset("voc_detection", VOC_CLASSES, range(len(files.images)), partial(_voc_boxes, *paths, difficult))


def _voc_boxes(images: Sequence[str], annotations: Sequence[str], difficult: bool, i: int) -> Record:
    name, path = Path(images[i]).stem, annotations[i]
    try:
        with malformed(f"{name}: {path}", "an annotation of VOC"):
            parsed = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"]
            size = parsed["size"]
            height, width = image_size(int(size["height"]), int(size["width"]), f"{name}: {path}")
            objects = [obj for obj in parsed.get("object", ()) if difficult or obj.get("difficult", "0") != "1"]
            boxes = [(obj["name"], _voc_box(obj["bndbox"])) for obj in objects]
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{name}: {path} is not an annotation of VOC: {error!r}") from error
    for kind, _ in boxes:
        if kind not in VOC_CLASSES:
            raise DatasetError(f"{name}: {path} has a class {kind!r}: {nearest(kind, VOC_CLASSES)}")
    labels = tuple(sorted({VOC_CLASSES.index(kind) for kind, _ in boxes}))
    by_label = ([box for kind, box in boxes if kind == VOC_CLASSES[label]] for label in labels)
    masks = stack_masks([box_mask(own, height, width) for own in by_label], height, width)
    return Record(name, Path(images[i]), _voc_texts(labels), masks, labels, facts={"boxes": tuple(boxes)})


def _voc_box(box: dict[str, str]) -> tuple[float, ...]:
    """VOC counts pixels from 1 and includes the last."""
    left, top, right, bottom = (float(box[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
    return left - 1, top - 1, right, bottom


def _voc_files(kind: type, folder: Path, split: str) -> Any:
    pick(split, VOC_SPLITS, "split")
    try:
        return kind(str(folder), year="2012", image_set=split, download=False)
    except (RuntimeError, OSError) as error:
        raise DatasetError(f"{folder} does not hold VOC 2012: {error}") from error


def _voc_texts(labels: Sequence[int]) -> tuple[str, ...]:
    names = (VOC_CLASSES[label] for label in labels)
    return tuple(VOC_NAMES.get(name, name) for name in names)


def class_texts(data: Dataset) -> tuple[str, ...]:
    """The dataset's classes as the texts of its records name them: VOC's "diningtable" is "dining table"."""
    return tuple(VOC_NAMES.get(name, name) for name in data.classes)


# -- COCO


@checked(DatasetError)
def coco(folder: Path, split: str = "val2017", keep_empty: bool = False) -> Dataset:
    """COCO 2017's instances as masks of its 80 classes (ICLIP 4.1: 5000 images), polygons and RLE alike, crowds too.

    Images without any instance (48 of val2017) have no text and are left out, unless `keep_empty`.
    `facts`: `image_id`.
    """
    table = open_coco(folder / "annotations" / f"instances_{split}.json")
    with malformed(str(folder / "annotations" / f"instances_{split}.json"), "an annotation file of COCO"):
        kinds = sorted(table.getCatIds())
        classes = tuple(str(category["name"]) for category in table.loadCats(kinds))
        ids = [key for key in sorted(table.getImgIds()) if keep_empty or table.imgToAnns.get(key)]
    return Dataset("coco", classes, range(len(ids)), partial(_coco, table, folder / split, classes, kinds, ids))


def _coco(table: Any, folder: Path, classes: tuple[str, ...], kinds: list[int], ids: list[int], i: int) -> Record:
    image, name = table.imgs[ids[i]], str(ids[i])
    where = f"{folder.name}, COCO image {name}"
    with malformed(where, "an image of COCO"):
        path = folder / image["file_name"]
        height, width = image_size(image["height"], image["width"], where)
    regions: dict[int, np.ndarray] = {}
    for annotation in table.imgToAnns.get(ids[i], ()):
        with malformed(f"{where}, annotation {annotation.get('id')}", "a segmentation of COCO"):
            if annotation["category_id"] not in kinds:
                raise DatasetError(f"{where}: category {annotation['category_id']} is not among the categories")
            label = kinds.index(annotation["category_id"])
            mask = decode_segmentation(annotation["segmentation"], height, width)
            regions[label] = regions.get(label, np.zeros((height, width), bool)) | mask
    labels = tuple(sorted(regions))
    masks = stack_masks([regions[label] for label in labels], height, width)
    texts = tuple(classes[label] for label in labels)
    return Record(name, path, texts, masks, labels, facts={"image_id": ids[i]})


def open_coco(path: Path) -> Any:
    """A COCO annotation file, read without pycocotools' messages; DatasetError for another file."""
    try:
        with malformed(str(path), "an annotation file of COCO"), contextlib.redirect_stdout(io.StringIO()):
            table = coco_tools("coco").COCO(str(path))
    except (OSError, AssertionError) as error:
        raise DatasetError(f"{path} is not an annotation file of COCO: {error}") from error
    if lacking := [key for key in ("images", "annotations") if key not in table.dataset]:
        raise DatasetError(f"{path} is not an annotation file of COCO: it has no {lacking[0]!r}")
    return table


# -- CLEVR


@checked(DatasetError)
def clevr(folder: Path, split: str = "val", kinds: Sequence[str] = tuple(KINDS), width: int = 480) -> Dataset:
    """CLEVR v1.0 with the probes of the embedded set `attributes` (Grad-ECLIP Figure 7). CLEVR publishes no masks.

    `width` is that of its images, in pixels.
    `facts`: `kinds`, one for each text; `objects`, with size, color, material and shape; `points`, for each text the
    (x, y) in pixels of the middle of each object that it is true of.
    """
    chosen = picked(kinds, tuple(KINDS), "kind of attribute")
    count("width", width, error=DatasetError)
    path = folder / "scenes" / f"CLEVR_{split}_scenes.json"
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("scenes"), list):
        raise DatasetError(f"{path} has no list 'scenes'")
    scenes = content["scenes"]
    one = partial(_clevr, scenes, folder / "images" / split, path, chosen, width)
    return Dataset("clevr", (), range(len(scenes)), one)


def _clevr(scenes: list[Any], images: Path, path: Path, kinds: Sequence[str], width: int, i: int) -> Record:
    where = f"{path}, scene {i}"
    with malformed(where, "a scene of CLEVR"):
        file = images / scenes[i]["image_filename"]
        described = scenes[i]["objects"]
        objects = tuple({key: obj[key] for key in ATTRIBUTES} for obj in described)
        middles = [_middle(obj["pixel_coords"]) for obj in described]
    for key, obj in ((key, obj) for obj in objects for key in ATTRIBUTES):
        pick(obj[key], ATTRIBUTES[key], f"{key} in {where}:")
    asked = probes(objects, [x / width for x, _ in middles], kinds)
    points = tuple(tuple(middles[k] for k in named) for _, _, named in asked)
    facts = {"kinds": tuple(kind for kind, _, _ in asked), "objects": objects, "points": points}
    return Record(file.stem, file, tuple(text for _, text, _ in asked), facts=facts)


def _middle(place: Any) -> tuple[float, float]:
    x, y = (float(value) for value in place[:2])
    if not np.isfinite([x, y]).all():
        raise ValueError(f"got a middle at {x}, {y}")
    return x, y


# -- MS-CXR


@checked(DatasetError)
def ms_cxr(folder: Path, table: str = "MS_CXR_Local_Alignment_v1.1.0.csv") -> Dataset:
    """MS-CXR's phrases with their boxes over the chest X-rays of MIMIC-CXR-JPG, which lie below the same folder.

    One record an image; a text's mask is all of its boxes. Classes and labels are the findings.
    `facts["boxes"]`: for each text its boxes (left, top, right, bottom).
    """
    columns = ("category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")
    images: dict[str, dict] = {}
    for line, row in read_rows(folder / table, columns):
        x, y, w, h, width, height = (number(row, key, folder / table, line) for key in columns[3:])
        size = image_size(int(height), int(width), f"{folder / table}, line {line}")
        image = images.setdefault(row["path"], {"size": size, "boxes": {}, "findings": set()})
        image["boxes"].setdefault(row["label_text"].strip(), []).append((x, y, x + w, y + h))
        image["findings"].add(row["category_name"])
    classes = tuple(sorted(set().union(*(image["findings"] for image in images.values()))))
    items = list(images.items())
    return Dataset("ms_cxr", classes, range(len(items)), partial(_ms_cxr, items, classes, folder))


def _ms_cxr(items: list[tuple[str, dict]], classes: tuple[str, ...], folder: Path, i: int) -> Record:
    path, image = items[i]
    boxes, labels = image["boxes"], tuple(sorted(map(classes.index, image["findings"])))
    masks = stack_masks([box_mask(own, *image["size"]) for own in boxes.values()], *image["size"])
    facts = {"boxes": tuple(map(tuple, boxes.values()))}
    return Record(Path(path).stem, folder / path, tuple(boxes), masks, labels, facts=facts)
