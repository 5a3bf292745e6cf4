"""ICLIP: masked max pooling and dual projections by hand, its map against the equations, training in small."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import clip_explain as cx
import small_clip
from clip_explain import datasets, errors
from clip_explain.embedded.cards.iclip import maps_and_recognition
from clip_explain.embedded.training import iclip as training
from clip_explain.embedded.training.iclip import build, draw_batches, dual_loss, packed, train_iclip
from clip_explain.embedded.training.losses import contrastive_loss
from clip_explain.embedded.training.plans import ICLIP_PLANS, IclipPlan
from clip_explain.embedded.training.views import make_views
from clip_explain.models.dino import new_visual, tiny
from clip_explain.models.iclip import as_clip, features, new_text, poolings_of, project, recognition, untrained
from clip_explain.models.pooling import attention_mask, masked_max_pool, pool
from clip_explain.request import make_request

# Two patches of three channels; the class token is 9 everywhere.
TOKENS = torch.tensor([[[9.0, 9, 9], [1, 4, -2], [3, 2, -6]]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 0.5]], dtype=torch.float64)


def test_masked_max_pooling_by_hand():
    # masked: (1, 4, -2) and (1.5, 1, -3)
    assert masked_max_pool(TOKENS[:, 1:], MASK).tolist() == [[1.5, 4, -2]]
    by = {how: pool(TOKENS, MASK, how)[0].tolist() for how in ("attention", "average", "max", "masked_max")}
    assert by == {"attention": [9, 9, 9], "average": [2, 3, -4], "max": [3, 4, -2], "masked_max": [1.5, 4, -2]}
    with pytest.raises(errors.MethodError, match="did you mean 'masked_max'"):
        pool(TOKENS, MASK, "masked-max")


def test_gradient_of_masked_max_pooling_goes_to_the_largest_alone():
    tokens, mask = TOKENS[:, 1:].clone().requires_grad_(), MASK.clone().requires_grad_()
    masked_max_pool(tokens, mask).sum().backward()
    assert tokens.grad.tolist() == [[[0, 1, 1], [0.5, 0, 0]]]  # the mask, where the product is the largest
    assert mask.grad.tolist() == [[4 - 2, 3]]
    assert torch.autograd.gradcheck(masked_max_pool, (tokens, mask))


def test_attention_mask_by_hand():
    heads = torch.tensor([[[0.1, 0.3, 0.2, 0.0], [0.3, 0.5, 0.4, 0.2]]])  # mean 0.2 0.4 0.3 0.1
    torch.testing.assert_close(attention_mask(heads, (2, 2)), torch.tensor([[1 / 3, 1, 2 / 3, 0]]))
    assert attention_mask(torch.full((1, 2, 4), 0.25), (2, 2)).tolist() == [[0, 0, 0, 0]]


def test_dual_projections_by_hand():
    pooled = torch.tensor([[[9.0, 9, 9], [1.5, 4, -2]]])  # class token, masked maxima
    first = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    second = torch.tensor([[2.0, 0], [0, 1], [0, 1]])
    assert project(pooled, torch.stack([first, second])).tolist() == [[[18, 9], [3, 2]]]
    assert poolings_of("masked_max", True) == ("attention", "masked_max") and poolings_of("max", False) == ("max",)


def test_dual_loss_is_the_mean_of_clips_loss_in_each_branch_and_its_gradient_is_right():
    made = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(3, 2, 4, generator=made, dtype=torch.float64) for _ in range(2))
    truth, scale = torch.eye(3, dtype=torch.int8), torch.tensor(2.0, dtype=torch.float64)
    right = torch.arange(3)
    expected = 0.0
    for b in range(2):
        logits = scale * F.normalize(images[:, b], dim=-1) @ F.normalize(texts[:, b], dim=-1).T
        expected += (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 4
    assert abs(dual_loss(images, texts, truth, scale) - expected) < 1e-12
    one = contrastive_loss(scale * F.normalize(images[:, 0], dim=-1) @ F.normalize(texts[:, 0], dim=-1).T, truth)
    assert abs(dual_loss(images[:, :1], texts[:, :1], truth, scale) - one) < 1e-12


def test_gradients_through_pooling_and_both_projections():
    made = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 3, 3, generator=made, dtype=torch.float64)
    mask = torch.rand(2, 2, generator=made, dtype=torch.float64)
    texts = torch.randn(2, 2, 2, generator=made, dtype=torch.float64)
    weights = torch.randn(2, 3, 2, generator=made, dtype=torch.float64)
    truth = torch.eye(2, dtype=torch.int8)

    def loss(tokens, mask, projections, texts):
        pooled = torch.stack([pool(tokens, mask, "attention"), pool(tokens, mask, "masked_max")], 1)
        return dual_loss(project(pooled, projections), texts, truth, torch.tensor(1.5, dtype=torch.float64))

    given = [each.requires_grad_() for each in (tokens, mask, weights, texts)]
    assert torch.autograd.gradcheck(loss, given)


# -- the network


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    visual = new_visual(128, 2, 16, 64)
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
    return tiny(visual.eval(), "small-dino", "")


@pytest.fixture(scope="module")
def model(encoder):
    torch.manual_seed(1)
    return as_clip(encoder, new_text(64, 1, 8, 2, 128), ("attention", "masked_max"))


PIXELS = small_clip.pixels(0, 64, 64)


def test_features_are_the_networks_own_and_the_mask_its_attention(encoder):
    tokens, mask = features(encoder, PIXELS)
    visual = encoder.network.visual
    torch.testing.assert_close(tokens[:, 0], visual(PIXELS), rtol=1e-4, atol=1e-5)  # its projection is the identity
    assert tokens.shape == (1, 17, 128) and mask.min() == 0 and mask.max() == 1
    maps = cx.METHODS["self_attention"].image(make_request(encoder, PIXELS, torch.eye(128)[:1]))
    torch.testing.assert_close(mask, cx.maps.normalize(maps[:, 0]).flatten(1), rtol=1e-4, atol=1e-5)


def test_each_branch_is_a_clip_of_its_own(model, encoder):
    tokens, mask = features(encoder, PIXELS)
    own, text = model.network, model.network.text
    for clip_model, how, index in ((model, "masked_max", 1), (recognition(model), "attention", 0)):
        expected = F.normalize(pool(tokens, mask, how) @ text.image_projection[index], dim=-1)
        torch.testing.assert_close(cx.encode_image(clip_model, PIXELS), expected)
        assert clip_model.embedding_size == 8 and clip_model.patch_size == 16 and clip_model.image_size == 64
        torch.testing.assert_close(cx.targets(clip_model, "a cube"), cx.encode_text(clip_model, "a cube"))
    assert not torch.allclose(cx.targets(model, "a cube"), cx.targets(recognition(model), "a cube"))
    assert own.encoder.network.visual.proj.shape == (128, 128)  # the encoder is left as it was
    other = small_clip.golden_model()
    assert recognition(other) is other


def literal_map(tokens, mask, projection, target):
    """IC eq. 12, 1 and 3 in float64, patch by patch, the norm taken over the image's matrix."""
    rows = [mask[p] * (projection.T @ tokens[p]) for p in range(len(mask))]
    whole = torch.stack(rows).norm()
    return torch.stack([(row / whole) @ target for row in rows])


