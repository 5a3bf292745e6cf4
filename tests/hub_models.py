"""Small random models of transformers' own classes, in folders as `save_pretrained` writes them, tokenizers and all."""

import io
from pathlib import Path

import sentencepiece
import torch
import transformers
from tokenizers import pre_tokenizers, processors
from torch import nn

WORDS = ["a", "red", "cube", "ring", "of", "blue", "photo", "the", "cone"]
VISION = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, patch_size=8)
TEXT = dict(hidden_size=48, intermediate_size=192, num_hidden_layers=3, num_attention_heads=3)
CONTEXT = 16


def clip_tokenizer():
    """CLIP's byte-level BPE, with merges for a few words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges, tokens = [], [*letters, *(letter + "</w>" for letter in letters)]
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            tokens.append(parts[0])
    merges, tokens = list(dict.fromkeys(merges)), list(dict.fromkeys(tokens))
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def gemma_tokenizer():
    """Siglip2's BPE on whole words, its end token and padding."""
    letters = list("abcdefghijklmnopqrstuvwxyz▁")
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = []
    for word in WORDS:
        parts = list("▁" + word)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.setdefault(parts[0], len(vocabulary))
    merges = list(dict.fromkeys(merges))
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=vocabulary, merges=merges, padding_side="right", model_max_length=CONTEXT
    )
    ending = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])])
    tokenizer.backend_tokenizer.post_processor = ending
    return tokenizer


def spiece_tokenizer(folder: Path):
    """SigLIP 1's unigrams: a model of sentencepiece trained on a few words, with the real one's special numbers."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 20),
        model_writer=made,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(made.getvalue())
    return transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=CONTEXT)


def xlm_tokenizer():
    """XLM-RoBERTa's unigrams, of MetaCLIP 2 and AltCLIP."""
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz▁"]
    words = [("▁" + word, -3.0) for word in WORDS]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, *letters, ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=CONTEXT)


def bert_tokenizer(folder: Path):
    """ChineseCLIP's word pieces."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "红", "色", "的"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=CONTEXT)


def random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights as wide as in a trained model: those of transformers' start leave attention flat."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "logit" in name:
            continue
        width = parameter.shape[-1] if parameter.ndim > 1 else 100
        drawn = torch.randn(parameter.shape, generator=generator) * (1.5 * width**-0.5)
        parameter.data = drawn + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
    return network.eval()


def clip(folder: Path) -> nn.Module:
    tokenizer = clip_tokenizer()
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    config = transformers.CLIPConfig(
        vision_config=VISION | dict(image_size=32),
        text_config=TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT) | ends,
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessor(size=32, crop_size=32)
    return _saved(transformers.CLIPModel(config), tokenizer, processor, folder)


def metaclip_2(folder: Path) -> nn.Module:
    tokenizer = xlm_tokenizer()
    ends = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1)
    config = transformers.MetaClip2Config(
        vision_config=VISION | dict(image_size=32),
        text_config=TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT) | ends,
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessor(size=32, crop_size=32)
    return _saved(transformers.MetaClip2Model(config), tokenizer, processor, folder)


def siglip2(folder: Path) -> nn.Module:
    tokenizer = gemma_tokenizer()
    config = transformers.Siglip2Config(
        vision_config=VISION | dict(num_patches=16),
        text_config=TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, projection_size=32),
    )
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return _saved(transformers.Siglip2Model(config), tokenizer, processor, folder)


def siglip(folder: Path, tokenizer=None) -> nn.Module:
    """With SigLIP 2's tokenizer, as in google/siglip2-base-patch16-224, whose model is a SiglipModel; or another."""
    tokenizer = tokenizer or gemma_tokenizer()
    config = transformers.SiglipConfig(
        vision_config=VISION | dict(image_size=32),
        text_config=TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, projection_size=32),
    )
    processor = transformers.SiglipImageProcessor(size=dict(height=32, width=32))
    return _saved(transformers.SiglipModel(config), tokenizer, processor, folder)


def chinese_clip(folder: Path) -> nn.Module:
    tokenizer = bert_tokenizer(folder)
    config = transformers.ChineseCLIPConfig(
        vision_config=VISION | dict(image_size=32),
        text_config=TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT),
        projection_dim=24,
    )
    processor = transformers.ChineseCLIPImageProcessor(size=dict(height=32, width=32))
    return _saved(transformers.ChineseCLIPModel(config), tokenizer, processor, folder)


def altclip(folder: Path) -> nn.Module:
    tokenizer = xlm_tokenizer()
    config = transformers.AltCLIPConfig(
        vision_config=VISION | dict(image_size=32),
        text_config=TEXT
        | dict(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT + 2, project_dim=40, pad_token_id=1),
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessor(size=32, crop_size=32)
    return _saved(transformers.AltCLIPModel(config), tokenizer, processor, folder)


def blip(folder: Path) -> nn.Module:
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    text = dict(size, vocab_size=40, encoder_hidden_size=16, is_decoder=False, bos_token_id=2, sep_token_id=3)
    vision = dict(size, image_size=32, patch_size=8)
    config = transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=12)
    network = random_weights(transformers.BlipForImageTextRetrieval(config))
    network.save_pretrained(folder)
    bert_tokenizer(folder).save_pretrained(folder)
    return network


def dino(folder: Path) -> nn.Module:
    network = random_weights(transformers.ViTModel(transformers.ViTConfig(**VISION, image_size=32)))
    network.save_pretrained(folder)
    return network


def _saved(network: nn.Module, tokenizer, processor, folder: Path) -> nn.Module:
    random_weights(network).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network


# What writes a model of each family into a folder and returns it.
FAMILIES = {make.__name__: make for make in (clip, metaclip_2, siglip, siglip2, chinese_clip, altclip)}
