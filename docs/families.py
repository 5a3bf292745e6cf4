"""The table of families in docs/models.md: `python docs/families.py` writes it anew, from small random models of each.

A row says how many methods take the family, and the largest relative difference between its own features, of images
and of texts, and those that are explained.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))  # the makers of small models stand beside the tests

import clip  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

import clip_explain as cx  # noqa: E402
import hub_models  # noqa: E402
import open_clip_models  # noqa: E402
import small_clip  # noqa: E402
from clip_explain.explainers.method import TOWERS  # noqa: E402
from clip_explain.explainers.registry import methods_for  # noqa: E402
from clip_explain.files import between_marks  # noqa: E402
from clip_explain.models.agreement import agreement_by_layer  # noqa: E402
from clip_explain.models.dino import load_dino  # noqa: E402
from clip_explain.models.torchvision import vit_classifier  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
START, END = "<!-- families: written by docs/families.py -->", "<!-- end of families -->"
HEADER = (
    "| family | image encoder | methods for images | for words | largest difference |",
    "|---|---|---|---|---|",
)
# What a family is called in the table -> its maker in open_clip_models.py or hub_models.py.
OPEN_CLIP = {
    "open_clip: ViT, with or without layer scale": open_clip_models.layer_scale,
    "open_clip: ResNet": open_clip_models.resnet,
    "open_clip: SigLIP, SigLIP 2": open_clip_models.siglip,
    "open_clip: ViT of timm": open_clip_models.class_token_of_timm,
    "open_clip: CoCa": open_clip_models.coca,
    "open_clip: texts of Hugging Face (roberta)": open_clip_models.roberta,
    "open_clip: ConvNeXt": open_clip_models.convnext,
    "open_clip: MobileCLIP-S": open_clip_models.mobile,
    "open_clip: MobileCLIP-B": open_clip_models.behind_convolutions,
    "open_clip: ViTamin": open_clip_models.vitamin,
    "open_clip: EVA01": open_clip_models.eva_1,
    "open_clip: EVA02": open_clip_models.eva,
    "open_clip: EVA02-E": open_clip_models.eva_enormous,
    "open_clip: Perception Encoder": open_clip_models.perception,
    "open_clip: CLIPA": open_clip_models.clipa,
    "open_clip: ViT of timm, pooled by the mean": open_clip_models.averaged_of_timm,
    "open_clip: others of timm (Swin)": open_clip_models.swin,
}
HUB = {
    "Hugging Face: CLIPModel": hub_models.clip,
    "Hugging Face: SiglipModel": hub_models.siglip,
    "Hugging Face: Siglip2Model": hub_models.siglip2,
    "Hugging Face: MetaClip2Model": hub_models.metaclip_2,
    "Hugging Face: ChineseCLIPModel": hub_models.chinese_clip,
    "Hugging Face: AltCLIPModel": hub_models.altclip,
}


def openai_resnet() -> cx.Model:
    torch.manual_seed(0)
    return small_clip.wrap(clip.model.CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2).eval())


def of_torchvision() -> cx.Model:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    network.heads.head.weight.data.normal_()  # torchvision starts with zeros
    return vit_classifier(network.eval())


def blip() -> cx.Model:
    folder = Path(tempfile.mkdtemp())
    hub_models.blip(folder)
    return cx.load(f"blip:{folder}", "cpu")


def dino() -> cx.Model:
    folder = Path(tempfile.mkdtemp())
    hub_models.dino(folder)
    return load_dino(folder)


# What is no CLIP of these three libraries: a name, and what makes the model.
OTHERS = {
    "torchvision: ViT, a classifier": of_torchvision,
    "Hugging Face: BLIP's image-text contrast": blip,
    "Hugging Face: DINO's ViTModel": dino,
}


def models() -> dict[str, cx.Model]:
    """One small random model of each family."""
    found = {"OpenAI: ViT": small_clip.wrap(small_clip.build(**small_clip.SMALL)), "OpenAI: ResNet": openai_resnet()}
    for name, make in (OPEN_CLIP | HUB).items():
        folder = Path(tempfile.mkdtemp())
        if name in HUB:
            make(folder)
            found[name] = cx.load(f"hf:{folder}", "cpu")
        else:
            network, tokenizer = open_clip_models.made(make, folder)
            found[name] = cx.load(network, preprocess=open_clip_models.PREPROCESS, tokenizer=tokenizer)
    return found | {name: make() for name, make in OTHERS.items()}


def difference(model: cx.Model) -> float | None:
    """The largest relative difference of any embedding; None where the network's own forward is all that is read."""
    found = [rows["embedding"] for rows in agreement_by_layer(model.network).values()]
    return max(found) if found else None


def row(name: str, model: cx.Model) -> tuple[str, float | None]:
    """A family's row of the table without its last column, and what stands in that."""
    images, words = len(methods_for(model)), len(methods_for(model, words=True))
    if not words:
        words = "classes are targets" if model.head is not None else "directions are targets"
    return f"| {name} | {TOWERS[model.encoder]} | {images} | {words} |", difference(model)


def table() -> str:
    lines = list(HEADER)
    for name, model in models().items():
        start, largest = row(name, model)
        lines.append(f"{start} {'its own forward' if largest is None else f'{largest:.0e}'} |")
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(between_marks(PAGE.read_text(), START, END, table()))


if __name__ == "__main__":
    main()
