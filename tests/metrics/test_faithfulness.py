"""Faithfulness of pixels and words: each metric worked by hand, each protocol against a slow literal reading of it."""

import functools
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence

import small_clip
from clip_explain import datasets
from clip_explain.directions import empty_text, targets
from clip_explain.errors import MethodError, TensorError
from clip_explain.explainers import METHODS
from clip_explain.images import preprocess
from clip_explain.maps import resize
from clip_explain.metrics.faithfulness import (
    AREAS,
    PROTOCOLS,
    auc,
    auc_until,
    confidence,
    curves,
    half_in_100,
    half_then_all,
    over_steps,
    perturbed_embeddings,
    rows,
    tenths,
)
from clip_explain.metrics.fills import FILLS, blur, fill
from clip_explain.metrics.pixel_order import ranks, tie_breaker, untied_share
from clip_explain.metrics.readouts import classification, cosines, finds, is_found, retrieval
from clip_explain.metrics.word_faithfulness import (
    perturbed_tokens,
    recall_among_perturbed,
    word_confidence,
    word_curves,
    word_retrieval,
)
from clip_explain.models import load
from clip_explain.models.embed import encode_text, tokenize
from clip_explain.models.model import MEAN, STD, unit
from clip_explain.request import make_word_request
from oracles import image_forward

PIXELS = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).expand(1, 3, 2, 2) / 3  # three equal colours: sums are 1, 2, 4, 8
MAP = torch.tensor([[[[0.1, 0.9], [0.5, 0.2]]]])  # so the pixels go in the order 2, 4, 8, 1


@functools.cache
def model64():
    """Two vision layers in float64, 64 px in patches of 16."""
    return small_clip.wrap(small_clip.build(torch.float64, **(small_clip.SMALL | {"vocab": 100})))


@functools.cache
def model32():
    return small_clip.wrap(small_clip.build(**small_clip.SMALL))


@functools.cache
def images64():
    return small_clip.marked(torch.cat([small_clip.pixels(seed, 64, 64) for seed in (1, 2)]).double())


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- By hand ----------------------------------------------------------------------------------------------------------


def sums(start, finish, lowest_first=False):
    """Sum of all pixels at 0, 1, ... 4 changed pixels."""
    order = ranks(MAP, (2, 2), lowest_first)
    return over_steps(lambda batch: batch.sum(dim=(1, 2, 3)), start, finish, order, [0, 1, 2, 3, 4], batch_size=3)


def test_curves_and_areas_by_hand():
    black = torch.zeros_like(PIXELS)
    deletion, insertion, negative = sums(PIXELS, black), sums(black, PIXELS), sums(PIXELS, black, lowest_first=True)
    torch.testing.assert_close(deletion, torch.tensor([[[15.0, 15 - 2, 15 - 2 - 4, 15 - 2 - 4 - 8, 0]]]))
    torch.testing.assert_close(insertion, torch.tensor([[[0.0, 2, 2 + 4, 2 + 4 + 8, 15]]]))
    torch.testing.assert_close(negative, torch.tensor([[[15.0, 15 - 1, 15 - 1 - 8, 15 - 1 - 8 - 4, 0]]]))
    assert auc(deletion).item() == pytest.approx((15 / 2 + 13 + 9 + 1 + 0 / 2) / 4)
    assert auc(insertion, "rise").item() == pytest.approx((0 / 2 + 2 + 6 + 14 + 15 / 2) / 4)


def test_area_of_each_protocol():
    assert AREAS.keys() == PROTOCOLS.keys()
    for protocol in ("grad_eclip", "grad_eclip_released", "rise"):
        assert auc(torch.ones(2, 3, 11), protocol).tolist() == [[1.0] * 3] * 2
    falling = torch.linspace(1, 0.1, 10, dtype=torch.float64)
    expected = np.trapezoid(falling.numpy(), np.arange(10) / 10) * 100  # the authors' own words
    assert auc(falling, "chefer").item() == pytest.approx(expected)
    assert expected == pytest.approx(0.9 * (1 + 0.1) / 2 * 100)


def test_area_of_the_mean_is_the_mean_of_the_areas():
    several = random(5, 11)
    torch.testing.assert_close(auc(several.mean(dim=0)), auc(several).mean())


def test_pixels_changed_at_each_step():
    assert half_in_100(224, 224)[:3] == [0, 250, 500]  # 50176 / 200 = 250.88
    assert len(half_in_100(224, 224)) == 101 and half_in_100(20, 20)[-1] == 200
    assert half_in_100(2, 2)[:6] == [0, 1, 2, 3, 4, 4]
    assert half_then_all(20, 20) == [20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 400]
    assert rows(3, 5) == [0, 5, 10, 15] and len(rows(224, 224)) == 225
    assert tenths(2, 5) == list(range(10)) and tenths(2, 2) == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_ranks_by_hand():
    assert ranks(MAP, (2, 2)).tolist() == [[[3, 0, 1, 2]]]
    assert ranks(MAP, (2, 2), lowest_first=True).tolist() == [[[0, 3, 2, 1]]]


