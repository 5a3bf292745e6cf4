"""EVA02 and towers pooled by the mean: the methods against the networks' own modules, in float64."""

import pytest
import torch
import torch.nn.functional as F

import clip_explain as cx
import open_clip_models
from clip_explain.explainers.attn_lrp import embed_with_rules
from clip_explain.explainers.head_effects import effects_by_head, score_directions
from clip_explain.explainers.registry import METHODS, methods_for
from clip_explain.request import Request, make_request
from open_clip_models import (
    PREPROCESS,
    averaged,
    averaged_of_timm,
    behind_convolutions,
    clipa,
    eva,
    eva_enormous,
    perception,
    tokenizer_of_clip,
    trunk,
    vitamin,
    with_trunk,
)
from small_clip import relative_error

timm_layers = pytest.importorskip("timm.layers")


def loaded(make, folder, double=True):
    network, tokenizer = open_clip_models.made(make, folder)
    model = cx.load(network.double() if double else network, preprocess=PREPROCESS, tokenizer=tokenizer)
    return network, model


def pixels(height=32, width=32, count=1, dtype=torch.float64):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def target(width=64):
    return F.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)


def kept_by(module, keep):
    """A hook that keeps what a module is given, so that a gradient can be taken by it."""
    return module.register_forward_hook(lambda _, inputs, output: keep.append((inputs[0], output)))


