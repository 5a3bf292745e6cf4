"""The first edition's verdicts, while notebooks use them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from clip_explain import papers
from clip_explain.errors import MethodError, TensorError
from clip_explain.metrics.intervals import bootstrap
from clip_explain.papers import RELATIONS, Statement

# -- claims against numbers


def numbers(metric: str = "m", **methods) -> pd.DataFrame:
    """One value an image and method: a tidy table."""
    rows = [
        (f"image {image:02d}", method, metric, value)
        for method, values in methods.items()
        for image, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["image", "method", "metric", "value"])


def stated(relation: str, *methods: str, threshold: float = 0.0) -> Statement:
    return Statement("epfl", "figure1", "said", "m", methods, relation, threshold=threshold)


LOW, MIDDLE, HIGH = np.linspace(0, 1, 12), np.linspace(0, 1, 12) + 0.1, np.linspace(0, 1, 12) + 0.3
WILD = LOW + np.resize([1.0, -1.0], 12)  # as often above LOW as below it


@pytest.mark.parametrize(
    ("relation", "first", "verdict"),
    [
        ("lowest", "low", "holds"),
        ("lowest", "middle", "does not hold"),
        ("lowest", "high", "does not hold"),
        ("highest", "high", "holds"),
        ("highest", "middle", "does not hold"),
        ("highest", "low", "does not hold"),
    ],
)
def test_the_order_of_three_methods(relation, first, verdict):
    others = [name for name in ("low", "middle", "high") if name != first]
    claim = papers.evaluate(stated(relation, first, *others), numbers(low=LOW, middle=MIDDLE, high=HIGH))
    assert claim.verdict == verdict and claim.ours.count == 12


def test_ours_is_the_paired_difference_to_the_method_that_decides():
    table = numbers(low=LOW, middle=MIDDLE, high=HIGH)
    claim = papers.evaluate(stated("lowest", "low", "high", "middle"), table)
    # Every image has the same difference, so that its interval has no width, however wide the images spread.
    assert (claim.ours.mean, claim.ours.low, claim.ours.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert claim.claim == "said (m, nearest middle)" and claim.paper == "EP Fig 1"
    worst = papers.evaluate(stated("lowest", "high", "middle", "low"), table)
    assert worst.ours.mean == pytest.approx(0.3) and worst.verdict == "does not hold"


def test_one_that_is_undecided_among_the_others():
    table = numbers(low=LOW, wild=WILD, high=HIGH)
    assert papers.evaluate(stated("less than", "low", "wild"), table).verdict == "undecided"
    claim = papers.evaluate(stated("lowest", "low", "high", "wild"), table)
    assert claim.verdict == "undecided" and "nearest wild" in claim.claim
    # One that refutes it decides, though another has the wider interval.
    fails = papers.evaluate(stated("lowest", "high", "wild", "low"), table)
    assert fails.verdict == "does not hold" and "nearest low" in fails.claim


@pytest.mark.parametrize(
    ("relation", "threshold", "verdict"),
    [
        ("greater than", 0.29, "holds"),
        ("greater than", 0.31, "does not hold"),
        ("less than", 0.31, "holds"),
        ("less than", 0.29, "does not hold"),
    ],
)
def test_a_difference_against_a_threshold(relation, threshold, verdict):
    claim = papers.evaluate(stated(relation, "high", "low", threshold=threshold), numbers(low=LOW, high=HIGH))
    assert claim.verdict == verdict


def test_one_method_against_a_threshold():
    claim = papers.claims("iclip", "table1")[0]
    table = numbers(metric="foreground_minus_background", itsm=np.full(10, -0.25))
    evaluated = papers.evaluate(claim, table)
    assert evaluated.verdict == "holds" and evaluated.ours.mean == -0.25
    assert evaluated.paper == "-0.1855 (IC Tab 1)"


def test_the_papers_difference_stands_beside_ours():
    claim = next(each for each in papers.claims("grad_eclip", "table6") if each.metric == "word_deletion_tr")
    table = numbers(metric="mine", **{name: LOW + i for i, name in enumerate(claim.methods)})
    evaluated = papers.evaluate(claim, table, metric="mine")
    assert evaluated.paper == "-0.0317 (GE Tab 6)"  # 0.1770 - 0.2087, of text retrieval, with 1 and with 12 layers
    assert evaluated.ours.mean == pytest.approx(-1) and evaluated.verdict == "holds"


def test_the_papers_difference_is_to_the_same_method_as_ours():
    claim = papers.claims("grad_eclip", "table2")[1]
    values = {name: LOW + 1 for name in claim.methods} | {"grad_eclip": LOW, "m2ib": LOW + 0.5}
    evaluated = papers.evaluate(claim, numbers(metric="word_deletion_tr", **values))
    assert evaluated.claim.endswith("(word_deletion_tr, nearest m2ib)") and evaluated.ours.mean == pytest.approx(-0.5)
    assert evaluated.paper == "-0.2486 (GE Tab 2)"  # 0.1770 - 0.4256; the paper's own nearest is GAME at 0.2084


def test_few_images_decide_nothing():
    few = numbers(low=LOW[:9], high=HIGH[:9])
    assert papers.evaluate(stated("less than", "low", "high"), few).verdict == "undecided"


def test_the_targets_of_an_image_are_averaged_before_the_images():
    # Ten images; the first has three texts. Its mean difference is (1 + 1 + 4) / 3 = 2, that of the others 1.
    rows = [("0", target, 1.0 if target < 2 else 4.0) for target in range(3)]
    rows += [(str(image), 0, 1.0) for image in range(1, 10)]
    first = pd.DataFrame(rows, columns=["image", "target", "value"]).assign(method="a", metric="m")
    second = first.assign(method="b", value=0.0)
    claim = papers.evaluate(stated("greater than", "a", "b"), pd.concat([first, second]))
    assert claim.ours.mean == pytest.approx((2 + 9) / 10) and claim.ours.count == 10


def test_an_answer_that_one_method_does_not_have_is_left_out_of_all():
    table = numbers(low=[np.nan, *LOW], high=[100.0, *HIGH])
    claim = papers.evaluate(stated("less than", "low", "high"), table)
    assert claim.ours.count == 12 and claim.ours.mean == pytest.approx(-0.3)


def test_the_order_of_the_rows_does_not_matter():
    table = numbers(low=LOW, wild=WILD, high=HIGH)
    claim = stated("lowest", "low", "wild", "high")
    assert papers.evaluate(claim, table, 3) == papers.evaluate(claim, table.sample(frac=1, random_state=0), 3)


def test_several_intervals_are_wider_than_one():
    """At 1 - 0.05 / k each. The widths are those of the bootstrap itself at these levels."""
    noise = np.random.default_rng(0).normal(size=40)
    table = numbers(a=noise, b=np.zeros(40), c=np.zeros(40))
    pair, three = (papers.evaluate(stated("lowest", *methods), table).ours for methods in ("ab", "abc"))
    assert three.mean == pair.mean and three.low < pair.low < pair.high < three.high
    assert pair == bootstrap(noise, 0) and three == bootstrap(noise, 0, 0.975)


def test_numbers_that_do_not_fit():
    table, claim = numbers(low=LOW, high=HIGH), stated("less than", "low", "high")
    with pytest.raises(TensorError, match="lacks metric, value; it has image, method"):
        papers.evaluate(claim, table[["image", "method"]])
    with pytest.raises(TensorError, match="no numbers of 'n'.*Available: m"):
        papers.evaluate(claim, table, metric="n")
    with pytest.raises(MethodError, match="missing method: 'hihg'.*did you mean 'high'"):
        papers.evaluate(stated("less than", "low", "hihg"), table)
    with pytest.raises(TensorError, match="1 values are infinite"):
        papers.evaluate(claim, table.replace({"value": {0.3: np.inf}}))
    with pytest.raises(TensorError, match="1 images or targets lack a row"):
        papers.evaluate(claim, table.iloc[:-1])
    with pytest.raises(TensorError, match="at least one finite number"):
        papers.evaluate(claim, table.assign(value=np.nan))


@pytest.mark.parametrize(("first", "relation"), list(itertools.product("ab", RELATIONS)))
def test_a_relation_and_its_reverse_never_both_hold(first, relation):
    table, other = numbers(a=LOW, b=WILD + 0.5), {"a": "b", "b": "a"}[first]
    verdicts = [papers.evaluate(stated(relation, *pair), table).verdict for pair in ((first, other), (other, first))]
    assert verdicts.count("holds") <= 1