def test_equal_pixels_go_in_raster_order():
    for lowest_first in (False, True):
        assert ranks(torch.full((3, 3), 0.1), (5, 7), lowest_first).tolist() == list(range(35))
    half = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    assert ranks(half, (2, 4)).tolist() == [4, 5, 0, 1, 6, 7, 2, 3]
    assert ranks(half, (2, 4), lowest_first=True).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_ties_are_broken_by_what_they_are_told():
    """Two pixels above zero, six tied at zero: those go by the breaker, the others stay where the map has them."""
    tied = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    breaker = torch.tensor([0.1, 0.0, 0.6, 9.0, 0.5, 0.2, 0.4, 0.3])
    highest = ranks(tied, (2, 4), breaker=breaker)
    assert highest.argsort().tolist() == [1, 3, 2, 4, 6, 7, 5, 0]
    assert ranks(tied, (2, 4), True, breaker).argsort().tolist() == [0, 5, 7, 6, 4, 2, 3, 1]
    assert torch.equal(ranks(tied, (2, 4), breaker=torch.zeros(8)), ranks(tied, (2, 4)))


def test_random_ties_are_the_images_own_and_the_same_for_all_its_maps():
    constant = torch.ones(2, 3, 4, 4)
    orders = ranks(constant, (4, 4), breaker=tie_breaker("random", 2, (4, 4), seed=5))
    assert (orders == orders[:, :1]).all() and not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[1:], ranks(constant[1:], (4, 4), breaker=tie_breaker("random", 1, (4, 4), seed=6)))
    assert orders[0, 0].sort().values.tolist() == list(range(16)) != orders[0, 0].tolist()


def test_random_ties_go_in_blots_of_a_cell():
    """In cells of 8 px, the first of four, 64 pixels, lie around one or two of the cells' middles."""
    noise = tie_breaker("random", 1, (16, 16), cell=8, seed=3)
    cells = torch.rand(2, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(noise, resize(cells[None, None], (16, 16)).flatten(-2))
    order = ranks(torch.ones(1, 1, 4, 4), (16, 16), breaker=noise).view(16, 16)
    top = divmod(int(cells.argmax()), 2)
    assert order[top[0] * 12, top[1] * 12] < 64  # the corner of the highest cell


def test_signed_ties_continue_the_map_below_zero():
    """The ReLU of a map, with ties signed, is in the order of the map itself where the resize keeps the grid."""
    signed = random(2, 3, 4, 4) - 0.7
    breaker = tie_breaker("signed", 2, (4, 4), signed=signed)
    assert torch.equal(ranks(signed.relu(), (4, 4), breaker=breaker), ranks(signed, (4, 4)))
    with pytest.raises(TensorError, match="before the ReLU"):
        tie_breaker("signed", 2, (4, 4))
    with pytest.raises(MethodError, match="ties='raste', expected one of 'random', 'raster', 'signed'"):
        tie_breaker("raste", 2, (4, 4))


def test_untied_share_by_hand():
    assert untied_share(torch.tensor([[0.0, 2.0, 0.0, 1.0]]), (1, 4)).item() == 0.5
    assert untied_share(torch.full((3, 3), 0.1), (5, 7)).item() == 0
    assert untied_share(random(2, 3, 4, 4).relu(), (4, 4)).tolist() == [[15 / 16] * 3] * 2  # but the lowest itself


def test_area_at_places_of_its_own():
    """A straight line has the same area wherever it is looked at, a step the share before it."""
    line = torch.linspace(1, 0, 101, dtype=torch.float64)
    places = [0, 1, 2, 5, 10, 40, 100]
    assert auc(line[places], at=places).item() == pytest.approx(0.5)
    assert auc(torch.tensor([1.0, 1.0, 0.0]), "grad_eclip", [0, 1, 4]).item() == pytest.approx((1 + 3 / 2) / 4)
    for bad in ([0, 1], [0, 2, 1], [0, 1, 1]):
        with pytest.raises(TensorError, match="3 rising numbers"):
            auc(torch.ones(3), at=bad)


def test_area_up_to_a_place_by_hand():
    """Heights 1, 0.5, 0 at 0, 0.1, 0.3: up to 0.05 the mean is 0.875, up to 0.2 the area is 0.075 + 0.0375."""
    curve, places = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), [0.0, 0.1, 0.3]
    until = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.9], dtype=torch.float64)
    got = auc_until(curve.expand(5, 3), until, places)
    assert got.tolist() == pytest.approx([0.875, 0.75, 0.1125 / 0.2, 0.125 / 0.3, 0.125 / 0.3])
    assert auc_until(curve[None], torch.zeros(1), places).isnan().all()


