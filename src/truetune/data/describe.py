"""Which column of a file means what: as its own names tell, as they let one guess, or as a person says; and that as
the entry of dataset_info.json by which truetune and LLaMA-Factory read the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from truetune.data.formats import COLUMN_KEYS, DEFAULTS, DESCRIBED, TAG_KEYS, Layout, described_layout, recognise
from truetune.data.messages import Kind
from truetune.findings import Both

Raw = Mapping[str, Any]
Sure = Literal["known", "guessed", "unknown"]
"""Whether the names of the columns are those of a format, looked as if they meant something, or tell nothing."""


@dataclass(frozen=True)
class Description:
    """What an entry of dataset_info.json says of the columns of a file."""

    formatting: DESCRIBED
    columns: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    ranking: bool = False

    def layout(self) -> Layout:
        """How rows are read by it.

        Raises:
            Problem: it does not name what the format cannot do without.
        """
        return described_layout(self.formatting, dict(self.columns), dict(self.tags) or None, self.ranking,
                                "dataset_info.json")

    def entry(self, file_name: str) -> dict[str, Any]:
        """The entry, in LLaMA-Factory's keys. What its defaults say already is left out."""
        default = DEFAULTS[self.formatting]
        entry: dict[str, Any] = {"file_name": file_name}
        if self.formatting != "alpaca":
            entry["formatting"] = self.formatting
        if self.ranking:
            entry["ranking"] = True
        if dict(self.columns) != dict(default.columns):
            entry["columns"] = _ordered(self.columns, COLUMN_KEYS)
        if self.tags and dict(self.tags) != dict(default.tags):
            entry["tags"] = _ordered(self.tags, TAG_KEYS)
        return entry


def _ordered(block: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: block[key] for key in keys if key in block}


def described_as(layout: Layout) -> Description:
    """A layout that an entry of dataset_info.json gave."""
    formatting = layout.formatting if layout.formatting in ("sharegpt", "openai") else "alpaca"
    return Description(formatting, dict(layout.columns), dict(layout.tags) if layout.tagged else {},
                       "chosen" in layout.columns)


def describe(rows: Sequence[Raw]) -> tuple[Description | None, Sure]:
    """What the columns of a file that begins with `rows` mean. None: they tell nothing, or mean what no entry of
    dataset_info.json can say (turns in `prompt` and `completion`, as TRL has them)."""
    layout = recognise(rows)
    if layout is None:
        guess = guessed(rows)
        return guess, "guessed" if guess else "unknown"
    if is_trl_turns(layout, rows):
        return None, "known"
    ranking = "chosen" in layout.columns
    if layout.formatting in ("alpaca", "text"):
        return Description("alpaca", dict(layout.columns), {}, ranking), "known"
    if layout.formatting == "trl":
        columns = dict(layout.columns)
        prompt = {"prompt": columns.pop("messages")} if "messages" in columns else {}
        return Description("alpaca", {**prompt, **columns}, {}, ranking), "known"
    return Description(layout.formatting, dict(layout.columns), _tags(rows, layout), ranking), "known"


def is_trl_turns(layout: Layout, rows: Sequence[Raw]) -> bool:
    """Whether prompt, completion, chosen or rejected hold turns, or there is no prompt beside a pair: no entry can say
    so, and the rows have to be written otherwise."""
    if layout.formatting != "trl":
        return False
    columns = [layout.columns[key] for key in ("messages", "response", "chosen", "rejected") if key in layout.columns]
    return "messages" not in layout.columns or any(
        isinstance(row.get(column), list | dict) for row in rows for column in columns)


def _tags(rows: Sequence[Raw], layout: Layout) -> dict[str, str]:
    """A tags block, where the file's names of roles are not the format's own: LLaMA-Factory refuses others."""
    formatting = "sharegpt" if layout.formatting == "sharegpt" else "openai"
    default = DEFAULTS[formatting].tags
    used = _roles(rows, layout.columns["messages"], layout.tags["role_tag"])
    named = {layout.roles[role]: role for role in reversed(list(used)) if role in layout.roles}
    tags = {**layout.tags, **named}
    foreign = set(used) - {default[key] for key in default}
    return tags if foreign & set(named.values()) or layout.tags["role_tag"] != default["role_tag"] else {}


