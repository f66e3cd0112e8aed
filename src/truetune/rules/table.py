"""Options that exclude or need each other, as data: what can be known without model, data or torch.

Each rule is one row: when it applies to a configuration, how bad that is, and what to do. All are tried, all are told.
"""

from __future__ import annotations

from truetune.rules import (
    api,
    benchmark,
    data,
    export,
    hub,
    machine,
    method,
    model,
    optimizer,
    quantize,
    run,
    serve,
    stage,
    web,
)
from truetune.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    *run.RULES, *data.RULES, *method.RULES, *model.RULES, *quantize.RULES, *optimizer.RULES, *stage.RULES,
    *machine.RULES, *benchmark.RULES, *api.RULES, *serve.RULES, *export.RULES, *hub.RULES,
    *web.RULES)
