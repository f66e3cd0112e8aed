"""What a Modelfile says, and the text that Ollama would give its runner for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from truetune.export.ollama.gotemplate import GoError, GoTemplate, parse
from truetune.export.ollama.ollama import Talk, values_of
from truetune.findings import Both, Problem, problem

Value = int | float | str


@dataclass(frozen=True)
class OllamaForm:
    """A Modelfile.

    Attributes:
        weights: what FROM names. adapter: what ADAPTER names, or "". template: in Go's text/template. system: the
            SYSTEM text, or "". stops: texts that end an answer. parameters: the others.
        opening: the runner puts the beginning-of-text token before every text, whatever the text begins with
            (`tokenizer.ggml.add_bos_token` in the GGUF file). family: the model's architecture.
        left_out: what is refused, or not as it was trained.
    """

    weights: str
    template: str
    stops: tuple[str, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)
    system: str = ""
    adapter: str = ""
    opening: bool = False
    family: str = ""
    left_out: tuple[Both, ...] = ()

    def prompt(self, messages: Talk, tools: Sequence[Mapping[str, Any]] = (), think: bool | None = None) -> str:
        """Exactly what Ollama gives its runner for a chat with these messages, while they fit into num_ctx.

        Args:
            think: as in Ollama's API; None: not said.

        Raises:
            Problem: Ollama would refuse it (tools or thinking that the template does not speak of), or its template
                would fail.
        """
        if tools and "tools" not in self._go.names():
            raise _refused(Both("it does not support tools", "它不支持工具"))
        if think and not self.thinks:
            raise _refused(Both("it does not support thinking", "它不支持思考"))
        if think is None and self.thinks:
            think = True
        try:
            return self._go.render(values_of(messages, system=self.system, think=think, family=self.family))
        except GoError as error:
            raise _refused(Both(f"its template fails: {error}", f"它的模板出错：{error}")) from None

    @property
    def thinks(self) -> bool:
        """Whether Ollama takes it for a model that can think."""
        return all(self._go.thought_marks())

    @cached_property
    def _go(self) -> GoTemplate:
        try:
            return parse(self.template)
        except GoError as error:
            raise problem("no-ollama-template", Both(f"its template cannot be read: {error}.",
                                                     f"它的模板无法读取：{error}。")) from None


def _refused(reason: Both) -> Problem:
    return problem("ollama-refuses", Both(f"Ollama refuses it: {reason}.", f"Ollama 会拒绝：{reason.zh}。"))