def test_only_the_order_of_a_map_counts():
    maps = random(2, 3, 3, 4, 4)
    assert torch.equal(ranks(maps, (4, 4)), ranks(5 * maps - 7, (4, 4)))
    assert torch.equal(ranks(maps, (4, 4)), ranks(-maps, (4, 4), lowest_first=True))
    assert torch.equal(ranks(maps, (8, 8)).sort(dim=-1).values[0, 0, 0], torch.arange(64).int())


def test_fills():
    pixels = torch.cat([small_clip.pixels(0, 16, 24)] * 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    make = partial(fill, pixels=pixels, mean=MEAN, std=STD)
    assert make("image") is pixels and not make("mean").any()
    torch.testing.assert_close(make("black") * std + mean, torch.zeros_like(pixels), atol=1e-6, rtol=0)
    noise = make("noise", seed=3) * std + mean
    assert 0 <= noise.min() < 0.01 and 0.99 < noise.max() <= 1
    assert noise.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * noise.numel()))
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(fill("noise", pixels[:1], MEAN, STD, seed=4)[0], make("noise", seed=3)[1])
    with pytest.raises(MethodError, match="name='white', expected one of 'image', 'noise', 'black', 'blur', 'mean'"):
        make("white")


def test_blur_is_rises():
    """Weights of a Gaussian cut at 4 sigma = 20 px whose tails are folded back into the 11 px of its window."""
    gauss = [math.exp(-(offset**2) / (2 * 5**2)) for offset in range(-20, 21)]
    line = [0.0] * 11
    for offset, weight in zip(range(-20, 21), gauss, strict=True):
        place = 5 + offset
        while not 0 <= place <= 10:
            place = -1 - place if place < 0 else 21 - place
        line[place] += weight / sum(gauss)
    point = torch.zeros(1, 3, 15, 17, dtype=torch.float64)
    point[0, 1, 7, 3] = 1
    expected = torch.zeros_like(point)
    for row in range(11):
        for column in range(11):
            if 3 - 5 + column >= 0:
                expected[0, 1, 7 - 5 + row, 3 - 5 + column] = line[row] * line[column]
    torch.testing.assert_close(blur(point), expected)


def test_finds_by_hand():
    """Three candidates; the embedding at three points leans from the first to the last; the second is its own."""
    candidates = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # cosines with own: 0.8, 1, 0.6; ranks 1, 0, 1
    own = torch.tensor([[[False, True, False]]])
    assert [finds(points[None, None], candidates, own, k)[0, 0].tolist() for k in (1, 2)] == [[0, 1, 0], [1, 1, 1]]
    two = torch.tensor([[[False, True, True]]])  # the better one of its own counts
    assert finds(points[None, None], candidates, two, 1)[0, 0].tolist() == [0, 1, 1]
    tie = finds(torch.tensor([[[[1.0, 0.0]]]]), candidates[[0, 0]], torch.tensor([[[True, False]]]), 1)
    assert tie.item() == 0


def test_is_found_by_hand():
    """The request has cosines 1, 0.8 and 0 with the rivals, and 0.9, 0.5 and -1 with the embedding at three points."""
    request, rivals = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    points = torch.tensor([[c, math.sqrt(1 - c * c)] for c in (0.9, 0.5, -1.0)])[None, None]
    none, first = torch.zeros(1, 1, 3, dtype=torch.bool), torch.tensor([[[True, False, False]]])
    hits = [
        [is_found(points, request, rivals, left_out, k)[0, 0].tolist() for k in (1, 2, 3)] for left_out in (none, first)
    ]
    assert hits[0] == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert hits[1] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_classification_readouts_by_hand():
    texts = torch.eye(3)[:, :2] + torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    points = torch.tensor([[1.0, 0.0], [0.6, 0.8]])[None, None]  # cosines 1, 0, 0.6 and 0.6, 0.8, 1
    found = classification(texts, torch.tensor([0]), scale=2.0, ks=(1, 2))
    values = {name: readout(points)[0, 0].tolist() for name, readout in found.items()}
    assert values["top1"] == [1, 0] and values["top2"] == [1, 0]
    assert values["score"] == pytest.approx([1, 0.6])
    e = math.exp
    expected = [e(2) / (e(2) + e(0) + e(1.2)), e(1.2) / (e(1.2) + e(1.6) + e(2))]
    assert values["probability"] == pytest.approx(expected)
    both = classification(texts, torch.tensor([[0, 2]]))["score"](points.expand(1, 2, 2, 2))
    torch.testing.assert_close(both, torch.tensor([[[1.0, 0.6], [0.6, 1.0]]]))


