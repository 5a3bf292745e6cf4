"""Settings of the site for Sphinx. docs/make_site.py makes the pages that they apply to, and calls Sphinx.

Nothing may be fetched when a page is opened: no fonts, no scripts from elsewhere. Formulas are MathML, which browsers
draw themselves, so there is no MathJax.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

sys.path.append(str(Path(__file__).resolve().parent))

import reference  # noqa: E402

project = "CLIP Explained"
html_title = project
author = "CLIP Explained contributors"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of torch are markup
exclude_patterns = ["conf.py", "reference.py"]
html_theme = "furo"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # it reads other pages by a request, which a page opened from disk may not make
html_math_renderer = "mathml"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_update_mathjax = False
nb_execution_mode = "off"  # notebooks/run.py did it
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "docutils"]  # the last: plain text of docstrings

log = logging.getLogger(__name__)


def mathml(node: nodes.Node, block: bool) -> str:
    """A formula as MathML; one that docutils cannot read as its source, with a warning."""
    source = node.astext()
    # Parentheses of a fixed size, which docutils does not know, become growing ones.
    source = re.sub(r"\\[bB]ig+([(\[])", r"\\left\1", re.sub(r"\\[bB]ig+([)\]])", r"\\right\1", source))
    try:
        return tex2mathml(source, as_block=block)
    except MathError as error:
        log.warning("formula %r: %s", source, error, location=node)
        return f"<code>{source}</code>"


def inline(translator, node: nodes.Node) -> None:
    translator.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def display(translator, node: nodes.Node) -> None:
    translator.body.append(f'<div class="formula">{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def docstring(app, what, name, found, options, lines: list[str]) -> None:
    """A docstring, which is plain text, as reStructuredText."""
    lines[:] = reference.as_markup(lines)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", docstring)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
