"""What a model is asked about records: the same as `explain` gives, on a small random CLIP; rows worked by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

import clip_explain as cx
import small_clip
from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.errors import DatasetError
from clip_explain.papers import Contender
from clip_explain.request import make_request

NEAR = {"rtol": 1e-4, "atol": 1e-6}
PICTURES = [Image.effect_noise((64, 64), 50 + number).convert("RGB") for number in range(2)]
RECORDS = [Record("x", PICTURES[0], ("a cube", "a ring")), Record("y", PICTURES[1], ("a ring",))]
NAMES = ["a ring", "a cone", "a cube"]


@pytest.fixture(scope="module")
def model():
    return small_clip.wrap(small_clip.build(**small_clip.SMALL))


def explained(model, image, texts, method):
    return cx.explain(model, image, texts, method, fit="squash").maps[0]


@pytest.mark.parametrize("method", ["itsm", "game"])
def test_maps_of_records_are_those_of_explain(model, method):
    found = papers.maps_of_records(model, ["itsm", "game"], RECORDS, NAMES, "{}", "squash")[method]
    for maps, record in zip(found, RECORDS, strict=True):
        torch.testing.assert_close(maps, explained(model, record.image, list(record.texts), method), **NEAR)


def test_maps_of_other_texts_than_the_records_own(model):
    asked = [["a cone"], ["a cube"]]
    found = papers.maps_of_records(model, ["itsm"], RECORDS, NAMES, "{}", "squash", asked)["itsm"]
    for maps, picture, texts in zip(found, PICTURES, asked, strict=True):
        torch.testing.assert_close(maps, explained(model, picture, texts, "itsm"), **NEAR)


def test_texts_of_classes_that_an_image_lacks():
    shown = [
        Record("x", PICTURES[0], ("a cube", "a ring"), labels=(2, 0)),
        Record("y", PICTURES[1], ("a ring",), labels=(0,)),
    ]
    assert papers.absent_texts(shown[:1], NAMES, 0) == [["a cone", "a cone"]]
    drawn = [papers.absent_texts(shown, NAMES, seed)[1] for seed in range(20)]
    assert {text for (text,) in drawn} == {"a cone", "a cube"}
    assert drawn == [papers.absent_texts(shown, NAMES, seed)[1] for seed in range(20)]
    every = Record("z", PICTURES[0], ("a ring",), labels=(0, 1, 2))
    with pytest.raises(DatasetError, match="z shows all of the 3 classes"):
        papers.absent_texts([every], NAMES, 0)


def test_maps_of_own_texts_and_of_strange_ones(model):
    strange = [["a cone", "a cone"], ["a cube"]]
    own, another = papers.maps_of_own_and_strange(model, ["itsm"], RECORDS, strange, NAMES, "{}", "squash")
    for number, record in enumerate(RECORDS):
        for found, texts in ((own, list(record.texts)), (another, strange[number])):
            torch.testing.assert_close(found["itsm"][number], explained(model, record.image, texts, "itsm"), **NEAR)


def test_maps_of_images_in_batches(model):
    directions = cx.targets(model, NAMES)
    found = papers.maps_of_images(model, ["itsm", "game"], PICTURES * 2, directions, "squash", batch_size=3)
    assert found["game"].shape == (4, 3, 4, 4)
    for maps, picture in zip(found["game"], PICTURES * 2, strict=True):
        torch.testing.assert_close(maps, explained(model, picture, NAMES, "game"), **NEAR)


def test_scores_of_records(model):
    scores = papers.scores_of_records(model, RECORDS, NAMES, "{}", "squash")
    expected = cx.explain(model, PICTURES[1], NAMES, "itsm", fit="squash").scores[0]
    torch.testing.assert_close(scores[1], expected, **NEAR)


def test_two_kinds_of_target_and_who_is_asked_for_them(model):
    known = papers.towards(model, ["a cube", "a ring"], {"a cube": PICTURES[1]})
    torch.testing.assert_close(known["texts"]["a ring"], cx.targets(model, "a ring")[0], **NEAR)
    torch.testing.assert_close(known["images"]["a cube"], cx.targets(model, PICTURES[1])[0], **NEAR)
    found = papers.asked_of(RECORDS, known)
    assert [(each.id, each.texts) for each in found["texts"]] == [("x", ("a cube", "a ring")), ("y", ("a ring",))]
    assert [(each.id, each.texts) for each in found["images"]] == [("x", ("a cube",))]
    assert set(papers.asked_of(RECORDS, {**known, "images": {}})) == {"texts"}


def test_maps_of_many_methods_and_their_seconds(model):
    """Each row is that method's own map; what is drawn depends on the row's name, the image and the seed."""
    request = make_request(model, PICTURES[0], ["a cube"], "squash")
    methods = {"game": Contender("game"), "pairs": Contender("fixlip", {"images": 8})}
    methods |= {"one": Contender("random"), "two": Contender("random")}
    found, seconds = papers.timed_maps(request, ["a cube"], methods, "x", 0)
    torch.testing.assert_close(found["game"], explained(model, PICTURES[0], "a cube", "game"), **NEAR)
    assert found["pairs"].shape == (1, 4, 4)
    assert not torch.equal(found["one"], found["two"])
    again, _ = papers.timed_maps(request, ["a cube"], methods, "x", 0)
    assert torch.equal(found["one"], again["one"])
    other, _ = papers.timed_maps(request, ["a cube"], methods, "y", 0)
    assert not torch.equal(found["one"], other["one"])
    assert set(seconds) == {"encode_image", *methods} and min(seconds.values()) >= 0


def test_grids_of_four_pictures(model):
    """Four pictures of different texts, in the order in which they come; the third has a text that is there already."""
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "white": (255, 255, 255)}
    plain = [Record(name, Image.new("RGB", (64, 64), value), (name,)) for name, value in colours.items()]
    pictures = [*plain[:2], plain[0], *plain[2:], *plain]
    (first, pixels), (second, _) = papers.grids_of_four(model, pictures, 2)
    assert (first.texts, first.facts, second.texts, second.facts) == (("red",), {"cell": 0}, ("blue",), {"cell": 1})
    assert pixels.shape == (1, 3, 64, 64)
    shown = np.asarray(first.image)[[16, 16, 48, 48], [16, 48, 16, 48]]
    np.testing.assert_allclose(shown, list(colours.values()), atol=1)
    with pytest.raises(DatasetError, match="enough for 2 grids of four texts, expected 3"):
        papers.grids_of_four(model, pictures, 3)


# -- rows by hand: of two maps of four pixels one lies on its object, one a quarter on its own, the rest on the other's

MASKS = np.array([[[True, False], [False, False]], [[False, True], [True, True]]])
MASKED = Record("x", Image.new("RGB", (2, 2)), ("a cube", "a ring"), MASKS)
MAPS = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[3.0, 1.0], [0.0, 0.0]]])


def test_metrics_of_maps_on_masks():
    rows = papers.localized([MASKED], "game", [MAPS], ["pointing_game", "energy_pointing_game"], "s")
    values = papers.long_table(rows).set_index(["metric", "target"])["value"]
    assert values["pointing_game"].tolist() == [1.0, 0.0]
    assert values["energy_pointing_game"].tolist() == [1.0, 0.25]
    assert {row["setting"] for row in rows} == {"s"}
    ignoring = Record("x", MASKED.source, MASKED.texts, MASKS, ignore=np.array([[False, True], [False, False]]))
    rows = papers.localized([ignoring], "game", [MAPS], ["energy_pointing_game"])
    assert [row["value"] for row in rows] == [1.0, 0.0]


def test_energy_on_the_own_object_less_that_on_others():
    rows = papers.own_less_others([MASKED, MASKED.about(["a cube"])], "game", [MAPS, MAPS[:1]])
    assert [(row["image"], row["value"]) for row in rows] == [("x", (1 + 0.25) / 2 - (0 + 0.75) / 2)]


def test_tokens_of_an_image_in_two_spaces(model):
    """The class token, projected, is the model's own embedding but for its length."""
    spaces, mask, grid = papers.patch_features(model, PICTURES[0])
    assert grid == (4, 4) and mask.shape == (1, 16)
    own = cx.encode_image(model, cx.pixels(model, PICTURES[0], "squash"))
    torch.testing.assert_close(torch.nn.functional.normalize(spaces["embedding"][:, 0], dim=-1), own, **NEAR)
    assert spaces["features"].shape[:2] == (1, 17)
