"""The embedded BLIP's training in small: its image tower against transformers' own, its start, resuming, export."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import clip_explain as cx
from clip_explain.embedded.cards.figures import recognition
from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.embedded.training import PLANS, Plan, Stage, finetune, train
from clip_explain.embedded.training.batches import draw_batches
from clip_explain.embedded.training.towers import build, embed_windows
from clip_explain.files import data_folder

pytest.importorskip("transformers")

from clip_explain.embedded.cards import blip as blip_card  # noqa: E402
from clip_explain.embedded.training import blip  # noqa: E402  (needs transformers)

SHARES = {"single": 0.3, "double": 0.3, "full": 0.1, "pair": 0.1, "relation": 0.1, "place": 0.1}
SMALL = Plan(
    vision_width=64, vision_layers=2, text_width=64, text_layers=2, embed=32, patch=16, warmup=2, vision_heads=2,
    stages=(
        Stage(
            name="whole pictures", steps=4, batch=4, window=224, magnification=(1.0, 1.2), shares=SHARES, grey=0.3,
            pool=("whole", 1, 4), captions=3, hard_negatives=1, patch_keep=0.5, patch_isolation=1.0, all_pairs=True,
        ),
    ),
)  # fmt: skip


def pixels(count=2):
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def literal(network, images):
    """Image features by transformers' own forward."""
    return network.vision_proj(network.vision_model(images).last_hidden_state[:, 0])


def test_image_tower_is_blips_own_and_gradients_reach_it():
    network = blip.build_blip(SMALL, 1)
    ours = embed_windows(blip.image_tower(network), pixels(), (0, 0)) + network.vision_proj.bias
    torch.testing.assert_close(ours, literal(network, pixels()), rtol=1e-4, atol=1e-5)
    ours.sum().backward()
    reached = [network.vision_model.embeddings.class_embedding, network.vision_model.embeddings.position_embedding]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (*reached, network.vision_proj.weight))


def test_image_tower_starts_as_clips():
    clip, network = build(SMALL, 2), blip.build_blip(SMALL, 1)
    blip.start_vision(network, clip.visual, pixels())
    own = network.vision_model.embeddings
    first = own.class_embedding[0, 0] + own.position_embedding[0, 0]
    here = clip.visual.class_embedding + clip.visual.positional_embedding[0]
    torch.testing.assert_close(first, clip.visual.ln_pre(here), rtol=1e-4, atol=1e-5)
    # Patches of noise spread over the channels nearly alike, so that the one spread put in for all is each one's own.
    assert F.cosine_similarity(literal(network, pixels()), clip.encode_image(pixels())).min() > 0.99


def test_every_word_of_a_caption_is_known(tmp_path):
    plan = replace(SMALL, stages=(replace(SMALL.stages[0], batch=60),))
    said = [text for batch in draw_batches(plan, tmp_path, 0, 2) for text in batch.shown.texts]
    tokens = blip.tokenizer()(said, padding=True, return_tensors="pt")["input_ids"]
    assert len(said) > 100 and (tokens != blip.SPECIAL.index("[UNK]")).all()
    assert (tokens[:, 0] == blip.SPECIAL.index("[CLS]")).all()


def test_training_resumes_and_its_export_is_read_as_it_was(tmp_path, monkeypatch):
    whole = train(SMALL, tmp_path / "whole", make=blip.build_blip, embed=blip.embed_batch)
    train(SMALL, tmp_path / "parts", until=2, make=blip.build_blip, embed=blip.embed_batch)
    resumed = train(SMALL, tmp_path / "parts", make=blip.build_blip, embed=blip.embed_batch)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    card = blip_card.export("small-blip", tmp_path / "whole", SMALL)
    model = cx.load("blip:small-blip", device="cpu")
    assert (model.sha256, model.name, card["steps"]) == (card["sha256"], "blip:small-blip", 4)
    whole.eval()
    similar = F.cosine_similarity(cx.encode_image(model, cx.pixels(model, pixels())), literal(whole, pixels()))
    assert similar.min() > 0.999
    texts = ["a red cube", "a tiny metallic donut behind a blue ball"]
    tokens = blip.tokenizer()(texts, padding=True, return_tensors="pt")
    hidden = whole.text_encoder(tokens["input_ids"], tokens["attention_mask"])[0]
    assert F.cosine_similarity(cx.encode_text(model, texts), whole.text_proj(hidden[:, 0])).min() > 0.999


def test_finetuning_starts_as_the_model_and_changes_it(tmp_path):
    network = build(SMALL, 3)
    heads = {"vision_heads": "2", "text_heads": "1", "activation": "quick_gelu"}
    save_file(network.state_dict(), tmp_path / "small.safetensors", heads)
    stage = replace(PLANS["tiny-vit-xray"].stages[0], steps=2, batch=4, pool=("xray", 4, 4))
    plan = replace(PLANS["tiny-vit-xray"], start=str(tmp_path / "small.safetensors"), stages=(stage,))
    before, after = cx.load(plan.start, "cpu"), finetune(plan)
    assert all(torch.equal(a, b) for a, b in zip(build(plan, 0).parameters(), before.network.parameters(), strict=True))
    assert not torch.equal(after.network.visual.proj, before.network.visual.proj)
    seen = [cx.encode_image(model, cx.pixels(model, pixels())) for model in (after, before)]
    moved = F.cosine_similarity(*seen)
    assert (moved > 0.8).all() and (moved < 0.99999).all()
    assert not after.network.training and not any(p.requires_grad for p in after.network.parameters())


def test_captions_of_x_rays_say_nothing_of_color(tmp_path):
    plan = PLANS["tiny-vit-xray"]
    plan = replace(plan, stages=(replace(plan.stages[0], steps=2, batch=40, pool=("xray", 4, 4)),))
    said = " ".join(text for batch in draw_batches(plan, tmp_path, 0, 2) for text in batch.shown.texts)
    words = set(said.replace(",", "").split())
    assert {"metal", "cube"} & words and not {"red", "blue", "green", "cyan", "yellow", "purple", "brown"} & words


def test_the_shipped_one_is_its_cards_and_as_good_as_that_says(tmp_path):
    model, card = cx.load("blip:tiny-blip", "cpu"), data_folder() / "models" / "tiny-blip.json"
    card = json.loads(card.read_text())
    weights = data_folder() / "models" / "tiny-blip" / "model.safetensors"
    assert model.sha256 == card["sha256"] and weights.stat().st_size <= 10e6
    measured = recognition(model, make_pool(tmp_path / "one", 60, 77_000_002, "one"))  # scenes that no one has used
    for name, share in measured.items():
        said = card["figures"][name]
        assert share.mean >= said - 4 * math.sqrt(max(said * (1 - said), 0.01) / 60), name
