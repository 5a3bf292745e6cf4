"""Readers of datasets with one label for each image: ImageNet's validation set and its relatives, and AffectNet.

Above record.py. Folders are listed by torchvision's ImageFolder.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torchvision.datasets import ImageFolder

from clip_explain.checks import checked
from clip_explain.datasets.record import Dataset, Record, malformed, number, picked, read_rows
from clip_explain.errors import DatasetError, nearest

SYNSETS = "LOC_synset_mapping.txt"
EMOTIONS = {  # AffectNet's first eight expressions, in their order, and the words for a person with each
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprised",
    "fear": "afraid",
    "disgust": "disgusted",
    "anger": "angry",
    "contempt": "contemptuous",
}
OTHER_NAMES = {"happiness": "happy", "sadness": "sad", "surprised": "surprise", "angry": "anger"}  # of folders
NO_EMOTION = (8, 9, 10)  # AffectNet's "none", "uncertain" and "no face"
AFFECTNET_COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)


@checked(DatasetError)
def imagenet(folder: Path, split: str = "val", class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet (ILSVRC 2012) in folders by synset, `split`/n01440764/*.JPEG, with the synset map beside them.

    A class is called by the first name of its synset, so two of the 1000 are "crane"; `class_names` gives others, one
    for each line of the map when that is sorted, as CLIP's own list is.
    """
    return _by_synset(folder / split, synset_names(folder, class_names), "imagenet")


