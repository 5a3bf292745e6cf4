"""The claims against the papers' own numbers, the names that they use, and the file that they are read from."""

import dataclasses
import re

import pytest

from clip_explain import papers
from clip_explain.errors import DatasetError
from clip_explain.explainers import METHODS
from clip_explain.metrics.registry import METRICS
from clip_explain.papers import Statement
from clip_explain.papers.claims import read_claims
from clip_explain.papers.published import LIBRARY_NAMES, PAPERS
from clip_explain.sweep import measures

CLAIMS = papers.claims(kind=None)

# -- the claims


@pytest.mark.parametrize("claim", papers.claims(), ids=lambda claim: f"{claim.place}: {claim.statement}")
def test_every_claim_is_true_of_the_papers_own_numbers(claim):
    """Both ways: a claim of a table has numbers and they bear it out, unless it is about the whole of a table of EP."""
    assert papers.true_in_paper(claim) is (True if claim.printed else None)
    whole = claim.paper == "epfl" and claim.where in ("table1", "table2", "table4")
    assert bool(claim.printed) == (claim.where.startswith("table") and not whole)


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
    with pytest.raises(DatasetError, match="GE Tab 1.* has no 'rise'"):
        papers.in_paper(dataclasses.replace(lowest, methods=("grad_eclip", "rise")))


def test_claims_are_well_formed():
    assert len(set(CLAIMS)) == len(CLAIMS)
    assert {claim.paper for claim in papers.claims()} == set(PAPERS) == set(LIBRARY_NAMES)
    for claim in CLAIMS:
        place = r"(table|figure)\d+|section[\dIV]+([.-][\dABCDE]+)?|appendix[A-Z]"
        assert not claim.paper or re.fullmatch(place, claim.where), claim.where
        assert len(set(claim.methods)) == len(claim.methods)
    seen = [(c.paper, c.where, c.statement, c.metric) for c in CLAIMS]
    assert len(set(seen)) == len(seen)


def test_a_sweeps_table_has_the_names_that_claims_ask_for():
    whole_sweep = {("grad_eclip", "table3"), ("epfl", "figure4"), ("epfl", "sectionIV-B")}
    asked = [claim for claim in papers.claims() if (claim.paper, claim.where) in whole_sweep]
    asked += [claim for claim in papers.claims("grad_eclip", "table1") if "predicted" not in claim.metric]
    assert {claim.metric for claim in asked if "for the true" not in claim.methods[0]} <= set(measures.METRICS)
    plain = {name for paper in LIBRARY_NAMES.values() for name in paper.values() if " " not in name}
    assert plain - {"iclip"} <= set(METHODS)  # ICLIP is a model of its own


def test_claims_are_found_by_paper_and_place():
    assert papers.claims(kind=None) == CLAIMS
    assert sum(len(papers.claims(paper)) for paper in PAPERS) == len(papers.claims())
    assert {claim.where for claim in papers.claims("grad_eclip", "table5")} == {"table5"}
    assert len(papers.claims("grad_eclip", "table5")) == 12  # who is best in each of the table's columns
    with pytest.raises(DatasetError, match="no claims of 'table9'.*table1"):
        papers.claims("grad_eclip", "table9")
    with pytest.raises(DatasetError, match="unknown paper"):
        papers.claims("ge")


@pytest.mark.parametrize("bad", [{"relation": "best"}, {"relation": "lowest", "methods": ("a",)}, {"methods": ()}])
def test_a_claim_that_compares_nothing(bad):
    with pytest.raises(DatasetError, match="unknown relation|too few methods"):
        Statement("epfl", "figure1", "a", "m", **{"methods": ("a", "b"), "relation": "less than", **bad})


def test_ids_margins_and_kinds():
    assert len({(claim.id, claim.metric) for claim in CLAIMS}) == len(CLAIMS) and all(claim.id for claim in CLAIMS)
    assert {claim.kind for claim in CLAIMS} <= set(papers.KINDS)
    for claim in papers.claims():
        share = (METRICS[claim.metric].range if claim.metric in METRICS else None) in ((0, 1), (-1, 1))
        assert claim.margin is None or not share or claim.margin <= 0.02


def test_a_control_is_no_papers():
    ours = papers.control("it beats noise", "pointing_game", ("game", "random"), margin=0.02)
    assert (ours.kind, ours.place, ours.relation, ours.threshold) == ("control", "our control", "greater than", 0)
    assert papers.true_in_paper(ours) is None


# -- the file

GOOD = {
    "id": '"a"',
    "paper": '"epfl"',
    "where": '"table3"',
    "kind": '"control"',
    "statement": '"said"',
    "method": '"grad_eclip layers=2"',
    "others": '["what else"]',
    "relation": '"greater than"',
}


def write(path, entries, metrics="pointing_game = { margin = 0.5 }", rest='[compared]\n"what else" = ""\n'):
    lines = [rest]
    for entry in entries:
        lines += ["[[claim]]", *(f"{key} = {value}" for key, value in entry.items()), "[claim.metrics]", metrics]
    path.write_text("\n".join(lines))
    return path


