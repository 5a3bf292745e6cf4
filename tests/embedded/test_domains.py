"""Domains of a rendered scene: what each must keep, and what each must lose."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from clip_explain.embedded.scenes import domains
from clip_explain.embedded.scenes.raycast import render
from clip_explain.embedded.scenes.world import COLORS, Scene, sample_scene
from clip_explain.errors import DatasetError

SIZE = 96


def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(np.random.default_rng(11), count=4), SIZE, SIZE)


def eroded(mask, pixels=5):
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(pixels))) > 0


def recolored(picture):
    """The same scene with every object in another colour."""
    names = list(COLORS)
    objects = (replace(t, color=names[(names.index(t.color) + 4) % 8]) for t in picture.scene.objects)
    scene = Scene(tuple(objects), picture.scene.camera, picture.scene.lamps)
    return render(scene, *picture.ids.shape)


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_a_domain_gives_bytes_of_the_same_size_and_the_same_from_the_same_seed(domain, picture):
    image = domains.apply(picture, domain, rng())
    assert image.shape == picture.image.shape and image.dtype == np.uint8
    assert (domains.apply(picture, domain, rng()) == image).all()


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_domains_take_pictures_that_are_not_square_and_empty_ones(domain):
    wide = render(sample_scene(rng(), count=2, aspect=1.5), 40, 60)
    assert domains.apply(wide, domain, rng()).shape == (40, 60, 3)
    empty = render(replace(wide.scene, objects=()), 40, 60)
    assert domains.apply(empty, domain, rng()).shape == (40, 60, 3)


@pytest.mark.parametrize("domain", ["sketch", "noise", "xray"])
def test_chance_enters_by_the_generator(domain, picture):
    other = domains.apply(picture, domain, np.random.default_rng(2))
    assert (other != domains.apply(picture, domain, rng())).any()


def test_render_is_the_picture_itself(picture):
    assert (domains.apply(picture, "render", rng()) == picture.image).all()


def test_an_unknown_domain_is_named_with_its_neighbours(picture):
    with pytest.raises(DatasetError, match="'sketsh'.*'sketch'.*cartoon"):
        domains.apply(picture, "sketsh", rng())


@pytest.mark.parametrize("domain", sorted(domains.WITHOUT_COLOR))
def test_colour_is_lost_where_it_is_said_to_be(domain, picture):
    image = domains.apply(picture, domain, rng()).astype(int)
    assert (np.ptp(image, axis=2) == 0).all()
    other = domains.apply(recolored(picture), domain, rng())
    assert np.abs(image - other).mean() < 2.5


@pytest.mark.parametrize("domain", sorted(domains.DOMAINS.keys() - domains.WITHOUT_COLOR))
def test_colour_is_kept_elsewhere(domain, picture):
    image = domains.apply(picture, domain, rng()).astype(int)
    other = domains.apply(recolored(picture), domain, rng())
    for mask in picture.masks:
        assert np.abs(image[mask].mean(0) - other[mask].mean(0)).max() > 15


def test_cartoon_paints_each_object_flat_in_its_own_colour(picture):
    image = domains.apply(picture, "cartoon", rng())
    for obj, mask in zip(picture.scene.objects, picture.masks, strict=True):
        pixels = image[eroded(mask)]
        shades, counts = np.unique(pixels, axis=0, return_counts=True)
        most = shades[counts.argmax()]
        lit = np.array(COLORS[obj.color])
        assert np.abs(most - lit).max() <= 1 or np.abs(most - lit * 0.72).max() <= 1
        assert counts.max() > 0.25 * len(pixels)


@pytest.mark.parametrize("domain, dark", [("sketch", 150), ("cartoon", 70)])
def test_outlines_follow_the_masks(domain, dark, picture):
    bright = replace(picture.scene, objects=tuple(replace(t, color="yellow") for t in picture.scene.objects))
    picture = render(bright, SIZE, SIZE)
    image = domains.apply(picture, domain, rng()).min(2)
    ink = np.asarray(Image.fromarray(image).filter(ImageFilter.MinFilter(3))) < dark
    for mask in picture.masks:
        rim = mask & ~eroded(mask, 3)
        assert ink[rim].mean() > 0.9
    bare = ~np.asarray(Image.fromarray(picture.ids >= 0).convert("L").filter(ImageFilter.MaxFilter(9))).astype(bool)
    assert ink[bare].mean() < 0.1


def test_sketch_is_mostly_white_paper(picture):
    assert (domains.apply(picture, "sketch", rng()) > 225).mean() > 0.6


def test_noise_is_strong_and_has_no_bias(picture):
    difference = domains.apply(picture, "noise", rng()).astype(float) - picture.image
    ground = difference[picture.ids < 0]
    assert ground.std() > 20 and np.abs(ground.mean(0)).max() < 8
    blocks = difference.reshape(SIZE // 16, 16, SIZE // 16, 16, 3).mean((1, 3))
    assert np.abs(blocks).mean() < 8


def test_xray_glows_where_objects_are(picture):
    image = domains.apply(picture, "xray", rng())[..., 0].astype(float)
    empty = image[picture.ids < 0]
    assert np.percentile(empty, 75) < 50
    for mask in picture.masks:
        assert image[mask].mean() > empty.mean() + 35


def test_xray_shows_metal_as_denser_than_rubber(picture):
    dense, thin = (
        replace(picture.scene, objects=tuple(replace(t, material=m) for t in picture.scene.objects))
        for m in ("metal", "rubber")
    )
    metal, rubber = (domains.apply(render(scene, SIZE, SIZE), "xray", rng())[..., 0] for scene in (dense, thin))
    for mask in picture.masks:
        assert metal[mask].mean() > rubber[mask].mean() + 15
