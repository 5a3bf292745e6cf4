"""A small random CLIP in OpenAI's architecture, the same on every machine, and other random CLIPs for tests.

Weights and pixels come from `numpy.random.RandomState` in one fixed order: the frozen numbers in tests/golden belong to
`build(seed=0)` and `pixels(10, 224, 224)`, so the order of the draws must not change.
"""

import copy
import functools
import math
from pathlib import Path

import numpy as np
import torch
from clip.model import build_model, convert_weights
from torch.nn import functional as F

from clip_explain.images import mark
from clip_explain.models.model import Model, clip
from clip_explain.request import Request, make_request

GOLDEN = np.load(Path(__file__).parent / "golden" / "authors_code_seed0.npz")
TEXTS = [str(text) for text in GOLDEN["texts"]]
METADATA = {"vision_heads": "2", "text_heads": "1", "activation": "quick_gelu"}  # of SMALL
SMALL = dict(embed=64, res=64, patch=16, vlayers=2, vwidth=128, tlayers=2, twidth=64)


def state_dict(
    seed=0, embed=64, res=224, patch=32, vlayers=8, vwidth=128, tlayers=10, twidth=128, vocab=49408, gain=3.0
):
    """Random weights under OpenAI's names. `gain` widens attention's projections, so that its maps are not flat."""
    random = np.random.RandomState(seed)
    state = {}

    def normal(name, *shape, std, mean=0.0):
        state[name] = mean + torch.from_numpy((random.standard_normal(shape) * std).astype(np.float32))

    def norm(name, width):
        normal(f"{name}.weight", width, std=0.1, mean=1.0)
        normal(f"{name}.bias", width, std=0.1)

    def linear(name, rows, columns, std):
        normal(f"{name}weight", rows, columns, std=std)
        normal(f"{name}bias", rows, std=0.1)

    def blocks(prefix, width, layers):
        for block in (f"{prefix}transformer.resblocks.{i}." for i in range(layers)):
            linear(block + "attn.in_proj_", 3 * width, width, std=gain * width**-0.5 / 2)
            linear(block + "attn.out_proj.", width, width, std=width**-0.5)
            norm(block + "ln_1", width)
            norm(block + "ln_2", width)
            linear(block + "mlp.c_fc.", 4 * width, width, std=width**-0.5)
            linear(block + "mlp.c_proj.", width, 4 * width, std=(4 * width) ** -0.5)

    normal("visual.class_embedding", vwidth, std=1.0)
    normal("visual.positional_embedding", (res // patch) ** 2 + 1, vwidth, std=0.5)
    normal("visual.conv1.weight", vwidth, 3, patch, patch, std=(3 * patch * patch) ** -0.5)
    norm("visual.ln_pre", vwidth)
    norm("visual.ln_post", vwidth)
    blocks("visual.", vwidth, vlayers)
    normal("visual.proj", vwidth, embed, std=vwidth**-0.5)
    normal("token_embedding.weight", vocab, twidth, std=1.0)
    normal("positional_embedding", 77, twidth, std=0.5)
    blocks("", twidth, tlayers)
    norm("ln_final", twidth)
    normal("text_projection", twidth, embed, std=twidth**-0.5)
    state["logit_scale"] = torch.tensor(math.log(100.0))
    return state


def build(dtype=torch.float32, **options):
    """The CLIP of `state_dict(**options)` in eval mode; `clip` rounds its weights to fp16 on the way."""
    return build_model(state_dict(**options)).to(dtype)


def pixels(seed, height, width):
    """A smooth random image as CLIP's preprocessing would hand it on: float32, (1, 3, height, width)."""
    coarse = np.random.RandomState(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return marked(F.interpolate(torch.from_numpy(coarse), size=(height, width), mode="bicubic", align_corners=False))


def marked(values):
    """A tensor as preprocessed pixels, as `cx.pixels` marks them."""
    return mark(values, None, [tuple(values.shape[2:])] * len(values))


def wrap(network):
    """A `Model` around a network, as `load` returns it."""
    return Model(network, "small", "", clip.clip._tokenizer)


def half(network, dtype):
    """A copy in fp16 or bf16 the way OpenAI's code keeps it: layer norms and embeddings stay in fp32."""
    network = copy.deepcopy(network)
    convert_weights(network)
    for parameter in network.parameters():
        if parameter.dtype == torch.float16:
            parameter.data = parameter.data.to(dtype)
    return network


def relative_error(got, expected):
    """Norm of the difference over norm of the reference, in float64."""
    got, expected = (torch.as_tensor(x).detach().double() for x in (got, expected))
    assert got.shape == expected.shape
    return ((got - expected).norm() / expected.norm()).item()


@functools.cache
def golden_model() -> Model:
    """The model of the golden numbers, its weights rounded to fp16 as `build_model` does."""
    return wrap(build(seed=0))


@functools.cache
def golden_query() -> Request:
    return make_request(golden_model(), pixels(10, 224, 224), TEXTS)


@functools.cache
def exact_model() -> Model:
    """Two vision layers in float64 with a vocabulary of 100, for the oracles."""
    return wrap(build(torch.float64, vlayers=2, tlayers=3, vocab=100))
