"""The functions of the methods that registry.py describes, by name."""

from collections.abc import Callable

from torch import Tensor

from clip_explain.explainers.attention import rollout, rollout_words, self_attention, self_attention_words
from clip_explain.explainers.attn_lrp import attn_lrp
from clip_explain.explainers.grad_cam import grad_cam
from clip_explain.explainers.grad_eclip import grad_eclip, grad_eclip_words
from clip_explain.explainers.gradients import all_gradients, attention_grad_cam, game, game_words, last_gradient, legrad
from clip_explain.explainers.head_effects import head_effects
from clip_explain.explainers.iclip import iclip
from clip_explain.explainers.integrated import nib, nib_words
from clip_explain.explainers.interactions import Interactions, exclip, fixlip
from clip_explain.explainers.m2ib import m2ib, m2ib_words
from clip_explain.explainers.rise import rise
from clip_explain.explainers.shapley import leave_one_out, leave_one_out_spoken, shapley
from clip_explain.explainers.similarity import itsm, maskclip, reversed_itsm
from clip_explain.explainers.surgery import clip_surgery, gem

IMAGE_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "self_attention": self_attention,
    "rollout": rollout,
    "grad_cam": grad_cam,
    "attention_grad_cam": attention_grad_cam,
    "game": game,
    "all_gradients": all_gradients,
    "last_gradient": last_gradient,
    "maskclip": maskclip,
    "itsm": itsm,
    "reversed_itsm": reversed_itsm,
    "iclip": iclip,
    "legrad": legrad,
    "grad_eclip": grad_eclip,
    "clip_surgery": clip_surgery,
    "gem": gem,
    "m2ib": m2ib,
    "rise": rise,
    "shapley": shapley,
    "nib": nib,
    "head_effects": head_effects,
    "attn_lrp": attn_lrp,
}

WORD_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "self_attention": self_attention_words,
    "rollout": rollout_words,
    "game": game_words,
    "grad_eclip": grad_eclip_words,
    "m2ib": m2ib_words,
    "nib": nib_words,
    "leave_one_out": leave_one_out,
}

# Of texts as they are written: (SpokenRequest, options) -> each text's words and their weights.
SPOKEN_FUNCTIONS: dict[str, Callable[..., list[tuple[list[str], Tensor]]]] = {"leave_one_out": leave_one_out_spoken}

PAIR_FUNCTIONS: dict[str, Callable[..., Interactions]] = {"fixlip": fixlip, "exclip": exclip}
