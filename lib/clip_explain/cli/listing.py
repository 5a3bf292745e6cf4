"""What `clip-explain --list` prints: every family of models and every method with its options. Imports no torch."""

from clip_explain.explainers.method import Method, Option
from clip_explain.explainers.registry import METHODS, names_of

# OpenAI's CLIPs -> the size of their download in MB (2^20 bytes): numbers of 2 bytes, those of the tokens of 4.
OPENAI = {
    "ViT-B/32": 338,
    "ViT-B/16": 335,
    "ViT-L/14": 890,
    "ViT-L/14@336px": 891,
    "RN50": 244,
    "RN101": 278,
    "RN50x4": 402,
    "RN50x16": 630,
    "RN50x64": 1290,
}
# The form of a model's name -> what it loads. models/__init__.py has the loader of each prefix before a colon.
FAMILIES = {
    "tiny-vit tiny-vit-plain tiny-vit-32 tiny-resnet basic-clip": "embedded CLIPs of rendered scenes; no download",
    **{name: f"OpenAI's CLIP; download of {size} MB" for name, size in OPENAI.items()},
    "PATH": "a weights file in OpenAI's layout: .safetensors, .pt, .pth, .bin",
    "hf:NAME_OR_FOLDER": "CLIP, SigLIP, MetaCLIP 2, Chinese CLIP or AltCLIP of transformers; "
    "download of 600 MB (CLIP ViT-B) to several GB; extra: hugging-face",
    "open_clip:ARCH/TAG": "OpenCLIP's; TAG may be a checkpoint's path; download as of hf; extra: open-clip",
    "torchvision:NAME": "an ImageNet classifier, as torchvision:vit_b_16 (330 MB); its classes are the targets",
    "blip:NAME_OR_FOLDER": "BLIP of image-text retrieval; download of 900 MB (its base); extra: hugging-face",
    "iclip": "the embedded ICLIP; iclip:PATH for another of its kind",
}


def listing() -> str:
    """One line for each family of models, one for each method, and one for each of its options."""
    lines = ["models:", *(f"  {names}: {says}" for names, says in FAMILIES.items())]
    for title, words in (("methods", False), ("methods for --words", True)):
        lines += ["", f"{title}, and what --option takes:"]
        for name in names_of(words):
            lines.append(method_line(METHODS[name], words))
            lines += [option_line(option) for option in METHODS[name].options_for(words).values()]
    return "\n".join(lines)


def method_line(method: Method, words: bool) -> str:
    """A method's name, title, paper, and what it needs."""
    year = f" {method.year}" if method.year else ""
    needs = method.word_needs if words else method.needs
    return f"  {method.name}: {method.title} ({method.paper}{year}), for {needs}"


def option_line(option: Option) -> str:
    return f"    {option.name}={option.default}: {option.allowed}; {option.says}"
