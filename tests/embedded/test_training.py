"""The training loop in small: the loss by hand, windows against whole pictures, resuming, export."""

import json
import math
from dataclasses import replace

import clip
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_explain.embedded.cards.clip import export
from clip_explain.embedded.scenes.pool import Art, make_pool
from clip_explain.embedded.training import PLANS, Plan, Stage, train
from clip_explain.embedded.training.batches import draw_art, draw_batches
from clip_explain.embedded.training.graphs import inputs_of, parts_of, step_by_parts
from clip_explain.embedded.training.loop import make_optimizer, rate, schedule, take_step
from clip_explain.embedded.training.losses import contrastive_loss
from clip_explain.embedded.training.plans import lengthened
from clip_explain.embedded.training.together import train_together
from clip_explain.embedded.training.towers import (
    build,
    embed_images,
    embed_texts,
    embed_windows,
    run_blocks,
    within_cells,
)
from clip_explain.errors import MethodError, OutputError
from clip_explain.models.embedded import load_embedded
from clip_explain.models.model import image_features
from clip_explain.models.vit import trace_text
from small_clip import relative_error, wrap

SHARES = {"single": 0.5, "double": 0.5}
CLOSE = Stage(
    name="close views", steps=3, batch=4, window=48, magnification=(0.8, 1.2), shares=SHARES, pool=("train", 1, 4),
    grey=0.3, close=2.0,
)  # fmt: skip
WHOLE = Stage(
    name="whole pictures", steps=3, batch=4, window=224, magnification=(1.0, 1.2), shares=SHARES, grey=0.3,
    pool=("training", 1, 4), captions=3, hard_negatives=1, removals=0.7, patch_keep=0.5, patch_isolation=1.0,
    class_token_delay=0.5,
)  # fmt: skip
SMALL = Plan(
    vision_width=64, vision_layers=2, text_width=64, text_layers=2, embed=32, patch=16, warmup=2, vision_heads=4,
    stages=(CLOSE, WHOLE),
)  # fmt: skip


def test_loss_is_clips_own_when_each_row_has_one_true_caption():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    right = torch.arange(5)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5).long()), expected)


def test_loss_by_hand():
    logits, truth = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1, 0, -1]])
    row = math.log(1 + math.exp(2 - 1))  # the third caption is left out
    column = 0.0  # one picture: the true caption has no false picture to be told from
    assert contrastive_loss(logits, truth).item() == pytest.approx((row + column) / 2, abs=1e-6)