def test_retrieval_readouts_by_hand():
    """Image 0 with texts 0 and 1, image 1 with text 2, all in the plane at these angles; image 0 turns away."""
    place = lambda *degrees: torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])  # noqa: E731
    images, texts = place(0, 90), place(10, 30, 80)
    found = retrieval(images, texts, torch.tensor([0, 0, 1]), torch.tensor([0]), torch.tensor([[0, 1]]), ks=(1, 2))
    points = place(0, 50, 60, 170)[None, None].expand(1, 2, 4, 2)
    # TR: nearest of 10, 30, 80: 10 (own); 30 (own, at 20 against 30); 80 (at 20 against 30); 80.
    assert found["TR@1"](points)[0].tolist() == [[1, 1, 0, 0]] * 2
    assert found["TR@2"](points)[0].tolist() == [[1, 1, 1, 1]] * 2
    # IR: the other image is 80 from text 0 and 60 from text 1; image 0 is 10, 40, 50, 160 and 30, 20, 30, 140 away.
    assert found["IR@1"](points)[0].tolist() == [[1, 1, 1, 0]] * 2
    assert found["IR@2"](points)[0].tolist() == [[1, 1, 1, 1]] * 2


# --- The protocols, literally -----------------------------------------------------------------------------------------


def literal_images(image, map_, protocol, mode, seed):
    """One image changed pixel by pixel, as each paper or its code describes it; a list of images."""
    height, width = image.shape[1:]
    area = height * width
    heat = F.interpolate(map_[None, None], size=(height, width), mode="bilinear", align_corners=False).flatten()
    values = [-value for value in heat.tolist()] if mode == "negative" else heat.tolist()
    order = sorted(range(area), key=lambda i: -values[i])
    mean, std = (torch.tensor(v, dtype=image.dtype)[:, None, None] for v in (MEAN, STD))
    black = (0 - mean).expand_as(image) / std
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed)).to(image.dtype)
    ends = {
        ("grad_eclip", "deletion"): (image, (noise - mean) / std),
        ("grad_eclip", "insertion"): (black, image),
        ("rise", "deletion"): (image, torch.zeros_like(image)),
        ("rise", "insertion"): (blur(image[None])[0], image),
    }
    now, then = ends.get((protocol.removesuffix("_released"), mode), (image, black))
    now, found, changed = now.clone(), [now.clone()], 0
    if protocol == "chefer":
        goals = [int(area * share) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    elif protocol == "rise":
        goals = range(width, area + 1, width)
    else:
        goals = [step * max(1, int(area / 200)) for step in range(1, 101)]
    for goal in goals:
        for index in order[changed:goal]:
            now[:, index // width, index % width] = then[:, index // width, index % width]
        changed = goal
        found.append(now.clone())
    if protocol == "grad_eclip_released":
        return found[::10] if mode == "deletion" else [*found[10::10], image]
    return found


@pytest.mark.parametrize(
    "protocol, mode", [(protocol, mode) for protocol, modes in PROTOCOLS.items() for mode in modes]
)
def test_protocol_is_the_literal_one(protocol, mode):
    model, images, maps = model64(), images64(), random(2, 2, 4, 4)
    texts = unit(random(3, 64, seed=1) - 0.5)
    readouts = classification(texts, torch.tensor([0, 2]))
    got = curves(model, images, maps, readouts, protocol, mode, batch_size=64, ties="raster", seed=5)
    state = model.network.state_dict()
    for i, j in [(0, 1), (1, 0)]:
        steps = literal_images(images[i], maps[i, j], protocol, mode, 5 + i)
        embedded = unit(torch.stack([image_forward(state, image, native=2)[1].detach() for image in steps]))
        scores, label = embedded @ texts.T, (0, 2)[i]
        torch.testing.assert_close(got["score"][i, j], scores[:, label])
        torch.testing.assert_close(got["probability"][i, j], (100 * scores).softmax(dim=1)[:, label])
        assert got["top1"][i, j].tolist() == (scores.argmax(dim=1) == label).tolist()


def test_batches_and_calls_do_not_change_curves():
    """Nor the maps of other images or methods beside it, when the seed is counted on."""
    model, images, maps = model64(), images64(), random(2, 3, 4, 4)
    whole = perturbed_embeddings(model, images, maps, every=25, seed=7)
    assert whole.shape == (2, 3, 5, 64)
    torch.testing.assert_close(perturbed_embeddings(model, images, maps, every=25, seed=7, batch_size=7), whole)
    alone = perturbed_embeddings(model, images[1:], maps[1:, 1:2], every=25, seed=8)
    torch.testing.assert_close(alone, whole[1:, 1:2])
    every = perturbed_embeddings(model, images[:1], maps[:1, :1], seed=7)
    torch.testing.assert_close(every[:, :, ::25], whole[:1, :1])


def test_a_perturbed_image_ends_where_it_should():
    """Deletion starts from, and RISE's insertion ends at, the image itself; all maps agree there."""
    model, images, maps = model64(), images64(), random(2, 2, 4, 4)
    own = model.embed_images(images)[:, None].expand(2, 2, 64)
    for protocol, mode, point in [("grad_eclip", "deletion", 0), ("rise", "insertion", -1), ("chefer", "negative", 0)]:
        torch.testing.assert_close(perturbed_embeddings(model, images, maps, protocol, mode)[:, :, point], own)


def test_perturbed_images_themselves():
    """With another function in the model's place; embedded, they are what the model makes of them."""
    model, images, maps = model64(), images64(), random(2, 2, 4, 4)
    changed = perturbed_embeddings(model, images, maps, "chefer", "positive", embed=torch.clone)
    assert changed.shape == (2, 2, 10, 3, 64, 64) and torch.equal(changed[:, 0, 0], images)
    embedded = perturbed_embeddings(model, images, maps, "chefer", "positive")
    torch.testing.assert_close(model.embed_images(changed[1, 1]), embedded[1, 1])


def test_points_and_fills_of_ones_own():
    """The points looked at are those of the whole curve; a fill takes the place of the one end that is no image."""
    model, images, maps = model64(), images64(), random(2, 2, 4, 4)
    whole = perturbed_embeddings(model, images, maps, "chefer", "positive")
    some = perturbed_embeddings(model, images, maps, "chefer", "positive", at=[0, 1, 2, 5, 9])
    torch.testing.assert_close(some, whole[:, :, [0, 1, 2, 5, 9]])
    for name in FILLS:
        filled = model.embed_images(fill(name, images, model.mean, model.std, seed=3))
        emptied = perturbed_embeddings(model, images, maps, "rise", "deletion", at=[0, 64], filled=name, seed=3)
        start = perturbed_embeddings(model, images, maps, "rise", "insertion", at=[0, 64], filled=name, seed=3)
        torch.testing.assert_close(emptied[:, :, 1], filled[:, None].expand(2, 2, 64))
        torch.testing.assert_close(start[:, :, 0], filled[:, None].expand(2, 2, 64))


def test_ties_move_a_curve_only_behind_the_untied_share():
    """A quarter of the pixels is in order: up to there all ways agree, and behind it they differ."""
    model, images = model64(), images64()
    maps = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    maps[..., :16, :] = 1 + random(2, 1, 16, 64)
    signed = torch.where(maps > 0, maps, -random(2, 1, 64, 64, seed=1))
    made = partial(perturbed_embeddings, model, images, maps, at=[0, 50, 100], signed=signed)
    random_ties, raster, by_sign = (made(ties=ties) for ties in ("random", "raster", "signed"))
    assert untied_share(maps, (64, 64)).flatten().tolist() == [0.25, 0.25]
    for other in (raster, by_sign):
        torch.testing.assert_close(other[:, :, :2], random_ties[:, :, :2])
        assert not torch.allclose(other[:, :, 2], random_ties[:, :, 2])


def test_other_sizes_and_half_precision():
    """An oblong image in bf16, with a map in fp16 on a grid of its own."""
    model = small_clip.wrap(small_clip.half(small_clip.build(**small_clip.SMALL), torch.bfloat16))
    pixels = small_clip.pixels(3, 32, 96).to(torch.bfloat16)
    found = perturbed_embeddings(model, pixels, random(1, 1, 3, 5).half(), "rise", "insertion")
    assert found.shape == (1, 1, 33, 64) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, 1, 33))


