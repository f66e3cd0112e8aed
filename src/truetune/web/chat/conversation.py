"""A conversation of the page: what is asked, how the answer comes, and how both are kept and drawn.

Messages are OpenAI's (`role`, `content`, `reasoning_content`, `tool_calls`, `tool_call_id`), so that what was said can
be sent again and trained on. Imports no torch, and of gradio nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import escape
from math import exp
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from truetune.data.messages import BadRow
from truetune.data.tools import read_tools
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, problem
from truetune.report import visible
from truetune.web.chat.served import Speaker
from truetune.web.words import Language, say

Message = dict[str, Any]

TOP = 4
"""Words told beside the one that was said."""
FIELDS: Mapping[str, str] = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens",
    "repetition_penalty": "repetition_penalty", "min_p": "min_p", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "generation_seed": "seed"}
"""Options of how words are drawn, and what requests call them."""
_OPENAI = ("temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "seed")
"""Those that OpenAI's API knows; the others are sent to our own servers alone."""


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Asked:
    """How an answer is wanted. sampling: values by `FIELDS`. thinking: None leaves it to the template."""

    system: str = ""
    tools: Sequence[Mapping[str, Any]] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None

    def messages(self, said: Sequence[Message]) -> list[Message]:
        """What is sent: the system prompt, then what was said."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *said]


@dataclass
class Answer:
    """What has come so far. tokens: as OpenAI's `logprobs.content`. seconds: until its last word came. done: no more
    comes. failed: why not."""

    text: str = ""
    thought: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    seconds: float = 0.0
    done: bool = False
    failed: Finding | None = None

    @property
    def message(self) -> Message:
        told: Message = {"role": "assistant", "content": self.text}
        if self.thought:
            told["reasoning_content"] = self.thought
        if self.calls:
            told["tool_calls"] = self.calls
        return told

    @property
    def empty(self) -> bool:
        return not (self.text or self.thought or self.calls)

    def push(self, choice: Any) -> None:
        """One choice of a chunk."""
        delta = choice.delta
        self.text += delta.content or ""
        self.thought += (delta.model_extra or {}).get("reasoning_content") or ""
        for part in delta.tool_calls or ():
            if part.index >= len(self.calls):
                self.calls.append({"id": part.id or f"call_{part.index}", "type": "function",
                                   "function": {"name": "", "arguments": ""}})
            function = self.calls[part.index]["function"]
            function["name"] += part.function.name or ""
            function["arguments"] += part.function.arguments or ""
        if choice.logprobs and choice.logprobs.content:
            self.tokens += [token.model_dump() for token in choice.logprobs.content]
        self.finish = choice.finish_reason or self.finish


def read_tools_field(text: str) -> tuple[Mapping[str, Any], ...]:
    """The tools that were typed as JSON, as OpenAI writes them.

    Raises:
        Problem: it is no JSON, or a tool has no name.
    """
    try:
        tools = read_tools(text)
    except BadRow as error:
        reason = error.reason if isinstance(error.reason, Both) else Both(str(error), str(error))
        raise problem("bad-tools", Both(f"{reason.en}.", f"{reason.zh}。"), option="tools", status=WRONG_OPTIONS,
                      fix=Both('For instance [{"name": "get_weather", "parameters": {"type": "object"}}].',
                               '例如 [{"name": "get_weather", "parameters": {"type": "object"}}]。')) from None
    return tuple(tool if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools)


LEAST, SHARE = 0.25, 0.05
"""Between two drawings of an answer that grows: seconds, and the share of the time that it has grown for."""


def paced(stop: threading.Event) -> Callable[[], None]:
    """What waits until an answer that grows is drawn again, the longer the longer it has grown already.

    Each drawing costs a browser up to half a second, whatever the answer's length. Drawn with every word, one of 400
    words left a slow browser with minutes of work, and "Unload" waited behind it.
    """
    began = time.monotonic()

    def wait() -> None:
        stop.wait(max(LEAST, SHARE * (time.monotonic() - began)))
    return wait


def answers(asked: Asked, talks: Sequence[tuple[Speaker, Sequence[Message]]], stop: threading.Event,
            wait: Callable[[], None] = lambda: None) -> Generator[list[Answer], None, None]:
    """The answers of several speakers side by side, each to its own conversation, as they grow.

    A thread reads each. The last that is given has all of them done, or is what there was when `stop` was set; closing
    the iterator ends them too.

    Args:
        wait: called after each look; comes back when the next may be had.
    """
    told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    ended = threading.Event()
    found, began = [Answer() for _ in talks], time.monotonic()
    for number, (speaker, said) in enumerate(talks):
        threading.Thread(target=_read, args=(number, speaker, asked, said, told, ended), daemon=True).start()
    try:
        while not (stop.is_set() or all(answer.done for answer in found)):
            with suppress(Empty):
                number, what = told.get(timeout=0.1)
                _take(found[number], what, time.monotonic() - began)
                while not told.empty():
                    number, what = told.get()
                    _take(found[number], what, time.monotonic() - began)
                yield found
                wait()
        yield found
    finally:
        ended.set()


def _take(answer: Answer, what: Any, seconds: float) -> None:
    if what is None or isinstance(what, Finding):
        answer.done, answer.failed = True, what
    else:
        answer.push(what)
        answer.seconds = seconds


def _read(number: int, speaker: Speaker, asked: Asked, said: Sequence[Message],
          told: SimpleQueue[tuple[int, Any]], ended: threading.Event) -> None:
    """In a thread: one answer, until it is whole or nobody wants it any more."""
    try:
        stream = _stream(speaker, asked, said)
        with stream:
            for chunk in stream:
                for choice in chunk.choices[:1]:
                    told.put((number, choice))
                if ended.is_set():
                    return
        told.put((number, None))
    except Problem as error:
        told.put((number, error.findings[0]))


class _Told:
    """A stream of OpenAI's client that tells what goes wrong as a `Problem`."""

    def __init__(self, stream: Any, speaker: Speaker):
        self._stream, self._speaker = stream, speaker

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        chunks = iter(self._stream)
        while True:
            with said_in_words(self._speaker):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk


