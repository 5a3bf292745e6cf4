"""The published numbers against cells read by eye from the papers, the claims against those numbers, and verdicts."""

import dataclasses
import itertools
import re

import numpy as np
import pandas as pd
import pytest

from clip_explain import papers
from clip_explain.errors import DatasetError, MethodError, TensorError
from clip_explain.explainers import METHODS
from clip_explain.files import data_folder
from clip_explain.metrics.intervals import bootstrap
from clip_explain.papers.published import LIBRARY_NAMES, PAPERS, RELATIONS, PaperClaim
from clip_explain.sweep import measures

COLUMNS = ["paper", "table", "row", "column", "value", "direction", "setting"]
CELLS = {  # table -> numbers in it
    **{("grad_eclip", f"table{n}"): count for n, count in enumerate((64, 24, 45, 9, 84, 28), start=1)},
    **{("epfl", f"table{n}"): count for n, count in enumerate((35, 20, 16, 16), start=1)},
    **{("iclip", f"table{n}"): count for n, count in enumerate((3, 9, 12, 18, 9, 12, 3, 12), start=1)},
}
BY_EYE = [
    ("grad_eclip", "table1", "raw attention", "Deletion Ground-truth @5", "0.6239"),
    ("grad_eclip", "table1", "Rollout", "Insertion Ground-truth @1", "0.2803"),
    ("grad_eclip", "table1", "Grad-CAM", "Deletion Prediction @1", "0.3518"),
    ("grad_eclip", "table1", "CLIPSurgery", "Insertion Prediction @1", "0.3727"),
    ("grad_eclip", "table1", "M2IB", "Insertion Prediction @5", "0.5410"),
    ("grad_eclip", "table1", "Ours w/o w_i", "Deletion Prediction @5", "0.4568"),
    ("grad_eclip", "table1", "Ours", "Deletion Ground-truth @1", "0.2464"),
    ("grad_eclip", "table1", "Ours", "Insertion Prediction @5", "0.5749"),
    ("grad_eclip", "table2", "raw attention", "Insertion IR", "0.0065"),
    ("grad_eclip", "table2", "M2IB", "Deletion TR", "0.4256"),
    ("grad_eclip", "table2", "Ours", "Insertion TR", "0.2536"),
    ("grad_eclip", "table3", "Rollout", "maskIoU", "0.011"),
    ("grad_eclip", "table3", "GAME", "PG-energy", "0.4438"),
    ("grad_eclip", "table3", "MaskCLIP", "Pixel Acc.", "0.718"),
    ("grad_eclip", "table3", "Ours w/o w_i", "PG", "0.8356"),
    ("grad_eclip", "table3", "Ours", "AP", "0.5662"),
    ("grad_eclip", "table4", "RISE", "time (s/img)", "6.2376"),
    ("grad_eclip", "table4", "M2IB", "time (s/img)", "0.5781"),
    ("grad_eclip", "table4", "Grad-ECLIP(Ours)", "time (s/img)", "0.0165"),
    ("grad_eclip", "table5", "Rollout", "Deletion TR @10", "0.5240"),
    ("grad_eclip", "table5", "GAME", "Insertion TR @1", "0.2097"),
    ("grad_eclip", "table5", "MaskCLIP", "Deletion TR @1", "0.1516"),
    ("grad_eclip", "table5", "Ours", "Deletion IR @1", "0.1246"),
    ("grad_eclip", "table5", "Ours", "Insertion TR @10", "0.4321"),
    ("grad_eclip", "table6", "1", "Insertion IR", "0.1059"),
    ("grad_eclip", "table6", "6", "Deletion IR", "0.0989"),
    ("grad_eclip", "table6", "12", "Insertion TR", "0.2364"),
    ("epfl", "table1", "ResNet101", "ResNet blocks, stage 3", "23"),
    ("epfl", "table1", "ResNet50×16", "Input resolution", "384"),
    ("epfl", "table1", "ResNet50×64", "ResNet width", "4096"),
    ("epfl", "table2", "ViT-B/16", "ViT heads", "12"),
    ("epfl", "table2", "ViT-L/14", "ViT width", "1024"),
    ("epfl", "table2", "ViT-L/14-336px", "Input resolution", "224"),
    ("epfl", "table3", "Contentment", "Entropy", "12.597"),
    ("epfl", "table3", "Anger", "Variance", "0.0230"),
    ("epfl", "table3", "Sadness", "Entropy", "13.548"),
    ("epfl", "table4", "Amusement", "Entropy", "11.097"),
    ("epfl", "table4", "Fear", "Variance", "0.0287"),
    ("epfl", "table4", "Sadness", "Entropy", "10.681"),
    ("iclip", "table1", "CLIP (400M)", "mFMB", "-0.1855"),
    ("iclip", "table1", "CLIP (400M)", "mMIoU (%)", "17.46"),
    ("iclip", "table2", "average", "mAP (%)", "68.78"),
    ("iclip", "table2", "max", "mMIoU (%)", "36.31"),
    ("iclip", "table3", "+ masked max pooling", "mAP (%)", "62.80"),
    ("iclip", "table3", "+ masked max pooling", "mFMB", "0.2949"),
    ("iclip", "table3", "+ dual projections", "mMIoU (%)", "50.31"),
    ("iclip", "table4", "CLIP (400M)", "COCO mMIoU (%)", "9.80"),
    ("iclip", "table4", "CLIP (3M)", "COCO mFMB", "-0.0419"),
    ("iclip", "table4", "ICLIP (3M)", "VOC mAP (%)", "78.06"),
    ("iclip", "table4", "ICLIP (3M)", "COCO mFMB", "0.2166"),
    ("iclip", "table5", "Bi-Model", "mMIoU (%)", "29.84"),
    ("iclip", "table5", "RITSM", "mFMB", "0.1855"),
    ("iclip", "table6", "(0, 0.25]", "B2B/F2F", "388.7"),
    ("iclip", "table6", "(0.75, 1]", "B2F", "44.7"),
    ("iclip", "table7", "attention pooling", "Channels matched on the foreground", "169.1"),
    ("iclip", "table7", "Ours", "Channels matched on the foreground", "222.48"),
    ("iclip", "table8", "Reversed CLIP (3M)", "mMIoU (%)", "23.22"),
    ("iclip", "table8", "Reversed CLIP (3M)", "mFMB", "0.0298"),
]


