"""Recognition metrics worked by hand, and against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torchmetrics.functional.classification import multilabel_average_precision

from clip_explain.errors import MethodError, TensorError
from clip_explain.metrics.recognition import (
    class_average_precision,
    mean_average_precision,
    rank_of,
    recall_at_k,
    top_k,
)

NAN = float("nan")
# four images; class 0 is first and third of its column, class 1 in no image, class 2 in all
SCORES = torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.5, 0.3], [0.7, 0.2, 0.9], [0.1, 0.3, 0.2]])
PRESENT = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)


def test_class_average_precision_by_hand():
    found = class_average_precision(SCORES, PRESENT).tolist()
    assert found == pytest.approx([(1 / 1 + 2 / 3) / 2, NAN, 1], nan_ok=True)
    assert mean_average_precision(SCORES, PRESENT) == pytest.approx((5 / 6 + 1) / 2)
    equal = class_average_precision(torch.ones(4, 1), PRESENT[:, :1])
    assert equal.item() == 2 / 4  # one point of the curve: the share of images that have it


def test_mean_average_precision_against_torchmetrics():
    random = torch.Generator().manual_seed(0)
    scores, present = torch.rand(40, 6, generator=random), torch.rand(40, 6, generator=random) < 0.3
    expected = multilabel_average_precision(scores, present.int(), num_labels=6, average="macro")
    assert mean_average_precision(scores, present) == pytest.approx(expected.item(), abs=1e-6)
    assert mean_average_precision(5 * scores - 3, present) == pytest.approx(expected.item(), abs=1e-6)


def test_rank_of_by_hand():
    right = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert rank_of(SCORES, right).tolist() == [1, 2, 1, -1]
    assert rank_of(torch.ones(1, 3), right[:1]).tolist() == [1]  # of equal scores the wrong one comes first


def test_top_k_by_hand():
    labels = torch.tensor([0, 1, 0, 2])  # first, second, second, second of three
    assert top_k(SCORES, labels).tolist() == [1, 0, 0, 0]
    assert top_k(SCORES, labels, k=2).tolist() == [1, 1, 1, 1]
    assert top_k(torch.ones(4, 3), labels, k=2).sum() == 0 and top_k(torch.ones(4, 3), labels, k=3).sum() == 4


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_against_scikit_learn(k):
    random = torch.Generator().manual_seed(1)
    scores, labels = torch.randn(50, 7, generator=random), torch.randint(0, 7, (50,), generator=random)
    expected = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=np.arange(7))
    assert top_k(scores, labels, k).mean().item() == pytest.approx(expected)


def test_recall_at_k_by_hand():
    """Three images; texts 0 and 1 are image 0's, text 2 is image 1's, image 2 has none."""
    similarity = torch.tensor([[0.1, 0.6, 0.9], [0.2, 0.7, 0.8], [0.3, 0.0, 0.85]])
    image_of = torch.tensor([0, 0, 1])
    of_image, of_text = recall_at_k(similarity, image_of)
    assert of_image.tolist() == pytest.approx([0, 1, NAN], nan_ok=True)  # image 0's best text is image 1's
    assert of_text.tolist() == [0, 0, 0]  # ranks of their own images: 2, 1, 2
    of_image, of_text = recall_at_k(similarity, image_of, k=2)
    assert of_image.tolist() == pytest.approx([1, 1, NAN], nan_ok=True) and of_text.tolist() == [0, 1, 0]
    assert recall_at_k(similarity, image_of, k=10)[1].tolist() == [1, 1, 1]


def test_refusals():
    labels = torch.tensor([0, 1, 0, 3])
    with pytest.raises(TensorError, match="expected one from 0 to 2 an image"):
        top_k(SCORES, labels)
    with pytest.raises(MethodError, match="k=0"):
        top_k(SCORES, labels.clamp_max(2), k=0)
    with pytest.raises(TensorError, match="from 0 to 3 a text"):
        recall_at_k(SCORES, torch.tensor([0, 1, 4]))
    with pytest.raises(TensorError, match="none of the 1 classes is in any of the 4 images"):
        mean_average_precision(SCORES[:, 1:2], PRESENT[:, 1:2])
    for broken in (SCORES * NAN, SCORES[:0]):
        with pytest.raises(TensorError, match="expected at least one, and all of them finite"):
            class_average_precision(broken, PRESENT[: len(broken)])