def test_a_file_as_it_should_be(tmp_path):
    (claim,) = read_claims(write(tmp_path / "a.toml", [GOOD]))
    methods = ("grad_eclip layers=2", "what else")
    expected = Statement("epfl", "table3", "said", "pointing_game", methods, "greater than", id="a", kind="control")
    assert claim == dataclasses.replace(expected, margin=0.5)
    one_setting = write(tmp_path / "c.toml", [{**GOOD, "setting": '"texts"'}], 'iou_mean = { exact = "all" }')
    assert [(claim.setting, claim.exact) for claim in read_claims(one_setting)] == [("texts", "all")]
    two = write(tmp_path / "b.toml", [GOOD], 'iou_mean = {}\ndeletion = { not_comparable = "no data" }')
    assert [(c.metric, c.not_comparable) for c in read_claims(two)] == [("iou_mean", ""), ("deletion", "no data")]


def test_a_control_may_belong_to_no_paper(tmp_path):
    (claim,) = read_claims(write(tmp_path / "a.toml", [{**GOOD, "paper": '""', "where": '"our control"'}]))
    assert (claim.paper, claim.place) == ("", "our control")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paper": '"espresso"'}, "claim 1 .a.: unknown paper 'espresso'"),
        ({"paper": '""', "kind": '"paper"'}, "claim 1 .a.: unknown paper ''"),
        ({"kind": '"papers"'}, "unknown kind 'papers': did you mean 'paper'"),
        ({"relation": '"best"'}, "unknown relation 'best'"),
        ({"method": '"grad_eclp"'}, "unknown method 'grad_eclp': did you mean 'grad_eclip'"),
        ({"threshold": '"0"'}, "got threshold = '0', which has another type"),
        ({"threshold": "true"}, "got threshold = True"),
        ({"margin": "1"}, "unknown key 'margin'"),
        ({"where": None}, "lacks where"),
        ({"others": None, "relation": '"lowest"'}, "too few methods"),
    ],
)
def test_an_entry_that_is_wrong(tmp_path, changes, message):
    entry = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(DatasetError, match=message):
        read_claims(write(tmp_path / "claims.toml", [entry]))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("point_games = {}", "unknown metric 'point_games': did you mean 'pointing_game'"),
        ("pointing_game = { margins = 1 }", "pointing_game: unknown key 'margins': did you mean 'margin'"),
        ("pointing_game = { margin = 0 }", "got margin=0"),
        ("pointing_game = 1", "expected a table"),
        ("", "no metrics"),
    ],
)
def test_metrics_that_are_wrong(tmp_path, metrics, message):
    with pytest.raises(DatasetError, match=message):
        read_claims(write(tmp_path / "claims.toml", [GOOD], metrics))


def test_a_file_that_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="claim 2 .a.: another claim has the same id"):
        read_claims(write(tmp_path / "twice.toml", [GOOD, GOOD]))
    (tmp_path / "damaged.toml").write_text("[[claim]")
    with pytest.raises(DatasetError, match="damaged.toml is damaged"):
        read_claims(tmp_path / "damaged.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(DatasetError, match="empty.toml lacks claim"):
        read_claims(tmp_path / "empty.toml")
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="set CLIP_EXPLAIN_DATA"):
        papers.claims()


# -- those that a notebook asks


def test_claims_of_several_places_come_in_their_order():
    found = papers.claims("iclip", ("table5", "table1"))
    assert found == (*papers.claims("iclip", "table5"), *papers.claims("iclip", "table1"))
    with pytest.raises(DatasetError, match="no claims of 'table99'"):
        papers.claims("iclip", ("table1", "table99"))


def test_controls_of_one_notebook():
    found = papers.controls("22")
    assert found and all(claim.id.startswith("nb22-") and claim.kind == "control" for claim in found)
    with pytest.raises(DatasetError, match="no controls of notebook '00'"):
        papers.controls("00")


def test_claims_on_one_dataset():
    claim = papers.control("it is so", "m on VOC", ("a",))
    plain, other = dataclasses.replace(claim, metric="n"), dataclasses.replace(claim, metric="m on COCO")
    found = papers.on_dataset([claim, plain, other], "VOC")
    assert [each.metric for each in found] == ["m", "n"]


def test_methods_that_a_table_lacks():
    table = papers.long_table(papers.measured("x", "a", {"m": 1.0}))
    claims = [papers.control("it is so", "m", ("a", "b")), papers.control("it is not", "m", ("c",))]
    assert papers.lacking(claims, table, "not here") == {"b": "not here", "c": "not here"}


def test_settings_are_asked_one_by_one():
    free, bound = papers.control("said", "m", ("a",)), papers.control("bound", "m", ("a",), setting="one")
    found = papers.in_settings([free, bound], ["x", "y"])
    assert [(claim.statement, claim.setting) for claim in found] == [("said", "x"), ("said", "y"), ("bound", "one")]


def test_claims_about_what_was_measured():
    """Of another setting, or of a metric that nobody measured, nothing is asked, unless no number can decide."""
    table = papers.long_table(papers.measured("x", "a", {"m": 1.0}, "here"))
    asked = papers.control("it is so", "m", ("a",))
    kept = [
        asked,
        dataclasses.replace(asked, setting="here"),
        dataclasses.replace(asked, metric="n", not_comparable="no"),
    ]
    left = [dataclasses.replace(asked, setting="there"), dataclasses.replace(asked, metric="n")]
    assert papers.measured_in([*kept, *left], table) == tuple(kept)