def grid(paper: str, table: str) -> pd.DataFrame:
    return papers.published(paper, table).pivot(index="row", columns="column", values="value")


# -- the numbers


def test_these_are_all_the_tables():
    files = {path.stem for path in (data_folder() / "paper").glob("*.csv")}
    assert files == {f"{paper}_{table}" for paper, table in CELLS}


@pytest.mark.parametrize(("paper", "table"), CELLS)
def test_every_table_is_tidy(paper, table):
    numbers = papers.published(paper, table)
    assert list(numbers.columns) == COLUMNS and len(numbers) == CELLS[paper, table]
    assert numbers["value"].dtype == float and np.isfinite(numbers["value"]).all()
    assert set(numbers["paper"]) == {paper} and set(numbers["table"]) == {table}
    assert not numbers.duplicated(["row", "column"]).any()
    assert set(numbers["direction"]) <= {"lower", "higher", "neither"}
    assert (numbers.groupby("column")["direction"].nunique() == 1).all()
    assert all(text.strip() == text != "" for name in ("row", "column", "setting") for text in numbers[name])
    assert not set(numbers["row"]) & set(numbers["column"])  # so a claim's `printed` names one or the other


@pytest.mark.parametrize(("paper", "table", "row", "column", "value"), BY_EYE)
def test_cells_read_by_eye(paper, table, row, column, value):
    printed = pd.read_csv(data_folder() / "paper" / f"{paper}_{table}.csv", dtype=str, keep_default_na=False)
    assert printed.set_index(["row", "column"]).loc[(row, column), "value"] == value
    assert grid(paper, table).loc[row, column] == float(value)


@pytest.mark.parametrize("table", CELLS)
def test_every_table_has_cells_read_by_eye(table):
    assert sum(cell[:2] == table for cell in BY_EYE) >= 2


def test_only_the_dashes_of_table_1_are_missing():
    assert grid("grad_eclip", "table1").isna().sum().sum() == 8  # 2 methods that do not see the text x 4 columns
    rest = [table for table in CELLS if table != ("grad_eclip", "table1")]
    assert not any(grid(*table).isna().any(axis=None) for table in rest)


