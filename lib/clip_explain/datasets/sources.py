"""All datasets by name: the reader of each, its folder, its licence and size, and how to get it.

Above the readers. `load` opens one, `read` iterates over one, `state` says whether it is here.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip_explain.checks import check_arguments, checked
from clip_explain.datasets import captioned, classified, embedded, segmented
from clip_explain.datasets.record import Dataset, Record, pick
from clip_explain.errors import DatasetError, nearest
from clip_explain.files import data_folder

VARIABLE = "CLIP_EXPLAIN_DATASETS"


@dataclass(frozen=True)
class Source:
    """A dataset's reader and origin.

    `folder` is its place under the root of all datasets, "" if it is rendered here; `files` are what must be in it,
    with the reader's options in braces. `holds` and `size` are rough.
    """

    reader: Callable[..., Dataset]
    holds: str
    folder: str = ""
    files: tuple[str, ...] = ()
    size: str = ""
    licence: str = ""
    get: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that gives this dataset's own folder."""
        return f"CLIP_EXPLAIN_{self.folder.upper().replace('-', '_')}"


def _rendered(reader: Callable[..., Dataset], holds: str) -> Source:
    return Source(
        reader, holds, size="nothing stored", licence="MIT, as the code", get="rendered on demand, nothing to do"
    )


