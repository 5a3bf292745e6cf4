"""What README and docs/notebooks.md say of the notebooks is what the figures' files say, and none is left out."""

import json
from pathlib import Path

import pytest

import table

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/notebooks.md")


def test_readme_agrees_with_the_figures(tmp_path):
    (tmp_path / "figures").symlink_to(ROOT / "figures")  # and no executed copies
    readme = (ROOT / "README.md").read_text()
    assert table.START in readme
    assert table.fill(readme, tmp_path) == readme, "run `python notebooks/table.py`"


@pytest.mark.parametrize("page", PAGES)
def test_there_is_a_row_for_each_notebook(page):
    rows = [found[1] for found in map(table.ROW.match, (ROOT / page).read_text().splitlines()) if found]
    assert rows == [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def small(root: Path, name: str) -> Path:
    """A clone with one notebook's figures; the path of its executed copy, which is not there."""
    (root / "figures" / name).mkdir(parents=True)
    (root / "build/notebooks").mkdir(parents=True)
    (root / "figures" / name / "1_maps.png").touch()
    (root / "figures" / name / "provenance.json").write_text('{"n_images": 5}')
    (root / "figures" / name / "claims.csv").write_text(
        "claim,paper,holds\na,GE Tab 1,holds\nb,expected,does not hold\nc,expected,holds\n"
    )
    return root / f"build/notebooks/{name}.ipynb"


def test_row_is_filled_from_files(tmp_path):
    name = "07_small"
    small(tmp_path, name)
    row = f"| [{name}](notebooks/{name}.ipynb)<br>Tab 9 | | |\n"
    expected = f"| [{name}](notebooks/{name}.ipynb)<br>Tab 9 | [1](figures/{name}/1_maps.png) | "
    expected += f"[1 / 0 / 0 · 1 / 0 / 1](figures/{name}/claims.csv) |\n"
    assert table.fill(row, tmp_path) == expected


def test_totals_count_papers_and_controls_apart(tmp_path):
    small(tmp_path, "07_small")
    text = table.fill(f"before\n{table.START}\nold\n{table.END}\nafter\n", tmp_path)
    head, ours, controls = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert head[:3] == ["statements", "reproduced", "not reproduced"]
    assert ours[:4] == ["the papers' statements", "1", "1", "0"]
    assert controls[:4] == ["our controls", "2", "1", "1"]
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text


def test_times_are_those_of_copies_with_the_notebooks_own_parameters(tmp_path):
    copy = small(tmp_path, "07_small")
    row = "| [07_small](../notebooks/07_small.ipynb) | 1 s | `voc` |\n"
    assert table.fill_times(row, tmp_path) == row
    copy.write_text(json.dumps({"metadata": {"papermill": {"duration": 12.4, "exception": None, "parameters": {}}}}))
    assert table.fill_times(row, tmp_path) == row.replace("1 s", "12 s, 5 images")
    copy.write_text(json.dumps({"metadata": {"papermill": {"duration": 3.0, "parameters": {"n_images": 1}}}}))
    assert table.fill_times(row, tmp_path) == row
