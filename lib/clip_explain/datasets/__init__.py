"""Datasets of images with texts and, where there is ground truth, masks of the objects that each text names.

Above embedded/scenes and models. They are real datasets in their published layout, the embedded ones, and a user's own
photos, all with one type of record.
"""

from clip_explain.datasets.embedded import FEWEST_PIXELS, HELD_OUT, export_karpathy, scenes
from clip_explain.datasets.joined import Joined, joined, named_parts
from clip_explain.datasets.record import Dataset, Record, cut_close, photos
from clip_explain.datasets.segmented import class_texts
from clip_explain.datasets.sources import (
    DATASETS,
    Source,
    folder_of,
    images_of,
    load,
    missing,
    prompt_for,
    read,
    state,
)

__all__ = [
    "DATASETS",
    "FEWEST_PIXELS",
    "HELD_OUT",
    "Dataset",
    "Joined",
    "Record",
    "Source",
    "class_texts",
    "cut_close",
    "export_karpathy",
    "folder_of",
    "images_of",
    "joined",
    "load",
    "missing",
    "named_parts",
    "photos",
    "prompt_for",
    "read",
    "scenes",
    "state",
]