def test_loss_with_rows_that_have_no_true_or_no_false_caption_is_finite():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = contrastive_loss(logits, torch.tensor([[1, 1], [0, 0], [-1, -1]]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_windows_and_short_texts_agree_with_the_network_itself():
    network = build(SMALL, 1).eval()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        embed_windows(network.visual, pixels, (0, 0)), network.encode_image(pixels), rtol=1e-4, atol=1e-5
    )
    tokens = clip.tokenize(["a red cube", "a picture of a small blue ball"])
    torch.testing.assert_close(embed_texts(network, tokens), network.encode_text(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plan", ["SMALL", "RESNET"])
def test_the_forward_of_training_is_that_of_explaining(plan):
    network = build(globals()[plan], 1).eval()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = clip.tokenize(["a red cube", "a picture of a small blue ball"])
    model = wrap(network)
    with torch.no_grad():
        assert relative_error(embed_images(network.visual, pixels, (0, 0)), image_features(model, pixels)) < 1e-5
        assert relative_error(embed_texts(network, tokens), trace_text(network, tokens).embedding) < 1e-5


def test_class_token_that_reads_late_is_alone_before():
    visual = build(SMALL, 1).eval().visual
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    blocks, tokens = visual.transformer.resblocks, tokens_of(visual, pixels)
    between = run_blocks(blocks[:1], tokens, False)
    between = torch.cat([run_blocks(blocks[:1], tokens[:, :1], False), between[:, 1:]], 1)
    late = run_blocks(blocks, tokens, False, first=1)
    torch.testing.assert_close(late, run_blocks(blocks[1:], between, False))
    late = embed_windows(visual, pixels, (0, 0), reads_from=0.5)
    torch.testing.assert_close(late, embed_windows(visual, pixels, (0, 0), reads_from=1.0))  # the last always reads
    assert not torch.allclose(late, embed_windows(visual, pixels, (0, 0)))


def test_end_token_that_reads_late_is_alone_before():
    network, said = build(SMALL, 1).eval(), clip.tokenize(["a red cube", "a cone"])
    x, end = network.token_embedding(said)[:, :5] + network.positional_embedding[:5], said.argmax(1)
    blocks = network.transformer.resblocks
    between = run_blocks(blocks[:1], x, True).detach()
    for row, place in zip(between, end, strict=True):
        alone = network.token_embedding(said.max())[None, None] + network.positional_embedding[place]
        row[place] = run_blocks(blocks[:1], alone, True)[0, 0].detach()
    torch.testing.assert_close(run_blocks(blocks, x, True, end, first=1), run_blocks(blocks[1:], between, True))


def test_patches_left_out_do_not_matter():
    visual = build(SMALL, 1).eval().visual
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([[0, 4, 8]])
    other = pixels.clone()
    other[..., :16, 16:] = 0  # patches 1 and 2
    torch.testing.assert_close(
        embed_windows(visual, pixels, (0, 0), kept=kept), embed_windows(visual, other, (0, 0), kept=kept)
    )
    every = torch.arange(9)[None]
    torch.testing.assert_close(embed_windows(visual, pixels, (0, 0), kept=every), embed_windows(visual, pixels, (0, 0)))


def test_cells_keep_patches_apart():
    visual = build(SMALL, 1).eval().visual
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    other = pixels.clone()
    other[..., 32:] = 0  # the third column of patches
    cells = torch.tensor([0, 0, 1] * 3)
    may = within_cells(cells, None)[0, 0]
    assert may[0].all() and not may[1:, 0].any()  # the class token reads all, and tells no patch
    assert may[1].tolist() == [False, True, True, False, True, True, False, True, True, False]
    blocks = visual.transformer.resblocks
    a, b = (run_blocks(blocks, x, False, may=may) for x in (tokens_of(visual, pixels), tokens_of(visual, other)))
    torch.testing.assert_close(a[:, 1:3], b[:, 1:3])  # patches of the first cell never learn what the second shows
    assert not torch.allclose(a[:, 0], b[:, 0])


def tokens_of(visual, pixels):
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    return torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), patches], 1)


def test_rate_warms_up_and_goes_in_straight_lines_to_each_stages_own():
    plan = replace(SMALL, stages=(replace(CLOSE, steps=100), replace(WHOLE, steps=50, rate=0.0)), warmup=8)
    rates = [rate(plan, step) for step in range(150)]
    assert rates[0] == pytest.approx(1e-3 / 8) and rates[8:101] == pytest.approx([1e-3] * 93)
    assert rates[125] == pytest.approx(5e-4) and rates[149] == pytest.approx(2e-5)


def test_schedule_rises_then_falls():
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[0] == 0.1 and rates[10] == pytest.approx(1.0) and rates[-1] < 0.02
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return folder, train(SMALL, folder)


