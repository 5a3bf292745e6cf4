"""What several test files share."""

import pytest
import safetensors.torch

import small_clip


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A weights file of a small random CLIP."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    safetensors.torch.save_file(small_clip.state_dict(**small_clip.SMALL), path, small_clip.METADATA)
    return path