def _stream(speaker: Speaker, asked: Asked, said: Sequence[Message]) -> _Told:
    own = speaker.model.own
    known = {name: value for name, value in asked.sampling.items() if name in _OPENAI}
    more = {name: value for name, value in asked.sampling.items() if name not in _OPENAI} if own else {}
    if own and asked.thinking is not None:
        more["enable_thinking"] = asked.thinking
    told: dict[str, Any] = {"messages": asked.messages(said), **({"tools": list(asked.tools)} if asked.tools else {})}
    told |= {"logprobs": True, "top_logprobs": TOP} if own else {}
    with said_in_words(speaker):
        return _Told(speaker.model.client.chat.completions.create(
            model=speaker.name, stream=True, extra_body=more, **known, **told), speaker)


# ── What goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────

_REFUSALS: Mapping[str, tuple[Both, Both]] = {
    "context_length_exceeded": (
        Both("the conversation is too long for the model: {}", "对话超出了模型的长度上限：{}"),
        Both("Clear it, shorten it, or load the model with a larger infer_maxlen.",
             "请清空或缩短对话，或调大 infer_maxlen 后重新加载。")),
    "no_tools": (
        Both("this model's chat template knows no tools.", "该模型的对话模板不支持工具。"),
        Both("Empty the field Tools, or load the model with tool_format, such as qwen, if it was trained with one.",
             "请清空“工具”一栏；若模型训练时用过工具格式，请设置 tool_format（如 qwen）后重新加载。")),
    "refused_by_template": (
        Both("the chat template refuses this conversation: {}", "对话模板拒绝这段对话：{}"),
        Both("Clear it, or leave out the system prompt.", "请清空对话，或去掉系统提示。")),
    "queue_full": (Both("the model is answering as many as it can.", "模型同时回答的数量已达上限。"),
                   Both("Try again in a moment, or raise infer_batch.", "请稍后重试，或调大 infer_batch。")),
    "engine_failed": (Both("the engine failed on this answer: {}", "引擎在生成回答时出错：{}"),
                      Both("Press Load again.", "请点击“重新加载”。")),
    "invalid_api_key": (Both("the endpoint does not take this key.", "该地址不接受这个密钥。"),
                        Both("Unload it, and connect again with the right one.", "请先卸载，再用正确的密钥连接。")),
}
"""What servers say by these codes, and the fix; {} is their own words."""


@contextmanager
def said_in_words(speaker: Speaker) -> Iterator[None]:
    """Raises:
    Problem: the server refuses, cannot be reached, or has died.
    """
    import httpx
    from openai import APIError, APIStatusError

    try:
        yield
    except APIStatusError as error:
        raise Problem(_refused(error.code or "", error.message)) from None
    except (APIError, httpx.HTTPError) as error:
        if isinstance(error, APIError) and error.body:  # in the midst of a stream
            raise Problem(_refused(error.code or "", error.message)) from None
        raise Problem(_gone(speaker, error)) from None