def test_training_stopped_and_resumed_equals_training_at_one_go(trained, tmp_path):
    _, whole = trained
    train(SMALL, tmp_path, until=3)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    resumed = train(SMALL, tmp_path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_a_folder_with_another_plans_checkpoint_is_refused(trained):
    folder, _ = trained
    with pytest.raises(OutputError, match="another plan"):
        train(replace(SMALL, seed=9), folder)
    assert json.loads((folder / "plan.json").read_text())["seed"] == SMALL.seed


@pytest.mark.parametrize("at", [1, 3, 4])
def test_step_that_a_gpu_records_is_the_step_that_a_cpu_takes(trained, at):
    """The recorded step has padded texts and tensors where the other has numbers; a CPU can take both."""
    (batch,) = draw_batches(SMALL, trained[0], at, at + 1)
    networks = [build(SMALL, 1) for _ in range(2)]
    expected = take_step(networks[0], make_optimizer(networks[0], SMALL), batch, "cpu")
    figures, inputs = torch.zeros(3), inputs_of(networks[1], batch, "cpu")
    step_by_parts(networks[1], make_optimizer(networks[1], SMALL), figures, *parts_of(inputs))
    assert len(inputs.tokens) % 128 == 0 and inputs.tokens.shape[1] % 8 == 0 and len(parts_of(inputs)) == 9
    assert figures.tolist() == pytest.approx([expected[key] for key in ("loss", "best", "scale")], abs=0.05)
    for name in ("visual.proj", "text_projection"):
        moved = [network.get_parameter(name) - build(SMALL, 1).get_parameter(name) for network in networks]
        assert F.cosine_similarity(*(each.flatten() for each in moved), dim=0) > 0.98  # in bfloat16


def test_log_has_a_row_a_step(trained):
    folder, _ = trained
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(6))
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_export_keeps_what_was_learned(trained, monkeypatch, tmp_path):
    folder, network = trained
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    monkeypatch.setitem(PLANS, "small", SMALL)
    note = export("small", folder)
    assert len(note["sha256"]) == 64 and note["steps"] == 6 and note["samples"] == 24
    rebuilt, pixels = load_embedded("small")[0], torch.randn(1, 3, 224, 224)
    assert rebuilt.token_embedding.weight.shape == (49408, 64)
    said = next(draw_batches(SMALL, folder, 5, 6)).shown.tokens[:1]
    assert F.cosine_similarity(rebuilt.encode_text(said), network.encode_text(said)).item() > 0.999
    assert F.cosine_similarity(rebuilt.encode_image(pixels), network.encode_image(pixels)).item() > 0.999
    heads = [tower.transformer.resblocks[0].attn.num_heads for tower in (rebuilt.visual, rebuilt)]
    assert heads == [4, 1]  # 16 channels wide, as the file's metadata say; and 64


def test_plans_trained_side_by_side_equal_each_trained_alone(trained, tmp_path):
    folder, alone = trained
    plain = replace(SMALL, stages=tuple(replace(s, patch_isolation=0.0, class_token_delay=0.0) for s in SMALL.stages))
    plans = {"ours": SMALL, "plain": plain}
    train_together(plans, tmp_path, until=4, workers=0)
    train_together(plans, tmp_path, workers=0)
    ours, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in plans)
    assert ours["step"] == other["step"] == 6
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(ours["network"][name], value, rtol=0, atol=0, msg=name)
    assert not torch.equal(ours["network"]["visual.proj"], other["network"]["visual.proj"])


def test_plans_of_other_pictures_are_not_trained_side_by_side(tmp_path):
    with pytest.raises(MethodError, match="other does not learn from the pictures"):
        train_together({"one": SMALL, "other": replace(SMALL, seed=2)}, tmp_path)


def test_pool_is_decided_by_its_seed_and_reused(tmp_path):
    first = make_pool(tmp_path / "a", 3, 7, "three", size=64, workers=1)
    again = make_pool(tmp_path / "b", 3, 7, "three", size=64, workers=1)
    other = make_pool(tmp_path / "c", 3, 8, "three", size=64, workers=1)
    assert (first.images == again.images).all() and not (first.images == other.images).all()
    assert ((first.attributes[:, :, 0] >= 0).sum(1) == 3).all()
    stamp = (tmp_path / "a" / "images.npy").stat().st_mtime_ns
    make_pool(tmp_path / "a", 3, 7, "three", size=64, workers=1)
    assert (tmp_path / "a" / "images.npy").stat().st_mtime_ns == stamp


