"""Methods called by the names of the long table: what a name spells, and maps held against the methods themselves."""

import numpy as np
import pytest
import torch
from PIL import Image

import small_clip
from clip_explain import datasets, papers
from clip_explain.datasets import Record, embedded
from clip_explain.errors import DatasetError, MethodError
from clip_explain.explainers import METHODS
from clip_explain.models.model import unit
from clip_explain.papers.variants import SIXTY
from clip_explain.request import Request, make_word_request
from clip_explain.sweep.measures import maps_of


@pytest.fixture(scope="module")
def request_():
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL | {"vlayers": 11}))  # M2IB reads the tenth
    return Request(model, small_clip.marked(small_clip.pixels(1, 64, 64)), directions(2))


def directions(count: int, seed: int = 1) -> torch.Tensor:
    return unit(torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)) - 0.5)


def test_what_a_name_spells():
    assert papers.variant("game") == ("game", {})
    assert papers.variant("grad_eclip heads=native layers=3") == ("grad_eclip", {"heads": "native", "layers": 3})
    for wrong in ("grad_eclip native", "grad_eclip heads=", "grad_eclip =native"):
        with pytest.raises(MethodError, match="expected options as key=value"):
            papers.variant(wrong)


def test_maps_are_those_of_the_methods(request_):
    """A name's own options count, and further ones beside them; noise is drawn by the seed."""
    names = ["grad_eclip spatial=none", "m2ib", "random"]
    found = papers.maps_by_name(request_, names, {"m2ib": {"samples": 2, "steps": 2}}, seed=5)
    assert list(found) == names
    bare = METHODS["grad_eclip"].image(request_, spatial="none")[0]
    assert torch.equal(found["grad_eclip spatial=none"], bare)
    assert torch.equal(found["m2ib"], maps_of(request_, "m2ib", {"samples": 2, "steps": 2}, 5)[0])
    assert torch.equal(found["random"], maps_of(request_, "random", seed=5)[0])
    assert not torch.equal(found["random"], papers.maps_by_name(request_, ["random"], seed=6)["random"])


def test_weights_are_those_of_the_methods(request_):
    words = make_word_request(request_.model, directions(3), "a red cone")
    found = papers.weights_by_name(words, ["grad_eclip layers=1", "rollout"], {"rollout": {"layers": 1}})
    assert torch.equal(found["grad_eclip layers=1"], METHODS["grad_eclip"].words(words, layers=1))
    assert torch.equal(found["rollout"], METHODS["rollout"].words(words, layers=1))


def test_every_released_variant_has_its_maps(request_):
    options = papers.RELEASED | {"m2ib": papers.RELEASED["m2ib"] | {"samples": 1, "steps": 1}}
    found = papers.maps_by_name(request_, list(papers.RELEASED), options)
    assert all(each.shape == (2, 4, 4) for each in found.values())


def test_maps_before_their_relu_become_the_maps(request_):
    names = ["grad_eclip", "grad_eclip spatial=none"]
    signed, maps = papers.signed_by_name(request_, names), papers.maps_by_name(request_, names)
    for name in names:
        torch.testing.assert_close(signed[name].relu(), maps[name])
        assert (signed[name] < 0).any()
    with pytest.raises(MethodError, match="got 'game'"):
        papers.signed_by_name(request_, ["game"])


def test_surgery_is_given_sixty_texts(request_):
    """Of more than 59 others the first count, for each target its own."""
    many, few = directions(70, seed=2), directions(3, seed=3)
    found = papers.surgery_among(request_, [many, few])
    for number, others in enumerate((many[: SIXTY - 1], few)):
        asked = Request(request_.model, request_.pixels, torch.cat([request_.targets[[number]], others]))
        assert torch.equal(found[number], METHODS["clip_surgery"].image(asked, normalize="tokens")[0, 0])


def test_as_released_game_explains_the_bare_name(request_):
    named = Request(request_.model, request_.pixels, directions(2, seed=4))
    found = papers.maps_as_released(request_, named, [directions(3)] * 2, m2ib_samples=1)
    assert set(found) == set(papers.RELEASED)
    assert torch.equal(found["game"], METHODS["game"].image(named, layers=1)[0])
    assert torch.equal(found["rollout"], METHODS["rollout"].image(request_, layers=1)[0])


def test_masks_as_maps():
    """Of an image of 4 x 8 the crop sees the four columns in the middle: the object covers two of them."""
    mask = np.zeros((1, 4, 8), dtype=bool)
    mask[:, :, :4] = True
    record = Record(
        "x", Image.new("RGB", (8, 4)), ("a cone",), mask, parts={"eye": mask[0], "mouth": np.eye(4, 8, 6) > 0}
    )
    assert papers.object_share(record) == 0.5 and papers.object_share(record, "full") == 0.5
    found = papers.exact_mask(record, 2)["exact mask"]
    assert found.shape == (2, 4, 4) and found[1, 0].tolist() == [1, 1, 0, 0]
    assert papers.mask_of_parts(record)["exact mask"].sum() == 16 + 2
    bare = Record("y", Image.new("RGB", (8, 4)), ("a cone",))
    assert papers.object_share(bare) == 1 and papers.exact_mask(bare) == papers.mask_of_parts(bare) == {}


def test_the_nearest_class_is_predicted(request_):
    embedded = request_.model.embed_images(request_.pixels)
    classes = torch.cat([-embedded, embedded, directions(1)])
    assert papers.predicted_class(request_.model, request_.pixels, classes) == 1


def test_large_objects_are_sought_beyond_an_embedded_sets_usual_length(monkeypatch):
    """As many as are asked for, in order; a real dataset ends, and then it is said how many there are."""
    monkeypatch.setattr(embedded, "LENGTH", 2)
    found = papers.with_large_objects("dominant_objects", 3, 0.15)
    assert len(found) == 3 and min(map(papers.object_share, found)) >= 0.15
    first = [record for record in datasets.load("dominant_objects", 12) if papers.object_share(record) >= 0.15]
    assert [record.id for record in found] == [record.id for record in first][:3] and found[-1].id != "dominant 0-2"
    with pytest.raises(DatasetError, match="has 0 images whose object covers 90% of them or more, got 1 to read"):
        papers.with_large_objects("dominant_objects", 1, 0.9)
