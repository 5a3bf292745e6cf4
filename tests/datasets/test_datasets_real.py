"""Each reader of a real dataset on a miniature in the exact published layout, and on spoilt ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import small_datasets as small
from clip_explain import datasets
from clip_explain.cli import main
from clip_explain.datasets.classified import EMOTIONS
from clip_explain.errors import DatasetError, ImageError


def rows(mask) -> list[str]:
    """A mask as it looks."""
    return ["".join(".#"[int(value)] for value in row) for row in mask]


# -- each format


def test_imagenet_by_folders_and_synset_map(tmp_path):
    small.imagenet(tmp_path)
    whole = datasets.load("imagenet", seed=None, root=tmp_path)
    assert whole.classes == ("tench", "goldfish", "Persian cat") and len(whole) == 3
    record = whole[1]
    assert (record.id, record.texts, record.label) == ("n01443537/ILSVRC2012_val_00000001.JPEG", ("goldfish",), 1)
    assert record.image.size == (7, 4) and record.masks is None
    named = datasets.load("imagenet", seed=None, root=tmp_path, class_names=["a", "b", "c"])
    assert named.classes == ("a", "b", "c") and named[2].texts == ("c",)


@pytest.mark.parametrize(
    ("name", "inner"),
    [("imagenet_r", "imagenet-r"), ("imagenet_a", "imagenet-a"), ("imagenet_sketch", "imagenet-sketch/sketch")],
)
def test_variants_of_imagenet_take_its_synset_map_and_their_own_classes(tmp_path, name, inner):
    small.synset_map(tmp_path / "imagenet")
    for synset in ("n02123394", "n01443537"):
        small.image(tmp_path / inner / synset / "art_0.jpg")
    whole = datasets.load(name, seed=None, root=tmp_path)
    assert whole.name == name and whole.classes == ("goldfish", "Persian cat")
    assert [(record.id, record.label) for record in whole] == [("n01443537/art_0.jpg", 0), ("n02123394/art_0.jpg", 1)]


def test_imagenet_s_masks_are_red_and_256_green(tmp_path):
    small.imagenet_s(tmp_path, classes=300)
    whole = datasets.load("imagenet_s", seed=None, root=tmp_path, subset=300)
    record = whole[299]  # class 300 is red 44, green 1
    assert whole.classes[299] == "thing 300" and record.label == 299
    assert record.texts == ("thing 300", "thing 1")
    assert rows(record.masks[0]) == ["###..."] * 4
    assert rows(record.masks[1]) == [".....#", "......", "......", "......"]
    assert rows(record.ignore) == ["....#.", "......", "......", "......"]


def test_voc_masks_are_indices_and_255_is_ignored(tmp_path):
    small.voc(tmp_path)
    record = datasets.load("voc", root=tmp_path)[0]
    assert (record.id, record.texts, record.labels) == ("2007_000001", ("dog", "person"), (11, 14))
    assert rows(record.masks[0]) == ["##...."] * 4 and rows(record.masks[1]) == [".....#"] * 4
    assert rows(record.ignore) == ["..#..."] * 4 and record.image.size == (6, 4)


def test_voc_boxes_from_xml(tmp_path):
    small.voc(tmp_path)
    record = datasets.load("voc_detection", root=tmp_path)[0]
    assert record.texts == ("dog", "person") and record.labels == (11, 14)
    assert rows(record.masks[0]) == ["##...."] * 4 and rows(record.masks[1]) == [".....#"] * 4
    assert record.facts["boxes"] == (("person", (5, 0, 6, 4)), ("dog", (0, 0, 2, 4)))
    hard = datasets.load("voc_detection", root=tmp_path, difficult=True)[0]
    assert rows(hard.masks[0]) == ["##....", "##....", "##....", "##.#.."]


def test_coco_polygons_rle_and_crowds(tmp_path, capsys):
    small.coco(tmp_path)
    whole = datasets.load("coco", root=tmp_path)
    assert whole.classes == ("person", "cat") and len(whole) == 1 and capsys.readouterr().out == ""
    record = whole[0]
    assert (record.id, record.texts, record.labels) == ("9", ("person", "cat"), (0, 1))
    assert rows(record.masks[0]) == ["...#.."] * 4
    assert rows(record.masks[1]) == ["##....", "##....", "##....", "##...#"]
    every = datasets.load("coco", seed=None, root=tmp_path, keep_empty=True)
    assert [record.id for record in every] == ["4", "9"] and every[0].masks.shape == (0, 4, 6)


def test_coco_captions(tmp_path):
    small.coco(tmp_path)
    whole = datasets.load("coco_captions", seed=None, root=tmp_path)
    assert [(record.id, record.texts) for record in whole] == [
        ("4", ("A wall",)),
        ("9", ("Two cats.", "A crowd and cats")),
    ]


def test_karpathys_split_under_the_names_of_2014_and_of_2017(tmp_path):
    small.karpathy(tmp_path)
    whole = datasets.load("coco_karpathy", seed=None, root=tmp_path)
    assert [record.facts["image_id"] for record in whole] == [391895, 522]
    assert whole[0].texts == ("A man.", "a bike") and whole[0].facts["sentence_ids"] == (0, 1)
    assert whole[0].image.size == (6, 4) and whole[1].image.size == (5, 5)
    assert len(datasets.load("coco_karpathy", root=tmp_path, split="test")) == 1


def test_karpathys_form_is_written_and_read_back(tmp_path):
    scenes = datasets.load("scene_captions", 3, size=32)
    datasets.export_karpathy(scenes, tmp_path / "coco")
    back = datasets.load("coco_karpathy", seed=None, root=tmp_path, split="test")
    assert [record.texts for record in back] == [record.texts for record in scenes]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(back, scenes, strict=True))
    assert sorted(i for record in back for i in record.facts["sentence_ids"]) == list(range(15))
    written = json.loads((tmp_path / "coco/dataset_coco.json").read_text())["images"][0]
    real = small.karpathy(tmp_path)["images"][0]
    assert written.keys() == real.keys() and written["sentences"][0].keys() == real["sentences"][0].keys()


def test_clevr_probes_and_the_points_they_mean(tmp_path):
    small.clevr(tmp_path)
    record = datasets.load("clevr", root=tmp_path)[0]
    left, near, right = (100.0, 150.0), (330.0, 150.0), (420.0, 150.0)
    said = {
        text: (kind, points)
        for text, kind, points in zip(record.texts, record.facts["kinds"], record.facts["points"], strict=True)
    }
    assert said == {
        "a cube": ("shape", (left,)),
        "a sphere": ("shape", (near, right)),
        "a metal thing": ("material", (left, right)),
        "a rubber thing": ("material", (near,)),
        "a red thing": ("color", (left, near)),
        "a blue thing": ("color", (right,)),
        "a large thing": ("size", (left, right)),
        "a small thing": ("size", (near,)),
        "a thing on the left": ("position", (left,)),
        "a thing on the right": ("position", (near, right)),
        "a large sphere": ("size and shape", (right,)),  # the cube is the only cube, the small ball the only small one
        "a red thing on the right": ("color and position", (near,)),
    }
    assert record.masks is None and record.image.size == (480, 320)
    assert datasets.load("clevr", root=tmp_path, kinds=["shape"])[0].texts == ("a cube", "a sphere")


def test_artemis_majority_without_and_with_something_else(tmp_path):
    small.artemis(tmp_path)
    dropped = datasets.load("artemis", seed=None, root=tmp_path)
    assert len(dropped) == 1 and len(dropped.classes) == 8 and dropped.classes[dropped[0].label] == "fear"
    assert dropped[0].facts["votes"] == {"fear": 2, "awe": 1}
    assert dropped[0].texts == ('"fear", said 0', '"fear", said 3', '"awe", said 5')
    assert dropped[0].image.size == (6, 4)
    kept = datasets.load("artemis", seed=None, root=tmp_path, something_else="keep")
    assert [kept.classes[record.label] for record in kept] == ["something else", "something else"]
    assert len(kept.classes) == 9 and len(kept[0].texts) == 6


@pytest.mark.parametrize("names", [("1", "2", "0"), ("Happiness", "sad", "neutral")])
def test_affectnet_in_folders(tmp_path, names):
    for name in names:
        small.image(tmp_path / "affectnet/val" / name / "a.jpg")
    whole = datasets.load("affectnet", root=tmp_path)
    assert whole.classes == ("happy", "sad") and len(whole) == 2
    labels = {record.id: record.label for record in whole}
    assert labels == {f"val/{names[0]}/a.jpg": 0, f"val/{names[1]}/a.jpg": 1}
    assert whole[0].texts == ("this person is happy", "this person is sad")
    assert len(datasets.load("affectnet", root=tmp_path, emotions=list(EMOTIONS))) == 3


@pytest.mark.parametrize("header", [True, False])
def test_affectnet_in_a_table(tmp_path, header):
    small.affectnet(tmp_path, header)
    whole = datasets.load("affectnet_csv", seed=None, root=tmp_path, emotions=["sad", "happy"])
    assert [(record.id, record.label) for record in whole] == [("1/0.jpg", 1), ("1/1.jpg", 0), ("1/4.jpg", 1)]
    assert whole[0].facts == {"box": (2, 3, 100, 100), "valence": 0.5, "arousal": -0.25}
    assert whole[0].image.size == (6, 4)


def test_conceptual_captions_with_files_with_addresses_and_with_a_header(tmp_path):
    folder = tmp_path / "conceptual-captions"
    small.image(folder / "pictures/b.jpg")
    small.image(folder / "images/00000/000000002.jpg", 5, 5)
    name = "Validation_GCC-1.1.0-Validation.tsv"
    small.text(
        folder / name, 'author : a "life" \tpictures/b.jpg\nlost\thttp://x.org/1.jpg\nkept, one\thttp://x.org/2\n'
    )
    whole = datasets.load("conceptual_captions", seed=None, root=tmp_path)
    assert [record.texts for record in whole] == [('author : a "life"',), ("kept, one",)]
    assert [record.id for record in whole] == ["line 1", "line 3"]
    assert [record.image.size for record in whole] == [(6, 4), (5, 5)]
    small.text(folder / "with_header.csv", "title\tfilepath\na cat\tpictures/b.jpg\n")
    assert datasets.load("conceptual_captions", root=tmp_path, table="with_header.csv")[0].texts == ("a cat",)


def test_ms_cxr_phrases_with_boxes(tmp_path):
    small.ms_cxr(tmp_path)
    whole = datasets.load("ms_cxr", seed=None, root=tmp_path)
    record = whole[0]
    assert whole.classes == ("Edema", "Pneumonia") and [r.id for r in whole] == ["a1", "b2"]
    assert record.texts == ("left basilar opacity", "mild edema, both sides") and record.labels == (0, 1)
    assert rows(record.masks[0]) == ["##....", "##....", "......", "....##"]
    assert rows(record.masks[1]) == ["......", ".###..", ".###..", "......"]
    assert record.image.size == (6, 4) and whole[1].masks.all()


# -- order, shards and lazy reading


def coco_images(root, count):
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": 4, "width": 6} for k in range(count)],
        "annotations": [{"id": k, "image_id": k, "caption": f"caption {k}"} for k in range(count)],
    }
    small.text(root / "coco/annotations/captions_val2017.json", json.dumps(content))
    (root / "coco/val2017").mkdir()


def test_seed_draws_the_order_and_count_only_cuts_it(tmp_path):
    coco_images(tmp_path, 40)
    ids = [record.id for record in datasets.load("coco_captions", seed=1, root=tmp_path)]
    assert sorted(map(int, ids)) == list(range(40)) and ids != sorted(ids, key=int)
    assert [record.id for record in datasets.load("coco_captions", 7, 1, tmp_path)] == ids[:7]
    assert [record.id for record in datasets.read("coco_captions", 7, 1, tmp_path)] == ids[:7]
    assert [record.id for record in datasets.load("coco_captions", seed=2, root=tmp_path)] != ids
    assert [record.id for record in datasets.load("coco_captions", 3, None, tmp_path)] == ["0", "1", "2"]
    again = pickle.loads(pickle.dumps(datasets.load("coco_captions", seed=1, root=tmp_path)))  # to another process
    assert [again[i].id for i in (5, 39, -1)] == [ids[5], ids[39], ids[39]]
    with pytest.raises(IndexError):
        again[40]


def test_a_corrupt_image_is_told_with_id_and_path_and_stops_nothing_else(tmp_path):
    small.imagenet(tmp_path)
    bad = tmp_path / "imagenet/val/n01443537/ILSVRC2012_val_00000001.JPEG"
    bad.write_bytes(bad.read_bytes()[:200])
    sizes, errors = [], []
    for record in datasets.load("imagenet", seed=None, root=tmp_path):
        try:
            sizes.append(record.image.size)
        except ImageError as error:
            errors.append(str(error))
    assert sizes == [(6, 4), (8, 4)] and len(errors) == 1
    assert errors[0].startswith("n01443537/ILSVRC2012_val_00000001.JPEG: ") and str(bad) in errors[0]
    bad.unlink()
    bad.parent.joinpath("other.jpg").write_bytes(b"")
    with pytest.raises(
        ImageError, match=r"n01443537/other.jpg: .*other.jpg cannot be read as an image: the file is empty"
    ):
        datasets.load("imagenet", seed=None, root=tmp_path)[1].image  # noqa: B018


def test_images_are_taken_as_stored_so_that_masks_fit(tmp_path):
    """A photo with EXIF orientation 6 would stand upright at 4 x 6; VOC's mask is of the stored 6 x 4."""
    folder = small.voc(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(folder / "JPEGImages/2007_000001.jpg", exif=exif)
    assert datasets.load("voc", root=tmp_path)[0].image.size == (6, 4)


def test_masks_of_another_size_are_refused(tmp_path):
    folder = small.voc(tmp_path)
    small.image(folder / "JPEGImages/2007_000001.jpg", 8, 4)
    with pytest.raises(DatasetError, match="2007_000001: its masks are 6 x 4 pixels, its image 8 x 4"):
        datasets.load("voc", root=tmp_path)[0].image  # noqa: B018


def test_every_dataset_goes_to_another_process(tmp_path):
    """Pickled and back, each gives the same records; nothing in it depends on where it was opened."""
    for write in (small.imagenet, small.imagenet_s, small.voc, small.coco, small.karpathy, small.clevr, small.artemis):
        write(tmp_path)
    small.affectnet(tmp_path)
    small.ms_cxr(tmp_path)
    small.image(tmp_path / "conceptual-captions/a.jpg")
    small.text(tmp_path / "conceptual-captions/Validation_GCC-1.1.0-Validation.tsv", "a cat\ta.jpg\n")
    opened = 0
    for name, source in datasets.DATASETS.items():
        options = {"subset": 50} if name == "imagenet_s" else {}
        if source.folder and not datasets.missing(name, tmp_path, **options):
            whole = datasets.load(name, root=tmp_path, **options)
            there = pickle.loads(pickle.dumps(whole))
            assert len(there) == len(whole) and there.classes == whole.classes and there.name == name
            assert (there[0].id, there[0].texts) == (whole[0].id, whole[0].texts)
            assert np.array_equal(there[0].image, whole[0].image)
            opened += 1
    assert opened == 12  # all but the relatives of ImageNet and AffectNet in folders


# -- bad input


@pytest.mark.parametrize("name", [name for name, source in datasets.DATASETS.items() if source.folder])
def test_a_missing_dataset_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, name):
    source = datasets.DATASETS[name]
    with pytest.raises(DatasetError) as error:
        datasets.load(name, root=tmp_path)
    for told in (name, str(tmp_path / source.folder), source.get, source.size, source.licence, source.variable):
        assert told in str(error.value)