def test_numbers_that_two_tables_share():
    words, layers = grid("grad_eclip", "table2"), grid("grad_eclip", "table6")
    assert words.loc["Ours"].to_dict() == layers.loc["8"].to_dict()
    one, pooling, steps, both, others, reversed_map = (grid("iclip", f"table{n}") for n in (1, 2, 3, 4, 5, 8))
    voc = both[[name for name in both if name.startswith("VOC")]].rename(columns=lambda name: name.removeprefix("VOC "))
    for first, second in [
        (one.loc["CLIP (400M)"], voc.loc["CLIP (400M)"]),
        (one.loc["CLIP (400M)"], reversed_map.loc["CLIP (400M)"]),
        (pooling.loc["attention"], steps.loc["+ self-supervised image encoder"]),
        (steps.loc["basic CLIP"], voc.loc["CLIP (3M)"]),
        (steps.loc["+ dual projections"], voc.loc["ICLIP (3M)"]),
        (others.loc["ICLIP"], reversed_map.loc["ICLIP (3M)"]),
        (others.loc["ICLIP"], voc.loc["ICLIP (3M)"]),
        (others.loc["RITSM"], reversed_map.loc["Reversed CLIP (400M)"]),
    ]:
        assert first.to_dict() == second.to_dict()


def test_sums_and_differences_that_the_prose_states():
    both, reversed_map, shifts = grid("iclip", "table4"), grid("iclip", "table8"), grid("iclip", "table6")
    gain = (both.loc["ICLIP (3M)"] - both.loc["CLIP (400M)"]).round(4)  # IC abstract and 4.2
    assert gain[["VOC mMIoU (%)", "VOC mFMB", "COCO mMIoU (%)", "COCO mFMB"]].tolist() == [32.85, 0.491, 16.35, 0.4396]
    ahead = reversed_map.loc["ICLIP (3M)"] - reversed_map.loc[["Reversed CLIP (3M)", "Reversed CLIP (400M)"]]
    assert ahead["mMIoU (%)"].round(2).tolist() == [27.09, 14.0]  # IC appendix E
    assert (reversed_map.loc["Reversed CLIP (400M)", "mFMB"], both.loc["CLIP (3M)", "VOC mFMB"]) == (0.1855, -0.0298)
    assert shifts.sum(axis=1).round(1).to_dict() == {  # of the 512 channels of ViT-B/16's embedding
        "(0, 0.25]": 511.9,
        "(0.25, 0.75]": 512.0,
        "(0.75, 1]": 512.0,
        "(0, 1]": 512.0,
    }
    assert round(shifts.loc["(0, 1]", ["B2F", "F2B"]].sum(), 1) == 193.5  # IC 4.3


def test_a_table_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="unknown paper 'grad-eclip': did you mean 'grad_eclip'"):
        papers.published("grad-eclip", "table1")
    with pytest.raises(DatasetError, match="'table7' of grad_eclip.*Available: table1, .*table6"):
        papers.published("grad_eclip", "table7")
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="set CLIP_EXPLAIN_DATA"):
        papers.published("grad_eclip", "table1")


# -- the claims


@pytest.mark.parametrize("claim", papers.CLAIMS, ids=lambda claim: f"{claim.place}: {claim.statement}")
def test_every_claim_is_true_of_the_papers_own_numbers(claim):
    """Both ways: a claim of a table has numbers and they bear it out, unless they are a figure's or EP Table IV's."""
    assert papers.true_in_paper(claim) is (True if claim.printed else None)
    assert bool(claim.printed) == (claim.where.startswith("table") and claim.paper + claim.where != "epfltable4")


def test_the_papers_number_is_the_one_nearest_to_refuting_the_claim():
    lowest = next(claim for claim in papers.claims("grad_eclip", "table1") if claim.metric == "deletion")
    assert papers.in_paper(lowest) == -0.0071  # 0.2464 - 0.2535, without w_i; the next is MaskCLIP at 0.2848
    alone = papers.claims("iclip", "table1")[0]
    assert papers.in_paper(alone) == -0.1855
    along_a_row = papers.claims("iclip", "table6")[0]
    assert papers.in_paper(along_a_row) == 24.7  # 136.5 - 111.8


def test_a_false_claim_is_seen_in_the_papers_numbers():
    lowest = next(claim for claim in papers.claims("grad_eclip", "table1") if claim.metric == "deletion")
    second_first = dataclasses.replace(lowest, methods=lowest.methods[1::-1])
    assert papers.true_in_paper(second_first) is False
    assert papers.true_in_paper(dataclasses.replace(lowest, relation="highest")) is False
    equal = dataclasses.replace(papers.claims("iclip", "table1")[0], threshold=-0.1855)
    assert [papers.true_in_paper(dataclasses.replace(equal, relation=r)) for r in ("less than", "at most")] == [
        False,
        True,
    ]
    with pytest.raises(DatasetError, match="GE Tab 1.* has no 'rise'"):
        papers.in_paper(dataclasses.replace(lowest, methods=("grad_eclip", "rise")))