@checked(DatasetError)
def imagenet_r(folder: Path, class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet-R: renditions of 200 classes, in folders by synset. These 200 are the dataset's classes."""
    return _by_synset(folder, synset_names(folder, class_names), "imagenet_r")


@checked(DatasetError)
def imagenet_sketch(folder: Path, class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet-Sketch: black and white drawings of the 1000 classes, in folders by synset under sketch/."""
    return _by_synset(folder / "sketch", synset_names(folder, class_names), "imagenet_sketch")


@checked(DatasetError)
def imagenet_a(folder: Path, class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet-A: photos of 200 classes that classifiers mistook, in folders by synset. These 200 are its classes."""
    return _by_synset(folder, synset_names(folder, class_names), "imagenet_a")


@checked(DatasetError)
def affectnet(folder: Path, split: str = "val", emotions: Sequence[str] = ("happy", "sad")) -> Dataset:
    """AffectNet in folders by expression, `split`/1/*.jpg or `split`/happy/*.jpg; of EPFL's report: happy and sad.

    The texts are "this person is happy" and so on, one for each of `emotions`.
    """
    chosen = _emotions(emotions)
    listed = list_folders(folder / split)
    known = [_emotion_of(name, folder / split) for name in listed.classes]
    samples = [(Path(path), known[label]) for path, label in listed.samples if known[label] in chosen]
    items = [(str(path.relative_to(folder)), path, chosen.index(emotion), {}) for path, emotion in samples]
    return _affectnet(items, chosen)


@checked(DatasetError)
def affectnet_csv(
    folder: Path,
    table: str = "validation.csv",
    images: str = "Manually_Annotated_Images",
    emotions: Sequence[str] = ("happy", "sad"),
) -> Dataset:
    """AffectNet as first published: a table, with or without its header, of the files under `images`.

    Rows without an expression (8 to 10) are left out. `facts`: `box` of the face (x, y, width, height), `valence`,
    `arousal`.
    """
    chosen, path, items = _emotions(emotions), folder / table, []
    for line, row in read_rows(path, AFFECTNET_COLUMNS, header=None):
        code = number(row, "expression", path, line)
        if code in NO_EMOTION:
            continue
        if code not in range(len(EMOTIONS)):
            raise DatasetError(f"{path}, line {line}: expression {row['expression']!r}, expected 0 to 10")
        emotion, file = list(EMOTIONS)[int(code)], row["subDirectory_filePath"]
        if emotion in chosen:
            box = tuple(number(row, key, path, line) for key in AFFECTNET_COLUMNS[1:5])
            facts = {"box": box, **{key: number(row, key, path, line) for key in ("valence", "arousal")}}
            items.append((file, folder / images / file, chosen.index(emotion), facts))
    return _affectnet(items, chosen)


@checked(DatasetError)
def synset_names(folder: Path, class_names: Sequence[str] | None = None) -> dict[str, str]:
    """The name of each synset, from `LOC_synset_mapping.txt` in the folder or in imagenet/ beside it."""
    places = (folder / SYNSETS, folder.parent / "imagenet" / SYNSETS)
    path = next((place for place in places if os.path.isfile(place)), None)
    if path is None:
        listed = " or ".join(map(str, places))
        raise DatasetError(f"no {SYNSETS}, which names ImageNet's classes: looked for {listed}. {SYNSETS_FROM}")
    names = {}
    with malformed(str(path), "readable as text"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for line, text in enumerate(lines, 1):
        synset, _, synonyms = text.partition(" ")
        if not (synset[:1] == "n" and synset[1:].isdigit() and synonyms.strip()):
            raise DatasetError(f"{path}, line {line}: got {text[:60]!r}, expected 'n01440764 tench, Tinca tinca'")
        names[synset] = synonyms.split(",")[0].strip()
    if class_names is None:
        return names
    if len(class_names) != len(names):
        raise DatasetError(f"got {len(class_names)} class names, expected {len(names)}, one for each line of {path}")
    return dict(zip(sorted(names), class_names, strict=True))


SYNSETS_FROM = (
    "It comes with the ImageNet archive of the Kaggle competition 'ImageNet Object Localization Challenge': a line for "
    "each class, 'n01440764 tench, Tinca tinca'"
)


@checked(DatasetError)
def list_folders(folder: Path) -> ImageFolder:
    """A folder of class folders, listed; DatasetError if it is not one."""
    try:
        return ImageFolder(str(folder))
    except OSError as error:
        raise DatasetError(f"{folder} is not a folder of images by class: {error}") from error


def class_names_of(listed: ImageFolder, names: dict[str, str]) -> tuple[str, ...]:
    """The classes' names in the folders' order; DatasetError for a folder whose name is not a known synset."""
    for synset in listed.classes:
        if synset not in names:
            raise DatasetError(f"{listed.root} has a folder {synset!r}, but {SYNSETS} names no such class")
    return tuple(names[synset] for synset in listed.classes)


def _by_synset(folder: Path, names: dict[str, str], name: str) -> Dataset:
    listed = list_folders(folder)
    classes = class_names_of(listed, names)
    return Dataset(name, classes, range(len(listed.samples)), partial(_labelled, listed.samples, classes))


def _labelled(samples: Sequence[tuple[str, int]], classes: tuple[str, ...], i: int) -> Record:
    path, label = Path(samples[i][0]), samples[i][1]
    return Record(f"{path.parent.name}/{path.name}", path, (classes[label],), labels=(label,))


def _emotions(emotions: Sequence[str]) -> tuple[str, ...]:
    return picked(emotions, tuple(EMOTIONS), "emotion")


def _emotion_of(folder: str, parent: Path) -> str:
    """The emotion of a folder, from its number, its name, or another form of the name."""
    name = folder.lower()
    if name.isdigit() and int(name) < len(EMOTIONS):
        return list(EMOTIONS)[int(name)]
    name = OTHER_NAMES.get(name, name)
    if name not in EMOTIONS:
        raise DatasetError(f"{parent} has a folder {folder!r}, no expression of AffectNet: {nearest(name, EMOTIONS)}")
    return name


def _affectnet(items: list[tuple[str, Path, int, dict]], chosen: tuple[str, ...]) -> Dataset:
    texts = tuple(f"this person is {EMOTIONS[emotion]}" for emotion in chosen)
    return Dataset("affectnet", chosen, range(len(items)), partial(_face, items, texts))


def _face(items: list[tuple[str, Path, int, dict]], texts: tuple[str, ...], i: int) -> Record:
    name, path, label, facts = items[i]
    return Record(name, path, texts, labels=(label,), facts=facts)
