"""The Chat tab: load a model, talk to it, look behind its answers, and set two side by side (before and after).

What is loaded belongs to all pages (`served`), a conversation to one page: it is a state of it, a table with the
messages of both sides, and is kept in the browser (`kept`). The model's words are never live HTML: Markdown is
sanitised, or shown as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, problem, refuse
from truetune.web.chat.conversation import (
    FIELDS,
    Answer,
    Asked,
    Message,
    answers,
    drawn,
    keep,
    paced,
    probabilities_html,
    prompt_html,
    prompt_of,
    read_tools_field,
    told_of,
)
from truetune.web.chat.kept import KEY, field_before, said_before, to_keep
from truetune.web.chat.loading import Loading
from truetune.web.chat.served import Models, Speaker
from truetune.web.errors import in_words, toast
from truetune.web.form import Form, configured
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

_BASIC = ("temperature", "top_p", "max_new_tokens", "top_k", "repetition_penalty", "do_sample")
_MORE = tuple(name for name in FIELDS if name not in _BASIC)
_SIDES = 2

_BESIDE = ("system", "tools", "thinking")
"""Fields that are kept with a conversation, since the model reads them with it."""

Talk = dict[str, Any]
"""A conversation. said: the messages of each side. tokens: of each side's last answer."""


def build(page: Page) -> None:
    """Fill the tab."""
    loading = Loading(page, page.models)
    loading.draw()
    loading.draw_speakers()
    _Chat(page, page.models, loading)
    loading.connect()


def _empty() -> Talk:
    return {"said": [[] for _ in range(_SIDES)], "tokens": [[] for _ in range(_SIDES)]}


