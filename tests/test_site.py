"""The site, its gallery built of small notebooks made here: every page is there, no link is broken, nothing comes from
afar."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.append(str(DOCS))

import link_check  # noqa: E402
import make_site  # noqa: E402
import method_pages  # noqa: E402
import reference  # noqa: E402
import scoreboard  # noqa: E402

import clip_explain as cx  # noqa: E402

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar of progress"}
CLAIMS = "claim,paper,ours,holds\nit | works,GE Tab 1,0.9,holds\nit costs $5 or $6,GE 4.2,0.1,undecided\n"
CLAIMS += "it flies,expected,0.2,does not hold\n"


def png() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((900, 1800), 80).save(file, "png")
    return file.getvalue()


def notebook(title: str, *texts: str, outputs=()) -> nbformat.NotebookNode:
    cells = [new_markdown_cell(f"# {title}"), *map(new_markdown_cell, texts)]
    cells += [new_code_cell("shown = 1 + 1"), new_code_cell("shown", outputs=list(outputs))]
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def shown(html: str = "<table><tr><td>zebrafish</td></tr></table>") -> list:
    picture = {"image/png": base64.b64encode(png()).decode(), "text/plain": "<Figure>"}
    return [
        new_output("stream", name="stderr", text="a warning with /a/path"),
        new_output("display_data", data=WIDGET),
        new_output("display_data", data=picture),
        new_output("execute_result", data={"text/html": html, "text/plain": "table"}, execution_count=2),
    ]


def folders(root: Path) -> dict[str, Path]:
    found = {name: root / name for name in ("notebooks", "executed", "figures", "data")}
    [path.mkdir(parents=True) for path in found.values()]
    return found | {"readme": root / "README.md", "out": root / "site"}


def save(where: dict[str, Path], name: str, source, executed=None, figures: bool = True) -> None:
    nbformat.write(source, where["notebooks"] / f"{name}.ipynb")
    if executed is not None:
        nbformat.write(executed, where["executed"] / f"{name}.ipynb")
    if figures:
        folder = where["figures"] / name
        folder.mkdir()
        (folder / "1_map.png").write_bytes(png())
        (folder / "1_map.pdf").write_bytes(b"%PDF")
        (folder / "claims.csv").write_text(CLAIMS)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of five notebooks: as it should be, not executed, failed, changed since, run with other parameters."""
    where = folders(tmp_path_factory.mktemp("gallery"))
    where["readme"].write_text(
        "| [01_good](notebooks/01_good.ipynb)<br>Fig 1 (its column), Tab 2 | [1](a.png) | 1 / 1 / 1 |\n"
    )
    (where["data"] / "card.json").write_text("{}")
    links = "See [the card](../data/card.json), [another](15_not_executed.ipynb) and [its site](https://example.org)."
    formula = "With $w_i$:\n\n$$H_i = \\mathrm{ReLU}\\Big(\\sum_c w_c v_{ic}\\Big)$$"
    good = ["A good notebook", links, formula, "## Results"]
    save(where, "01_good", notebook(*good), notebook(*good, outputs=shown()))
    save(where, "15_not_executed", notebook("Not executed", "About a quagga."))
    failed = [new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])]
    save(where, "16_failed", notebook("Failed"), notebook("Failed", outputs=failed), figures=False)
    changed = notebook("Changed")
    changed.cells[-1].source = "shown * 2"
    save(where, "24_changed", changed, notebook("Changed", outputs=shown()))
    given = notebook("Given", outputs=shown())
    given.cells.insert(1, new_code_cell("# Parameters\nn_images = 3", metadata={"tags": ["injected-parameters"]}))
    save(where, "20_given", notebook("Given"), given)
    asked = [
        item for name in ("notebooks", "executed", "figures", "readme", "out") for item in (f"--{name}", where[name])
    ]
    command = [sys.executable, DOCS / "make_site.py", *map(str, asked), "--no-pictures"]
    done = subprocess.run(command, capture_output=True, text=True)
    return where["out"], done


def page(site, name: str) -> str:
    return (site[0] / name).read_text()


def test_it_is_built_without_a_flaw(site):
    out, done = site
    assert (done.returncode, done.stdout) == (0, f"5 notebooks in {out / 'index.html'}\n"), done.stderr
    names = ["01_good", "15_not_executed", "16_failed", "20_given", "24_changed"]
    assert all((out / "notebooks" / f"{name}.html").is_file() for name in names)
    assert link_check.flaws(out, names) == []


def test_what_is_missing_is_said_with_what_to_do(site):
    lines = site[1].stderr.splitlines()
    assert lines == [
        "not executed: 15_not_executed; to execute them: make figures NB='15'",
        "failed: 16_failed; to execute them: make figures NB='16'",
        "changed since executed: 24_changed; to execute them: make figures NB='24'",
    ]


def test_the_gallery_has_every_notebook_with_picture_and_claims(site):
    text = page(site, "gallery.html")
    for words in (
        "A good notebook",
        "Reproduces Fig 1 (its column), Tab 2",
        "1 / 1 / 0",
        "0 / 0 / 1",
        "Beyond the papers",
    ):
        assert words in text
    assert text.count('alt="First figure of') == 4  # 16_failed left no figure
    pictures = list((site[0] / "_images").glob("01_good*.png"))
    with Image.open(pictures[0]) as image:
        assert image.size == (480, 480)  # the top of a tall figure


