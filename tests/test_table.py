"""README's table of notebooks says what the figures' files say, and leaves out no notebook."""

import json
from pathlib import Path

import table

ROOT = Path(__file__).parents[1]


def test_readme_agrees_with_the_figures(tmp_path):
    (tmp_path / "figures").symlink_to(ROOT / "figures")  # and no executed copies: times stay
    readme = (ROOT / "README.md").read_text()
    assert table.fill(readme, tmp_path) == readme, "run `python notebooks/table.py`"


def test_readme_has_a_row_for_each_notebook():
    rows = [found[1] for found in map(table.ROW.match, (ROOT / "README.md").read_text().splitlines()) if found]
    assert rows == [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_row_is_filled_from_files(tmp_path):
    name = "07_small"
    (tmp_path / "figures" / name).mkdir(parents=True)
    (tmp_path / "build/notebooks").mkdir(parents=True)
    (tmp_path / "figures" / name / "1_maps.png").touch()
    (tmp_path / "figures" / name / "provenance.json").write_text('{"n_images": 5}')
    (tmp_path / "figures" / name / "claims.csv").write_text(
        "claim,paper,holds\na,GE Tab 1,holds\nb,expected,does not hold\nc,expected,holds\n"
    )
    copy = tmp_path / f"build/notebooks/{name}.ipynb"
    copy.write_text(json.dumps({"metadata": {"papermill": {"duration": 12.4, "exception": None, "parameters": {}}}}))
    row = f"| [{name}](notebooks/{name}.ipynb) | Tab 9 | | | 1 s | `voc` |\n"
    expected = f"| [{name}](notebooks/{name}.ipynb) | Tab 9 | [1](figures/{name}/1_maps.png) | "
    expected += f"[1 / 0 / 0 · 1 / 0 / 1](figures/{name}/claims.csv) | 12 s, 5 images | `voc` |\n"
    assert table.fill(row, tmp_path) == expected
    copy.write_text(json.dumps({"metadata": {"papermill": {"duration": 3.0, "parameters": {"n_images": 1}}}}))
    assert " 1 s " in table.fill(row, tmp_path)