def test_an_incomplete_dataset_says_what_it_lacks(tmp_path):
    (tmp_path / "coco/val2017").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"lacks annotations/instances_val2017.json \("):
        datasets.load("coco", root=tmp_path)
    assert datasets.state("coco", tmp_path) == "incomplete: lacks annotations/instances_val2017.json"
    with pytest.raises(DatasetError, match="lacks annotations/instances_train2017.json, train2017"):
        datasets.load("coco", root=tmp_path, split="train2017")


def test_root_before_own_variable_before_common_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_EXPLAIN_DATASETS", str(tmp_path / "common"))
    assert datasets.folder_of("voc_detection") == tmp_path / "common/voc"
    monkeypatch.setenv("CLIP_EXPLAIN_VOC", str(tmp_path / "own"))
    assert datasets.folder_of("voc") == tmp_path / "own" and datasets.folder_of("coco") == tmp_path / "common/coco"
    assert datasets.folder_of("voc", tmp_path / "given") == tmp_path / "given/voc"
    monkeypatch.delenv("CLIP_EXPLAIN_DATASETS")
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path / "data"))
    assert datasets.folder_of("coco") == tmp_path / "data/cache/datasets/coco"


def test_options_and_counts_are_checked(tmp_path):
    small.imagenet(tmp_path)
    small.voc(tmp_path)
    small.affectnet(tmp_path)
    for name, count, options, message in (
        ("imagenet", None, {"splt": "val"}, "imagenet has no option 'splt': did you mean 'split'"),
        ("imagenet", 4, {}, "imagenet has 3 records with these options, got 4 to read"),
        ("imagenet", None, {"class_names": ["a"]}, "got 1 class names, expected 3"),
        ("affectnet_csv", None, {"emotions": ["hapy"]}, "unknown emotion 'hapy': did you mean 'happy'"),
        ("affectnet_csv", None, {"emotions": "happy"}, "got emotions='happy'"),
        ("affectnet_csv", None, {"emotions": ["contempt"]}, "affectnet_csv has no record with these options"),
        ("imagenets", None, {}, "unknown dataset 'imagenets': did you mean 'imagenet_s'"),
    ):
        with pytest.raises(DatasetError, match=message.replace("(", r"\(")):
            datasets.load(name, count, root=tmp_path, **options)


