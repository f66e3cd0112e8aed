"""The model that is measured: loaded as chat loads it, computed as training computes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.findings import Both, Say, refuse
from truetune.model.adapters import adapters_of, put_adapters, virtual_of
from truetune.model.attention import kernel_of
from truetune.model.base import load_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.policy import Policy
from truetune.model.precision import pick_device
from truetune.options import Config
from truetune.serve.engine import inference_dtype

ENDLESS = 1 << 30
"""What a model without positions of its own reads at most."""


@dataclass(frozen=True)
class Measured:
    """base: the model's folder. longest: tokens that it reads at most."""

    base: Path
    policy: Policy
    renderer: Renderer
    longest: int


def load_measured(config: Config, say: Say, shares: bool = False) -> Measured:
    """The model that `config` names, with its adapters.

    Args:
        shares: rows with a beginning in common will come.

    Raises:
        Problem: model or adapter cannot be loaded, or the adapter belongs to another base.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    base = find_model(config.model_name_or_path, config, say)
    tokenizer, trained, device = load_tokenizer(base), base, pick_device(config)
    causal = load_base(base, config, inference_dtype(config, base), device)
    adapters, outer = adapters_of(config), None
    if adapters:
        whole = put_adapters(causal, adapters, base).eval()
        outer = virtual_of(whole)
    for adapter in adapters:
        if (adapter / "tokenizer.json").is_file():
            tokenizer, trained = load_tokenizer(adapter), adapter
    for finding in refuse(settle_template(tokenizer, config)):
        say(Both(finding.line(), finding.line(chinese=True)))
    causal.requires_grad_(False)
    policy = Policy(causal, outer=outer, fast=config.flash_attn != "disabled", shares=shares,
                    kernel=kernel_of(config, device))
    longest = causal.config.get_text_config().to_dict().get("max_position_embeddings")
    return Measured(base, policy, make_renderer(tokenizer, trained, config), longest or ENDLESS)


IN_CHAT = Both("in the model's chat template", "套用模型的对话模板")
PLAIN = Both("as plain text", "用纯文本")


def asks_in_chat(measured: Measured, config: Config) -> bool:
    """Whether questions are asked as the model is spoken to: `eval_in_chat`, and unset where it has a chat template.

    Raises:
        Problem: it is asked for, and there is none.
    """
    tokenizer = measured.renderer.tokenizer
    if config.eval_in_chat:
        require_template(tokenizer, str(config.model_name_or_path))
    return bool(tokenizer.chat_template) if config.eval_in_chat is None else config.eval_in_chat
