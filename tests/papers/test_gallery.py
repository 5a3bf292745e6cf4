"""Images and captions to seek among: whose each caption is, and a text of each image."""

import pytest
import torch
from PIL import Image

import clip_explain as cx
from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.errors import TextError

RECORDS = [
    Record("x", Image.new("RGB", (30, 20), "red"), ("a cube", "a ring")),
    Record("y", Image.new("RGB", (20, 40), "blue"), ("a cone", "a cube", "a ball")),
]


def test_gallery():
    clip = cx.load("tiny-vit")
    gallery = papers.gallery_of(clip, RECORDS)
    assert gallery.image_of.tolist() == [0, 0, 1, 1, 1] and gallery.said[2] == "a cone"
    assert torch.allclose(gallery.images.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(gallery.images[1:], clip.embed_images(cx.pixels(clip, RECORDS[1].image, "full")))
    assert torch.allclose(gallery.texts[0], gallery.texts[3], atol=1e-5)  # both are "a cube"
    assert not torch.allclose(gallery.texts[0], gallery.texts[1])


def test_place_of_a_caption_that_two_images_have():
    gallery = papers.gallery_of(cx.load("tiny-vit"), RECORDS)
    assert papers.place_in(gallery, 0, "a cube") == 0 and papers.place_in(gallery, 1, "a cube") == 3
    with pytest.raises(TextError, match="image 0 has no caption 'a cone'.*a cube"):
        papers.place_in(gallery, 0, "a cone")


def test_one_text_each_takes_all_wordings():
    records = [Record(str(number), Image.new("RGB", (2, 2)), ("a", "b", "c")) for number in range(4)]
    assert papers.one_text_each(records) == ["a", "b", "c", "a"]
    assert papers.one_text_each(RECORDS) == ["a cube", "a cube"]