RESNET = Plan(
    vision_width=8, vision_layers=(1, 1, 1, 1), text_width=64, text_layers=2, embed=32, patch=32, warmup=2, art=4,
    stages=(
        replace(CLOSE, steps=2, window=96),
        replace(WHOLE, steps=2, art=2, patch_keep=1.0, patch_isolation=0.0, class_token_delay=0.0),
    ),
)  # fmt: skip


def test_resnet_on_whole_pictures_agrees_with_the_network_itself_and_its_corner_matters():
    network = build(RESNET, 1).eval()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ours = embed_images(network.visual, pixels, (0, 0))
    torch.testing.assert_close(ours, network.encode_image(pixels), rtol=1e-4, atol=1e-5)
    windows = [embed_images(network.visual, pixels[..., :96, :96], corner) for corner in ((0, 0), (4, 4))]
    assert not torch.allclose(*windows)


def test_resnet_trains_resumes_and_is_exported(tmp_path, monkeypatch):
    whole = train(RESNET, tmp_path / "whole")
    train(RESNET, tmp_path / "parts", until=2)
    resumed = train(RESNET, tmp_path / "parts")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    monkeypatch.setitem(PLANS, "small", RESNET)
    export("small", tmp_path / "whole")
    rebuilt, pixels = load_embedded("small")[0], torch.zeros(1, 3, 224, 224)
    assert F.cosine_similarity(rebuilt.encode_image(pixels), whole.eval().encode_image(pixels)).item() > 0.99


def test_batch_with_paintings_tells_them_from_scenes(tmp_path):
    (batch,) = draw_batches(RESNET, tmp_path, 3, 4)
    scenes, art = 2, 2
    shown = batch.shown
    assert shown.pixels.shape == (scenes + art, 3, 224, 224) and len(shown.truth) == scenes + art
    whose = shown.truth[-art:] == 1
    assert (shown.truth[:scenes, whose.any(0)] == 0).all() and whose.any(1).all()
    assert len(shown.tokens) == shown.truth.shape[1]


def test_faces_get_captions_of_the_other_mood():
    art = Art(np.zeros((3, 8, 8, 3), np.uint8), (("a smiling face",), ("a sad face",), ("a painting of red dots",)))
    stage = replace(WHOLE, batch=3, window=32, art=3)
    _, said, truth = draw_art(art, stage, np.random.default_rng(0))
    assert sorted(said[:3]) == sorted(captions[0] for captions in art.captions)
    assert sorted(said[3:]) == ["a frowning face", "a happy face"]
    assert truth.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize("name", PLANS)
def test_stages_of_every_plan_fit_their_architecture(name):
    plan = PLANS[name]
    assert len(plan.stages) <= 4 and len({stage.name for stage in plan.stages}) == len(plan.stages)
    for stage in plan.stages:
        assert stage.window % plan.patch == 0 and stage.window <= 224 and stage.art < stage.batch
    resnet = isinstance(plan.vision_layers, tuple)
    assert not resnet or all(stage.patch_keep == 1 and not stage.patch_isolation for stage in plan.stages)
    assert plan.text_width % (plan.text_heads or 1) == 0 and plan.vision_width % (plan.vision_heads or 1) == 0


def test_the_control_differs_from_tiny_vit_in_how_pictures_are_read_and_in_nothing_else():
    plain, ours = PLANS["tiny-vit-plain"], PLANS["tiny-vit"]
    for one, other in zip(plain.stages, ours.stages, strict=True):
        assert replace(other, patch_isolation=0.0, class_token_delay=0.0) == one
    assert replace(plain, stages=ours.stages, notes="") == ours
    assert any(stage.class_token_delay and stage.patch_isolation for stage in ours.stages)


def test_lengthened_plan_has_so_many_times_the_steps():
    plan = lengthened(SMALL, 2.5)
    assert [stage.steps for stage in plan.stages] == [8, 8]
    assert replace(plan, stages=SMALL.stages) == SMALL
