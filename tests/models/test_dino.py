"""DINO: its loss, center and teacher by hand, training in small, and encoders against their own forward."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import clip_explain as cx
import small_clip
from clip_explain import errors
from clip_explain.embedded.cards.figures import pixels_of
from clip_explain.embedded.cards.iclip import export, separation
from clip_explain.embedded.scenes.pool import open_pool
from clip_explain.embedded.training.dino import (
    build,
    crop,
    dino_loss,
    draw_batches,
    draw_hidden,
    embed_crops,
    follow,
    new_center,
    patch_loss,
    relit,
    train_dino,
)
from clip_explain.embedded.training.plans import DINO_PLANS, DinoPlan, DinoStage
from clip_explain.maps import normalize
from clip_explain.models.dino import build_visual, dino, load_dino, new_visual
from clip_explain.models.iclip import features
from clip_explain.request import make_request


def softmax(x, temperature):
    powers = [math.exp(v / temperature) for v in x]
    return [p / sum(powers) for p in powers]


def cross_entropy(p, q):
    return -sum(a * math.log(b) for a, b in zip(p, q, strict=True))


def test_loss_by_hand():
    teacher = [[0.2, 0.6], [0.5, 0.1]]  # two global crops of one image, two prototypes
    student = [[0.3, 0.1], [0.0, 0.4], [0.2, 0.2]]  # the same two, and a local one
    center = [0.1, 0.0]
    p = [softmax([v - c for v, c in zip(row, center, strict=True)], 0.04) for row in teacher]
    q = [softmax(row, 0.1) for row in student]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]  # never a crop with itself
    expected = sum(cross_entropy(p[g], q[c]) for g, c in pairs) / 4
    given = (torch.tensor(student)[:, None], torch.tensor(teacher)[:, None], torch.tensor(center))
    assert dino_loss(*given).item() == pytest.approx(expected, rel=1e-5)
    two = [torch.cat([part, part], 1) for part in given[:2]]
    assert dino_loss(*two, given[2]).item() == pytest.approx(expected, rel=1e-5)  # a mean over images


def test_loss_of_hidden_patches_by_hand():
    teacher, student, center = [[0.2, 0.6], [0.5, 0.1]], [[0.3, 0.1], [0.0, 0.4]], [0.1, 0.0]
    p = [softmax([v - c for v, c in zip(row, center, strict=True)], 0.04) for row in teacher]
    q = [softmax(row, 0.1) for row in student]
    expected = (cross_entropy(p[0], q[0]) + cross_entropy(p[1], q[1])) / 2  # each patch with itself
    found = patch_loss(torch.tensor([student]), torch.tensor([teacher]), torch.tensor(center))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_loss_goes_to_the_student_alone():
    made = torch.Generator().manual_seed(0)
    student = torch.randn(3, 2, 4, generator=made, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 4, generator=made, dtype=torch.float64, requires_grad=True)
    center = torch.zeros(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: dino_loss(x, teacher.detach(), center), (student,))
    dino_loss(student, teacher, center).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_center_and_teacher_follow_slowly():
    center = new_center(torch.tensor([1.0, 0.0]), torch.tensor([[[0.0, 2.0]], [[0.0, 4.0]]]), 0.9)
    torch.testing.assert_close(center, torch.tensor([0.9, 0.3]))
    slow, fast = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    slow.weight.data.fill_(1.0)
    fast.weight.data.fill_(3.0)
    follow(slow, fast, 0.75)
    assert slow.weight.item() == pytest.approx(1.5) and fast.weight.item() == 3.0


# -- training

SMALL = DinoPlan(
    (DinoStage(4, 4, 64, 32), DinoStage(2, 2, 96, 48)), width=64, layers=1, hidden=32, bottleneck=16, prototypes=24,
    pool=("three", 1, 4), locals=2, warmup=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    return folder, train_dino(SMALL, folder)


def test_training_stopped_and_resumed_equals_training_at_one_go(trained, tmp_path):
    folder, whole = trained
    (tmp_path / "pool-three-1").symlink_to(folder / "pool-three-1")
    train_dino(SMALL, tmp_path, until=3)
    resumed = train_dino(SMALL, tmp_path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    rows = [[json.loads(line) for line in (at / "log.jsonl").read_text().splitlines()] for at in (folder, tmp_path)]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == list(range(6))


def test_student_learns_and_the_teacher_is_between_it_and_its_start(trained):
    _, pair = trained
    start = build(SMALL)
    name = "visual.conv1.weight"
    begin, slow, fast = (net.state_dict()[name] for net in (start.teacher, pair.teacher, pair.student))
    assert (fast - begin).norm() > (slow - begin).norm() > 0
    assert pair.center.abs().sum() > 0 and not any(p.requires_grad for p in pair.teacher.parameters())


def test_crops_are_global_then_local_and_decided_by_seed_and_step(trained):
    folder, _ = trained
    first, again = (next(draw_batches(SMALL, folder, 4, 5)) for _ in range(2))
    assert [tuple(crops.shape) for crops in first[:2]] == [(4, 3, 96, 96), (4, 3, 48, 48)] and first[2] is None
    assert all(torch.equal(a, b) for a, b in zip(first[:2], again[:2], strict=True))
    other = next(draw_batches(replace(SMALL, seed=9), folder, 4, 5))
    assert not torch.equal(first[0], other[0])


def test_class_tokens_of_whole_pictures_are_the_networks_own():
    torch.manual_seed(0)
    visual = new_visual(64, 2, 16).eval()
    pixels = small_clip.pixels(0, 224, 224)
    torch.testing.assert_close(embed_crops(visual, pixels)[:, 0], visual(pixels), rtol=1e-4, atol=1e-5)
    assert embed_crops(visual, pixels[..., :96, :64]).shape == (1, 1 + 6 * 4, 64)


def test_a_hidden_patch_is_not_seen_and_the_others_are():
    torch.manual_seed(0)
    visual, instead = new_visual(64, 2, 16).eval(), torch.randn(64)
    pixels, hidden = small_clip.pixels(0, 64, 64), torch.tensor([[5, 10]])
    changed, seen = pixels.clone(), pixels.clone()
    changed[..., 16:32, 16:32] = 0  # patch 5 of a grid of 4 x 4
    seen[..., :16, :16] = 0
    first, same, other = (embed_crops(visual, some, hidden, instead) for some in (pixels, changed, seen))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.allclose(first, other) and not torch.allclose(first, embed_crops(visual, pixels))


def test_hidden_patches_are_as_many_different_ones_of_each_crop():
    hidden = draw_hidden(50, 16, 0.3, np.random.default_rng(0))
    assert hidden.shape == (50, 5) and all(len(set(row)) == 5 for row in hidden.tolist())
    assert set(hidden.flatten().tolist()) == set(range(16))
    assert draw_hidden(50, 16, 0.0, np.random.default_rng(0)) is None


def test_training_with_hidden_patches_learns_their_embedding(trained, tmp_path):
    (tmp_path / "pool-three-1").symlink_to(trained[0] / "pool-three-1")
    pair = train_dino(replace(SMALL, hidden_share=0.3), tmp_path)
    assert pair.student.hidden_embedding.abs().sum() > 0 and pair.patch_center.abs().sum() > 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(row["loss of patches"] > 0 for row in rows)
    assert not trained[1].patch_center.any()


def test_a_crop_of_everything_is_the_picture_or_its_mirror_image():
    picture = small_clip.pixels(0, 32, 32).sigmoid().expand(8, -1, -1, -1)
    made = crop(picture, (1.0, 1.0), 32, np.random.default_rng(0))
    mirrored = [torch.allclose(one, picture[0].flip(-1), atol=1e-4) for one in made]
    straight = [torch.allclose(one, picture[0], atol=1e-4) for one in made]
    assert any(mirrored) and any(straight) and all(a != b for a, b in zip(mirrored, straight, strict=True))


def test_a_small_crop_shows_a_part_of_the_picture_enlarged():
    ramp = torch.linspace(0, 1, 64).expand(4, 3, 64, 64)
    made = crop(ramp, (0.25, 0.25), 64, np.random.default_rng(0))
    spans = made.amax((1, 2, 3)) - made.amin((1, 2, 3))
    torch.testing.assert_close(spans, torch.full((4,), 0.5), rtol=0, atol=0.02)  # half a side is a quarter's


def test_another_light_keeps_the_range_and_takes_the_colour_of_a_share():
    pixels = small_clip.pixels(0, 16, 16).sigmoid().expand(40, -1, -1, -1)
    found = relit(pixels, 0.5, 0.3, np.random.default_rng(0))
    assert found.min() >= 0 and found.max() <= 1
    grey = (found.amax(1) - found.amin(1)).amax((1, 2)) < 1e-3
    assert 10 < grey.sum() < 30


def test_export_keeps_the_teacher_and_its_attention_is_measured(trained, monkeypatch, tmp_path):
    folder, pair = trained
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    monkeypatch.setitem(DINO_PLANS, "tiny-dino", SMALL)
    card = export("tiny-dino", folder)
    model = load_dino("tiny-dino")
    assert card["sha256"] == model.sha256 and (card["steps"], card["seed"]) == (6, SMALL.seed)
    pixels = small_clip.pixels(0, 224, 224)
    own = pair.teacher["visual"].eval()(pixels).detach()
    assert torch.nn.functional.cosine_similarity(model.network.encode_image(pixels), own).item() > 0.999
    pool = open_pool(folder / "pool-three-1")
    found = separation(model, pool)
    inside = torch.from_numpy(pool.ids >= 0)
    maps = cx.METHODS["self_attention"].image(
        make_request(model, cx.pixels(model, pixels_of(pool, slice(None))), torch.eye(64)[:1])
    )[:, 0]
    even = torch.nn.functional.interpolate(maps[:, None], (224, 224), mode="bilinear", align_corners=False)[:, 0]
    shares = [(each * mask).sum() / each.sum() for each, mask in zip(even, inside, strict=True)]
    assert found["attention on objects"] == pytest.approx(float(torch.stack(shares).mean()), abs=1e-3)
    assert found["objects' share of the area"] == pytest.approx(float(inside.float().mean()), abs=1e-3)


# -- loading


def test_file_gives_back_the_encoder(tmp_path):
    torch.manual_seed(0)
    visual = new_visual(128, 2, 16, 64).eval()
    state = {key: value for key, value in visual.state_dict().items() if key != "proj"}
    save_file(state, tmp_path / "mine.safetensors")
    model = load_dino(tmp_path / "mine.safetensors")
    assert (model.name, model.image_size, model.patch_size, model.embedding_size) == ("mine", 64, 16, 128)
    pixels = small_clip.pixels(0, 64, 64)
    torch.testing.assert_close(model.network.encode_image(pixels), visual(pixels).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(errors.MethodError, match="text tower"):
        cx.tokenize(model, "a cube")
    with pytest.raises(errors.WeightsError, match="not a vision transformer in OpenAI's layout"):
        build_visual({"weight": torch.zeros(1)})


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=48, patch_size=16
    )
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.set_attn_implementation("eager")
    return network


def test_vit_of_transformers_is_traced_as_it_is(vit):
    model, pixels = dino(vit), small_clip.pixels(1, 48, 48)
    with torch.no_grad():
        said = vit(pixels, output_attentions=True)
    tokens, mask = features(model, pixels)
    torch.testing.assert_close(tokens, said.last_hidden_state, rtol=1e-4, atol=1e-4)
    attention = said.attentions[-1][:, :, 0, 1:].mean(1).view(1, 3, 3)
    torch.testing.assert_close(mask, normalize(attention).flatten(1), rtol=1e-3, atol=1e-4)
    maps = cx.METHODS["self_attention"].image(make_request(model, pixels, torch.eye(24)[:1]))
    torch.testing.assert_close(maps[:, 0], attention, rtol=1e-3, atol=1e-5)
    assert features(model, small_clip.pixels(1, 32, 64))[1].shape == (1, 8)  # of another size


def test_vit_is_loaded_from_a_folder(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    model, pixels = load_dino(str(tmp_path)), small_clip.pixels(1, 48, 48)
    torch.testing.assert_close(features(model, pixels)[0], features(dino(vit), pixels)[0], rtol=1e-4, atol=1e-4)
    assert model.mean[0] == 0.485 and len(model.sha256) == 64


def test_what_is_no_dino_says_so(tmp_path):
    with pytest.raises(errors.ModelError, match="could not be loaded as a DINO"):
        load_dino(str(tmp_path / "nothing"))
    with pytest.raises(errors.ModelError, match="got a Linear without embeddings"):
        dino(torch.nn.Linear(1, 1))