def test_claims_are_well_formed():
    assert len(set(papers.CLAIMS)) == len(papers.CLAIMS)
    assert {claim.paper for claim in papers.CLAIMS} == set(PAPERS) == set(LIBRARY_NAMES)
    for claim in papers.CLAIMS:
        assert re.fullmatch(r"(table|figure)\d+|section[\dIV]+[.-][\dABCD]+", claim.where), claim.where
        assert len(set(claim.methods)) == len(claim.methods)
    seen = [(c.paper, c.where, c.statement, c.metric) for c in papers.CLAIMS]
    assert len(set(seen)) == len(seen)


def test_a_sweeps_table_has_the_names_that_claims_ask_for():
    whole_sweep = {("grad_eclip", "table3"), ("epfl", "figure4"), ("epfl", "sectionIV-B")}
    asked = [claim for claim in papers.CLAIMS if (claim.paper, claim.where) in whole_sweep]
    asked += [claim for claim in papers.claims("grad_eclip", "table1") if "predicted" not in claim.metric]
    assert {claim.metric for claim in asked if "for the true" not in claim.methods[0]} <= set(measures.METRICS)
    plain = {name for paper in LIBRARY_NAMES.values() for name in paper.values() if " " not in name}
    assert plain - {"iclip"} <= set(METHODS)  # ICLIP is a model of its own


def test_claims_are_found_by_paper_and_place():
    assert papers.claims() == papers.CLAIMS
    assert sum(len(papers.claims(paper)) for paper in PAPERS) == len(papers.CLAIMS)
    assert {claim.where for claim in papers.claims("grad_eclip", "table5")} == {"table5"}
    assert len(papers.claims("grad_eclip", "table5")) == 12  # who is best in each of the table's columns
    with pytest.raises(DatasetError, match="no claims of 'table9'.*table1"):
        papers.claims("grad_eclip", "table9")
    with pytest.raises(DatasetError, match="unknown paper"):
        papers.claims("ge")


@pytest.mark.parametrize("bad", [{"relation": "best"}, {"relation": "lowest", "methods": ("a",)}, {"methods": ()}])
def test_a_claim_that_compares_nothing(bad):
    with pytest.raises(ValueError, match="unknown relation|too few methods"):
        PaperClaim("epfl", "figure1", "a", "m", **{"methods": ("a", "b"), "relation": "less than", **bad})


# -- claims against numbers


def numbers(metric: str = "m", **methods) -> pd.DataFrame:
    """One value an image and method: a tidy table."""
    rows = [
        (f"image {image:02d}", method, metric, value)
        for method, values in methods.items()
        for image, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["image", "method", "metric", "value"])


def stated(relation: str, *methods: str, threshold: float = 0.0) -> PaperClaim:
    return PaperClaim("epfl", "figure1", "said", "m", methods, relation, threshold=threshold)


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
        ("at least", 0.25, "holds"),
        ("at most", 0.25, "does not hold"),
    ],
)
def test_a_difference_against_a_threshold(relation, threshold, verdict):
    claim = papers.evaluate(stated(relation, "high", "low", threshold=threshold), numbers(low=LOW, high=HIGH))
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("relation", "verdict"),
    [("greater than", "undecided"), ("less than", "undecided"), ("at least", "holds"), ("at most", "holds")],
)
def test_exactly_at_the_threshold(relation, verdict):
    claim = papers.evaluate(stated(relation, "a", "b", threshold=0.0), numbers(a=LOW, b=LOW))
    assert claim.verdict == verdict
    assert papers.table([claim])["holds if"][0] == {
        "greater than": "> 0",
        "less than": "< 0",
        "at least": ">= 0",
        "at most": "<= 0",
    }.get(relation)


def test_one_method_against_a_threshold():
    claim = papers.claims("iclip", "table1")[0]
    table = numbers(metric="foreground_minus_background", itsm=np.full(10, -0.25))
    evaluated = papers.evaluate(claim, table)
    assert evaluated.verdict == "holds" and evaluated.ours.mean == -0.25
    assert evaluated.paper == "-0.1855 (IC Tab 1)"


def test_the_papers_difference_stands_beside_ours():
    claim = papers.claims("grad_eclip", "table6")[-1]
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
    with pytest.raises(MethodError, match="compares 'hihg'.*did you mean 'high'"):
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