BAD = [
    (dict(protocol="gradeclip"), MethodError, "did you mean 'grad_eclip'"),
    (dict(protocol="chefer"), MethodError, "no mode 'deletion'.*positive, negative"),
    (dict(every=3), MethodError, "divisor of the 100 steps"),
    (dict(every=0), MethodError, "every=0"),
    (dict(at=[0, 101]), MethodError, "rising numbers from 0 to 100"),
    (dict(at=[5, 5]), MethodError, "rising numbers"),
    (dict(ties="alphabetic"), MethodError, "ties='alphabetic'"),
    (dict(ties="signed"), TensorError, "before the ReLU"),
    (dict(filled="white"), MethodError, "filled='white'"),
    (dict(batch_size=0), MethodError, "batch_size=0"),
    (dict(maps=torch.full((1, 1, 2, 2), torch.nan)), TensorError, "NaN"),
    (dict(maps=torch.ones(2, 1, 2, 2)), TensorError, r"expected a Float Tensor \(images, maps, grid_h, grid_w\)"),
    (dict(maps=torch.ones(1, 2, 2)), TensorError, r"expected a Float Tensor \(images, maps, grid_h, grid_w\)"),
    (dict(maps=torch.ones(1, 0, 2, 2)), TensorError, "as many as images"),
    (dict(pixels=torch.ones(1, 3, 20, 20)), TensorError, "multiples of 16"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(pixels=small_clip.pixels(0, 64, 64), maps=torch.ones(1, 1, 2, 2)) | change
    with pytest.raises(error, match=message):
        perturbed_embeddings(model32(), **arguments)


def test_bad_readouts_and_curves():
    texts = torch.eye(3)
    with pytest.raises(TensorError, match="labels.*0 to 2"):
        classification(texts, torch.tensor([3]))
    with pytest.raises(TensorError, match="belong to other images"):
        retrieval(texts, texts, torch.tensor([0, 1, 2]), torch.tensor([1]), torch.tensor([[0]]))
    with pytest.raises(TensorError, match="image_of"):
        word_retrieval(texts, texts, torch.tensor([0, 1, 3]), torch.tensor([1]))
    with pytest.raises(TensorError, match="without any candidate"):
        finds(texts[None, None], texts, torch.zeros(1, 1, 3, dtype=torch.bool), 1)
    with pytest.raises(MethodError, match="k=0"):
        classification(texts, torch.tensor([0]), ks=(0,))["top0"](texts[None, None])
    with pytest.raises(TensorError, match="at least two points"):
        auc(torch.ones(4, 1))
    with pytest.raises(TensorError, match="finite"):
        auc(torch.tensor([1.0, torch.nan]))
    with pytest.raises(MethodError, match="unknown protocol"):
        auc(torch.ones(2), "area")


# --- Confidence -------------------------------------------------------------------------------------------------------


def test_confidence_against_the_grad_cam_package():
    """M2IB's own evaluation calls these two."""
    model, images = model32(), images64().float()
    maps, directions = random(2, 3, 64, 64, dtype=torch.float32), unit(random(2, 3, 64, seed=1).float() - 0.5)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    scaled = ((maps - low) / (high - low)).numpy()
    got = confidence(model, images, maps, directions, batch_size=3)
    assert got["drop"].shape == (2, 3) and 0 < got["increase"].mean() < 1
    for j in range(3):
        goals = [lambda output, d=d: output @ d / output.norm() for d in directions[:, j]]
        arguments = (images, scaled[:, j], goals, model.network.encode_image)
        torch.testing.assert_close(
            got["drop"][:, j], torch.from_numpy(DropInConfidence()(*arguments)), atol=1e-5, rtol=0
        )
        assert got["increase"][:, j].tolist() == IncreaseInConfidence()(*arguments).tolist()


def test_confidence_of_degenerate_maps():
    """A constant map hides all; one that is 1 but at a far pixel nothing much."""
    model, images = model32(), images64()[:1].to(torch.float32)
    directions = unit(model.network.encode_image(images))[:, None]
    hidden = unit(model.network.encode_image(torch.zeros_like(images)))
    got = confidence(model, images, torch.ones(1, 1, 4, 4), directions)
    assert got["drop"].item() == pytest.approx(1 - (hidden @ directions[0].T).item(), abs=1e-5)
    whole = torch.ones(1, 1, 64, 64)
    whole[..., 0, 0] = 0
    assert confidence(model, images, whole, directions)["drop"].item() < 0.2 * got["drop"].item()
    with pytest.raises(TensorError, match="NaN"):
        confidence(model, images, torch.full((1, 1, 4, 4), torch.nan), directions)


# --- Words ------------------------------------------------------------------------------------------------------------

TEXTS = ["a red cube behind a ball", "two dogs"]
WEIGHTS = {"a": 0.1, "red": 0.9, "cube": 0.5, "behind": -0.2, "ball": 0.3, "two": 0.1, "dogs": 0.1}


@functools.cache
def word_query():
    return make_word_request(model32(), images64()[:1].to(torch.float32), TEXTS)


def word_weights(request=None, texts=TEXTS):
    """Raw weights of `texts`, one token a word; the start and end weigh most and must not count."""
    request = request or word_query()
    weights = torch.zeros(len(texts), len(request.targets), int(request.tokens.argmax(dim=-1).max()) + 1)
    for row, text in zip(weights, texts, strict=True):
        values = [9.0, *(WEIGHTS[word] for word in text.split()), 9.0]
        row[:, : len(values)] = torch.tensor(values)
    return weights


def texts_of(tokens, model=None):
    model = model or model32()
    inner = (row[1 : int(row.argmax())].tolist() for row in tokens)
    return ["".join(model.tokenizer.decoder[number] for number in row).replace("</w>", " ").strip() for row in inner]


def test_recall_among_perturbed_texts_by_hand():
    """Two images at 0 and 90 degrees, texts 0 and 1 of the first and 2 of the second; one method, three points."""
    place = lambda *degrees: torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])  # noqa: E731
    texts = torch.stack([place(10, 60, 45), place(20, 20, 45), place(80, 30, 45)])[:, None]
    found = recall_among_perturbed(texts, place(0, 90), torch.tensor([0, 0, 1]))
    # Nearest image: 0, 1, 2 keep theirs at 10, 20, 80; at the second point text 0 is nearer to 90, text 2 to 0.
    assert found["IR"][:, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    # Image 0 at the second point: text 2 at 30 beats text 0 at 60, not text 1 at 20; image 1 has text 0 at 30 from it.
    assert found["TR"][:, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    with pytest.raises(TensorError, match="image_of"):
        recall_among_perturbed(texts, place(0, 90), torch.tensor([0, 0, 2]))


def test_recall_of_one_perturbed_text_is_that_of_readouts():
    """IR is what `word_retrieval` says; TR too where the other texts are left whole."""
    images, texts = unit(random(4, 8) - 0.5), unit(random(4, 2, 3, 8, seed=1) - 0.5)
    texts[1:] = texts[1:, :, :1]  # only the first text changes
    found = recall_among_perturbed(texts, images, torch.arange(4))
    read = word_retrieval(images, texts[:, 0, 0], torch.arange(4), torch.tensor([0]), (1,))
    assert torch.equal(found["IR"][:1, :1], read["IR@1"](texts[:1, :1]))
    assert torch.equal(found["TR"][:1, :1], read["TR@1"](texts[:1, :1]))


def test_words_of_equal_weight_go_by_lot():
    """ "two dogs" weigh the same: over ten seeds each is dropped first, by the same lot whatever stands beside them."""
    first = [texts_of(perturbed_tokens(word_query(), word_weights(), steps=1, seed=s)[1, 0])[1] for s in range(10)]
    assert set(first) == {"two", "dogs"}
    alone = make_word_request(model32(), images64()[:1].to(torch.float32), TEXTS[1:])
    for seed in range(10):
        dropped = perturbed_tokens(alone, word_weights(alone, TEXTS[1:]), steps=1, seed=seed + 1)
        assert texts_of(dropped[0, 0])[1] == first[seed]
    with pytest.raises(MethodError, match="ties='raster', expected one of 'random', 'reading'"):
        perturbed_tokens(word_query(), word_weights(), ties="raster")


def test_words_deleted_and_inserted_by_hand():
    """Heaviest first: red, cube, ball, then the first "a" before the second, then behind. The short text runs out."""
    deleted = perturbed_tokens(word_query(), word_weights(), "deletion", ties="reading")
    assert deleted.shape == (2, 1, 6, 77)
    assert texts_of(deleted[0, 0]) == [
        "a red cube behind a ball",
        "a cube behind a ball",
        "a behind a ball",
        "a behind a",
        "behind a",
        "behind",
    ]
    assert texts_of(deleted[1, 0]) == ["two dogs", "dogs", "", "", "", ""]
    inserted = perturbed_tokens(word_query(), word_weights(), "insertion", ties="reading")
    assert texts_of(inserted[0, 0]) == ["", "red", "red cube", "red cube ball", "a red cube ball", "a red cube a ball"]
    assert texts_of(inserted[1, 0]) == ["", "two", "two dogs", "two dogs", "two dogs", "two dogs"]
    assert torch.equal(deleted[0, 0, 1], tokenize(model32(), "a cube behind a ball")[0])


def test_a_word_of_several_tokens_goes_as_one():
    request = make_word_request(model32(), images64()[:1].to(torch.float32), "a grad-eclip zebracorn, here")
    tokens = request.tokens[0].tolist()
    names = [request.model.tokenizer.decoder[number] for number in tokens[1 : request.tokens.argmax()]]
    ends = [index for index, name in enumerate(names) if name.endswith("</w>")]
    assert len(ends) < len(names)
    last_word_of_several = next(e for b, e in zip([-1, *ends], ends, strict=False) if e - b > 1)
    weights = torch.full((1, 1, len(names) + 2), 0.5)
    weights[0, 0, 1:-1] = torch.tensor([0.5 if name.endswith("</w>") else 0.4 for name in names])
    gone = perturbed_tokens(request, weights, steps=1)[0, 0, 1]
    sums = [sum(weights[0, 0, 1:-1][b + 1 : e + 1].tolist()) for b, e in zip([-1, *ends], ends, strict=False)]
    heaviest = sums.index(max(sums))
    begin = ([-1, *ends])[heaviest]
    assert ends[heaviest] >= last_word_of_several
    assert int(gone.argmax()) == len(names) + 1 - (ends[heaviest] - begin)


def test_word_curves_are_those_of_the_texts():
    request, texts = word_query(), unit(random(4, 64, seed=2).float() - 0.5)
    readouts = {"score": partial(cosines, directions=texts[:2, None])}
    for mode in ("deletion", "insertion"):
        got = word_curves(request, word_weights(), readouts, mode, steps=3, batch_size=3)["score"]
        assert got.shape == (2, 1, 4)
        for t in range(2):
            for point, text in enumerate(texts_of(perturbed_tokens(request, word_weights(), mode, 3)[t, 0])):
                embedded = encode_text(model32(), text)[0] if text else empty_text(model32())[0]
                assert got[t, 0, point].item() == pytest.approx((embedded @ texts[t]).item(), abs=1e-5)


def test_word_retrieval_by_hand():
    """Image 0 at 0 degrees has texts 0 and 1, image 1 at 90 has text 2; text 0 turns from its image to the other."""
    place = lambda *degrees: torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])  # noqa: E731
    images, texts = place(0, 90), place(10, 5, 70)
    found = word_retrieval(images, texts, torch.tensor([0, 0, 1]), torch.tensor([0]), ks=(1, 2))
    points = place(10, 40, 60, 120)[None, None]
    assert found["IR@1"](points)[0, 0].tolist() == [1, 1, 0, 0]  # 45 degrees is half way
    assert found["IR@2"](points)[0, 0].tolist() == [1, 1, 1, 1]
    assert found["TR@1"](points)[0, 0].tolist() == [1, 1, 1, 0]  # against 70 degrees; text 1, at 5, does not count
    assert found["TR@2"](points)[0, 0].tolist() == [1, 1, 1, 1]