def test_class_names_that_do_not_match(tmp_path):
    small.imagenet(tmp_path)
    small.image(tmp_path / "imagenet/val/n99999999/a.JPEG")
    with pytest.raises(DatasetError, match="has a folder 'n99999999', but LOC_synset_mapping.txt names no such class"):
        datasets.load("imagenet", root=tmp_path)
    small.imagenet_s(tmp_path)
    with pytest.raises(DatasetError, match="lacks ImageNetS919/validation"):
        datasets.load("imagenet_s", root=tmp_path)
    small.image(tmp_path / "imagenet-s/ImageNetS50/validation/n99999999/a.JPEG")
    with pytest.raises(DatasetError, match="has 51 class folders, expected 50"):
        datasets.load("imagenet_s", root=tmp_path, subset=50)
    small.image(tmp_path / "affectnet/val/hapy/a.jpg")
    with pytest.raises(DatasetError, match="has a folder 'hapy', no expression of AffectNet: did you mean 'happy'"):
        datasets.load("affectnet", root=tmp_path)


def test_no_synset_map(tmp_path):
    small.image(tmp_path / "imagenet-r/n01443537/a.jpg")
    with pytest.raises(DatasetError, match="no LOC_synset_mapping.txt.*imagenet-r/LOC.*imagenet/LOC.*Kaggle"):
        datasets.load("imagenet_r", root=tmp_path)
    small.text(tmp_path / "imagenet-r/LOC_synset_mapping.txt", "n01443537 goldfish\ntench\n")
    with pytest.raises(DatasetError, match=r"LOC_synset_mapping.txt, line 2: got 'tench', expected 'n01440764 tench"):
        datasets.load("imagenet_r", root=tmp_path)


