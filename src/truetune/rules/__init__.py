"""What the options alone can tell: which exclude or need each other (`table`: data, a file a subject), and which depend
on others.

Known without model, data or torch: `truetune check --static` is this. Imports options, and the names of templates.
"""

from __future__ import annotations

from collections.abc import Callable

from truetune.findings import Both, Finding, Words, worst_first
from truetune.options import OPTIONS, Config, Option
from truetune.options.kinds import KINDS
from truetune.rules.ask import is_set, writes
from truetune.rules.rule import Rule
from truetune.rules.table import RULES

__all__ = ["DERIVED", "RULES", "Rule", "apply_rules", "derive"]

DERIVED: tuple[tuple[str, Callable[[Config], bool], Callable[[Config], object], str], ...] = (
    ("lora_alpha", lambda c: "lora_alpha" in KINDS[c.finetuning_type].options and c.lora_alpha is None,
     lambda c: 2 * c.lora_rank, "2 x lora_rank"),
    ("gradient_checkpointing", lambda c: c.gradient_checkpointing is None and not KINDS[c.finetuning_type].checkpoints,
     lambda c: False, "layers are given keys and values, and cannot be computed again"),
    ("max_completion_length", lambda c: writes(c) and c.max_completion_length is None,
     lambda c: c.max_new_tokens if c.given("max_new_tokens") else 256, "max_new_tokens if it is given, else 256"),
    *((name, lambda c, name=name: writes(c) and not c.given(name), lambda c, value=value: value,
       "answers are drawn as the model is") for name, value in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0))),
)
"""Defaults that depend on other options: which, when, the value, and the reason in words."""


def derive(config: Config) -> Config:
    """`config` with its dependent defaults filled in, the rule noted as their origin."""
    for name, when, value, reason in DERIVED:
        if when(config):
            config = config.with_values(f"rule: {reason}", **{name: value(config)})
    return config


def apply_rules(config: Config, verb: str) -> list[Finding]:
    """Everything the options alone say about a configuration for `truetune <verb>`, the worst first."""
    findings = [
        Finding(rule.id, rule.severity, _filled(rule.message, config), option=rule.option,
                where=config.origin(rule.option), fix=_filled(rule.fix, config) or None, source=rule.source,
                cure=rule.cure(config) if rule.cure else None)
        for rule in RULES
        if verb in rule.verbs and rule.when(config)
    ]
    findings += [
        _without_effect(option, config) for option in OPTIONS.values()
        if (option.text.no_effect or option.text.not_offered) and is_set(config, option.name)
    ]
    return worst_first(findings)


def _filled(words: Words, config: Config) -> Words:
    """`words` with the configuration's values where they name options in braces, in each language."""
    values = config.model_dump()
    return words.format(**values) if isinstance(words, str) else Both(*(half.format(**values) for half in words))


def _without_effect(option: Option, config: Config) -> Finding:
    """What is said of an option that somebody set and that does nothing here."""
    if option.text.no_effect:
        en, zh = option.text.no_effect
        return Finding("no-effect", "info", Both(f"no effect: {en}.", f"不起作用：{zh}。"), option=option.name,
                       where=config.origin(option.name))
    en, zh = option.text.not_offered or ("", "")
    return Finding("not-offered", "warn", Both(f"not done here: {en}.", f"这里不支持：{zh}。"), option=option.name,
                   where=config.origin(option.name))
