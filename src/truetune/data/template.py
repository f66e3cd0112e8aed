"""Which chat template a run uses: the tokenizer's own or a named one, and what the options bake into it.

Whatever is chosen here is written into the tokenizer. Training renders with it, and it is saved with the model, so
every server that reads the tokenizer renders what was trained without being told any option.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from truetune.data.renderer import Masks, Renderer
from truetune.data.templates import TEMPLATES
from truetune.data.templates.apply import apply_template, stop_words
from truetune.data.tools import default_system_of, with_tools
from truetune.findings import Finding
from truetune.options import Config

_MARK = "{#- truetune: "
"""Opens every template that was settled here, so that it is not settled again when the trained model is loaded."""


def settle_template(tokenizer: PreTrainedTokenizerBase, config: Config) -> list[Finding]:
    """Write the template that `config` asks for into the tokenizer.

    Raises:
        Problem: there is no template or tool format of that name.
    """
    own = _own(tokenizer)
    name = config.template or "own"
    if own.startswith(_MARK) and (config.template is None or own.startswith(f"{_MARK}{name} #")):
        return []
    findings: list[Finding] = []
    if config.template:
        findings = apply_template(tokenizer, config.template, tool_format=config.tool_format,
                                  default_system=config.default_system, enable_thinking=config.enable_thinking,
                                  preserve_thinking=config.preserve_thinking)
        source = str(tokenizer.chat_template)
    elif own:
        thinking = [option for option in ("enable_thinking", "preserve_thinking") if config.given(option)]
        source = _defaults({option: getattr(config, option) for option in thinking}) + own
        if config.tool_format:
            source = with_tools(source, config.tool_format, default_system_of(tokenizer))
        source = _system(config.default_system) + source
    else:
        return []
    if source != own:
        tokenizer.chat_template = f"{_MARK}{name} #}}{source}"
    return findings


def make_renderer(tokenizer: PreTrainedTokenizerBase, model: Path, config: Config) -> Renderer:
    """The renderer of a run on the model in `model`. The template must be settled."""
    stops = generation_stops(model)
    if config.template in TEMPLATES:
        stops |= set(stop_words(tokenizer, TEMPLATES[config.template]))
    return Renderer(tokenizer, Masks(config.mask_history, config.train_on_prompt, config.loss_weights), stops)


def generation_stops(model: Path) -> set[int]:
    """The tokens at which the model in this folder says that it stops."""
    settings = model / "generation_config.json"
    eos = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id") if settings.is_file() else None
    return {eos} if isinstance(eos, int) else set(eos or [])


def _own(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own template; of several, the one that is used where nothing is said."""
    template: Any = tokenizer.chat_template
    return str(tokenizer.get_chat_template() if isinstance(template, dict) else template or "")


def _defaults(values: dict[str, bool | None]) -> str:
    """Values that a server need not pass. None leaves it to the template."""
    return "".join(f"{{%- if {name} is not defined %}}{{%- set {name} = {str(value).lower()} %}}{{%- endif %}}\n"
                   for name, value in values.items() if value is not None)


def _system(default: str | None) -> str:
    """A system message for conversations that bring none."""
    if not default:
        return ""
    text = json.dumps(default, ensure_ascii=False)
    return ("{%- if not messages or messages[0].role != 'system' %}"
            f"{{%- set messages = [{{'role': 'system', 'content': {text}}}] + messages %}}{{%- endif %}}\n")
