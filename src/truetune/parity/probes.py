"""The conversations that every place must make the same ids of, and the texts whose probabilities are compared.

Each holds something that some server is known to have got wrong. They are fixed, so that two reports can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Probe:
    """A conversation whose next answer is asked for.

    Attributes:
        tools: what may be called. values: what else the template is told (enable_thinking). injected: the words of the
            user look like a special token.
    """

    name: str
    messages: Sequence[Message]
    tools: Sequence[Message] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    injected: bool = False

    @property
    def last(self) -> str:
        return str(self.messages[-1]["content"])


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _calls(*places: str) -> Message:
    calls = [{"id": f"call{number:05}", "type": "function",
              "function": {"name": "weather", "arguments": {"city": place, "days": number + 1}}}
             for number, place in enumerate(places)]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(number: int, text: str) -> Message:
    return {"role": "tool", "name": "weather", "tool_call_id": f"call{number:05}", "content": text}


_HI = (_user("Hi, who are you?"),)
_WEATHER: Message = {"type": "function", "function": {
    "name": "weather", "description": "The weather in a city.",
    "parameters": {"type": "object", "required": ["city"],
                   "properties": {"city": {"type": "string", "description": "Its name: Paris, 北京"},
                                  "days": {"type": "integer"}}}}}
_CODE = "def f(x):\n\tif x > 1:\n\t\treturn [x,  x*2]\n    # four spaces\n\n\n\treturn {'a': \"b\\n\"}\r\n"

PROBES: tuple[Probe, ...] = (
    Probe("single turn", _HI),
    Probe("several turns", (_user("Hi"), _assistant("Hello! How can I help?"), _user("Tell me more."),
                            _assistant("Gladly.\n\n1. One\n2. Two"), _user("And then?"))),
    Probe("system", (_system("You answer in one word."), *_HI)),
    Probe("empty system", (_system(""), *_HI)),
    Probe("system in Chinese", (_system("你是一个乐于助人的助手。"), _user("你好，你是谁？"))),
    Probe("system, several turns", (_system("Be brief."), _user("1+1?"), _assistant("2"), _user("2+2?"))),
    Probe("tools offered", (_user("Weather in Paris?"),), (_WEATHER,)),
    Probe("tool call and result", (_user("Weather in Paris?"), _calls("Paris"), _result(0, '{"sky": "clear"}')),
          (_WEATHER,)),
    Probe("parallel calls", (_user("Paris and 北京?"), _calls("Paris", "北京"), _result(0, "clear"), _result(1, "晴")),
          (_WEATHER,)),
    Probe("thinking on", _HI, values={"enable_thinking": True}),
    Probe("thinking off", _HI, values={"enable_thinking": False}),
    Probe("Chinese, Japanese, Korean", (_user("请用中文回答：東京は日本の首都です。한국어도 됩니다，「引号」……"),)),
    Probe("emoji", (_user("👍🏽 👩‍👩‍👧‍👦 🇨🇳🏳️‍🌈 ☕️ ﬁ ＡＢＣ １２３"),)),
    Probe("digits", (_user("2024-01-01 3.14159 1,000,000 0x1F 12345678901234567890 x=42  7"),)),
    Probe("code", (_user(_CODE),)),
    Probe("spaces around", (_user("  two before, three after   "),)),
    Probe("line feeds", (_user("\n\none\n\n\n\ntwo\n \n\t\nthree"), _assistant("four"), _user("five\n"))),
    Probe("scripts", (_user("مرحبا हिन्दी Привет ĳ ß İı don't I'LL we've\u00a0nbsp\u200bzero"),)),
    Probe("a very long word", (_user("a" * 300 + "пример" * 40 + "字" * 100),)),
    Probe("accents apart", (_user("cafe\u0301 A\u030angstro\u0308m"),)),
    Probe("words like marks", (_user("[INST] <s> </s> <<SYS>> <unk> ### User: <|nobody|> {{ messages }} {% if %}"),)),
)
"""The same in every release; add at the end."""


def injection(specials: Sequence[str]) -> Probe:
    """A user who types special tokens: what he writes is text. specials: those that the tokenizer has."""
    typed = " and ".join(specials[:3])
    return Probe("typed special tokens", (_user(f"Ignore this: {typed} now."),), injected=True)


PASSAGES: tuple[str, ...] = (
    "What is the capital of France, and how many people live there?",
    "请用一句话解释什么是光合作用。",
    "Write a Python function that returns the sum of a list.\n```python\ndef total(xs):\n    return",
    "There are 12 apples. I eat 5 and buy 7 more; how many are left? 12 - 5 + 7 =",
)
"""What users ask where probabilities are compared; each is rendered as a conversation."""
