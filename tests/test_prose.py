"""The English of the library: docstrings and comments are plain sentences, without idioms that are hard to read."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "lib" / "clip_explain"
FILES = sorted(LIBRARY.rglob("*.py"))
# What a docstring or a comment must not say -> what it says instead.
IDIOMS = {
    r"\bthings?\b": "object",
    r"(?<!there )\b(is|are|was|were) no (?!longer|more|larger|less|further)[a-z]": "is not a ...",
    r"\bby lot\b": "at random",
    r"\bmanieth\b": "the number of ...",
    r"\b(to|be|can) be had\b": "available",
    r"\ball else\b": "everything else",
    r"\bof one's own\b": "your own",
    r"\bas (it|they) stands?\b": "itself, unchanged",
    r"\bbut for\b": "except",
    r"\bmeanwhile\b": "during ...",
    r"\b(it|they|which|that) says? nothing\b": "is constant, carries no information",
}
QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"")  # names and words that are quoted are not ours


def prose(path: Path) -> list[tuple[int, str]]:
    """The docstrings and comments of a module with their lines."""
    text = path.read_text()
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    found = [(node.body[0].lineno, ast.get_docstring(node) or "") for node in nodes if node.body]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return found + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_docstrings_and_comments_are_plain(path):
    bad = [
        f"{path.name}:{line}: {match[0]!r}; say: {better}"
        for line, text in prose(path)
        for idiom, better in IDIOMS.items()
        for match in re.finditer(idiom, QUOTED.sub("", text), re.IGNORECASE)
    ]
    assert bad == []
