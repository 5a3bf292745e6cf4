"""Images: what is read, how grey of many bits becomes 8, what is refused, and pixels that know where they are from."""

import copy
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clip_explain as cx
import small_clip
from clip_explain import images


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, device="cpu")


def picture(width=90, height=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_array(source):
    return np.asarray(cx.read_image(source))


class Folder:
    """A path of another kind."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def test_one_picture_in_every_form_it_may_have(tmp_path, monkeypatch):
    wanted, path = np.asarray(picture()), tmp_path / "p.png"
    picture().save(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    at_its_end = io.BytesIO(path.read_bytes())
    at_its_end.seek(0, io.SEEK_END)
    with path.open("rb") as file:
        forms = [path, str(path), Folder(path), "~/p.png", Path("~/p.png"), file, at_its_end, wanted, wanted / 255.0]
        for form in [*forms, f"file://{path}", picture()]:
            assert (as_array(form) == wanted).all()
    assert (as_array(wanted[..., 0]) == wanted[..., :1]).all() and (as_array(wanted[..., :1]) == wanted[..., :1]).all()


@pytest.mark.parametrize("mode", ["I", "I;16"])
@pytest.mark.parametrize("most, wanted", [(200, 200), (255, 255), (4095, 255), (2048, 128), (65535, 255), (32896, 128)])
def test_grey_of_many_bits_is_scaled_by_the_fewest_that_hold_it(tmp_path, mode, most, wanted):
    levels = np.full((4, 6), most, np.uint16 if mode == "I;16" else np.int32)
    image = Image.fromarray(levels)
    assert image.mode == mode and as_array(image).max() == wanted
    image.save(tmp_path / "grey.tiff")
    assert as_array(tmp_path / "grey.tiff").max() == wanted


@pytest.mark.parametrize("value", [-1, 65536])
def test_grey_beyond_16_bits_is_refused(value):
    with pytest.raises(cx.ImageError, match=f"its grey runs from .*{value}"):
        cx.read_image(Image.fromarray(np.array([[0, value]], np.int32)))


@pytest.mark.parametrize("value", ["6", (6, 1), 77, -3, 6.5])
def test_a_photo_with_odd_exif_is_read(tmp_path, value):
    path = tmp_path / "p.tiff"
    picture().save(path, tiffinfo={0x010E: "a photo"}, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    photo = Image.open(path)
    photo.load()
    photo.getexif()[0x0112] = value
    assert as_array(photo).size == 90 * 60 * 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_rotation_is_undone_once_and_only_if_asked_for(tmp_path, form):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "p", form, exif=exif)
    assert cx.read_image(tmp_path / "p").size == (60, 90)
    assert cx.read_image(tmp_path / "p", upright=False).size == (90, 60)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(cx.ImageError, match="it is a pipe or a device"):
            cx.read_image(path)


def test_a_format_that_another_program_reads_is_refused(tmp_path):
    (tmp_path / "p.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(cx.ImageError, match="cannot identify image file"):
        cx.read_image(tmp_path / "p.png")


def test_a_file_of_too_many_pixels_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 5000)
    picture().save(tmp_path / "p.png")
    with pytest.raises(cx.ImageError, match=r"90 x 60 pixels, more than 5,000. Make it smaller, or open it with PIL"):
        cx.read_image(tmp_path / "p.png")
    assert cx.read_image(Image.open(tmp_path / "p.png")).size == (90, 60)


@pytest.mark.parametrize(
    "source, message",
    [
        (None, "expected a path"),
        (3, "expected a path"),
        (b"bytes", "expected a path"),
        (np.zeros((2, 3, 4, 3)), "expected .height, width."),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), 2.0), r"outside \[0, 1\]"),
        (np.zeros((4, 4), np.int64), "expected uint8"),
        (np.zeros((0, 4), np.uint8), "expected .height, width."),
        (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
        (io.StringIO("text"), "cannot be read as an image"),
        ("nope://x/y.png", "cannot be read as an image"),
        ("\0", "cannot be read as an image"),
    ],
)
def test_what_is_no_image(model, source, message):
    for call in (cx.read_image, lambda image: cx.explain(model, image, "a cube")):
        with pytest.raises(cx.ImageError, match=message):
            call(source)


# -- pixels


def test_pixels_know_their_fit_and_the_sizes_of_their_sources(model):
    found = cx.pixels(model, [picture(), picture(40, 50)], "squash")
    assert found.fit == "squash" and found.sizes == ((60, 90), (50, 40))
    part = found[1:]
    assert isinstance(part, cx.Pixels) and part.sizes == ((50, 40),) and part.fit == "squash"
    assert [part.sizes for part in found.split(1)] == [((60, 90),), ((50, 40),)]
    for same in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), found.to(torch.float64)):
        assert same.sizes == found.sizes and torch.equal(same.float(), found)
    for plain in (found + 1, found[0], found.mean(), torch.cat([found, found]), found.flatten(1)):
        assert type(plain) is torch.Tensor


def test_colours_are_those_of_the_picture(model):
    side = model.image_size
    image = picture(side, side)
    shown = images.colours(model, cx.pixels(model, image, "squash"))
    np.testing.assert_allclose(shown[0].cpu(), np.asarray(image) / 255, atol=1e-5)


def test_a_tensor_is_taken_for_pixels_only_when_marked(model):
    own = torch.rand(1, 3, 64, 64)
    for call in (cx.encode_image, lambda m, p: cx.explain(m, p, "a cube"), lambda m, p: cx.targets(m, p)):
        with pytest.raises(cx.TensorError, match=r"marked by cx.pixels\(model, tensor\)"):
            call(model, own)
        call(model, cx.pixels(model, own))
    marked = cx.pixels(model, own)
    assert torch.equal(marked, own) and marked.fit is None and marked.sizes == ((64, 64),)
    assert cx.preprocess is cx.pixels


def test_pixels_and_the_image_itself_have_the_same_map(model):
    by_image = cx.explain(model, picture(), "a cube", fit="crop")
    by_pixels = cx.explain(model, cx.pixels(model, picture(), "crop"), "a cube")
    assert small_clip.relative_error(by_pixels.maps, by_image.maps) < 1e-6
