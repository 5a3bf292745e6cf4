"""Scenes with phrases that name one object each, the same for a seed; a user's photos."""

import numpy as np
import pytest
from PIL import Image

from clip_explain import datasets
from clip_explain.embedded.scenes.world import COLORS, SHAPES
from clip_explain.errors import DatasetError, ImageError, TextError


def test_scenes_ask_for_objects_that_are_there():
    records = list(datasets.scenes(4, seed=5, size=56))
    for record in records:
        assert record.image.size == (56, 56) and record.masks.shape == (len(record.texts), 56, 56)
        assert 2 <= len(set(record.texts)) == len(record.texts) <= 5
        assert (record.masks.sum(axis=(1, 2)) >= 50 / 16).all()
        assert record.masks.sum(axis=0).max() == 1  # visible masks do not overlap
        for article, color, shape in (text.split() for text in record.texts):
            assert article == "a" and color in COLORS and shape in SHAPES
    assert len({record.id for record in records}) == 4


def test_the_phrase_names_the_colour_under_its_mask():
    """A red object is more red than blue or green there, and so on, in the mean over its pixels."""
    names = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for record in datasets.scenes(6, seed=1, size=56):
        for text, mask in zip(record.texts, record.masks, strict=True):
            if text.split()[1] in names:
                assert np.asarray(record.image)[mask].mean(axis=0).argmax() == names[text.split()[1]]
                checked += 1
    assert checked


def test_a_record_about_some_of_its_texts():
    record = next(iter(datasets.scenes(1, seed=5, size=56)))
    last = record.about({record.texts[-1], "no such text"})
    assert last.texts == record.texts[-1:] and last.id == record.id and last.image is record.image
    np.testing.assert_array_equal(last.masks, record.masks[-1:])
    none = record.about(())
    assert none.texts == () and none.masks.shape == (0, 56, 56)


def test_scenes_are_the_same_for_a_seed_whatever_the_count():
    first, again, other = (list(datasets.scenes(n, seed, size=32)) for n, seed in ((1, 0), (2, 0), (1, 1)))
    assert first[0].texts == again[0].texts and np.array_equal(first[0].image, again[0].image)
    assert not np.array_equal(first[0].image, other[0].image)


def test_read_checks_at_once():
    with pytest.raises(DatasetError, match="did you mean 'scenes'"):
        datasets.read("scene", 3)
    with pytest.raises(DatasetError, match="got 0 images"):
        datasets.read("scenes", 0)


def test_photos_of_a_path_a_list_and_a_folder(tmp_path):
    for name in ("b.png", "a.JPG"):
        Image.new("RGB", (5, 4), "red").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    folder = datasets.photos(tmp_path, "a dog")
    assert [record.id for record in folder] == ["a.JPG", "b.png"]
    assert folder[0].texts == ("a dog",) and folder[0].masks is None and folder[0].image.size == (5, 4)
    assert datasets.photos(str(tmp_path / "b.png"), ["a dog", "a cat"])[0].texts == ("a dog", "a cat")
    assert len(datasets.photos([tmp_path / "b.png"] * 2, ["a dog"])) == 2


def test_photos_that_are_not_there(tmp_path):
    with pytest.raises(DatasetError, match="no images in"):
        datasets.photos(tmp_path, "a dog")
    with pytest.raises(ImageError, match="no image at"):
        datasets.photos(tmp_path / "none", "a dog")
    with pytest.raises(TextError, match="at least one text"):
        datasets.photos(tmp_path, [])


def test_how_classes_are_put_as_texts():
    data = datasets.Dataset("voc", ("dog", "diningtable"), [], lambda number: None)
    assert datasets.class_texts(data) == ("dog", "dining table")
    assert datasets.prompt_for("scenes") == "{}" and datasets.prompt_for("voc") == "a photo of the {}"
    with pytest.raises(DatasetError, match="scenes"):
        datasets.prompt_for("scene")


def test_an_image_cut_to_its_largest_object():
    masks = np.zeros((2, 6, 8), dtype=bool)
    masks[0, 1, 1] = masks[1, 2:5, 3:7] = True
    masks[1, 2, 3] = False
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    record = datasets.Record("x", Image.fromarray(pixels), ("a", "b"), masks)
    picture, inside = datasets.cut_close(record)
    np.testing.assert_array_equal(np.asarray(picture), pixels[2:5, 3:7])
    assert inside.sum() == 11 and not inside[0, 0]
    with pytest.raises(DatasetError, match="x has no object"):
        datasets.cut_close(datasets.Record("x", Image.fromarray(pixels), ()))
