"""The published numbers against cells read by eye from the papers."""

import numpy as np
import pandas as pd
import pytest

from clip_explain import papers
from clip_explain.errors import DatasetError
from clip_explain.files import data_folder

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


def test_printed_columns_as_rows_of_a_summary():
    found = papers.printed("grad_eclip", "table3", {"pointing_game": "PG", "iou_fixed": "maskIoU"})
    ours = found[(found["method"] == "grad_eclip") & (found["metric"] == "iou_fixed")].iloc[0]
    assert ours[["setting", "mean", "low", "high", "images"]].tolist() == ["GE's", 0.2869, 0.2869, 0.2869, 0]
    assert len(found) == 18 and "grad_eclip spatial=none" in set(found["method"])
    percent = papers.printed("iclip", "table1", {"searched_iou": "mMIoU (%)", "mfmb": "mFMB"})
    assert percent["mean"].tolist() == pytest.approx([0.1746, -0.1855])  # a column in percent becomes a share
    with pytest.raises(DatasetError, match="grad_eclip table3 has no column 'PGs': did you mean 'PG'"):
        papers.printed("grad_eclip", "table3", {"pointing_game": "PGs"})


@pytest.mark.parametrize("place", papers.COLUMNS, ids=" ".join)
def test_metrics_of_a_table_are_in_its_columns(place):
    """Each of our metrics has its column, and no column of a metric is left out."""
    printed = set(papers.published(*place)["column"])
    assert set(papers.columns(*place).values()) == printed
    with pytest.raises(DatasetError, match="no metrics are listed for 'table9'"):
        papers.columns(place[0], "table9")


def test_ours_beside_the_papers():
    ours = pd.DataFrame([("s", "game", "pointing_game", 0.5, 0.4, 0.6, 9)])
    ours.columns = ["setting", "method", "metric", "mean", "low", "high", "images"]
    both = papers.beside(ours, "grad_eclip", "table3")
    assert len(both) == 1 + len(papers.printed("grad_eclip", "table3")) == 1 + 9 * 8
    theirs = both[(both["method"] == "rollout") & (both["metric"] == "iou_mean")]
    assert theirs["mean"].tolist() == [0.011] and theirs["setting"].tolist() == ["GE's"]
    one = papers.beside(ours, "grad_eclip", "table3", {"pointing_game": "PG"})
    assert set(one["metric"]) == {"pointing_game"}


def test_counts_as_shares_of_their_total():
    counts = papers.printed("iclip", "table6", {"B2F": "B2F"})
    shares = papers.printed("iclip", "table6", {"B2F": "B2F"}, unit=512)
    assert (shares["mean"] * 512).tolist() == pytest.approx(counts["mean"].tolist())
    assert shares["low"].equals(shares["mean"])