def test_an_executed_notebook_shows_its_pictures_and_tables(site):
    text = page(site, "notebooks/01_good.html")
    assert "zebrafish" in text and 'alt="Figure: Results"' in text and "1_map.pdf" in text
    assert "bar of progress" not in text and "a warning" not in text
    assert text.count("<math") == 2 and "mathjax" not in text.lower()


def test_what_is_no_present_result_is_marked(site):
    text = page(site, "notebooks/15_not_executed.html")
    assert re.search(r'<div class="admonition note">.*?Not executed for these pages', text, re.DOTALL)
    assert 'alt="1_map"' in text and "it | works" in text
    assert "Not executed for these pages" in page(site, "notebooks/16_failed.html")
    assert "before the notebook’s last change" in page(site, "notebooks/24_changed.html")
    assert "Not executed for these pages" not in page(site, "notebooks/01_good.html")


def test_a_page_run_with_other_parameters_says_so(site):
    text = page(site, "notebooks/20_given.html")
    note = re.search(r'<div class="admonition note">.*?</div>', text, re.DOTALL).group(0)
    words = re.sub(r"<[^>]+>", "", note)
    assert "Executed with other parameters" in words and "n_images = 3" in words
    assert "other parameters" not in page(site, "notebooks/01_good.html")


def test_the_search_knows_words_of_every_page(site):
    text = page(site, "searchindex.js")
    known = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    documents = {known["docnames"][number] for number in [known["terms"]["quagga"]]}
    assert documents == {"notebooks/15_not_executed"}
    pages = {path.relative_to(site[0]).with_suffix("").as_posix() for path in site[0].rglob("*.html")}
    assert set(known["docnames"]) == pages - {"genindex", "py-modindex", "search"}


def test_every_method_has_a_page_with_its_idea_equation_options_and_faults(site):
    texts = method_pages.prose()
    assert texts.keys() == cx.METHODS.keys()
    for name, method in cx.METHODS.items():
        shown = page(site, f"methods/{name}.html")
        assert texts[name].keys() == {"idea", "equation", "fails"}
        assert len(re.findall(r"[.](?: |$)", texts[name]["idea"])) == 3  # three sentences
        assert '<div class="formula"><math' in shown and "Where it fails" in shown
        for option in (*(method.options or ()), *(method.word_options or ()), *(method.pair_options or ())):
            assert option.name in shown


def test_the_picture_of_a_method_is_drawn(tmp_path, embedded_model):
    for name in ("grad_eclip", "leave_one_out", "exclip"):
        method_pages.draw(cx.METHODS[name], embedded_model, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(10**7)) > 10


@pytest.fixture
def embedded_model():
    return cx.load("tiny-vit", "cpu")


def test_the_scoreboard_keeps_papers_and_controls_apart(site):
    papers, controls = page(site, "scoreboard_papers.html"), page(site, "scoreboard_controls.html")
    assert "it | works" in papers and "it flies" not in papers
    assert "it flies" in controls and "it | works" not in controls
    assert "What the papers state" in page(site, "scoreboard.html")
    assert scoreboard.escaped("a|b_c*$d") == r"a\|b\_c\*\$d"


def test_the_reference_holds_docstrings_as_they_are_written(site):
    text = page(site, "reference/methods.html")
    assert "Grad-ECLIP of the image" in text and "spatial" in text
    assert reference.as_markup(["a `b_` of *c_", "  x = y_", "d"]) == [
        r"a ``b_`` of \*c\_",
        "",
        "::",
        "",
        "  x = y_",
        "",
        "d",
    ]


def test_a_page_of_the_guide_names_what_is_not_on_the_site():
    text = "See [06](../notebooks/06_a.ipynb), [07](../notebooks/07_b.ipynb) and [the rules](../CONTRIBUTING.md)."
    expected = "See [06](notebooks/06_a.ipynb), 07 (`notebooks/07_b.ipynb`) and the rules (`CONTRIBUTING.md`)."
    assert make_site.for_site(text, {"06_a"}) == expected


def test_code_is_folded(site):
    assert "Show the code" in page(site, "notebooks/01_good.html")


def small_site(root: Path) -> Path:
    (root / "notebooks").mkdir(parents=True)
    for name in ("index.html", "search.html", "notebooks/01_good.html"):
        (root / name).write_text('<a id="top" href="#top">up</a> <a href="https://example.org">out</a>')
    (root / "searchindex.js").touch()
    return root


@pytest.mark.parametrize(
    ("html", "flaw"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "index.html loads https://cdn.example/x.js"),
        ('<link href="//fonts.example/a.css">', "index.html loads //fonts.example/a.css"),
        ('<img src="gone.png">', "index.html points at gone.png, which is not there"),
        ('<a href="notebooks/02.html">2</a>', "index.html points at notebooks/02.html, which is not there"),
        ("<p>:::{note} Not executed :::</p>", "index.html shows raw markup: :::"),
        ("<p>see [the card](card.json)</p>", "index.html shows raw markup: ](card.json)"),
        ('<a href="notebooks/01_good.html#end">1</a>', "index.html points at notebooks/01_good.html#end, a place"),
    ],
)
def test_flaws_are_found(tmp_path, html, flaw):
    site = small_site(tmp_path)
    assert link_check.flaws(site, ["01_good"]) == []
    (site / "index.html").write_text(html)
    (found,) = link_check.flaws(site, ["01_good"])
    assert found.startswith(flaw)


@pytest.mark.parametrize("name", ["searchindex.js", "search.html", "notebooks/01_good.html"])
def test_what_is_not_there_is_found(tmp_path, name):
    site = small_site(tmp_path)
    (site / name).unlink()
    assert link_check.flaws(site, ["01_good"]) == [f"there is no {name}"]