def test_map_is_that_of_the_equations(model, encoder):
    request = make_request(model, PIXELS, ["a red cube", "a ball"])
    tokens, mask = (part.double()[0] for part in features(encoder, PIXELS))
    got = cx.METHODS["iclip"].image(request)
    projection = model.network.text.image_projection[1].double()
    for found, target in zip(got[0], request.targets.double(), strict=True):
        expected = literal_map(tokens[1:], mask, projection, target).view(4, 4)
        assert small_clip.relative_error(found, expected) < 1e-4


def test_norm_of_each_token_cancels_the_mask(model, encoder):
    request = make_request(model, PIXELS, ["a red cube"])
    got, plain = (cx.METHODS["iclip"].image(request, norm="token"), cx.METHODS["itsm"].image(request))
    mask = features(encoder, PIXELS)[1].view(1, 1, 4, 4)
    torch.testing.assert_close(got, torch.where(mask > 0, plain, 0.0), rtol=1e-3, atol=1e-5)
    with pytest.raises(errors.MethodError, match="expected one of 'image', 'token'"):
        cx.explain(model, PIXELS, "a cube", "iclip", norm="patch")


def test_other_explainers_take_it(model):
    for method in ("grad_eclip", "maskclip", "game", "rollout"):
        maps = cx.explain(model, PIXELS, ["a cube", "a ball"], method)
        assert maps.shape == (1, 2, 4, 4) and torch.isfinite(maps).all()


