"""Conversations as text: what the chat template writes, and which characters of it are answers, proven by prefixes.

An answer begins where the prompt that chat would send ends, and ends where the conversation through it ends. That these
pieces really are prefixes of the whole is shown for every answer; nothing is searched for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # no public name gives it; vLLM uses it too

from truetune.data.messages import BadRow, Conversation, Document, Judged, Place, Preference, Row
from truetune.findings import Both, problem

BREAK = "\ue000"
"""Put into words that look like a special token while the template is rendered; no tokenizer ever sees it."""
Ask = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Messages and tools, as templates read them."""


class Answer(NamedTuple):
    """Characters [begin, end) of a rendered text that are an answer, and what they count."""

    begin: int
    end: int
    weight: float


@dataclass(slots=True)
class Text:
    """A sequence as its template writes it. broken: words in it look like a special token and hold `BREAK`."""

    whole: str
    answers: list[Answer]
    place: Place
    label: bool | None = None
    thinks: bool = False
    broken: bool = False
    document: bool = False


class Writer:
    """Writes rows as text, with the tokenizer's chat template.

    only_last: learn only the last answer of a conversation. stops: tokens that end an answer, wherever they stand.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, only_last: bool, stops: frozenset[int] = frozenset()):
        self._tokenizer, self._only_last, self._stops = tokenizer, only_last, stops
        self.special_ids = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()
                            if token.special}
        longest_first = sorted(self.special_ids, key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._template = str(tokenizer.chat_template or "")
        self._takes_reasoning = bool(re.search(r"reasoning_content|\W(reasoning|thinking)\b(?!_)", self._template))
        self._compiled = _compile_jinja_template(self._template)
        self._given = {**self._compiled.globals, **tokenizer.special_tokens_map, "tools": None, "documents": None}
        self._closing = self._find_closing()

    def texts(self, rows: Sequence[Row]) -> list[list[Text] | BadRow]:
        """Each row as the texts of its sequences.

        All renderings of a chunk are asked for at once: the whole, and for each answer the prompt before it and (but
        for the last) the conversation through it.
        """
        talks = [_Talk(talk, only_last, label, row_number)
                 for row_number, row in enumerate(rows) for talk, only_last, label in self._talks(row)]
        asked: list[Ask] = []
        prompts: list[Ask] = []
        for talk in talks:
            talk.dicts, talk.broken = self._as_dicts(talk.conversation)
            talk.learned = [number for number, message in enumerate(talk.conversation.messages)
                            if message.role == "assistant" and message.weight != 0.0
                            and (not talk.only_last or number == len(talk.dicts) - 1)]
            tools = talk.conversation.tools
            asked.append((talk.dicts, tools))
            asked += [(talk.dicts[: number + 1], tools) for number in talk.learned if number < len(talk.dicts) - 1]
            prompts += [(talk.dicts[:number], tools) for number in talk.learned]
        wholes, openings = iter(self.apply(asked)), iter(self.apply(prompts, generation_prompt=True))

        texts: list[list[Text] | BadRow] = [[] for _ in rows]
        for number, row in enumerate(rows):
            if isinstance(row, Document):
                texts[number] = [Text(row.text, [], row.place, document=True, broken=True)]
        for talk in talks:
            whole = next(wholes)
            through = {number: next(wholes) for number in talk.learned if number < len(talk.dicts) - 1}
            before = {number: next(openings) for number in talk.learned}
            sequences = texts[talk.row]
            if isinstance(sequences, list):
                try:
                    sequences += self._prove(talk, whole, through, before)
                except BadRow as error:
                    texts[talk.row] = error
        return texts

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]],
               add_generation_prompt: bool = True, **values: Any) -> str:
        """The text that asks for the next answer, words that look like special tokens hidden. values: what else the
        template is told.

        Raises:
            BadRow: the template refuses these messages.
        """
        asked: Ask = [self._hide_within(message) for message in messages], tools
        (text,) = self.apply([asked], generation_prompt=add_generation_prompt, **values)
        return _text(text)

    def _talks(self, row: Row) -> list[tuple[Conversation, bool, bool | None]]:
        """The conversations in a row, whether only the last answer of each is learned, and its label."""
        match row:
            case Conversation():
                return [(row, self._only_last, None)]
            case Preference():
                return [(row.chosen, True, None), (row.rejected, True, None)]
            case Judged():
                return [(row.conversation, True, row.good)]
            case Document():
                return []

    def _prove(self, talk: _Talk, whole: str | BadRow, through: Mapping[int, str | BadRow],
               before: Mapping[int, str | BadRow]) -> list[Text]:
        """The talk's texts with the characters of its answers, every one proven by prefixes.

        Raises:
            BadRow: the template refuses the messages, loses what they hold, or allows no proof.
        """
        whole = _text(whole)
        self._require_kept(talk.conversation, whole)
        last = len(talk.dicts) - 1
        thinks = any(message.reasoning or "</think>" in message.content for message in talk.conversation.messages)
        joint = Text(whole, [], talk.conversation.place, talk.label, thinks, talk.broken)
        apart: list[Text] = []
        for number in talk.learned:
            weight = talk.conversation.messages[number].weight
            ended, prompt = _text(through.get(number, whole)), _text(before[number])
            if not ended.startswith(prompt):
                prompt = self._thinking_prompt(talk, number)
            answer = self._span(prompt, ended, 1.0 if weight is None else weight)
            if number != last:
                answer = answer._replace(end=self._end_within(whole, ended, answer))
            if whole.startswith(ended[: answer.end]):
                joint.answers.append(answer)
            else:
                apart.append(Text(ended, [answer], talk.conversation.place, talk.label, thinks, talk.broken))
        return [*apart, joint] if joint.answers else apart or [joint]

    def _thinking_prompt(self, talk: _Talk, number: int) -> str:
        """The prompt of a client that asks for a thought: where data decide whether the model thinks
        (enable_thinking: null), the prompt that is sent otherwise asks for none."""
        ask = (talk.dicts[:number], talk.conversation.tools)
        return _text(self.apply([ask], generation_prompt=True, enable_thinking=True)[0])

    def _end_within(self, whole: str, ended: str, answer: Answer) -> int:
        """Where an answer that further turns follow ends. `ended` may close with an end-of-text that stands behind the
        last answer only; it is not there in `whole`, where the next turn's first token may end the answer."""
        bare = len(ended.removesuffix(self._closing))
        follows = self.special.match(whole, bare)
        stopped = follows is not None and self.special_ids[follows[0]] in self._stops
        return bare if whole.startswith(ended[:bare]) and stopped else answer.end

    def _span(self, prompt: str, ended: str, weight: float) -> Answer:
        """The answer that stands behind `prompt` in `ended`. What a template writes behind a conversation that ends
        (`_find_closing`) belongs to the answer only where nothing else ends it.

        Raises:
            BadRow: `prompt` is not what stands before the answer.
        """
        if not ended.startswith(prompt):
            raise BadRow(Both("the chat template asks for an answer with a prompt that it does not write before the "
                              "answer itself", "对话模板请求回答时用的提示，与它写在回答之前的内容不一致"))
        bare = ended.removesuffix(self._closing)
        if len(bare) < len(ended) and not self._ends_turn(bare[len(prompt):]):
            bare = ended
        return Answer(len(prompt), len(bare), weight)

    def _ends_turn(self, answer: str) -> bool:
        """Whether a special token is the last thing in `answer`, white space apart."""
        tokens = list(self.special.finditer(answer))
        return bool(tokens) and not answer[tokens[-1].end():].strip()

    def _require_kept(self, talk: Conversation, whole: str) -> None:
        """Raises:
        BadRow: the template has no place for the tools, or for the calls, and would leave them out unseen.
        """
        names = [(Both("tool", "工具"), str(tool.get("function", tool).get("name", ""))) for tool in talk.tools]
        names += [(Both("call of", "调用"), call.name) for message in talk.messages for call in message.tool_calls]
        for what, name in names:
            if name not in whole:
                raise BadRow(Both(f"the chat template leaves out the {what} {name!r}: it knows no tools",
                                  f"对话模板漏掉了{what.zh} {name!r}：它不支持工具"), "template-without-tools",
                             Both("tool_format: qwen, for instance, teaches it to write them.",
                                  "可以设置工具格式，例如 tool_format: qwen。"))

    def _as_dicts(self, talk: Conversation) -> tuple[list[dict[str, Any]], bool]:
        """Messages as templates read them, and whether words that look like special tokens were broken up."""
        dicts = [message.as_dict() for message in talk.messages]
        if not self._takes_reasoning:
            for message, source in zip(dicts, talk.messages, strict=True):
                if source.reasoning is not None:
                    thought = message.pop("reasoning_content")
                    message["content"] = f"<think>\n{thought}\n</think>\n\n{source.content}"
        broken = False
        search = self.special.search
        for message in dicts:
            if search(message["content"]) or (len(message) > 2 and search(str(message))):
                message["content"], broken = self.hide(message["content"]), True
                for key in message.keys() - {"role", "content"}:
                    message[key] = self._hide_within(message[key])
        return dicts, broken

    def _hide_within(self, value: Any) -> Any:
        """`hide` for every text in nested lists and mappings."""
        match value:
            case str():
                return self.hide(value)
            case Mapping():
                return {key: self._hide_within(item) for key, item in value.items()}
            case list() | tuple():
                return [self._hide_within(item) for item in value]
        return value

    def hide(self, words: str) -> str:
        return self.special.sub(lambda token: token[0][0] + BREAK + token[0][1:], words)

    def apply(self, asked: Sequence[Ask], *, generation_prompt: bool = False, **values: Any) -> list[str | BadRow]:
        """Messages (with tools) as text, or why the template refuses them. values: what else the template is told."""
        return [self._apply(messages, tools, generation_prompt, values) for messages, tools in asked]

    def _apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], generation: bool,
               values: Mapping[str, Any]) -> str | BadRow:
        """One conversation. Messages that are nothing but role and text go straight to the compiled template, with the
        variables that `apply_chat_template` gives it: what that does before (copies, other names of thoughts) changes
        nothing in them, and takes twice as long as rendering them."""
        try:
            if not tools and not values and all([len(message) == 2 for message in messages]):
                given = {**self._given, "messages": messages, "add_generation_prompt": generation}
                return "".join(self._compiled.root_render_func(self._compiled.new_context(given, shared=True)))
            rendered: Any = self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, tokenize=False,  # pyright: ignore[reportArgumentType]
                add_generation_prompt=generation, **values)
            return rendered
        except (TemplateError, TypeError) as error:
            return BadRow(Both(f"the chat template refuses it: {error}", f"对话模板拒绝这段对话：{error}"))

    def _find_closing(self) -> str:
        """What the template writes behind a conversation that ends, and nowhere else: Phi-3 adds end-of-text there,
        after its end-of-turn token."""
        talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]
        eos = str(self._tokenizer.eos_token or "")
        if not self._template or not eos:
            return ""
        ended, going_on = self.apply([(talk, ()), ([*talk, talk[0]], ())])
        if isinstance(ended, BadRow) or isinstance(going_on, BadRow):
            return ""
        return eos if not going_on.startswith(ended) and going_on.startswith(ended.removesuffix(eos)) else ""


@dataclass(slots=True)
class _Talk:
    """A conversation on its way to text. row: the number of its row. learned: the numbers of its learned answers."""

    conversation: Conversation
    only_last: bool
    label: bool | None
    row: int
    dicts: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False
    learned: list[int] = field(default_factory=list)


def _text(text: str | BadRow) -> str:
    if isinstance(text, BadRow):
        raise text
    return text


def require_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raises:
    Problem: the tokenizer brings no chat template, so nothing says how a conversation is written.
    """
    if not tokenizer.chat_template:
        raise problem("no-chat-template", Both(f"{model} brings no chat template: it is a base model.",
                                               f"{model} 没有自带对话模板：它是 base 模型。"),
                      option="model_name_or_path",
                      fix=Both("Choose its Instruct or Chat version, or name a template, such as template: chatml.",
                               "请改用它的 Instruct 或 Chat 版本，或指定模板，例如 template: chatml。"))
