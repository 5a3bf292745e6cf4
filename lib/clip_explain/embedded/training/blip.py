"""Trains the embedded BLIP, and writes it with its card: `clip-explain train tiny-blip`.

Only BLIP's image-text contrast (ITC) is trained, with the batches, the loss and the loop of the embedded CLIPs.
transformers has the architecture; it is imported only when needed. The image tower starts as tiny-vit's, as BLIP's own
started as a ViT trained on ImageNet. BLIP's text encoder started as BERT; here it starts at random.
"""

import importlib
import math
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clip_explain.embedded.scenes import captions as cap
from clip_explain.embedded.scenes.pool import RECIPES, draw
from clip_explain.embedded.scenes.raycast import render
from clip_explain.embedded.scenes.world import ATTRIBUTES
from clip_explain.embedded.training.batches import Batch
from clip_explain.embedded.training.plans import FOURTH, TRAINING, Plan, Stage
from clip_explain.embedded.training.towers import embed_windows
from clip_explain.embedded.training.windows import normalized
from clip_explain.models import load
from clip_explain.models.adapters import module_of
from clip_explain.models.weights import clip

NAME = "tiny-blip"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # BERT's, in its order
PLAN = Plan(
    vision_width=128, vision_layers=12, text_width=128, text_layers=3, embed=128, patch=16,
    start="tiny-vit", seed=5, rate=8e-4, warmup=20,
    stages=(
        Stage(
            name="whole pictures", steps=1000, batch=64, window=224, magnification=(1.0, 1.25), pool=TRAINING,
            shares=FOURTH, captions=2, hard_negatives=1, all_pairs=True, removals=0.3,
            patch_keep=0.35, patch_isolation=0.7, class_token_delay=0.6, rate=8e-6,
        ),
    ),
)  # fmt: skip


def vocabulary() -> list[str]:
    """BERT's special tokens, then every word that scenes' captions are made of."""
    said = [*cap.FRAMES, *cap.FREE_FRAMES, *cap.NOUNS, *cap.PLACES, *cap.ARTICLES, *cap.BETWEEN, ", and with"]
    for words in (cap.WORDS, cap.RELATION_WORDS, ATTRIBUTES):
        said += [text for texts in words.values() for text in texts]
    return [*SPECIAL, *sorted({word for text in said for word in re.findall(r"\w+|[^\w\s]", text.replace("{}", ""))})]


@cache
def tokenizer() -> Any:
    """BERT's tokenizer with our vocabulary."""
    with TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
        return importlib.import_module("transformers").BertTokenizerFast.from_pretrained(folder)


def build_blip(plan: Plan, seed: int) -> nn.Module:
    """A `BlipForImageTextRetrieval` at 224 pixels with random weights, except its image tower, and a `logit_scale`."""
    transformers = importlib.import_module("transformers")
    started = load(plan.start, "cpu", "fp32").network.visual if plan.start else None
    heads = started.transformer.resblocks[0].attn.num_heads if started else plan.vision_heads
    vision = _sizes(plan.vision_width, plan.vision_layers, heads)
    vision |= {"image_size": 224, "patch_size": plan.patch}
    text = _sizes(plan.text_width, plan.text_layers, plan.text_heads)
    text |= {"vocab_size": len(vocabulary()), "is_decoder": False}
    text |= {"max_position_embeddings": 77, "encoder_hidden_size": plan.vision_width, "projection_dim": plan.embed}
    text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    vision |= {"hidden_act": "quick_gelu", "projection_dim": plan.embed}
    config = transformers.BlipConfig(
        vision_config=vision, text_config=text, projection_dim=plan.embed, image_text_hidden_size=plan.embed
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.BlipForImageTextRetrieval(config)
    if started:
        start_vision(network, started, scenes(seed))
    network.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # BLIP's starting temperature
    return network.train()


def _sizes(width: int, layers: int, heads: int | None) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads or width // 64,
    }


