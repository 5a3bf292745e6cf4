"""Curves of words as rows: by hand, and against the metrics themselves."""

import pytest
import torch

import small_clip
from clip_explain import papers
from clip_explain.metrics.faithfulness import auc
from clip_explain.metrics.word_faithfulness import perturbed_texts, recall_among_perturbed
from clip_explain.models.model import unit
from clip_explain.request import make_word_request


@pytest.fixture(scope="module")
def model():
    return small_clip.wrap(small_clip.build(**small_clip.SMALL))


def directions(count: int, seed: int = 1) -> torch.Tensor:
    return unit(torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)) - 0.5)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_areas_of_words(model):
    """A text of three words, whose image is found by the whole of it alone: 1 at one of six points."""
    request = make_word_request(model, directions(1), "a red cone")
    weights = {name: random(1, 1, 5, seed=number) for number, name in enumerate("ab")}
    whole = model.embed_tokens(request.tokens)
    finds = {"IR@1": lambda seen: ((seen @ whole[0]) > 1 - 1e-5).float()}
    values = {(row["method"], row["metric"]): row["value"] for row in papers.word_areas("x", request, weights, finds)}
    assert values["a", "word_deletion_ir"] == values["b", "word_deletion_ir"] == pytest.approx(0.1)
    assert values["a", "word_insertion_ir"] == pytest.approx(0.5)  # whole from the third of five steps on


def test_recall_curves_are_those_of_the_metrics(model):
    """Two images, the first with two texts, which are averaged; each image's ties are drawn by its own seed."""
    pictures = directions(2)
    texts = [["a red cone", "a cone on grey ground"], ["a blue ring"]]
    requests = [make_word_request(model, pictures[[i]], some) for i, some in enumerate(texts)]
    weights = [
        {"a": random(len(some), 1, 77, seed=i), "b": torch.zeros(len(some), 1, 77)} for i, some in enumerate(texts)
    ]
    rows, points = papers.recall_curves(["x", "y"], requests, weights, pictures, steps=3, setting="s", seed=5)
    together = [torch.cat([each["a"], each["b"]], dim=1) for each in weights]
    changed = [perturbed_texts(requests[i], together[i], "insertion", steps=3, seed=5 + i) for i in range(2)]
    recall = recall_among_perturbed(torch.cat(changed), pictures, torch.tensor([0, 0, 1]))["TR"]
    values = papers.long_table(rows).set_index(["image", "method", "metric"])["value"]
    assert values["x", "b", "word_insertion_tr"] == pytest.approx(auc(recall[:2].mean(dim=0))[1].item())
    assert values["y", "a", "word_insertion_tr"] == pytest.approx(auc(recall[2])[0].item())
    drawn = papers.long_table(points)
    assert set(drawn["metric"]) == {f"{mode}, {side}" for mode in ("deletion", "insertion") for side in ("IR", "TR")}
    assert sorted(set(drawn["target"])) == [0, 1, 2, 3]


def test_random_weights_are_drawn_by_the_seed(model):
    request = make_word_request(model, directions(1), ["a red cone", "a cone"])
    first, again, other = (papers.random_weights(request, seed) for seed in (1, 1, 2))
    assert first.shape == papers.weights_by_name(request, ["rollout"])["rollout"].shape
    assert torch.equal(first, again) and not torch.equal(first, other)
