"""OpenAI's CLIPs by name: their weights, downloaded by the package clip and read as any other file."""

from torch import nn

from clip_explain.errors import ModelError
from clip_explain.models.network import build
from clip_explain.models.weights import clip, expanded, read_weights

OPENAI = tuple(clip.available_models())


def load_openai(name: str) -> tuple[nn.Module, str]:
    """The network and the sha256 of its weights, which OpenAI's URL contains. ModelError if the download fails."""
    url = clip.clip._MODELS[name]
    cache = expanded("~/.cache/clip")
    try:
        path = clip.clip._download(url, str(cache))
    except Exception as error:  # whatever a network, a proxy, a full disk or a read-only cache leads to
        raise ModelError(
            f"the weights of {name!r} could not be downloaded ({error}). Download {url} on a machine with a network "
            f"and place the file, under its own name, in {cache}; or pass its path instead of the name."
        ) from error
    state, sha256 = read_weights(path)
    return build(state, source=path), sha256
