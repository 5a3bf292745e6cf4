"""What `explain` and `explain_words` return: used as tensor and list, its scores, its figure."""

import copy
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from PIL import Image

import clip_explain as cx
import small_clip
from clip_explain import plots
from clip_explain.checks import checked

matplotlib.use("agg")
TEXTS = ["a red cube", "a blue ball"]


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, "cpu")


@pytest.fixture(scope="module")
def wide():
    """96 x 64 pixels: with patches of 16, 4 x 6 of the whole, 4 x 4 of the middle square."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((96, 64), Image.Resampling.BICUBIC)


@pytest.fixture
def found(model, wide):
    return cx.explain(model, wide, TEXTS)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_it_works_as_the_tensor_of_its_maps(found):
    maps = found.maps
    assert isinstance(maps, torch.Tensor) and found.shape == maps.shape == (1, 2, 4, 6) and len(found) == 1
    assert torch.equal(found[0, 1], maps[0, 1]) and torch.equal(next(iter(found)), maps[0])
    for got, expected in (
        (found - 1, maps - 1),
        (1 - found, 1 - maps),
        (2 * found / 3, 2 * maps / 3),
        (found + found, 2 * maps),
        (-(abs(found) ** 2), -(maps**2)),
        (found > 0.1, maps > 0.1),
        (found == found, torch.ones_like(maps, dtype=torch.bool)),
        (maps + found, 2 * maps),
        (torch.cat([found, maps]), torch.cat([maps, maps])),
        (torch.stack([found, found]), torch.stack([maps, maps])),
        (found.cpu().flatten(2), maps.flatten(2)),
        (torch.as_tensor(found), maps),
        (torch.nn.functional.interpolate(found, (9, 7)), torch.nn.functional.interpolate(maps, (9, 7))),
    ):
        assert torch.equal(got, expected)
    np.testing.assert_array_equal(np.asarray(found, dtype=np.float64), maps.double().numpy())
    with pytest.raises(AttributeError):
        _ = found.nonsense


def test_checked_functions_take_it_in_place_of_its_maps(found):
    @checked()
    def largest(maps: Float[torch.Tensor, "*axes grid_h grid_w"]) -> torch.Tensor:
        return maps.amax(dim=(-2, -1))

    assert torch.equal(largest(found), largest(maps=found)) and torch.equal(largest(found), largest(found.maps))


def test_a_registered_explainer_returns_a_plain_tensor(found):
    assert type(cx.METHODS["grad_eclip"].image(found.request)) is torch.Tensor


def test_scores_are_those_of_the_model_and_have_their_name(model, found, wide):
    expected = model.embed_images(cx.preprocess(model, wide)) @ cx.encode_text(model, TEXTS).T
    assert small_clip.relative_error(found.scores, expected) < 1e-5 and found.score == "cosine"


def test_scores_are_refused_when_the_weights_have_changed(wide):
    own = small_clip.wrap(copy.deepcopy(small_clip.build(vlayers=1, tlayers=1, vocab=49408, res=64, patch=16)))
    found, kept = cx.explain(own, wide, "a cube"), cx.explain(own, wide, "a cube")
    assert kept.scores.shape == (1, 1)
    with torch.no_grad():
        own.network.visual.proj.mul_(2)
    with pytest.raises(cx.ModelError, match="have changed since"):
        _ = found.scores
    assert kept.scores.shape == (1, 1)  # those that were asked for in time


def test_the_default_fit_is_known_and_a_crop_is_drawn_in_the_middle(model, found, wide):
    assert (found.fit, found.shape) == ("full", (1, 2, 4, 6))
    cropped = cx.explain(model, wide, TEXTS, fit="crop")
    assert (cropped.fit, cropped.shape) == ("crop", (1, 2, 4, 4))
    axes = cropped.show()
    assert axes.shape == (1, 3) and "fit crop" in " ".join(axes[0, 0].get_title().split())
    np.testing.assert_allclose(axes[0, 1].images[0].get_array(), plots.blend(wide, cropped[0, 0], fit="crop"))
    np.testing.assert_allclose(axes[0, 1].images[0].get_array()[:, :16], plots.DIMMED * np.asarray(wide)[:, :16] / 255)


def test_a_figure_says_what_is_shown_and_has_a_row_an_image(model, wide):
    found = cx.explain(model, [wide, wide.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], TEXTS)
    axes = found.show()
    assert axes.shape == (2, 3)
    assert axes[1, 2].get_title() == f"a blue ball\ncosine {found.scores[1, 1]:.3f}"
    np.testing.assert_allclose(axes[1, 1].images[0].get_array(), plots.blend(found.pictures[1], found[1, 0]))
    assert found.show(image=-1).shape == (1, 3)


def test_preprocessed_pixels_are_shown_as_what_they_show(model, wide):
    seen = cx.explain(model, cx.preprocess(model, wide), cx.targets(model, TEXTS))
    assert seen.fit is None and seen.targets == ("target 1", "target 2")
    assert np.abs(np.asarray(seen.pictures[0], dtype=int) - np.asarray(wide, dtype=int)).max() <= 1
    assert "fit" not in seen.show()[0, 0].get_title()
    assert cx.explain(model, cx.pixels(model, wide, "crop"), TEXTS[0]).pictures[0].size == (64, 64)
    assert cx.explain(model, cx.pixels(model, wide, "squash"), TEXTS[0]).pictures[0].size == wide.size


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_saved_figure_is_complete_or_not_there(found, tmp_path, suffix):
    path = found.save(tmp_path / f"map{suffix}")
    assert path.stat().st_size > 2000 and list(tmp_path.iterdir()) == [path]
    assert not plt.get_fignums()
    with pytest.raises(cx.OutputError, match="must end in one of .png, .pdf, .svg"):
        found.save(tmp_path / "map.bmp")
    (tmp_path / "file").touch()
    with pytest.raises(cx.OutputError, match="cannot write"):
        found.save(tmp_path / "file" / "map.png")
    assert not plt.get_fignums()


def test_targets_have_names(model, wide, tmp_path):
    wide.save(tmp_path / "other.png")
    assert cx.explain(model, wide, tmp_path / "other.png").targets == ("other.png",)
    assert cx.explain(model, wide, [wide, wide]).targets == ("image 1", "image 2")
    renamed = replace(cx.explain(model, wide, "a cube"), targets=("it",))
    assert renamed.show()[0, 1].get_title().startswith("it\n")


def test_words_are_a_list_of_pairs_with_their_scores_and_figure(model, found, wide, tmp_path):
    said = cx.explain_words(model, wide, TEXTS, per="word", layers=2)
    assert len(said) == 2 and [words for words, _ in said] == [["a", "red", "cube"], ["a", "blue", "ball"]]
    ((words, weights),) = said[:1]
    assert words == ["a", "red", "cube"] and weights.shape == (1, 3)
    assert small_clip.relative_error(said.scores.T, found.scores) < 1e-5
    axes = said.show()
    assert axes.shape == (1, 2) and [text.get_text() for text in axes[0, 1].texts] == ["a", "blue", "ball"]
    assert f"cosine {said.scores[1, 0]:.3f}" in " ".join(axes[0, 1].get_title().split())
    assert said.save(tmp_path / "words.png").is_file()
    bare = cx.explain_words(model, cx.targets(model, wide), TEXTS[0], layers=2)
    assert bare.images is None and [text.get_text() for text in bare.show()[0, 0].texts] == ["a", "red", "cube"]