class _Chat:
    """The conversation below what is loaded."""

    def __init__(self, page: Page, models: Models, loading: Loading):
        self._page, self._models, self._loading = page, models, loading
        self._stops: dict[str, threading.Event] = {}
        self._talk = gr.State(_empty())
        self._filled = gr.State({"model": 0, "texts": {}})
        self._stored = gr.BrowserState({}, storage_key=KEY, secret="truetune")
        self._draw_conversation()
        self._draw_folds()
        self._connect()

    # -------------------------------------------------------------------------------------------------------- drawing

    def _draw_conversation(self) -> None:
        words = self._page.wording
        self._boxes: list[gr.Chatbot] = []
        self._lines: list[gr.HTML] = []
        self._columns: list[gr.Column] = []
        with gr.Row(equal_height=False):
            for side in range(_SIDES):
                with gr.Column(visible=side == 0, min_width=280) as column:
                    self._boxes.append(words(
                        gr.Chatbot, label=Both("Conversation", "对话") if side == 0 else Both("Beside it", "对照"),
                        elem_id=f"chat-box-{side}", height=420, editable="all", buttons=["copy", "copy_all"],
                        latex_delimiters=[], allow_tags=False, placeholder=_PLACEHOLDER,
                        group_consecutive_messages=False))
                    self._lines.append(gr.HTML(elem_id=f"chat-line-{side}"))
                self._columns.append(column)
        self._failed = gr.HTML(elem_id="chat-failed")
        with gr.Row(equal_height=True):
            self._role = words(gr.Dropdown, label=Both("As", "身份"), choices=_roles, value="user", elem_id="chat-role",
                               min_width=130, scale=1)
            self._text = words(gr.Textbox, label=Both("Message", "消息"), lines=1, max_lines=10, elem_id="chat-text",
                               placeholder=Both("Type, Enter sends, Shift+Enter breaks the line",
                                                "输入内容，回车发送，Shift+回车换行"), min_width=240, scale=6)
            self._send = words(gr.Button, value=Both("Send", "发送"), variant="primary", elem_id="chat-send",
                               min_width=90, scale=1)
            self._stop = words(gr.Button, value=Both("Stop", "停止"), variant="stop", elem_id="chat-stop",
                               visible=False, min_width=90, scale=1)
        with gr.Row():
            self._retry = words(gr.Button, value=Both("Answer again", "重新回答"), size="sm", elem_id="chat-retry")
            self._undo = words(gr.Button, value=Both("Take back", "撤回上一轮"), size="sm", elem_id="chat-undo")
            self._clear = words(gr.Button, value=Both("Clear", "清空"), size="sm", elem_id="chat-clear")

    def _draw_folds(self) -> None:
        words = self._page.wording
        self._form = Form(words, "chat-")
        with words(gr.Accordion, label=Both("Sampling (temperature …)", "采样（temperature 等）"),
                   open=False):
            with gr.Row():
                for name in _BASIC:
                    self._form.draw(name)
            with words(gr.Accordion, label=Both("More of that", "更多"), open=False), gr.Row():
                for name in _MORE:
                    self._form.draw(name)
        with words(gr.Accordion, label=Both("System prompt, tools, thinking", "系统提示、工具、思考"), open=False):
            self._system = words(gr.Textbox, label=Both("System prompt", "系统提示"), lines=2, max_lines=12,
                                 elem_id="chat-system")
            self._tools = words(gr.Textbox, label=Both("Tools (JSON)", "工具（JSON）"), lines=2, max_lines=20,
                                elem_id="chat-tools", placeholder='[{"name": "get_weather", "parameters": {…}}]',
                                info=Both("A list as OpenAI writes it. Answer a call as “Tool”, beside the message.",
                                          "与 OpenAI 的写法相同的列表。要回复调用结果，请把消息旁边的身份改为“工具”。"))
            self._thinking = words(gr.Radio, label=Both("Thinking (enable_thinking)", "思考（enable_thinking）"),
                                   choices=_switch, value="", elem_id="chat-thinking")
        with words(gr.Accordion, label=Both("What the model reads: the raw prompt", "模型实际读到的内容：原始提示"),
                   open=False, elem_id="chat-raw") as self._raw_fold:
            self._raw_button = words(gr.Button, value=Both("Show it now", "立即显示"), size="sm",
                                     elem_id="chat-raw-show")
            self._raw = gr.HTML(elem_id="chat-raw-text")
        with words(gr.Accordion, open=False, elem_id="chat-sure", label=Both(
                "How sure it was: the probability of each word", "模型有多确定：每个词的概率")):
            self._sure = [gr.HTML(elem_id=f"chat-sure-{side}") for side in range(_SIDES)]
        with words(gr.Accordion, label=Both("Keep this conversation as training data", "把这段对话保存为训练数据"),
                   open=False), gr.Row(equal_height=True):
            self._file = words(gr.Textbox, label=Both("File (.jsonl), one row is appended", "文件（.jsonl），追加一行"),
                               value="data/chat.jsonl", elem_id="chat-file", scale=4,
                               info=Both("Answers can be corrected first: point at one and press the pencil.",
                                         "可以先修改回答：把鼠标移到回答上，点击铅笔图标。"))
            self._keep = words(gr.Button, value=Both("Append", "追加"), elem_id="chat-keep", scale=1, min_width=100)

    # --------------------------------------------------------------------------------------------------------- wiring

    def _connect(self) -> None:
        page, loading = self._page, self._loading
        how = [*loading.speakers, loading.compare, self._system, self._tools, self._thinking, self._form.held]
        shown = [self._talk, *self._boxes, *self._lines, self._failed, self._send, self._stop]
        beside = [self._system, self._tools, self._thinking]
        settled: dict[str, Any] = {"fn": self._settled, "inputs": [page.language, self._talk, *beside],
                                   "outputs": [self._stored, *self._sure], "show_progress": "hidden"}
        run: dict[str, Any] = {"outputs": shown, "concurrency_limit": None, "show_progress": "hidden"}
        for event in (self._send.click, self._text.submit):
            event(self._said, [page.language, self._talk, self._text, self._role, *loading.speakers, loading.compare],
                  [self._talk, *self._boxes, self._text, self._role], show_progress="hidden").success(
                self._answered, [page.language, self._talk, *how], **run).then(**settled)
        self._retry.click(self._back, [page.language, self._talk], [self._talk, *self._boxes], show_progress="hidden"
                          ).success(self._answered, [page.language, self._talk, *how], **run).then(**settled)
        self._stop.click(self._stopped, None, None, show_progress="hidden")
        cleared = [self._talk, self._stored, *self._boxes, *self._lines, self._failed, *self._sure]
        for event in (self._clear.click, *(box.clear for box in self._boxes)):
            event(lambda: [_empty(), {}, *[[]] * _SIDES, *[""] * (2 * _SIDES + 1)], None, cleared,
                  show_progress="hidden")
        self._undo.click(self._taken_back, [page.language, self._talk], [self._talk, *self._boxes, self._text],
                         show_progress="hidden").success(**settled)
        page.blocks.load(self._restored, [page.language, self._stored], [self._talk, *self._boxes, *beside],
                         show_progress="hidden")
        for side, box in enumerate(self._boxes):
            box.edit(self._edited(side), [page.language, self._talk], [self._talk, *self._boxes],
                     show_progress="hidden").success(
                self._asked_again, [page.language, self._talk, *how], **run).then(**settled)
        loading.compare.change(lambda on: gr.update(visible=on), loading.compare, self._columns[1],
                               show_progress="hidden")
        for trigger in (self._raw_fold.expand, self._raw_button.click):
            trigger(self._read, [page.language, self._talk, *how], self._raw)
        self._keep.click(self._kept, [page.language, self._talk, self._file, *how], None)
        loading.speakers[0].change(self._defaults, [loading.speakers[0], self._filled, self._form.held],
                                   [self._filled, *self._form.components], show_progress="hidden")
        page.blocks.unload(self._left)

    # ------------------------------------------------------------------------------------------------------- handlers

    @in_words
    def _said(self, language: Language, talk: Talk, text: str, role: str, first: str | None, second: str | None,
              compare: bool) -> list[Any]:
        """What was typed becomes a message of both sides."""
        if not (text or "").strip():
            raise problem("empty-message", Both("the message is empty.", "消息是空的。"), status=WRONG_OPTIONS)
        self._models.speaker(first)  # before anything is cleared
        said = [[*messages, _message(role, text, messages)] for messages in talk["said"]]
        talk = {**talk, "said": said}
        return [talk, *self._drawn(talk, language), "", "user"]

    @in_words
    def _answered(self, language: Language, talk: Talk, first: str | None, second: str | None, compare: bool,
                  system: str, tools: str, thinking: str, held: Mapping[str, Any], request: gr.Request
                  ) -> Iterator[list[Any]]:
        """The answers, as they grow. Whatever ends them, Send can be pressed again."""
        stop = self._stops[str(request.session_hash)] = threading.Event()
        try:
            asked = self._asked(system, tools, thinking, held)
            speakers = [self._models.speaker(id) for id in ([first, second] if compare else [first])]
            yield from self._told(talk, language, asked, speakers, stop)
        except Problem as error:
            yield [talk, *self._drawn(talk, language), *[""] * _SIDES, _failed_html(error.findings, language), *_IDLE]

    def _told(self, talk: Talk, language: Language, asked: Asked, speakers: Sequence[Speaker],
              stop: threading.Event) -> Iterator[list[Any]]:
        before = talk["said"]
        found: Sequence[Answer] = [Answer() for _ in speakers]
        yield [talk, *self._drawn(_with(talk, before, found), language, True), *[""] * _SIDES, "", *_BUSY]
        talks = [(speaker, before[side]) for side, speaker in enumerate(speakers)]
        for found in answers(asked, talks, stop, paced(stop)):
            now = _with(talk, before, found)
            lines = [told_of(answer, False, language) for answer in found]
            yield [now, *self._drawn(now, language, True), *_lines(lines), "", *_BUSY]
        kept = [answer for answer in found if not (answer.failed and answer.empty)]
        now = _with(talk, before, [answer if answer in kept else None for answer in found])
        lines = [told_of(answer, True, language) for answer in found]
        failed = [answer.failed for answer in found if answer.failed]
        yield [now, *self._drawn(now, language), *_lines(lines), _failed_html(failed, language), *_IDLE]

    def _asked_again(self, language: Language, talk: Talk, first: str | None, second: str | None, compare: bool,
                     system: str, tools: str, thinking: str, held: Mapping[str, Any], request: gr.Request
                     ) -> Iterator[list[Any]]:
        """After an edit: if it was a message of one's own, it is answered anew."""
        if talk["said"][0] and talk["said"][0][-1]["role"] != "assistant":
            yield from self._answered(language, talk, first, second, compare, system, tools, thinking, held, request)
        else:
            yield [gr.skip()] * (2 * _SIDES + 4)

    @in_words
    def _back(self, language: Language, talk: Talk) -> list[Any]:
        """Without the last answer."""
        said = [_without_answer(messages) for messages in talk["said"]]
        if not said[0]:
            raise problem("nothing-said", Both("nothing has been asked yet.", "还没有提问。"), status=WRONG_OPTIONS)
        talk = {**talk, "said": said}
        return [talk, *self._drawn(talk, language)]

    @in_words
    def _taken_back(self, language: Language, talk: Talk) -> list[Any]:
        """Without the last message and its answer; the message can be mended and sent again."""
        said = [_without_answer(messages) for messages in talk["said"]]
        last = said[0][-1]["content"] if said[0] else ""
        talk = {"said": [messages[:-1] for messages in said], "tokens": _empty()["tokens"]}
        return [talk, *self._drawn(talk, language), last]

    def _edited(self, side: int) -> Any:
        @in_words
        def edited(language: Language, talk: Talk, event: gr.EditData) -> list[Any]:
            """A message of one's own ends the conversation there; an answer is only corrected."""
            _, owners = drawn(talk["said"][side], language)
            place = event.index if isinstance(event.index, int) else event.index[0]
            if not 0 <= place < len(owners):
                return [gr.skip()] * (_SIDES + 1)
            number, said = owners[place], [list(messages) for messages in talk["said"]]
            if said[side][number]["role"] == "assistant":
                said[side][number] = {**said[side][number], "content": str(event.value)}
            else:
                said = [[*messages[:number], {**messages[number], "content": str(event.value)}]
                        if number < len(messages) else messages for messages in said]
            talk = {**talk, "said": said}
            return [talk, *self._drawn(talk, language)]
        return edited

    def _stopped(self, request: gr.Request) -> None:
        stop = self._stops.get(str(request.session_hash))
        if stop:
            stop.set()

    def _left(self, request: gr.Request) -> None:
        """The page was closed: what it asked for ends."""
        stop = self._stops.pop(str(request.session_hash), None)
        if stop:
            stop.set()

    def _settled(self, language: Language, talk: Talk, system: str, tools: str, thinking: str) -> list[Any]:
        """Once an answer has ended: what the browser keeps, and how likely its words were."""
        kept = to_keep(talk["said"], system=system or "", tools=tools or "", thinking=thinking or "")
        return [kept, *(probabilities_html(tokens, language) for tokens in talk["tokens"])]

    def _restored(self, language: Language, kept: Any) -> list[Any]:
        """What was said before the page was loaded again."""
        said = said_before(kept, _SIDES)
        if said is None:
            return [gr.skip()] * (_SIDES + 4)
        talk = {**_empty(), "said": said}
        return [talk, *self._drawn(talk, language), *(field_before(kept, name) for name in _BESIDE)]

    @in_words
    def _read(self, language: Language, talk: Talk, first: str | None, second: str | None, compare: bool, system: str,
              tools: str, thinking: str, held: Mapping[str, Any]) -> str:
        """The prompt of the last question; before one was asked, of a greeting."""
        asked, speaker = self._asked(system, tools, thinking, held), self._models.speaker(first)
        said = _without_answer(talk["said"][0]) or [{"role": "user", "content": say(Both("Hello", "你好"), language)}]
        return prompt_html(prompt_of(speaker, asked, said), language)

    @in_words
    def _kept(self, language: Language, talk: Talk, typed: str, first: str | None, second: str | None, compare: bool,
              system: str, tools: str, thinking: str, held: Mapping[str, Any]) -> None:
        file = self._page.roots.inside(typed.strip() or "data/chat.jsonl")
        rows = keep(file, self._asked(system, tools, thinking, held), talk["said"][0])
        toast(Both(f"Kept. {file.name} has {rows} rows now; it can be picked as a data set.",
                   f"已保存。{file.name} 现有 {rows} 行，可作为数据集使用。"), language, "info")

    def _defaults(self, id: str | None, filled: Mapping[str, Any], held: Mapping[str, Any]) -> list[Any]:
        """The model's own sampling, when another model is chosen, but for what somebody has typed.

        filled: the number of the model whose values were filled in last, and what they were.
        """
        speaker = next((each for each in self._models.speakers() if each.id == id), None)
        if speaker is None or speaker.model.number == filled["model"] or not speaker.model.own:
            return [gr.skip()] * (len(self._form.components) + 1)
        told = speaker.model.facts["defaults"]
        named = {name: told["seed" if name == "generation_seed" else name] for name in FIELDS}
        own = {name: str(value) for name, value in named.items() if value is not None}
        typed = {name: text for name, text in self._form.texts(held).items() if text != filled["texts"].get(name)}
        return [{"model": speaker.model.number, "texts": own}, *self._form.filled({**own, **typed}, held)]

    def _asked(self, system: str, tools: str, thinking: str, held: Mapping[str, Any]) -> Asked:
        """Raises:
        Problem: a number is none, or the tools cannot be read.
        """
        config, findings = configured(self._form.texts(held))
        refuse(findings)
        sampling = {sent: getattr(config, name) for name, sent in FIELDS.items() if getattr(config, name) is not None}
        if not config.do_sample:
            sampling["temperature"] = 0.0
        switch = {"on": True, "off": False}.get(thinking)
        return Asked((system or "").strip(), read_tools_field(tools or ""), sampling, switch)

    @staticmethod
    def _drawn(talk: Talk, language: Language, writing: bool = False) -> list[list[dict[str, Any]]]:
        return [drawn(messages, language, writing)[0] for messages in talk["said"]]