def scenes(seed: int, count: int = 8) -> Tensor:
    """Some scenes as pixels."""
    drawn = [draw(RECIPES["whole"], np.random.default_rng([seed, i])) for i in range(count)]
    images = np.stack([render(scene, 224, 224).image for scene in drawn])
    return normalized(torch.from_numpy(images).permute(0, 3, 1, 2))


@torch.no_grad()
def start_vision(network: nn.Module, visual: nn.Module, pixels: Tensor) -> None:
    """Copy CLIP's image tower into BLIP's, which lacks only the layer norm before the first block.

    That norm is merged into the patches' projection and the positions. This is exact for the class token. For patches
    the norm's division by their deviation over channels is replaced by the mean deviation over the patches of `pixels`.
    """
    own, norm, layers = network.vision_model.embeddings, visual.ln_pre, network.vision_model.encoder.layers
    here = visual.positional_embedding
    spread = (visual.conv1(pixels).flatten(2).transpose(1, 2) + here[1:]).std(-1, correction=0).mean()
    gain = norm.weight / spread
    weight = visual.conv1.weight
    own.patch_embedding.weight.copy_((weight - weight.mean(0)) * gain[:, None, None, None])
    own.patch_embedding.bias.copy_(norm.bias)
    own.position_embedding.copy_(((here - here.mean(1, keepdim=True)) * gain)[None])
    own.class_embedding.copy_(norm(visual.class_embedding + here[0])[None, None] - own.position_embedding[:, :1])
    for layer, block in zip(layers, visual.transformer.resblocks, strict=True):
        layer.self_attn.qkv.weight.copy_(block.attn.in_proj_weight)
        layer.self_attn.qkv.bias.copy_(block.attn.in_proj_bias)
        copies = {layer.layer_norm1: block.ln_1, layer.layer_norm2: block.ln_2}
        copies |= {layer.self_attn.projection: block.attn.out_proj}
        copies |= {layer.mlp.fc1: block.mlp.c_fc, layer.mlp.fc2: block.mlp.c_proj}
        for ours, theirs in copies.items():
            ours.load_state_dict(theirs.state_dict())
    network.vision_model.post_layernorm.load_state_dict(visual.ln_post.state_dict())
    network.vision_proj.weight.copy_(visual.proj.T)
    network.vision_proj.bias.zero_()


def image_tower(network: nn.Module) -> nn.Module:
    """BLIP's own parameters under OpenAI's names, as `embed_windows` takes them; gradients reach them."""
    vision = network.vision_model
    blocks = []
    for layer in vision.encoder.layers.children():
        qkv, out, heads = layer.self_attn.qkv, layer.self_attn.projection, layer.self_attn.num_heads
        attn = module_of(in_proj_weight=qkv.weight, in_proj_bias=qkv.bias, out_proj=out, num_heads=heads)
        mlp = module_of(c_fc=layer.mlp.fc1, c_proj=layer.mlp.fc2, gelu=clip.model.QuickGELU())
        blocks.append(module_of(ln_1=layer.layer_norm1, attn=attn, ln_2=layer.layer_norm2, mlp=mlp))
    return module_of(
        conv1=vision.embeddings.patch_embedding,
        class_embedding=vision.embeddings.class_embedding[0, 0],
        positional_embedding=vision.embeddings.position_embedding[0],
        ln_pre=nn.Identity(),
        transformer=module_of(resblocks=nn.ModuleList(blocks)),
        ln_post=vision.post_layernorm,
        proj=network.vision_proj.weight.T,
    )


def embed_batch(network: nn.Module, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """BLIP's embeddings of a batch's pictures and captions; the plan's stage says how pictures are read."""
    kept, cells = (None if x is None else x.to(device) for x in (batch.kept, batch.cells))
    reading = {"reads_from": batch.reads_from, "kept": kept, "cells": cells}
    pixels = normalized(batch.shown.pixels.to(device))
    images = embed_windows(image_tower(network), pixels, batch.corner, **reading)
    tokens = tokenizer()(batch.shown.texts, padding=True, return_tensors="pt").to(device)
    hidden = network.text_encoder(tokens["input_ids"], tokens["attention_mask"])[0]
    return images + network.vision_proj.bias, network.text_proj(hidden[:, 0])