def test_every_word_explainer_goes_in():
    request = word_query()
    readouts = word_retrieval(
        unit(random(3, 64).float()), unit(random(2, 64).float()), torch.tensor([0, 1]), torch.tensor([0, 1])
    )
    for name in ("self_attention", "rollout", "leave_one_out"):
        got = word_curves(request, METHODS[name].words(request), readouts)
        assert {tuple(curve.shape) for curve in got.values()} == {(2, 1, 6)} and len(got) == 6


def test_word_confidence_keeps_the_upper_half():
    """0.1 0.9 0.5 -0.2 0.1 0.3: the median is 0.2, so red, cube and ball stay. Of two equal words none does."""
    request, model = word_query(), model32()
    got = word_confidence(request, word_weights())
    kept = torch.cat([encode_text(model, "red cube ball"), empty_text(model)]) @ request.targets.T
    whole = encode_text(model, TEXTS) @ request.targets.T
    torch.testing.assert_close(got["drop"], (whole - kept).clamp_min(0), atol=1e-5, rtol=0)
    assert torch.equal(got["increase"], (kept > whole).float())


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(mode="delete"), MethodError, "did you mean 'deletion'"),
        (dict(steps=0), MethodError, "steps=0"),
        (dict(weights=torch.full((2, 1, 9), torch.nan)), TensorError, "NaN"),
        (dict(weights=torch.ones(2, 1, 4)), TensorError, "expected"),
        (dict(weights=torch.ones(3, 1, 9)), TensorError, "expected"),
    ],
)
def test_bad_words(change, error, message):
    arguments = dict(weights=word_weights(), readouts={}) | change
    with pytest.raises(error, match=message):
        word_curves(word_query(), **arguments)