# -- training

SMALL = IclipPlan(
    encoder="small-dino", steps=50, batch=8, views=16, pool=("three", 1, 4), text_width=64, text_layers=1, embed=16,
    warmup=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, encoder):
    cache = tmp_path_factory.mktemp("iclip")
    patch = pytest.MonkeyPatch()
    torch.manual_seed(0)
    whole = tiny(new_visual(64, 1, 16).eval().requires_grad_(False), "small-dino", "abc")
    patch.setattr(training, "load_encoder", lambda *given: whole)  # in place of a file
    (cache / "whole").mkdir()
    yield cache, whole, train_iclip(SMALL, cache / "whole", cache)
    patch.undo()


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_training_learns_and_again_from_its_seed_gives_the_same_losses(trained, tmp_path):
    cache, _, _ = trained
    train_iclip(SMALL, tmp_path, cache)
    first, again = losses(cache / "whole"), losses(tmp_path)
    assert len(first) == len(again) == 50
    assert np.abs(np.subtract(first, again)).max() <= 1e-4
    assert np.mean(first[-10:]) < np.mean(first[:10])


def test_training_stopped_and_resumed_equals_training_at_one_go(trained, tmp_path):
    cache, _, whole = trained
    train_iclip(SMALL, tmp_path, cache, until=20)
    resumed = train_iclip(SMALL, tmp_path, cache)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_where_the_training_of_a_model_began_is_known_from_its_seed(trained):
    _, encoder, text = trained
    model = as_clip(encoder, text.eval(), poolings_of(SMALL.pooling, SMALL.dual))
    found, expected = untrained(model, SMALL.seed), build(SMALL, 64).state_dict()
    for name, value in found.network.text.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    assert found.network.encoder is encoder and found.network.poolings == ("attention", "masked_max")
    assert not torch.equal(cx.targets(found, "a cube"), cx.targets(model, "a cube"))
    with pytest.raises(errors.ModelError, match="is not an ICLIP"):
        untrained(small_clip.golden_model(), 0)


def test_image_encoder_stays_frozen_and_the_rest_learns(trained):
    _, encoder, text = trained
    start = build(SMALL, 64)
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    for name in ("image_projection", "text_projection", "ln_final.weight", "logit_scale"):
        assert not torch.equal(getattr_(text, name), getattr_(start, name)), name


def getattr_(module, path):
    for part in path.split("."):
        module = getattr(module, part)
    return module


def test_views_interrupted_go_on_where_they_were(trained, tmp_path):
    cache, encoder, _ = trained
    plan = replace(SMALL, views=120)
    (tmp_path / "pool-three-1").symlink_to(cache / "pool-three-1")
    whole = make_views(plan, tmp_path, encoder).pooled.copy()
    (folder,) = tmp_path.glob("views-*")
    half = np.load(folder / "pooled.npy", mmap_mode="r+")
    half[50:] = 0
    half.flush()
    (folder / "done.json").write_text('{"done": 50}')
    assert (make_views(plan, tmp_path, encoder).pooled == whole).all() and np.isfinite(whole).all()


def test_each_ablation_draws_its_own_pooling(trained):
    cache, encoder, _ = trained
    views = make_views(SMALL, cache, encoder)
    for changes, rows in (({}, [0, 3]), ({"dual": False}, [3]), ({"dual": False, "pooling": "average"}, [1])):
        plan = replace(SMALL, **changes)
        pooled, tokens, truth = next(draw_batches(plan, views, 0, 1))
        picked = np.random.default_rng([plan.seed, 2, 0]).choice(16, 8, replace=False)
        assert (pooled.numpy() == views.pooled[picked][:, rows]).all()
        assert truth.shape == (8, len(tokens)) and (truth == 1).any(0).all()
    assert {plan.pooling for plan in ICLIP_PLANS.values()} == {"attention", "average", "max", "masked_max"}
    assert len({(plan.steps, plan.batch, plan.views, plan.seed) for plan in ICLIP_PLANS.values()}) == 1