IMAGENET_TERMS = "ImageNet's terms: non-commercial research"
ILSVRC = "image-net.org, ILSVRC 2012 (an account is needed)"
COCO_TERMS = "annotations CC BY 4.0, images under Flickr's terms"
DATASETS = {
    "scenes": _rendered(embedded.scene_set, "scenes of 3 to 5 objects with masks by class"),
    "dominant_objects": _rendered(embedded.dominant_set, "one dominant object among smaller ones, on varied grounds"),
    "objects": _rendered(embedded.object_set, "one object a picture by colour and shape, in five domains"),
    "scene_captions": _rendered(embedded.scene_caption_set, "scenes of three objects with five captions each"),
    "attributes": _rendered(embedded.attribute_set, "scenes with phrases for one attribute each, and masks"),
    "paintings": _rendered(embedded.painting_set, "paintings by emotion, with captions"),
    "faces": _rendered(embedded.face_set, "happy and sad faces, with masks of mouth and eyes"),
    "imagenet": Source(
        classified.imagenet,
        "50,000 images of 1000 classes",
        "imagenet",
        ("{split}", classified.SYNSETS),
        "6.3 GB",
        IMAGENET_TERMS,
        f"{ILSVRC}: the validation images, sorted into folders by synset; {classified.SYNSETS} from the same "
        "competition on Kaggle",
    ),
    "imagenet_s": Source(
        segmented.imagenet_s,
        "12,419 images of 919 classes with masks",
        "imagenet-s",
        ("ImageNetS{subset}/validation", "ImageNetS{subset}/validation-segmentation"),
        "about 2 GB",
        IMAGENET_TERMS,
        "github.com/LUSSeg/ImageNet-S: its data_preparation.sh makes this folder from ImageNet; "
        f"{classified.SYNSETS} here or in imagenet/",
    ),
    "imagenet_r": Source(
        classified.imagenet_r,
        "30,000 renditions of 200 classes",
        "imagenet-r",
        size="2.2 GB",
        licence="collected from the web for research; the code MIT",
        get=f"github.com/hendrycks/imagenet-r; {classified.SYNSETS} here or in imagenet/",
    ),
    "imagenet_sketch": Source(
        classified.imagenet_sketch,
        "50,889 sketches of 1000 classes",
        "imagenet-sketch",
        ("sketch",),
        "7.6 GB",
        "collected from the web for research; the code MIT",
        f"github.com/HaohanWang/ImageNet-Sketch; {classified.SYNSETS} here or in imagenet/",
    ),
    "imagenet_a": Source(
        classified.imagenet_a,
        "7,500 hard photos of 200 classes",
        "imagenet-a",
        size="0.7 GB",
        licence="collected from the web for research; the code MIT",
        get=f"github.com/hendrycks/natural-adv-examples; {classified.SYNSETS} here or in imagenet/",
    ),
    "coco": Source(
        segmented.coco,
        "5,000 images with masks of 80 classes",
        "coco",
        ("annotations/instances_{split}.json", "{split}"),
        "1.1 GB",
        COCO_TERMS,
        "cocodataset.org: 2017 Val images, 2017 Train/Val annotations",
    ),
    "coco_captions": Source(
        captioned.coco_captions,
        "5,000 images with five captions each",
        "coco",
        ("annotations/captions_{split}.json", "{split}"),
        "1.1 GB",
        COCO_TERMS,
        "cocodataset.org: 2017 Val images, 2017 Train/Val annotations",
    ),
    "coco_karpathy": Source(
        captioned.coco_karpathy,
        "5,000 images with five captions each, in each of val and test",
        "coco",
        ("{table}",),
        "6.3 GB of images of 2014 (19 GB if taken from those of 2017), 0.15 GB of text",
        COCO_TERMS,
        "cs.stanford.edu/people/karpathy/deepimagesent, caption_datasets.zip: dataset_coco.json; "
        "cocodataset.org: 2014 Val images in val2014/",
    ),
    "voc": Source(
        segmented.voc,
        "1,449 images with masks of 20 classes",
        "voc",
        ("VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt", "VOCdevkit/VOC2012/SegmentationClass"),
        "2.0 GB",
        "images under Flickr's terms",
        "host.robots.ox.ac.uk/pascal/VOC/voc2012: VOCtrainval_11-May-2012.tar, unpacked here",
    ),
    "voc_detection": Source(
        segmented.voc_detection,
        "5,823 images with boxes of 20 classes",
        "voc",
        ("VOCdevkit/VOC2012/ImageSets/Main/{split}.txt", "VOCdevkit/VOC2012/Annotations"),
        "2.0 GB",
        "images under Flickr's terms",
        "host.robots.ox.ac.uk/pascal/VOC/voc2012: VOCtrainval_11-May-2012.tar, unpacked here",
    ),
    "clevr": Source(
        segmented.clevr,
        "15,000 rendered scenes with attributes and places",
        "clevr",
        ("scenes/CLEVR_{split}_scenes.json", "images/{split}"),
        "18 GB with the training images",
        "CC BY 4.0",
        "cs.stanford.edu/people/jcjohns/clevr: CLEVR_v1.0.zip; what is in its folder CLEVR_v1.0 belongs here",
    ),
    "artemis": Source(
        captioned.artemis,
        "80,031 paintings with 454,684 emotions and sentences",
        "artemis",
        ("{table}", "{images}"),
        "about 30 GB, nearly all WikiArt",
        "ArtEmis: its own terms, non-commercial research; paintings: their owners",
        "artemisdataset.org: the csv (by form); github.com/cs-chan/ArtGAN: WikiArt, unpacked as wikiart/STYLE/NAME.jpg",
    ),
    "affectnet": Source(
        classified.affectnet,
        "4,000 faces of 8 expressions",
        "affectnet",
        ("{split}",),
        "0.1 GB or more, by the size of the faces",
        "by agreement, non-commercial research",
        "mohammadmahoor.com/affectnet: on request; faces sorted as val/0 to val/7, or by name",
    ),
    "affectnet_csv": Source(
        classified.affectnet_csv,
        "5,500 faces of 11 expressions, as first published",
        "affectnet",
        ("{table}", "{images}"),
        "about 120 GB",
        "by agreement, non-commercial research",
        "mohammadmahoor.com/affectnet: on request; the tables beside Manually_Annotated_Images/",
    ),
    "conceptual_captions": Source(
        captioned.conceptual_captions,
        "15,840 images with one caption each (3.3 million for training)",
        "conceptual-captions",
        ("{table}",),
        "about 2 GB (training: hundreds)",
        "captions: any use, with credit to Google; images: their owners",
        "ai.google.com/research/ConceptualCaptions: the tsv; its images from their addresses, by a bulk downloader",
    ),
    "ms_cxr": Source(
        segmented.ms_cxr,
        "1,162 phrases with boxes on chest X-rays",
        "ms-cxr",
        ("{table}",),
        "2 GB of the 570 of MIMIC-CXR-JPG",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "physionet.org/content/ms-cxr: the csv; physionet.org/content/mimic-cxr-jpg: the images that it names, as "
        "files/p10/... (both need a credentialed account)",
    ),
}