def _refused(code: str, message: str) -> Finding:
    words, fix = _REFUSALS.get(code, (Both("the server says: {}", "服务端返回：{}"), None))
    return Finding(code or "refused", "error", Both(*(half.format(f"{message:.500}") for half in words)), fix=fix)


def _gone(speaker: Speaker, error: Exception) -> Finding:
    """Nobody answers any more: the process takes a moment to be known as dead."""
    end = time.monotonic() + 3
    while speaker.model.status == "ready" and speaker.model.memory is not None and time.monotonic() < end:
        time.sleep(0.05)
    known = speaker.model.died()
    if known:
        return known
    reason = str(error.__cause__ or error) or type(error).__name__
    return Finding("no-answer", "error", Both(f"{speaker.model.title} does not answer any more: {reason:.300}",
                                              f"{speaker.model.title} 不再应答：{reason:.300}"),
                   fix=Both("Load it again.", "请重新加载。"))


# ── What the model reads ─────────────────────────────────────────────────────────────────────────────────────────────


def prompt_of(speaker: Speaker, asked: Asked, said: Sequence[Message]) -> dict[str, Any]:
    """What the model reads before its next answer: `/tokenize`'s answer.

    Raises:
        Problem: the model is an endpoint's, or the template refuses the conversation.
    """
    import httpx

    if not speaker.model.own:
        raise problem("no-tokens", Both("an endpoint does not tell what its model reads.",
                                        "外部服务不会告知模型实际读到的内容。"), status=WRONG_OPTIONS,
                      fix=Both("Load the model here to see it.", "在本机加载该模型即可查看。"))
    values = {} if asked.thinking is None else {"enable_thinking": asked.thinking}
    body = {"model": speaker.name, "messages": asked.messages(said), "return_token_strs": True,
            "tools": list(asked.tools), **values}
    with said_in_words(speaker):
        told = httpx.post(f"{speaker.model.address}/tokenize", json=body, timeout=60,
                          headers={"Authorization": f"Bearer {speaker.model.key}"})
    answer = told.json()
    if told.status_code != 200:
        raise Problem(_refused(answer["error"]["code"] or "", answer["error"]["message"]))
    return answer


_SPECIAL = ("border-radius:3px;padding:0 2px;font-weight:600;color:var(--primary-700,#1d4ed8);"
            "background:var(--primary-100,#dbeafe)")


def prompt_html(told: Mapping[str, Any], language: Language) -> str:
    """The prompt token by token, special tokens set off, and how long it is."""
    spans = "".join(
        f'<span title="{number}" style="{_SPECIAL if special else ""}">{_visible(text)}</span>'
        for text, special, number in zip(told["texts"], told["special"], told["tokens"], strict=True))
    most = told["max_model_len"]
    head = say(Both(f"{told['count']:,} tokens of {most:,} that prompt and answer may have together.",
                    f"{told['count']:,} 个 token；提示加回答最多 {most:,} 个。"), language)
    return f'<p>{escape(head)}</p><div class="tokens" style="{_TEXT}">{spans}</div>'


_TEXT = ("white-space:pre-wrap;overflow-wrap:anywhere;font-family:var(--font-mono,monospace);font-size:13px;"
         "line-height:1.7;max-height:420px;overflow:auto")


def probabilities_html(tokens: Sequence[Mapping[str, Any]], language: Language) -> str:
    """An answer token by token, the redder the less likely it was; what else was likely as a tooltip."""
    if not tokens:
        return ""
    shades = [0.6 * (1 - exp(token["logprob"])) for token in tokens]
    spans = "".join(
        f'<span style="background:rgba(220,38,38,{shade:.2f})" title="{_alternatives(token)}">'
        f'{_visible(token["token"])}</span>' for shade, token in zip(shades, tokens, strict=True))
    mean = exp(sum(token["logprob"] for token in tokens) / len(tokens))
    head = say(Both(f"{len(tokens):,} tokens, {mean:.0%} likely on average (geometric mean). The redder, the less sure "
                    "the model was; point at a word to see what else it could have said.",
                    f"{len(tokens):,} 个 token，平均概率 {mean:.0%}（几何平均）。越红表示模型越没把握；"
                    "把鼠标移到词上可看其他候选。"), language)
    return f'<p>{escape(head)}</p><div class="tokens" style="{_TEXT}">{spans}</div>'


def _alternatives(token: Mapping[str, Any]) -> str:
    others = [f"{_shown(top['token'])} {exp(top['logprob']):.1%}" for top in token["top_logprobs"]
              if top["token"] != token["token"]]
    return escape("\n".join([f"{_shown(token['token'])} {exp(token['logprob']):.1%}", *others]))


