"""The rendered datasets: what their texts, labels and masks say is in the picture; the same for a seed and a number."""

import pickle

import numpy as np
import pytest

from clip_explain import datasets
from clip_explain.datasets.embedded import KINDS, PAIRS, probes
from clip_explain.embedded.scenes.domains import DOMAINS, WITHOUT_COLOR
from clip_explain.embedded.scenes.faces import MOODS
from clip_explain.embedded.scenes.paintings import EMOTIONS
from clip_explain.embedded.scenes.world import COLORS
from clip_explain.errors import DatasetError

EMBEDDED = [name for name, source in datasets.DATASETS.items() if not source.folder]


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_record_depends_on_seed_and_number_alone(name):
    whole = datasets.load(name, 3, seed=4, size=40)
    alone = pickle.loads(pickle.dumps(datasets.load(name, seed=4, size=40)))[2]  # as another process would make it
    other = datasets.load(name, 3, seed=5, size=40)[2]
    records = list(whole)
    assert len(records) == len(whole) == 3 and len({record.id for record in [*records, other]}) == 4
    assert (alone.id, alone.texts, alone.labels) == (records[2].id, records[2].texts, records[2].labels)
    assert np.array_equal(alone.image, records[2].image) and not np.array_equal(alone.image, other.image)
    assert alone.image.size == (40, 40)
    if alone.masks is not None:
        assert np.array_equal(alone.masks, records[2].masks) and alone.masks.any((1, 2)).all()


def test_length_is_what_is_asked_for():
    assert len(datasets.load("scenes")) == 1000 and len(datasets.load("scenes", 123_456)) == 123_456
    assert datasets.load("scenes", 200_000, size=32)[150_000].id == "scene 0-150000"
    with pytest.raises(DatasetError, match="got seed=-1"):
        datasets.load("faces", seed=-1)
    with pytest.raises(DatasetError, match="faces has no option 'domain'"):
        datasets.load("faces", domain="render")


def test_scenes_are_labelled_with_all_objects_in_sight():
    for record in datasets.load("scenes", 8, size=56):
        objects = {f"a {obj['color']} {obj['shape']}" for obj in record.facts["objects"]}
        labelled = {PAIRS[label] for label in record.labels}
        assert set(record.texts) <= labelled <= objects


def test_scenes_are_the_same_in_every_domain():
    plain, sketched = (datasets.load("scenes", 2, seed=1, size=48, domain=name) for name in ("render", "sketch"))
    for one, other in zip(plain, sketched, strict=True):
        assert other.id == f"{one.id} sketch" and other.texts == one.texts and other.labels == one.labels
        assert np.array_equal(other.masks, one.masks) and not np.array_equal(other.image, one.image)
    with pytest.raises(DatasetError, match="unknown domain"):
        datasets.load("scenes", domain="oil")


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_objects_are_the_same_in_every_domain(domain):
    whole, render = (datasets.load("objects", 3, seed=1, size=48, domain=name) for name in (domain, "render"))
    assert len(whole.classes) == (5 if domain in WITHOUT_COLOR else 40)
    for record, plain in zip(whole, render, strict=True):
        assert record.texts == (whole.classes[record.label],) and record.facts["domain"] == domain
        assert record.texts[0].split()[-1] == record.facts["shape"] == plain.facts["shape"]
        assert (record.facts["color"] in record.texts[0]) == (domain not in WITHOUT_COLOR)
        assert np.array_equal(record.masks, plain.masks)
        assert (domain == "render") == np.array_equal(record.image, plain.image)


def test_objects_in_an_unknown_domain():
    with pytest.raises(DatasetError, match="unknown domain 'skech': did you mean 'sketch'"):
        datasets.load("objects", domain="skech")


