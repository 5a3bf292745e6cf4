"""How many verdicts change with the seed is counted from the files that runs leave."""

from pathlib import Path

import pytest

import seeds

HEADER = "id,kind,claim,paper,setting,metric,against,verdict\n"


def run(folder: Path, *given: str, name: str = "02_small") -> Path:
    """A folder of figures whose one notebook gave these verdicts to its statements, all of one id and setting."""
    rows = [f"best,paper,it is best,GE,all images,auc,other,{verdict}\n" for verdict in given]
    (folder / name).mkdir(parents=True)
    (folder / name / "claims.csv").write_text(HEADER + "".join(rows))
    return folder


def test_changes_and_turns_are_counted(tmp_path):
    first = run(tmp_path / "a", "reproduced", "undecided", "reproduced", "no difference")
    second = run(tmp_path / "b", "reproduced", "reproduced", "not reproduced", "no difference")
    third = run(tmp_path / "c", "reproduced", "undecided", "undecided", "no difference")
    table = seeds.seeds([first, second, third])
    assert table.loc["02_small"].tolist() == [4, 2, 2, 1, 0.5]
    assert table.loc["all"].tolist() == [4, 2, 2, 1, 0.5]


def test_only_what_all_folders_hold_is_compared(tmp_path):
    first = run(tmp_path / "a", "reproduced", "undecided")
    run(tmp_path / "a", "reproduced", name="03_alone")
    second = run(tmp_path / "b", "reproduced")  # it lacks the second statement
    assert seeds.seeds([first, second]).loc["02_small"].tolist() == [1, 1, 0, 0, 0]
    with pytest.raises(SystemExit, match="no notebook"):
        seeds.seeds([first, run(tmp_path / "c", "reproduced", name="04_other")])