def _shown(text: str) -> str:
    """A token on one line."""
    return visible(text).replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")


def _visible(text: str) -> str:
    return escape(visible(text).replace("\n", "↵\n"))


# ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(messages: Sequence[Message], language: Language, writing: bool = False
          ) -> tuple[list[dict[str, Any]], list[int]]:
    """Messages as gradio's Chatbot takes them, and of which message each is. Thoughts and calls are folds.

    Args:
        writing: the last one is still being written.
    """
    shown: list[dict[str, Any]] = []
    owners: list[int] = []
    for number, message in enumerate(messages):
        parts = _parts(message, language, writing and number == len(messages) - 1)
        shown += parts
        owners += [number] * len(parts)
    return shown, owners


def _parts(message: Message, language: Language, writing: bool) -> list[dict[str, Any]]:
    if message["role"] == "user":
        return [{"role": "user", "content": message["content"]}]
    if message["role"] == "tool":
        return [{"role": "user", "content": message["content"], "metadata": {
            "title": say(Both("Result of the tool", "工具返回的结果"), language)}}]
    parts: list[dict[str, Any]] = []
    if thought := message.get("reasoning_content"):
        thinking = writing and not message["content"]
        title = Both("Thinking …", "思考中……") if thinking else Both("Thought", "思考过程")
        parts.append({"role": "assistant", "content": thought, "metadata": {
            "title": say(title, language), "status": "pending" if thinking else "done"}})
    if message["content"]:
        parts.append({"role": "assistant", "content": message["content"]})
    for call in message.get("tool_calls", ()):
        name, arguments = call["function"]["name"], _arguments(call["function"]["arguments"])
        parts.append({"role": "assistant", "content": f"```json\n{arguments}\n```", "metadata": {
            "title": say(Both(f"Calls {name}", f"调用 {name}"), language)}})
    if not parts:
        nothing = Both("…", "……") if writing else Both("(an empty answer)", "（空回答）")
        parts.append({"role": "assistant", "content": say(nothing, language)})
    return parts


def _arguments(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def told_of(answer: Answer, over: bool, language: Language) -> str:
    """One line about an answer: how long it is, how fast it came, and once it is over, why it ended."""
    count, told = len(answer.tokens), []
    if count and answer.seconds > 0:
        rate = count / answer.seconds
        told.append(Both(f"{count} tokens, {rate:.1f} a second.", f"{count} 个 token，每秒 {rate:.1f} 个。"))
    if answer.finish == "length":
        told.append(Both("Cut off: max_new_tokens is reached.", "已截断：达到 max_new_tokens。"))
    elif over and not (answer.finish or answer.failed):
        told.append(Both("Stopped.", "已停止。"))
    return " ".join(say(words, language) for words in told)


# ── Keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def keep(file: Path, asked: Asked, said: Sequence[Message]) -> int:
    """Append a conversation to a data set that can be trained on (JSON Lines, OpenAI's `messages`); how many rows it
    has then.

    Raises:
        Problem: there is no answer to learn from, or the file is not one of that kind.
    """
    if not any(message["role"] == "assistant" for message in said):
        raise problem("nothing-said", Both("there is no answer to learn from yet.", "还没有可供学习的回答。"),
                      status=WRONG_OPTIONS, fix=Both("Talk to the model first.", "请先与模型对话。"))
    if file.suffix != ".jsonl":
        raise problem("not-jsonl", Both(f"{file.name} is no .jsonl file.", f"{file.name} 不是 .jsonl 文件。"),
                      status=WRONG_OPTIONS, fix=Both("For instance data/chat.jsonl.", "例如 data/chat.jsonl。"))
    tools = {"tools": list(asked.tools)} if asked.tools else {}
    line = json.dumps({"messages": asked.messages(_through_last_answer(said)), **tools}, ensure_ascii=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        with file.open("a", encoding="utf-8") as out:
            out.write(("\n" if before and not before.endswith("\n") else "") + line + "\n")
    except (OSError, ValueError) as error:
        raise problem("unwritable", Both(f"{file} cannot be written: {error}.",
                                         f"无法写入 {file}：{error}。")) from None
    return sum(1 for line in before.splitlines() if line.strip()) + 1


def _through_last_answer(said: Sequence[Message]) -> Sequence[Message]:
    """A row ends with an answer."""
    last = max(number for number, message in enumerate(said) if message["role"] == "assistant")
    return said[: last + 1]
