"""The library as its users have it: without the type checks that the tests add to every function."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="module")
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
