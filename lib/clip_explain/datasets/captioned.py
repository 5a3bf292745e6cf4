"""Readers of datasets whose texts are sentences: COCO's captions, Karpathy's split, Conceptual Captions, ArtEmis.

Above record.py and segmented.py.
"""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clip_explain.checks import checked
from clip_explain.datasets.record import SUFFIXES, Dataset, Record, malformed, pick, read_json, read_rows
from clip_explain.datasets.segmented import open_coco
from clip_explain.errors import DatasetError, nearest

KARPATHY_SPLITS = ("train", "restval", "val", "test")
ARTEMIS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
ELSE = "something else"


@checked(DatasetError)
def coco_captions(folder: Path, split: str = "val2017") -> Dataset:
    """COCO 2017's captions, five or a few more for each image. `facts`: `image_id`."""
    table = open_coco(folder / "annotations" / f"captions_{split}.json")
    items = []
    with malformed(f"captions_{split}.json", "an annotation file of COCO"):
        for key in sorted(table.getImgIds()):
            said = [one["caption"].strip() for one in table.imgToAnns.get(key, ()) if "caption" in one]
            if said:
                path = folder / split / table.imgs[key]["file_name"]
                items.append((str(key), (path,), tuple(said), {"image_id": key}))
    return _captioned("coco_captions", items)


@checked(DatasetError)
def coco_karpathy(folder: Path, split: str = "val", table: str = "dataset_coco.json") -> Dataset:
    """Karpathy's split of COCO, for image-text retrieval (Grad-ECLIP Tables 2, 5 and 6: "val", 5000 images).

    An image is looked for under the file's name, val2014/COCO_val2014_000000391895.jpg, and then under the name in COCO
    2017, which has the same images. `facts`: `image_id`, and `sentence_ids`, one for each text.
    """
    pick(split, KARPATHY_SPLITS, "split")
    path, items = folder / table, []
    with malformed(str(path), "in Karpathy's form"):
        images = list(read_json(path)["images"])
    for number, image in enumerate(images):
        with malformed(f"{path}, image {number}", "in Karpathy's form"):
            if image["split"] == split:
                items.append(_karpathy_item(folder, image))
    return _captioned("coco_karpathy", items)


def _karpathy_item(folder: Path, image: Any) -> tuple:
    number, file = int(image["cocoid"]), Path(image["filepath"]) / image["filename"]
    files = (folder / file, *(folder / part / f"{number:012d}.jpg" for part in ("val2017", "train2017")))
    texts = tuple(sentence["raw"].strip() for sentence in image["sentences"])
    facts = {"image_id": number, "sentence_ids": tuple(sentence["sentid"] for sentence in image["sentences"])}
    return image["filename"], files, texts, facts


@checked(DatasetError)
def conceptual_captions(
    folder: Path, table: str = "Validation_GCC-1.1.0-Validation.tsv", images: str = "images"
) -> Dataset:
    """Conceptual Captions: a table of caption and image, without header, tab between them.

    The second column is a file below the folder, or a URL as published. For a URL the image of row n, counted from 0,
    is `images`/00000/000000000.jpg with n // 10000 and n, the names that bulk downloaders give; rows without their
    image are left out. A table with the header "title, filepath" is also read.
    """
    path = folder / table
    here = {file.stem: str(file) for file in (folder / images).glob("*/*") if file.suffix in SUFFIXES}
    items, n = [], -1
    for n, (line, row) in enumerate(read_rows(path, ("title", "filepath"), "\t", header=None, quoted=False)):
        file = here.get(f"{n:09d}") if "://" in row["filepath"] else str(folder / row["filepath"])
        if file is not None:
            items.append((line, file, row["title"].strip()))
    if not items:
        raise DatasetError(f"none of the {n + 1} images of {path} is in {folder / images}")
    return Dataset("conceptual_captions", (), range(len(items)), partial(_conceptual, items))


def _conceptual(items: list[tuple[int, str, str]], i: int) -> Record:
    line, file, text = items[i]
    return Record(f"line {line}", Path(file), (text,))


def _captioned(name: str, items: list[tuple]) -> Dataset:
    return Dataset(name, (), range(len(items)), partial(_caption, items))


def _caption(items: Sequence[tuple], i: int) -> Record:
    name, files, texts, facts = items[i]
    path = next((file for file in files if os.path.isfile(file)), files[0])
    return Record(name, path, texts, facts=facts)


# -- ArtEmis


@checked(DatasetError)
def artemis(
    folder: Path, something_else: str = "drop", table: str = "artemis_dataset_release_v0.csv", images: str = "wikiart"
) -> Dataset:
    """ArtEmis over WikiArt (EPFL IV-D): a painting's label is the emotion that most annotators chose, its texts what
    they wrote. Paintings without a single most frequent emotion are left out.

    `something_else`: "drop" these annotations before the vote, or "keep" them as a ninth class.
    `facts`: `votes`, the annotators for each emotion; `emotions`, one for each text; `style`.
    """
    pick(something_else, ("drop", "keep"), "way with 'something else'")
    classes = ARTEMIS if something_else == "drop" else (*ARTEMIS, ELSE)
    path = folder / table
    paintings: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line, row in read_rows(path, ("art_style", "painting", "emotion", "utterance")):
        if row["emotion"] not in (*ARTEMIS, ELSE):
            known = nearest(row["emotion"], (*ARTEMIS, ELSE))
            raise DatasetError(f"{path}, line {line}: unknown emotion {row['emotion']!r}: {known}")
        if row["emotion"] in classes:
            said = paintings.setdefault((row["art_style"], row["painting"]), [])
            said.append((row["emotion"], row["utterance"].strip()))
    items = [(key, said) for key, said in paintings.items() if _majority(said) is not None]
    return Dataset("artemis", classes, range(len(items)), partial(_painting, items, classes, folder / images))


def _majority(said: list[tuple[str, str]]) -> str | None:
    """The most frequent emotion, or None if several are equally frequent."""
    votes = Counter(emotion for emotion, _ in said).most_common(2)
    return None if len(votes) == 2 and votes[0][1] == votes[1][1] else votes[0][0]


def _painting(items: list[tuple], classes: tuple[str, ...], images: Path, i: int) -> Record:
    (style, painting), said = items[i]
    votes = dict(Counter(emotion for emotion, _ in said))
    facts = {"votes": votes, "emotions": tuple(emotion for emotion, _ in said), "style": style}
    texts = tuple(text for _, text in said)
    label = classes.index(str(_majority(said)))
    return Record(f"{style}/{painting}", images / style / f"{painting}.jpg", texts, labels=(label,), facts=facts)