@checked(DatasetError)
def load(
    name: str, count: int | None = None, seed: int | None = 0, root: str | Path | None = None, **options: Any
) -> Dataset:
    """A dataset, indexable: its first `count` records (all of a real one, LENGTH of an embedded one, unless given).

    `seed` draws the scenes of an embedded set, and the order of a real one's records; None keeps the published order
    (an embedded set then takes 0). So record i depends on the seed, the options and i, never on `count`. `root` is the
    folder of all datasets (see `folder_of`); `options` are the reader's own. Raises DatasetError: an unknown name or
    option, fewer records than asked for, or files that are not there, with where to get them.
    """
    source = known(name)
    if count is not None and count < 1:
        raise DatasetError(f"got {count} images to read, expected at least 1")
    if seed is not None and seed < 0:
        raise DatasetError(f"got seed={seed}, expected 0 or more, or None for the published order")
    given = _options(name, source, options)
    if not source.folder:
        whole = source.reader(seed=seed or 0, **options)
        return replace(whole, order=range(count)) if count else whole
    if lacking := missing(name, root, **given):
        raise DatasetError(_not_here(name, folder_of(name, root), lacking))
    whole = source.reader(folder_of(name, root), **options)
    if not len(whole):
        raise DatasetError(f"{name} has no record with these options in {folder_of(name, root)}")
    if count is not None and count > len(whole):
        raise DatasetError(f"{name} has {len(whole)} records with these options, got {count} to read")
    order = np.arange(len(whole)) if seed is None else np.random.default_rng(seed).permutation(len(whole))
    return replace(whole, name=name, order=order[:count])


@checked(DatasetError)
def read(name: str, count: int, seed: int = 0, root: str | Path | None = None, **options: Any) -> Iterator[Record]:
    """The first `count` records of a dataset, one by one; arguments and errors as in `load`, errors at once."""
    return iter(load(name, count, seed, root, **options))


@checked(DatasetError)
def images_of(texts: Iterable[str], name: str, most: int, seed: int = 0, **options: Any) -> dict[str, Image.Image]:
    """For each text the first image of a dataset that has this text, to be used as a target in place of the text.

    At most the first `most` records are looked at; a text without an image there has no entry. `name`, `seed` and
    `options` as in `read`.
    """
    wanted, found = set(texts), {}
    for record in read(name, most, seed, **options):
        found |= {text: record.image for text in record.texts if text in wanted and text not in found}
        if len(found) == len(wanted):
            break
    return found


# -- where they are


@checked(DatasetError)
def known(name: str) -> Source:
    """The source of a name; DatasetError with the nearest names if there is none."""
    return DATASETS[pick(name, tuple(DATASETS), "dataset")]


@checked(DatasetError)
def prompt_for(name: str) -> str:
    """How a text is put to a model: ICLIP's "a photo of the {}" for photos, the text alone for what is rendered."""
    return "a photo of the {}" if known(name).folder else "{}"


@checked(DatasetError)
def folder_of(name: str, root: str | Path | None = None) -> Path:
    """Where a real dataset is looked for: under `root`; else where its own variable says (CLIP_EXPLAIN_VOC for voc);
    else under the folder that CLIP_EXPLAIN_DATASETS names; else under cache/datasets in the data folder."""
    source = known(name)
    own = os.environ.get(source.variable)
    if root is None and own:
        return Path(own)
    return Path(root or os.environ.get(VARIABLE) or data_folder() / "cache" / "datasets") / source.folder


@checked(DatasetError)
def missing(name: str, root: str | Path | None = None, **options: Any) -> list[str]:
    """The files of a real dataset that are missing, for a reader's options; [""] if its folder does not exist."""
    source, folder = known(name), folder_of(name, root)
    if not source.folder:
        return []
    if not os.path.isdir(folder):
        return [""]
    given = _options(name, source, options)
    return [file for file in (pattern.format(**given) for pattern in source.files) if not os.path.exists(folder / file)]


@checked(DatasetError)
def state(name: str, root: str | Path | None = None) -> str:
    """A dataset's state, with the reader's defaults: "embedded", "present", "not here" or "incomplete: lacks ..."."""
    if not known(name).folder:
        return "embedded"
    lacking = missing(name, root)
    if lacking == [""]:
        return "not here"
    return f"incomplete: lacks {', '.join(lacking)}" if lacking else "present"


def _options(name: str, source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a reader: its defaults, replaced by the given ones."""
    parameters = inspect.signature(source.reader).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in ("folder", "seed")}
    for option in options:
        if option not in defaults:
            raise DatasetError(f"{name} has no option {option!r}: {nearest(option, defaults)}")
    check_arguments(inspect.signature(source.reader), options, DatasetError)
    return {**defaults, **options}


def _not_here(name: str, folder: Path, lacking: Sequence[str]) -> str:
    source = known(name)
    problem = f"lacks {', '.join(lacking)}" if lacking != [""] else "does not exist"
    how = f"{VARIABLE} names the folder that holds {source.folder}/, {source.variable} the set's own"
    return f"{name} is not here: {folder} {problem} ({how}). To get it: {source.get}. {source.size}; {source.licence}."
