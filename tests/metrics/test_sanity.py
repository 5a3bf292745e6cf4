"""Similarities of maps against scipy and torchmetrics; the randomisation check on a small random CLIP."""

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from clip.model import ModifiedResNet
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure

import small_clip
from clip_explain.errors import MethodError, TensorError
from clip_explain.explainers import METHODS
from clip_explain.maps import normalize
from clip_explain.metrics.sanity import SIMILARITIES, parameter_randomisation, pearson, randomised, spearman, ssim
from clip_explain.models.model import Model
from clip_explain.request import make_request

STAGES = ["projection", "block 1", "block 0", "patches"]


@pytest.fixture(scope="module")
def asked():
    model = small_clip.wrap(small_clip.build(vocab=100, **small_clip.SMALL).requires_grad_(False))
    pixels = small_clip.marked(torch.cat([small_clip.pixels(seed, 80, 64) for seed in (0, 1)]))
    return make_request(model, pixels, torch.randn(3, 64, generator=torch.Generator().manual_seed(2)))


def brightness(asked):
    """Maps of the pixels alone, as an edge detector's are."""
    return F.avg_pool2d(asked.pixels.mean(dim=1, keepdim=True), 16).expand(-1, len(asked.targets), -1, -1)


def random_maps(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)  # with equal values


# -- similarities


def test_correlations_by_hand():
    """Of 1 2 3 4 and 1 2 4 3 the ranks differ by 0, 0, 1, 1: 1 - 6 * 2 / (4 * 15)."""
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [90.0, 3.0]])
    assert spearman(first, second).item() == pytest.approx(1 - 12 / 60)
    assert pearson(first, 2 - 3 * first).item() == pytest.approx(-1)
    assert ssim(first, 7 * first + 2).item() == pytest.approx(1)


def test_ssim_by_hand():
    """One window of 0 1 0 0 and 0 0 0 1: means 1/4, variances 3/16, covariance -1/16."""
    first, second = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    means, spread = 2 / 16, 2 * 3 / 16
    expected = (means + 1e-4) * (-2 / 16 + 9e-4) / ((means + 1e-4) * (spread + 9e-4))
    assert ssim(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_similarities_against_others():
    maps, others = random_maps(0, 2, 3, 9, 11), random_maps(1, 2, 3, 9, 11)
    others = others + maps
    for i in range(2):
        for j in range(3):
            a, b = maps[i, j].flatten().double().numpy(), others[i, j].flatten().double().numpy()
            assert spearman(maps, others)[i, j].item() == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-6)
            assert pearson(maps, others)[i, j].item() == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-6)
    x, y = (normalize(each).reshape(6, 1, 9, 11).double() for each in (maps, others))
    options = dict(gaussian_kernel=False, kernel_size=7, data_range=1.0, reduction="none", return_full_image=True)
    _, whole = structural_similarity_index_measure(x, y, **options)
    inner = whole[..., 3:-3, 3:-3].mean(dim=(1, 2, 3))  # the windows that fit; torchmetrics pads the rest
    torch.testing.assert_close(ssim(maps, others).flatten(), inner.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("by", SIMILARITIES)
def test_degenerate_maps(by):
    flat, ramp = torch.full((2, 3), 4.0), torch.arange(6.0).reshape(2, 3)
    found = SIMILARITIES[by](torch.stack([flat, flat, ramp]), torch.stack([flat - 9, ramp, ramp]))
    assert found.tolist() == pytest.approx([1, 0, 1])
    with pytest.raises(TensorError, match="NaN"):
        SIMILARITIES[by](ramp / 0, ramp)


# -- the check


def test_a_method_that_looks_at_pixels_only_is_found_out(asked):
    found = parameter_randomisation(asked, brightness, seed=0)
    assert list(found) == ["none", *STAGES]
    assert all(similar.tolist() == [pytest.approx([1] * 3)] * 2 for similar in found.values())


@pytest.mark.parametrize("by", SIMILARITIES)
def test_a_method_that_looks_at_the_model_changes(asked, by):
    found = parameter_randomisation(asked, METHODS["itsm"].image, seed=0, by=by)
    assert found["none"].min() > 0.999 and found["patches"].shape == (2, 3)
    assert found["patches"].mean() < 0.5


def test_the_seed_gives_the_weights(asked):
    first, again, other = (parameter_randomisation(asked, METHODS["grad_eclip"].image, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[stage], again[stage]) for stage in first)
    assert not torch.equal(first["patches"], other["patches"])


def changed(model: Model, other: Model) -> set[str]:
    state = other.network.state_dict()
    return {name for name, value in model.network.state_dict().items() if not torch.equal(value, state[name])}


def test_stages_cascade_from_the_output(asked):
    seen, visual = [], {name for name, _ in asked.model.network.named_parameters() if name.startswith("visual.")}
    for _, copy in randomised(asked.model, seed=0):
        seen.append(changed(asked.model, copy))
    assert seen[0] == {"visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"}
    assert all(".resblocks.1." in name for name in seen[1] - seen[0]) and len(seen[1] - seen[0]) == 12
    assert all(".resblocks.0." in name for name in seen[2] - seen[1]) and len(seen[2] - seen[1]) == 12
    assert seen[3] == visual  # all of the image tower, nothing of the text tower


def test_independent_stages_share_nothing(asked):
    seen = [changed(asked.model, copy) for _, copy in randomised(asked.model, seed=0, order="independent")]
    assert sum(len(each) for each in seen) == len(set().union(*seen)) and len(seen) == 4


def test_random_weights_keep_their_scale(asked):
    for _, copy in randomised(asked.model, seed=0):
        last = copy.network.visual
    weight, true = last.conv1.weight, asked.model.network.visual.conv1.weight
    assert weight.std().item() == pytest.approx(true.std().item(), rel=0.03)
    assert last.ln_pre.weight.mean().item() == pytest.approx(1, abs=0.05)


def test_the_model_is_left_as_it_was_also_after_an_exception(asked):
    before = {name: value.clone() for name, value in asked.model.network.state_dict().items()}
    calls = []

    def breaks(asked):
        calls.append(asked)
        if len(calls) == 4:
            raise RuntimeError("broken explainer")
        return brightness(asked)

    with pytest.raises(RuntimeError, match="broken explainer"):
        parameter_randomisation(asked, breaks, seed=0)
    after = asked.model.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in asked.model.network.parameters())


def test_stages_of_a_resnet():
    visual = ModifiedResNet(layers=(1, 1, 1, 1), output_dim=8, heads=2, input_resolution=32, width=4)
    network = nn.Module()
    network.visual = visual
    model = small_clip.wrap(network)
    seen = {stage: changed(model, copy) for stage, copy in randomised(model, seed=0, order="independent")}
    assert list(seen) == ["pool", "stage 4", "stage 3", "stage 2", "stage 1", "stem"]
    varied = {f"visual.{name}" for name, parameter in visual.named_parameters() if parameter.std() > 0}
    assert set().union(*seen.values()) == varied  # batch norms just begun are all ones: nothing to draw from
    assert any("visual.attnpool." in name for name in seen["pool"]) and "visual.conv1.weight" in seen["stem"]


def test_unknown_options_are_refused(asked):
    with pytest.raises(MethodError, match="by='mse', expected one of 'spearman', 'ssim', 'pearson'"):
        parameter_randomisation(asked, brightness, seed=0, by="mse")
    with pytest.raises(MethodError, match="'cascading' or 'independent'"):
        next(randomised(asked.model, seed=0, order="random"))
    with pytest.raises(MethodError, match="window=1"):
        ssim(torch.eye(2), torch.eye(2), window=1)