def eva_oracle(network, image, direction, heads):
    """ReLU(sum_c w_c w_i v_ic) of EVA's last block, by its own modules and timm's own rotation."""
    trunk, kept, attended = network.visual.trunk, [], []
    attention = trunk.blocks[-1].attn
    handles = [kept_by(trunk.blocks[-1].norm1, kept), kept_by(attention.norm, attended)]
    score = F.cosine_similarity(network.encode_image(image)[0], direction[0], dim=0)
    for handle in handles:
        handle.remove()
    (w_c,) = torch.autograd.grad(score, attended[0][0])
    x, rope = kept[0][1][0], trunk.rope.get_embed()
    q, k, v = (part(x) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    turned = []
    for part in (q, k):
        by_head = part.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
        patches = timm_layers.apply_rot_embed_cat(by_head[:, 1:], rope)
        turned.append(torch.cat([by_head[:, :1], patches], dim=1).transpose(0, 1).flatten(1))
    width, total = q.shape[-1] // heads, torch.zeros(16, dtype=torch.float64)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        likeness = turned[1][1:, own] @ turned[0][0, own]
        likeness = (likeness - likeness.min()) / (likeness.max() - likeness.min())
        total = total + likeness * (v[1:, own] @ w_c[0, 0, own])
    return total.relu().detach()


def test_grad_eclip_of_eva02_is_its_definition(tmp_path):
    network, model = loaded(eva, tmp_path)
    found = cx.explain(model, cx.pixels(model, pixels()), target(), heads="native")
    expected = eva_oracle(network, pixels(), target(), heads=2)
    assert expected.max() > 0 and relative_error(found.maps.flatten(), expected) < 1e-6


@pytest.mark.parametrize("name", ["eva02_base_patch16_clip_224", "vit_pe_core_base_patch16_224"])
def test_rotary_positions_at_another_size_are_the_networks_own(name):
    """timm resizes positions that are added by another rule than ours, so these are 0 here."""
    torch.manual_seed(0)
    options = dict(attn_pool_num_heads=2) if "pe_core" in name else {}
    network = with_trunk(trunk(name, num_classes=64, dynamic_img_size=True, **options)).eval().double()
    network.visual.trunk.pos_embed.data.zero_()
    model = cx.load(network, preprocess=PREPROCESS, tokenizer=tokenizer_of_clip())
    for size in ((32, 32), (32, 48), (16, 40)):
        with torch.no_grad():
            expected = network.encode_image(pixels(*size))
        assert relative_error(Request(model, pixels(*size), target()).trace().embedding, expected) < 1e-12
    assert Request(model, pixels(16, 40), target()).trace(layers=2).blocks[0].layer.rotary.shape == (2, 11, 32)


def test_one_head_over_all_channels_turns_queries_and_keys_as_its_many_heads_did(tmp_path):
    network, model = loaded(eva, tmp_path)
    many, one = (
        Request(model, pixels(), target()).trace(heads=heads, tokens="all").blocks[0] for heads in ("native", "single")
    )
    logits = (many.q @ many.k.transpose(-2, -1)).sum(dim=1)
    assert relative_error(one.attention[:, 0], (logits / 64**0.5).softmax(dim=-1)) < 1e-12


def test_head_effects_of_eva02_add_up_to_what_its_attention_adds(tmp_path):
    """All effects of the last layer and that of its biases: the attention's own output along the score's direction."""
    network, model = loaded(eva, tmp_path)
    attention, kept = network.visual.trunk.blocks[-1].attn, []
    handle = kept_by(attention, kept)
    with torch.no_grad():
        network.encode_image(pixels())
    handle.remove()
    request = make_request(model, cx.pixels(model, pixels()), target())
    trace = request.trace(layers=1)
    found = effects_by_head(trace, request.targets).sum()
    direction = score_directions(trace, request.targets)[0, 0]
    biases = attention.proj.weight @ attention.norm.bias + attention.proj.bias
    expected = (kept[0][1][0, 0] - biases) @ direction
    assert abs(found) > 1e-3 and abs(found - expected) < 1e-9


def test_head_effects_pass_the_norm_behind_the_attention_of_eva02_e(tmp_path):
    """As above; the norm subtracts a part's own mean, and the bias of what enters it has a part, too."""
    network, model = loaded(eva_enormous, tmp_path)
    block, kept = network.visual.trunk.blocks[-1], []
    handle = kept_by(block.norm1, kept)
    with torch.no_grad():
        network.encode_image(pixels())
    handle.remove()
    request = make_request(model, cx.pixels(model, pixels()), target())
    trace = request.trace(layers=1)
    entering, leaving = kept[0]
    deviation = (entering[0, 0].var(correction=0) + block.norm1.eps).sqrt()
    bias = block.attn.proj.bias
    of_bias = block.norm1.bias + block.norm1.weight * (bias - bias.mean()) / deviation
    expected = (leaving[0, 0] - of_bias) @ score_directions(trace, request.targets)[0, 0]
    found = effects_by_head(trace, request.targets).sum()
    assert abs(found) > 1e-3 and abs(found - expected) < 1e-9


@pytest.mark.parametrize("make", [eva, eva_enormous])
def test_the_forward_of_attn_lrp_has_the_networks_own_value(make, tmp_path):
    network, model = loaded(make, tmp_path)
    trace = make_request(model, cx.pixels(model, pixels()), target()).trace(layers=2)
    with torch.no_grad():
        expected = F.normalize(network.encode_image(pixels()), dim=1)
        assert relative_error(embed_with_rules(trace, trace.blocks[0].input), expected) < 1e-9


# -- pooling by the mean


def mean_oracle(network, image, direction, after):
    """ReLU(sum_c w_c v_ic): v are the tokens as they are averaged, w_c = d cos / d their mean."""
    visual, kept = network.visual, []
    handle = kept_by(visual.transformer if after else visual.ln_post, kept)
    with torch.no_grad():
        network.encode_image(image)
    handle.remove()
    tokens = kept[0][1].squeeze()[1:]  # one image: open_clip 2.24 has the tokens first, later versions the images
    mean = tokens.mean(dim=0).requires_grad_()
    pooled = visual.ln_post(mean) if after else mean
    (w_c,) = torch.autograd.grad(F.cosine_similarity(pooled @ visual.proj, direction[0], dim=0), mean)
    return (tokens @ w_c).relu()


@pytest.mark.parametrize("make, after", [(averaged, False), (clipa, True)])
def test_grad_eclip_of_a_mean_is_its_definition(make, after, tmp_path):
    network, model = loaded(make, tmp_path)
    expected = mean_oracle(network, pixels(), target(), after)
    for heads in ("single", "native"):
        found = cx.explain(model, cx.pixels(model, pixels()), target(), heads=heads).maps
        assert expected.max() > 0 and relative_error(found.flatten(), expected) < 1e-6


def test_a_mean_is_over_the_patches_alone(tmp_path):
    _, model = loaded(averaged, tmp_path)
    attention = Request(model, pixels(32, 48), target()).trace().blocks[-1].attention
    assert attention.shape == (1, 1, 1, 25) and attention[..., 0].item() == 0
    assert relative_error(attention[0, 0, 0, 1:], torch.full((24,), 1 / 24)) < 1e-6


# -- every method


def quick_options(name):
    """Options with which a method is quick, and fits a tower of two layers."""
    found = {}
    for option in METHODS[name].options_for().values():
        if option.kind in ("layer", "layers") and option.default is not None:
            found[option.name] = 1
        elif option.quick is not None:
            found[option.name] = min(option.quick, 40)
    return found | ({"layer": 0} if name == "m2ib" else {})


# -- behind convolutions


@pytest.mark.parametrize("make", [behind_convolutions, vitamin])
def test_convolutions_are_run_as_in_evaluation_and_keep_no_graph(make, tmp_path):
    """Batch norms with their own statistics, though the network is in train mode; the network stays as it is."""
    network, model = loaded(make, tmp_path)
    image = pixels(64, 64)
    with torch.no_grad():
        expected = network.encode_image(image)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    trace = Request(model, image, target()).trace(layers=2, start="input")
    assert relative_error(trace.embedding, expected) < 1e-12
    assert network.training and all(module.training for module in network.visual.trunk.patch_embed.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    (slope,) = torch.autograd.grad(trace.embedding.sum(), trace.blocks[0].input)
    assert slope.abs().sum() > 0 and all(parameter.grad is None for parameter in network.parameters())


def test_a_cell_of_mobileclip_b_sees_its_own_patch_alone(tmp_path):
    _, model = loaded(behind_convolutions, tmp_path)
    changed = pixels()
    changed[:, :, :16, 16:] += 1
    before, after = (Request(model, each, target()).trace(layers=2).blocks[0].input for each in (pixels(), changed))
    assert ((before - after).abs().sum(dim=-1) > 1e-9).tolist() == [[False, False, True, False, False]]


TOWERS = [eva, eva_enormous, averaged, clipa, averaged_of_timm, perception, behind_convolutions, vitamin]


@pytest.mark.parametrize("make", TOWERS)
def test_every_method_that_takes_the_tower_gives_a_finite_map(make, tmp_path):
    _, model = loaded(make, tmp_path, double=False)
    given = cx.pixels(model, pixels(2 * model.patch_size, 3 * model.patch_size, dtype=torch.float32))
    assert "grad_eclip" in methods_for(model) and ("itsm" in methods_for(model)) == (model.encoder == "class")
    has_attention = model.encoder != "mean"  # the weights of a mean are equal
    assert ("self_attention" in methods_for(model)) == has_attention
    for name in methods_for(model):
        maps = cx.explain(model, given, ["a red cube", "a cone"], name, **quick_options(name)).maps
        assert maps.shape[:2] == (1, 2) and maps.isfinite().all() and maps.abs().sum() > 0, name