def _roles(rows: Sequence[Raw], column: str, key: str) -> Counter[str]:
    """The names of roles in a column of turns, the most frequent first."""
    turns = [turn for row in rows if isinstance(row.get(column), list) for turn in row[column]]
    return Counter(turn[key] for turn in turns if isinstance(turn, dict) and isinstance(turn.get(key), str))


# ------------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class Column:
    """A column of a file. holds: in words; sample: how its first value begins; filled: in so many of `of` rows."""

    name: str
    holds: Both
    sample: str
    filled: int
    of: int


_HOLDS = (
    (bool, Both("true or false", "真或假")), (int | float, Both("a number", "数字")), (str, Both("text", "文本")),
    (list, Both("a list", "列表")), (dict, Both("an object", "对象")),
)
_TURNS, _MIXED, _EMPTY = Both("turns", "多轮消息"), Both("of several kinds", "类型不一"), Both("empty", "空")


def columns_of(rows: Sequence[Raw]) -> list[Column]:
    """The columns of a file that begins with `rows`, in the order in which they come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [_column(name, [row.get(name) for row in rows]) for name in names]


def _column(name: str, values: Sequence[Any]) -> Column:
    filled = [value for value in values if value not in (None, "", [], {})]
    kinds = list(dict.fromkeys(_kind(value) for value in filled))
    return Column(name, kinds[0] if len(kinds) == 1 else _MIXED if kinds else _EMPTY,
                  str(filled[0])[:80] if filled else "", len(filled), len(values))


def _kind(value: Any) -> Both:
    if _are_turns(value):
        return _TURNS
    return next((words for kind, words in _HOLDS if isinstance(value, kind)), _EMPTY)


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


@dataclass(frozen=True)
class TurnKeys:
    """What the turns of a column have: their keys, and by each key the few texts that it takes (names of roles)."""

    keys: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]


def turn_keys(rows: Sequence[Raw], column: str) -> TurnKeys:
    """Keys of the turns in a column, and which of them may be the role."""
    turns = [turn for row in rows if _are_turns(row.get(column)) for turn in row[column]]
    keys = tuple(dict.fromkeys(key for turn in turns for key in turn))
    words = {key: Counter(turn[key] for turn in turns if isinstance(turn.get(key), str)) for key in keys}
    return TurnKeys(keys, {key: tuple(counted) for key, counted in words.items() if len(counted) <= _FEW})


_FEW = 8
"""A role has so many names at most; a key with more is what is said."""


# ------------------------------------------------------------------------------------------------------------ guessing

_WORDS: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "系统", "系统提示"),
    "prompt": ("prompt", "instruction", "question", "query", "user", "human", "q", "ask", "request", "problem", "title",
               "问题", "提问", "指令", "用户", "问", "題目", "题目", "問題"),
    "query": ("context", "background", "上下文", "背景", "材料"),
    "chosen": ("chosen", "better", "preferred", "good_answer", "positive", "较好", "优选"),
    "rejected": ("rejected", "worse", "dispreferred", "bad_answer", "negative", "较差", "劣选"),
    "response": ("response", "answer", "output", "completion", "assistant", "reply", "bot", "gpt", "a", "solution",
                 "target", "best_answer", "回答", "答案", "回复", "助手", "答", "回覆"),
}
"""What people call the columns, in the order in which they are looked for."""
_TEXT_WORDS = ("text", "content", "document", "body", "article", "raw", "正文", "文本", "内容", "內容")
_ROLE_KEYS = ("role", "from", "speaker", "author", "sender", "name", "角色")
_ROLE_WORDS: Mapping[str, tuple[str, ...]] = {
    "user_tag": ("user", "human", "customer", "client", "prompter", "question", "q", "用户", "客户", "问", "提问"),
    "assistant_tag": ("assistant", "gpt", "bot", "model", "agent", "ai", "chatgpt", "answer", "a", "助手", "客服", "答",
                      "回答"),
    "system_tag": ("system", "系统"),
    "observation_tag": ("observation", "tool", "工具"),
    "function_tag": ("function_call", "工具调用"),
}


def guessed(rows: Sequence[Raw]) -> Description | None:
    """What the columns of a file of no known format may mean, by what people call them; None: no idea."""
    columns = columns_of(rows)
    turns = next((column.name for column in columns if column.holds is _TURNS), None)
    if turns:
        return _guess_turns(rows, turns)
    texts = [column.name for column in columns if column.holds.en == "text"]
    named: dict[str, str] = {}
    for key, words in _WORDS.items():
        found = next((name for word in words for name in texts if _plain(name) == word
                      and name not in named.values()), None)
        named |= {key: found} if found else {}
    left = [name for name in texts if name not in named.values()]
    if {"chosen", "rejected", "prompt"} <= named.keys():
        named.pop("response", None)
        return Description("alpaca", named, {}, ranking=True)
    named = {key: name for key, name in named.items() if key not in ("chosen", "rejected")}
    if {"prompt", "response"} <= named.keys():
        return Description("alpaca", named)
    if "prompt" in named and "query" in named:
        return Description("alpaca", {"prompt": named["prompt"], "response": named["query"]})
    if "prompt" in named and len(left) == 1:
        return Description("alpaca", {**named, "response": left[0]})
    text = next((name for name in texts if _plain(name) in _TEXT_WORDS), texts[0] if len(texts) == 1 else None)
    if text:
        return Description("alpaca", {"prompt": text})
    return Description("alpaca", {"prompt": texts[0], "response": texts[1]}) if len(texts) == 2 else None


def _guess_turns(rows: Sequence[Raw], column: str) -> Description | None:
    found = turn_keys(rows, column)
    role = next((key for word in _ROLE_KEYS for key in found.words if _plain(key) == word), None)
    role = role or next(iter(found.words), None)
    content = next((key for key in found.keys if key != role and key not in found.words), None) or \
        next((key for key in found.keys if key != role), None)
    if not role or not content:
        return None
    tags = {"role_tag": role, "content_tag": content}
    for tag, words in _ROLE_WORDS.items():
        name = next((word for word in found.words.get(role, ()) if _plain(word) in words), None)
        tags |= {tag: name} if name else {}
    return Description("sharegpt", {"messages": column}, tags) if {"user_tag", "assistant_tag"} <= tags.keys() else None


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


# --------------------------------------------------------------------------------------------------------------- words

KINDS: Mapping[Kind, Both] = {
    "conversations": Both("questions and answers", "问答（对话）"),
    "preferences": Both("pairs: a better and a worse answer", "偏好对：较好和较差的回答"),
    "judged": Both("answers judged good or bad", "带好坏标注的回答"),
    "documents": Both("plain text", "纯文本"),
}
"""What the rows of a data set are, for people."""


def meaning(description: Description) -> list[tuple[Both, str]]:
    """What each column that is read is taken for, in words."""
    return [(MEANS[key], name) for key in COLUMN_KEYS if (name := description.columns.get(key)) and key in MEANS] + \
        [(MEANS[key], name) for key in TAG_KEYS if (name := description.tags.get(key))]


MEANS: Mapping[str, Both] = {
    "prompt": Both("question", "问题"), "query": Both("more of the question", "问题的补充"),
    "response": Both("answer", "回答"), "messages": Both("the conversation", "对话"),
    "chosen": Both("better answer", "较好的回答"), "rejected": Both("worse answer", "较差的回答"),
    "system": Both("system prompt", "系统提示"), "history": Both("earlier turns", "历史对话"),
    "tools": Both("tools on offer", "可用工具"), "thinking": Both("thought before the answer", "回答前的思考"),
    "kto_tag": Both("judgement: true is good", "好坏标注（true 为好）"),
    "images": Both("images", "图片"), "videos": Both("videos", "视频"), "audios": Both("sounds", "音频"),
    "role_tag": Both("who speaks", "说话人"), "content_tag": Both("what is said", "内容"),
    "user_tag": Both("the user is called", "用户的叫法"),
    "assistant_tag": Both("the assistant is called", "助手的叫法"),
    "system_tag": Both("a system prompt is called", "系统提示的叫法"),
    "observation_tag": Both("a tool's result is called", "工具结果的叫法"),
    "function_tag": Both("a tool call is called", "工具调用的叫法"),
}
"""Keys of dataset_info.json in plain words."""


def absent(columns: Iterable[str], rows: Sequence[Raw]) -> list[str]:
    """Those of `columns` that no row has."""
    there = {name for row in rows for name in row}
    return [name for name in columns if name not in there]
