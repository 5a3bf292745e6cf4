"""Writes miniature datasets in the exact layouts in which the real ones are published."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

SYNSETS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n02123394": "Persian cat",
}
VOC_XML = """<annotation>
  <folder>VOC2012</folder><filename>{name}.jpg</filename>
  <size><width>6</width><height>4</height><depth>3</depth></size><segmented>1</segmented>
  {objects}
</annotation>"""
VOC_OBJECT = """<object><name>{kind}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
  <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def image(path: Path, width: int = 6, height: int = 4, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), color).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def synset_map(folder: Path, synsets: dict[str, str] = SYNSETS) -> Path:
    return text(folder / "LOC_synset_mapping.txt", "".join(f"{key} {names}\n" for key, names in synsets.items()))


def imagenet(root: Path) -> None:
    for n, synset in enumerate(SYNSETS):
        image(root / f"imagenet/val/{synset}/ILSVRC2012_val_0000000{n}.JPEG", 6 + n)
    synset_map(root / "imagenet")


def imagenet_s(root: Path, classes: int = 50, height: int = 4, width: int = 6) -> None:
    """Class k fills the left half of its image's mask; above it one pixel is ignored, and one is of class 1."""
    synsets = {f"n{k:08d}": f"thing {k}, other name" for k in range(1, classes + 1)}
    for k, synset in enumerate(synsets, 1):
        image(root / f"imagenet-s/ImageNetS{classes}/validation/{synset}/val_{k}.JPEG", width, height)
        codes = np.zeros((height, width), int)
        codes[:, :3], codes[0, 4], codes[0, 5] = k, 1000, 1
        coded = np.stack([codes % 256, codes // 256, np.zeros_like(codes)], -1).astype(np.uint8)
        path = root / f"imagenet-s/ImageNetS{classes}/validation-segmentation/{synset}/val_{k}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(coded).save(path)
    synset_map(root / "imagenet-s", synsets)


def voc(root: Path) -> Path:
    """One image: a dog (class 12) in the left two columns, a person (15) at the right edge, an outline (255) between;
    in the XML a dog, a difficult dog and a person."""
    folder = root / "voc/VOCdevkit/VOC2012"
    image(folder / "JPEGImages/2007_000001.jpg")
    codes = np.zeros((4, 6), np.uint8)
    codes[:, :2], codes[:, 2], codes[:, 5] = 12, 255, 15
    for kind in ("SegmentationClass", "SegmentationObject"):
        (folder / kind).mkdir()
        mask = Image.fromarray(codes)
        mask.putpalette([channel for k in range(256) for channel in (k, 255 - k, k // 2)])
        mask.save(folder / kind / "2007_000001.png")
    for kind in ("Segmentation", "Main"):
        text(folder / f"ImageSets/{kind}/val.txt", "2007_000001\n")
    boxes = (("person", 0, (6, 1, 6, 4)), ("dog", 0, (1, 1, 2, 4)), ("dog", 1, (4, 4, 4, 4)))
    objects = "".join(VOC_OBJECT.format(kind=kind, difficult=hard, box=box) for kind, hard, box in boxes)
    text(folder / "Annotations/2007_000001.xml", VOC_XML.format(name="2007_000001", objects=objects))
    return folder


def coco(root: Path) -> dict:
    """Image 9: a cat as a polygon, another as compressed RLE, a crowd of persons as counts; image 4: nothing."""
    for key in (4, 9):
        image(root / f"coco/val2017/{key:012d}.jpg", 6, 4)
    dot = np.zeros((4, 6), np.uint8, order="F")
    dot[3, 5] = 1
    packed = rle.encode(dot)
    packed["counts"] = packed["counts"].decode()
    shapes = [
        (17, 0, [[0, 0, 2, 0, 2, 4, 0, 4]]),  # columns 0 and 1
        (17, 0, packed),
        (1, 1, {"size": [4, 6], "counts": [12, 4, 8]}),  # column 3, counted down the columns
    ]
    content = {
        "info": {},
        "images": [{"id": key, "file_name": f"{key:012d}.jpg", "height": 4, "width": 6} for key in (9, 4)],
        "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {
                "id": k,
                "image_id": 9,
                "category_id": kind,
                "iscrowd": crowd,
                "segmentation": shape,
                "area": 1,
                "bbox": [],
            }
            for k, (kind, crowd, shape) in enumerate(shapes)
        ],
    }
    text(root / "coco/annotations/instances_val2017.json", json.dumps(content))
    captions = [
        {"id": k, "image_id": key, "caption": caption}
        for k, (key, caption) in enumerate([(9, "Two cats. "), (4, "A wall"), (9, "A crowd and cats")])
    ]
    content = {"images": content["images"], "annotations": captions}
    text(root / "coco/annotations/captions_val2017.json", json.dumps(content))
    return content


def karpathy(root: Path) -> dict:
    """One image under its name of 2014, one only under that of 2017, one of another split."""
    image(root / "coco/val2014/COCO_val2014_000000391895.jpg")
    image(root / "coco/train2017/000000000522.jpg", 5, 5)
    images = [
        {
            "filepath": "val2014",
            "sentids": [10 * n, 10 * n + 1],
            "filename": f"COCO_val2014_{key:012d}.jpg",
            "imgid": n,
            "split": split,
            "sentences": [
                {"tokens": ["a", "man"], "raw": "A man. ", "imgid": n, "sentid": 10 * n},
                {"tokens": ["a", "bike"], "raw": "a bike", "imgid": n, "sentid": 10 * n + 1},
            ],
            "cocoid": key,
        }
        for n, (key, split) in enumerate([(391895, "val"), (7, "test"), (522, "val")])
    ]
    content = {"images": images, "dataset": "coco"}
    text(root / "coco/dataset_coco.json", json.dumps(content))
    return content


def clevr(root: Path) -> dict:
    """A large red metal cube on the left, a small red rubber ball and a large blue metal ball on the right."""
    attributes = [
        ("large", "red", "metal", "cube", 100.0),
        ("small", "red", "rubber", "sphere", 330.0),
        ("large", "blue", "metal", "sphere", 420.0),
    ]
    objects = [
        {
            **dict(zip(("size", "color", "material", "shape"), names, strict=True)),
            "rotation": 1.5,
            "3d_coords": [0.0, 1.0, 0.7],
            "pixel_coords": [x, 150, 9.5],
        }
        for *names, x in attributes
    ]
    image(root / "clevr/images/val/CLEVR_val_000000.png", 480, 320)
    scene = {
        "image_index": 0,
        "image_filename": "CLEVR_val_000000.png",
        "split": "val",
        "objects": objects,
        "relationships": {"left": [[], [0], [0, 1]]},
        "directions": {"left": [-0.65, -0.75, 0.0]},
    }
    content = {"info": {"split": "val", "version": "1.0"}, "scenes": [scene]}
    text(root / "clevr/scenes/CLEVR_val_scenes.json", json.dumps(content))
    return content


def artemis(root: Path) -> list[dict]:
    """A painting whose majority depends on "something else", a tied one, and one that is nothing else."""
    votes = {
        ("Baroque", "a_night-1"): ["fear", "something else", "something else", "fear", "something else", "awe"],
        ("Cubism", "pablo_x"): ["awe", "fear"],
        ("Cubism", "pablo_y"): ["something else"],
    }
    rows = [
        {
            "art_style": style,
            "painting": name,
            "emotion": emotion,
            "utterance": f'"{emotion}", said {k}',
            "repetition": 6,
        }
        for (style, name), emotions in votes.items()
        for k, emotion in enumerate(emotions)
    ]
    for style, name in votes:
        image(root / f"artemis/wikiart/{style}/{name}.jpg")
    table(root / "artemis/artemis_dataset_release_v0.csv", rows)
    return rows


def affectnet(root: Path, header: bool = True) -> list[list]:
    rows = [[f"1/{k}.jpg", 2, 3, 100, 100, "1.5;2.5", code, 0.5, -0.25] for k, code in enumerate([1, 2, 0, 9, 1])]
    names = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    lines = [",".join(map(str, row)) for row in rows]
    text(root / "affectnet/validation.csv", "\n".join([names, *lines] if header else lines) + "\n")
    for row in rows:
        image(root / "affectnet/Manually_Annotated_Images" / row[0])
    return rows


def ms_cxr(root: Path) -> list[dict]:
    """One X-ray with a phrase in two boxes and another in one, and a second X-ray."""
    first, second = "files/p10/p10000032/s50414267/a1.jpg", "files/p11/p11000001/s5/b2.jpg"
    said = [
        (first, "Pneumonia", "left basilar opacity", (0, 0, 2, 2)),
        (first, "Pneumonia", "left basilar opacity", (4, 3, 2, 1)),
        (first, "Edema", "mild edema, both sides", (1, 1, 3, 2)),
        (second, "Edema", "edema", (0, 0, 6, 4)),
    ]
    rows = [
        {
            **{"dicom_id": Path(path).stem, "category_name": finding, "label_text": phrase, "path": path},
            **dict(zip("xywh", box, strict=True)),
            **{"image_width": 6, "image_height": 4, "split": "test"},
        }
        for path, finding, phrase, box in said
    ]
    image(root / "ms-cxr" / first)
    image(root / "ms-cxr" / second)
    table(root / "ms-cxr/MS_CXR_Local_Alignment_v1.1.0.csv", rows)
    return rows