def test_shipped_file_gives_back_what_was_trained(trained, tmp_path, monkeypatch):
    _, encoder, text = trained
    path = tmp_path / "mine.safetensors"
    path.write_bytes(packed(SMALL, text, encoder))
    assert path.stat().st_size < 2e6
    monkeypatch.setattr("clip_explain.models.iclip.load_encoder", lambda *given: encoder)
    loaded = cx.load(f"iclip:{path}", device="cpu")
    expected = as_clip(encoder, text.eval(), poolings_of(SMALL.pooling, SMALL.dual))
    for found, own in ((loaded, expected), (recognition(loaded), recognition(expected))):
        pixels = small_clip.pixels(3, 224, 224)
        assert F.cosine_similarity(cx.encode_image(found, pixels), cx.encode_image(own, pixels)).item() > 0.999
        assert F.cosine_similarity(cx.targets(found, "a cube"), cx.targets(own, "a cube")).item() > 0.999
    monkeypatch.setattr("clip_explain.models.iclip.load_encoder", lambda *given: replace(encoder, sha256="other"))
    with pytest.raises(errors.WeightsError, match="trained on another small-dino"):
        cx.load(f"iclip:{path}", device="cpu")


def test_what_is_no_iclip_says_so(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(errors.WeightsError, match="is not an ICLIP"):
        cx.load(f"iclip:{tmp_path / 'a.safetensors'}")
    with pytest.raises(errors.ModelError, match="no trained ICLIP at"):
        cx.load("iclip:nothing")


def test_training_on_captions_of_a_dataset(trained, tmp_path):
    _, encoder, _ = trained
    folder = tmp_path / datasets.DATASETS["conceptual_captions"].folder
    (folder / "images").mkdir(parents=True)
    for i, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (300, 240), color).save(folder / "images" / f"{i}.png")
    (folder / "images" / "3.png").write_bytes(b"broken")
    rows = [f"a {color} wall\timages/{i}.png" for i, color in enumerate(("red", "green", "blue", "grey"))]
    (folder / "Validation_GCC-1.1.0-Validation.tsv").write_text("\n".join(rows) + "\n")
    plan = replace(SMALL, dataset="conceptual_captions", views=6, steps=3)
    views = make_views(plan, tmp_path, encoder, tmp_path)
    assert (
        views.pooled.shape == (6, 4, 64)
        and np.isnan(views.pooled[:, 0, 0]).tolist() == [False] * 3 + [True] + [False] * 2
    )
    said, truth = views.say(np.array([0, 4, 1]), np.random.default_rng(0))
    assert truth.tolist() == [[said[i] == said[j] for j in range(3)] for i in range(3)]
    (tmp_path / "run").mkdir()
    train_iclip(plan, tmp_path / "run", tmp_path, root=tmp_path)
    assert len(losses(tmp_path / "run")) == 3 and np.isfinite(losses(tmp_path / "run")).all()


def test_figures_of_a_card(trained):
    _, encoder, text = trained
    found = maps_and_recognition(as_clip(encoder, text.eval(), poolings_of(SMALL.pooling, SMALL.dual)), 3)
    assert set(found) == {"mAP"} | {
        f"{name}{of}" for name in ("mMIoU", "mFMB") for of in ("", ", norm of each token", ", without mask")
    }
    assert all(0 < value < 1 for name, value in found.items() if "mFMB" not in name)
    assert all(-1 < value < 1 for value in found.values())


def test_command_line_changes_the_plan():
    from clip_explain.cli.train import parser, with_changes

    line = ["iclip", "--pooling", "max", "--projections", "1", "--encoder", "tiny-vit", "--steps", "7"]
    changed = with_changes(ICLIP_PLANS["iclip"], parser().parse_args(line))
    assert changed == replace(ICLIP_PLANS["iclip"], pooling="max", dual=False, encoder="tiny-vit", steps=7)
    assert with_changes(ICLIP_PLANS["iclip-max"], parser().parse_args(["iclip-max"])) == ICLIP_PLANS["iclip-max"]