def test_scene_captions_name_every_object_by_colour():
    for record in datasets.load("scene_captions", 6, size=40):
        named = {f"a {obj['color']} {obj['shape']}" for obj in record.facts["objects"]}
        assert set(record.parts) == named and all(
            mask.shape == (40, 40) and mask.any() for mask in record.parts.values()
        )
        colors = sorted(obj["color"] for obj in record.facts["objects"])
        assert len(record.texts) == 5 and len(colors) == 3
        for text in record.texts:
            words = text.replace(",", "").replace(" on grey ground", "").split()
            assert sorted(word for word in words if word in COLORS) == colors and len(words) >= 9


def test_attributes_say_what_is_true_of_some_objects_and_not_of_all():
    found = set()
    for record in datasets.load("attributes", 12, size=56):
        objects = record.facts["objects"]
        assert len(record.facts["kinds"]) == len(record.texts) == len(set(record.texts)) == len(record.masks)
        everything = record.masks.any(0)
        for text, kind, mask in zip(record.texts, record.facts["kinds"], record.masks, strict=True):
            found.add(kind)
            assert mask.any() and (mask < everything).any()
            if kind == "color":
                assert 0 < sum(obj["color"] in text for obj in objects) < len(objects)
            if kind == "position":
                columns = np.flatnonzero(mask.any(0))
                assert (columns.mean() < 28) == text.endswith("left")
    assert found >= {"shape", "material", "color", "size", "size and shape"}


def test_probes_need_every_word():
    """A scene worked by hand: two cubes, the small one red; a small red ball on the right."""
    names = ("size", "color", "material", "shape")
    scene = [("large", "blue", "metal", "cube"), ("small", "red", "metal", "cube"), ("small", "red", "metal", "sphere")]
    objects = [dict(zip(names, obj, strict=True)) for obj in scene]
    found = probes(objects, [0.1, 0.3, 0.8], list(KINDS))
    assert found == [
        ("shape", "a cube", [0, 1]),
        ("shape", "a sphere", [2]),
        ("color", "a blue thing", [0]),
        ("color", "a red thing", [1, 2]),
        ("size", "a large thing", [0]),
        ("size", "a small thing", [1, 2]),
        ("position", "a thing on the left", [0, 1]),
        ("position", "a thing on the right", [2]),
        ("size and shape", "a small cube", [1]),
        ("color and position", "a red thing on the left", [1]),
    ]
    assert not [kind for kind, _, _ in probes(objects, [0.1, 0.52, 0.8], list(KINDS)) if "position" in kind]
    assert probes(objects[:1], [0.1], list(KINDS)) == []


def test_attributes_of_one_kind_only():
    for record in datasets.load("attributes", 3, size=40, kinds=["material"]):
        assert (
            set(record.texts) == {"a metal thing", "a rubber thing"} and not (record.masks[0] & record.masks[1]).any()
        )
    with pytest.raises(DatasetError, match="unknown kind of attribute 'colour': did you mean 'color'"):
        datasets.load("attributes", kinds=["colour"])


def test_paintings_never_name_their_emotion():
    whole = datasets.load("paintings", 12, size=32)
    assert whole.classes == EMOTIONS and len({record.label for record in whole}) > 3
    for record in whole:
        assert len(set(record.texts)) == 5 and sum(record.facts["posterior"].values()) == pytest.approx(1)
        assert not any(emotion in text for emotion in EMOTIONS for text in record.texts)


def test_faces_show_one_of_the_two_moods_asked_for():
    whole = datasets.load("faces", 12, size=48)
    assert whole.classes == MOODS and {record.label for record in whole} == {0, 1}
    for record in whole:
        assert record.texts == ("a happy face", "a sad face") and record.masks is None
        mouth, eyes = record.parts["mouth"], record.parts["eyes"]
        assert mouth.any() and eyes.any() and not (mouth & eyes).any()
        assert np.flatnonzero(mouth.any(1)).mean() > np.flatnonzero(eyes.any(1)).mean()


def test_a_record_of_several_labels_has_no_single_one():
    record = datasets.load("scenes", 1, size=40)[0]
    with pytest.raises(DatasetError, match=r"scene 0-0 has \d labels, expected one"):
        record.label  # noqa: B018