_PLACEHOLDER = Both("Load a model above, then write below.", "请先在上方加载模型，再在下方输入。")


def _roles(language: Language) -> list[tuple[str, str]]:
    return [(say(Both("User", "用户"), language), "user"), (say(Both("Tool", "工具"), language), "tool")]


def _switch(language: Language) -> list[tuple[str, str]]:
    return [(say(Both("as the model is", "按模型默认"), language), ""), (say(Both("on", "开启"), language), "on"),
            (say(Both("off", "关闭"), language), "off")]


_BUSY = [gr.update(visible=False), gr.update(visible=True)]
_IDLE = [gr.update(visible=True), gr.update(visible=False)]


def _message(role: str, text: str, before: Sequence[Message]) -> Message:
    """What was typed; a tool's result belongs to the last call."""
    if role != "tool":
        return {"role": "user", "content": text}
    calls = before[-1].get("tool_calls") if before else None
    return {"role": "tool", "content": text, "tool_call_id": calls[-1]["id"] if calls else "call_0"}


def _without_answer(messages: Sequence[Message]) -> list[Message]:
    return list(messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages)


def _with(talk: Talk, before: Sequence[Sequence[Message]], found: Sequence[Answer | None]) -> Talk:
    """The conversation with the answers so far. None: of this side there is none."""
    said, tokens = [list(messages) for messages in before], [list(each) for each in talk["tokens"]]
    for side, answer in enumerate(found):
        if answer is not None:
            said[side].append(answer.message)
            tokens[side] = answer.tokens
    if len(found) == 1:  # a comparison that begins later begins from here
        said[1:] = [list(said[0]) for _ in said[1:]]
    return {"said": said, "tokens": tokens}


def _lines(lines: Sequence[str]) -> list[str]:
    return [f"<small>{escape(line)}</small>" if line else "" for line in [*lines, *[""] * (_SIDES - len(lines))]]


def _failed_html(findings: Sequence[Finding], language: Language) -> str:
    chinese = language != "en"
    lines = dict.fromkeys(finding.line(chinese).partition("  ")[2].strip() for finding in findings)
    told = [line if language == "en" else say(Both("", line), language) for line in lines]
    return "".join(f'<p role="alert" class="error">{escape(line)}</p>' for line in told)