def test_flat_folder_of_images(tmp_path):
    small.synset_map(tmp_path / "imagenet")
    small.image(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DatasetError, match="imagenet/val is not a folder of images by class"):
        datasets.load("imagenet", root=tmp_path)


def test_spoilt_masks_and_annotations_name_their_record(tmp_path):
    folder = small.voc(tmp_path)
    (folder / "Annotations/2007_000001.xml").write_text("<annotation><object>")
    with pytest.raises(DatasetError, match=r"2007_000001: .*2007_000001.xml is not an annotation of VOC"):
        datasets.load("voc_detection", root=tmp_path)[0]
    mask = folder / "SegmentationClass/2007_000001.png"
    Image.new("RGB", (6, 4)).save(mask)
    with pytest.raises(DatasetError, match=r"2007_000001.png is stored as RGB, expected P"):
        datasets.load("voc", root=tmp_path)[0]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 20, (40, 60), dtype=np.uint8))
    noise.convert("P").save(mask)
    mask.write_bytes(mask.read_bytes()[:-300])
    with pytest.raises(ImageError, match=r"2007_000001: the mask .*2007_000001.png cannot be read"):
        datasets.load("voc", root=tmp_path)[0]


def test_voc_with_an_unknown_class_and_an_unknown_split(tmp_path):
    path = small.voc(tmp_path) / "Annotations/2007_000001.xml"
    path.write_text(path.read_text().replace(">dog<", ">dogg<"))
    with pytest.raises(DatasetError, match="2007_000001.xml has a class 'dogg': did you mean 'dog'"):
        datasets.load("voc_detection", root=tmp_path)[0]
    small.text(path.parents[1] / "ImageSets/Segmentation/vall.txt", "")
    with pytest.raises(DatasetError, match="unknown split 'vall': did you mean 'val'"):
        datasets.load("voc", root=tmp_path, split="vall")


