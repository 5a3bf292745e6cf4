"""The table of the embedded CLIPs in docs/embedded.md: `python docs/cards.py` writes it anew, from their cards."""

import json
from pathlib import Path

from clip_explain.files import between_marks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "embedded.md"
START, END = "<!-- cards: written by docs/cards.py -->", "<!-- end of cards -->"
MODELS = ("tiny-vit", "tiny-vit-plain", "tiny-vit-32", "tiny-resnet")
# What a row says -> the figure of the cards, and the aim of tiny-vit's plan.
ROWS = {
    "one object: colour and shape together (40 classes)": ("zero-shot color x shape", "97 %"),
    "one object: material": ("zero-shot material", "99 %"),
    "one object: size": ("zero-shot size", "97 %"),
    "colour and shape, the object alone on black": (
        "color x shape, the object alone on black",
        "90 % of row 1",
    ),
    "colour and shape, 20 % of single pixels black": ("color x shape, 20 % of single pixels black", "90 % of row 1"),
    "colour and shape, 50 % of patches black": ("color x shape, 50 % of patches black", "80 % of row 1"),
    "text to image, the right one of 100 scenes of three objects first": ("text-to-image recall@1 of 100", "90 %"),
    "painting, the right one of 100 first by its caption": ("painting recall@1 of 100", "75 %"),
    "happy or sad face, by text (chance 50 %)": ("zero-shot mood of faces", "98 %"),
    "pointing game of Grad-ECLIP, one head (tiny-resnet: Grad-CAM)": ("pointing game", "80 %"),
    "the same, on it or within 8 pixels": ("pointing game, within 8 pixels", ""),
    "pointing game of Grad-ECLIP, the model's own heads": ("pointing game, native heads", "80 %"),
    "pointing game of LeGrad": ("pointing game, legrad", "above Grad-ECLIP's"),
    "pointing game of Grad-ECLIP, one large object among others": ("pointing game, one dominant object", "90 %"),
    "the same, on it or within 8 pixels of it": ("pointing game, one dominant object, within 8 pixels", ""),
    "the pointing game by chance": ("pointing game by chance", ""),
    "the same, within 8 pixels": ("pointing game by chance, within 8 pixels", ""),
    "words: the heaviest word is one of content, Grad-ECLIP": ("heaviest word of content, grad_eclip", "85 %"),
    "words: the heaviest word is one of content, leave one out": ("heaviest word of content, leave_one_out", "85 %"),
    "words: all of content outweigh every article, Grad-ECLIP": ("content words first, grad_eclip", ""),
    "words: all of content outweigh every article, leave one out": ("content words first, leave_one_out", ""),
}


def card(name: str) -> dict:
    """A model's card."""
    return json.loads((ROOT / "data" / "models" / f"{name}.json").read_text())


def cell(found: dict, figure: str) -> str:
    """A figure of a card in percent, with its 95 % interval if the card has one; nothing if it was not measured."""
    if figure not in found["figures"]:
        return ""
    mean = f"{100 * found['figures'][figure]:.1f} %"
    if figure not in found.get("intervals", {}):
        return mean
    low, high, _ = found["intervals"][figure]
    return f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"


def table() -> str:
    """A row for each figure, a column for each model, and the aim."""
    cards = [card(name) for name in MODELS]
    images = " | ".join(
        f"{name}, {found['held_out_scenes']} pictures" for name, found in zip(MODELS, cards, strict=True)
    )
    lines = [f"| | {images} | aim |", "|---|" + "---|" * (len(MODELS) + 1)]
    for says, (figure, aim) in ROWS.items():
        cells = " | ".join(cell(found, figure) for found in cards)
        lines.append(f"| {says} | {cells} | {aim} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its table written anew."""
    return between_marks(page, START, END, f"\n{table()}\n")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