# --- What the metrics are for -----------------------------------------------------------------------------------------


def test_the_true_mask_is_more_faithful_than_chance_and_than_its_inverse():
    """On tiny-vit: deleting the pixels of what a text names lowers the cosine, inserting them raises it.

    Chance is a random map on the patches: noise in single pixels all over the image destroys more than in patches.
    """
    model, areas = load("tiny-vit", device="cpu"), []
    for index, record in enumerate(datasets.scenes(4, seed=31)):
        pixels, mask = preprocess(model, record.image), torch.from_numpy(record.masks[:1]).double()
        chance = resize(random(1, 14, 14, seed=index), mask.shape[1:])
        maps = torch.stack([mask, chance, 1 - mask], dim=1)
        readout = {"score": partial(cosines, directions=targets(model, record.texts[0])[None])}
        found = partial(curves, model, pixels, maps, readout, seed=index)
        each = [
            auc(found("grad_eclip", "deletion", every=50)["score"]),
            auc(found("grad_eclip", "insertion", every=50)["score"]),
            auc(found("chefer", "positive", every=3)["score"], "chefer"),
        ]
        areas.append(torch.cat(each))
    deletion, insertion, positive = torch.stack(areas).mean(dim=0)
    assert deletion[0] < deletion[1:].min() and positive[0] < positive[1:].min()
    assert insertion[0] > insertion[2]
