"""What is written between two marks of a page."""

import pytest

from clip_explain.files import between_marks


def test_only_what_stands_between_the_marks_is_replaced():
    assert between_marks("before <a> old </a> after", "<a>", "</a>", "new") == "before <a>\nnew\n</a> after"


@pytest.mark.parametrize("page", ["no mark", "<a> no end", "<a> <a> </a>"])
def test_a_page_without_its_marks_is_refused(page):
    with pytest.raises(ValueError, match="expected <a> and </a> once each"):
        between_marks(page, "<a>", "</a>", "new")