def test_spoilt_json(tmp_path):
    small.coco(tmp_path)
    small.karpathy(tmp_path)
    small.clevr(tmp_path)
    for name, path, content, message in (
        ("coco", "coco/annotations/instances_val2017.json", '{"images": [', "an annotation file of COCO"),
        ("coco", "coco/annotations/instances_val2017.json", '{"images": []}', "it has no 'annotations'"),
        (
            "coco_karpathy",
            "coco/dataset_coco.json",
            '{"images": [{"split": "val"}]}',
            "image 0: not in Karpathy",
        ),
        ("clevr", "clevr/scenes/CLEVR_val_scenes.json", "[]", "has no list 'scenes'"),
        ("clevr", "clevr/scenes/CLEVR_val_scenes.json", "{", "is not readable as json"),
    ):
        (tmp_path / path).write_text(content)
        with pytest.raises(DatasetError, match=message) as error:
            datasets.load(name, root=tmp_path)
        assert str(tmp_path / path) in str(error.value)


def test_spoilt_records_of_json_sets(tmp_path):
    small.coco(tmp_path)
    path = tmp_path / "coco/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"] = {"size": [2, 2], "counts": [0, 4]}
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="COCO image 9, annotation 1: not a segmentation of COCO"):
        datasets.load("coco", root=tmp_path)[0]
    content["annotations"][1]["category_id"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="COCO image 9: category 5 is not among the categories"):
        datasets.load("coco", root=tmp_path)[0]
    content = small.clevr(tmp_path)
    content["scenes"][0]["objects"][2]["color"] = "bleu"
    (tmp_path / "clevr/scenes/CLEVR_val_scenes.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="unknown color .*scene 0: 'bleu': did you mean 'blue'"):
        datasets.load("clevr", root=tmp_path)[0]


def test_malformed_lines_are_told_by_number(tmp_path):
    for write, path, old, new, message in (
        (small.artemis, "artemis/artemis_dataset_release_v0.csv", ",awe,", ",aw,", "line 7: unknown emotion 'aw'"),
        (small.artemis, "artemis/artemis_dataset_release_v0.csv", "Baroque,", "", "line 2: 4 fields, expected 5"),
        (small.artemis, "artemis/artemis_dataset_release_v0.csv", "utterance", "said", "line 1: no column 'utterance'"),
        (
            small.affectnet,
            "affectnet/validation.csv",
            ";2.5,2,",
            ";2.5,12,",
            "line 3: expression '12', expected 0 to 10",
        ),
        (small.affectnet, "affectnet/validation.csv", ",-0.25", ",x", "line 2: arousal is 'x', expected a number"),
        (
            small.ms_cxr,
            "ms-cxr/MS_CXR_Local_Alignment_v1.1.0.csv",
            ",4,3,2,1",
            ",4,3,,1",
            "line 3: w is '', expected a",
        ),
    ):
        write(tmp_path)
        spoilt = tmp_path / path
        spoilt.write_text(spoilt.read_text().replace(old, new, 1))
        name = {"affectnet": "affectnet_csv", "ms-cxr": "ms_cxr"}.get(path.split("/")[0], "artemis")
        with pytest.raises(DatasetError, match=message) as error:
            datasets.load(name, root=tmp_path)
        assert str(spoilt) in str(error.value)


def test_tsv_with_a_line_too_short_and_with_no_image(tmp_path):
    path = tmp_path / "conceptual-captions/Validation_GCC-1.1.0-Validation.tsv"
    small.text(path, "a cat\tx.jpg\na dog\n")
    with pytest.raises(DatasetError, match=r"Validation.tsv, line 2: 1 fields, expected 2 \(title, filepath\)"):
        datasets.load("conceptual_captions", root=tmp_path)
    small.text(path, "a cat\thttp://x.org/a.jpg\n")
    with pytest.raises(DatasetError, match="none of the 1 images of"):
        datasets.load("conceptual_captions", root=tmp_path)


# -- the command


def test_clip_explain_data_lists_all(tmp_path, capsys):
    small.voc(tmp_path)
    (tmp_path / "coco").mkdir()
    assert main(["data", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    heads = dict(line.split(": ", 1) for line in shown.splitlines() if not line.startswith(" "))
    assert list(heads) == list(datasets.DATASETS)
    assert heads["voc"] == "present" and heads["scenes"] == "embedded" and heads["clevr"] == "not here"
    assert heads["coco"] == "incomplete: lacks annotations/instances_val2017.json, val2017"
    assert str(tmp_path / "ms-cxr") in shown and "CLIP_EXPLAIN_MS_CXR" in shown and "physionet.org" in shown


def test_the_readme_of_data_has_every_dataset():
    """Name, folder, size and licence, as the table of sources has them."""
    lines = (Path(__file__).parents[2] / "data/README.md").read_text().splitlines()
    for name, source in datasets.DATASETS.items():
        line = next(line for line in lines if line.startswith(f"| `{name}` "))
        for told in (source.holds, source.licence, source.size) + ((f"`{source.folder}/`",) if source.folder else ()):
            assert told in line, (name, told)
