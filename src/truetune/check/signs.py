"""What in the words of a row hints at a mistake in the data, as a table.

Each sign is looked for in every row, counted, and told once it is in as large a share of the rows as makes it worth
telling. The shares are our judgement, set on the demo data of LLaMA-Factory (alpaca in two languages, glaive, DPO, KTO)
so that good data stay quiet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from truetune.findings import Both

Find = Callable[[str, str], str | None]
"""(question, answer) → what was found, to be shown; None: it is not there. Documents have no question."""


@dataclass(frozen=True)
class Sign:
    """id: of its finding. needles: words, in small letters, of which one is in every row that has the sign (empty:
    nobody knows). message: with {count} rows of {rows}, in which {shown} was found; {answers}: what they
    are called. info, warn: the share of rows from
    which it is told, and from which it is likely a mistake (0: the first row)."""

    id: str
    needles: tuple[str, ...]
    find: Find
    message: Both
    fix: Both
    info: float = 0.0
    warn: float = 0.01


def signs_in(rows: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int, str]]:
    """The signs in some rows, each a question and an answer: (number of the row, number of the sign, what was found).

    Needles are looked for in all rows at once first: most are in none of a thousand.
    """
    low = [f"{asked}\n{answered}".lower() for asked, answered in rows]
    together = "\n".join(low)
    for number, sign in enumerate(SIGNS):
        needles = [needle for needle in sign.needles if needle in together]
        if sign.needles and not needles:
            continue
        for row, (asked, answered) in enumerate(rows):
            if not needles or any([needle in low[row] for needle in needles]):
                found = sign.find(asked, answered)
                if found is not None:
                    yield row, number, found


_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def _search(pattern: str, question: bool = True, answer: bool = True, code: bool = False,
            flags: re.RegexFlag = re.IGNORECASE) -> Find:
    """Looks for `pattern`. code: also in what is marked as code."""
    search = re.compile(pattern, flags).search

    def find(asked: str, answered: str) -> str | None:
        for text in (asked if question else "", answered if answer else ""):
            hit = search(text if code or "`" not in text else _CODE.sub("", text))
            if hit:
                return " ".join(hit[0].split())
        return None

    return find


def _bad_call(asked: str, answered: str) -> str | None:
    """A call between <tool_call> marks that is no JSON object (and no XML either, as some formats write it)."""
    for call in _CALL.findall(answered):
        if call.lstrip().startswith("<") or "<arg_key>" in call:
            continue
        try:
            if not isinstance(json.loads(call), dict | list):
                return call.strip()
        except (ValueError, RecursionError):
            return call.strip()
    return None


_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def _says_nothing(asked: str, answered: str) -> str | None:
    """An answer without a letter or a digit, or a word that stands for no answer."""
    words = answered.strip()
    if len(words) > 20:
        return None
    return words if words.lower() in _NOTHING or not any(map(str.isalnum, words)) else None


_NOTHING = {"n/a", "na", "nan", "none", "null", "undefined", "nil", "no answer", "no output", "<noinput>", "<nooutput>",
            "empty", "无", "空", "没有答案", "无回答"}


def _repeats_question(asked: str, answered: str) -> str | None:
    return answered if asked.strip() == answered.strip() else None


_CP1252 = "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018-\u201d" \
          "\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
"""What the bytes 80 to BF become when UTF-8 is read as Latin-1 or Windows-1252."""

SIGNS: Sequence[Sign] = (
    Sign("rendered-already",
         ("<|", "<｜", "inst]", "sys>>", "_of_turn>", "###", "</s>"),
         _search(r"<\|[a-z_]{2,24}\|>|<｜[^｜\n]{2,30}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|"
                 r"^###\s?(?:Response|Instruction|Assistant|Human|User)\s?:|</s>\s*\Z",
                 flags=re.IGNORECASE | re.MULTILINE),
         Both("{count} of {rows} rows hold words of a chat template, such as {shown} ({places}): the template writes "
              "them itself, and these would be learned as part of what is said.",
              "{rows} 行中有 {count} 行含有对话模板的标记，如 {shown}（{places}）：模板会自己写这些标记，"
              "数据里的会被当成正文学进去。"),
         Both("Keep only what was said in the data; who speaks is told by columns or roles.",
              "数据里只保留说的话，角色用字段或 role 表示。"), warn=0.005),
    Sign("role-labels",
         ("user:", "human:", "assistant:", "ai:", "user：", "assistant：", "用户：", "用户:", "人类：", "人类:",
          "助手：", "助手:", "问：", "答："),
         _search(r"^[ \t]*(?:User|Human|Assistant|AI|用户|人类|助手|问|答)\s?[:：]", question=False,
                 flags=re.IGNORECASE | re.MULTILINE),
         Both("in {count} of {rows} {answers} a line begins with a speaker, such as {shown} ({places}): the model "
              "would learn to write both sides of a conversation.",
              "{rows}{answers}中有 {count} 个含有以说话人开头的行，如 {shown}（{places}）：模型会学成自问自答。"),
         Both("Make each side a turn of its own (messages or conversations).",
              "把双方的话拆成各自的轮次（messages 或 conversations）。"), info=0.01, warn=0.05),
    Sign("placeholder",
         ("{{", "<your", "[insert", "lorem ipsum", "{%"),
         _search(r"\{\{\s*[A-Za-z_][\w. |]{0,40}\}\}|<your[ _][^<>\n]{1,30}>|\[insert\b[^\]\n]{0,60}\]|lorem ipsum|"
                 r"\{%-? ?(?:if|for|set)\b[^%]{0,60}%\}"),
         Both("{count} of {rows} rows hold a placeholder that nothing has filled, such as {shown} ({places}).",
              "{rows} 行中有 {count} 行含有没有填上的占位符，如 {shown}（{places}）。"),
         Both("Fill it, or leave those rows out.", "填上它，或去掉这些行。")),
    Sign("placeholder",
         ("{",),
         _search(r"(?<![\w\\}\"'$^_{%=(:/#])\{[a-z][a-z_]{2,24}\}(?![\w{}\"'\]])", flags=re.NOFLAG),
         Both("{count} of {rows} rows hold what looks like a placeholder, such as {shown} ({places}).",
              "{rows} 行中有 {count} 行含有像占位符的内容，如 {shown}（{places}）。"),
         Both("If it is one, fill it or leave those rows out.", "如果是占位符，请填上或去掉这些行。"),
         info=0.01, warn=0.03),
    Sign("placeholder",
         ("[your", "[my", "[recipient", "[sender", "[company", "[customer", "[client", "[name", "[date", "[address",
          "[phone", "[email", "xxx", "todo", "fixme"),
         _search(r"\[(?i:(?:your|my|recipient|sender|company|customer|client)(?:['’]s)?[ _][\w ]{0,32}|"
                 r"name|date|address|phone|email)\]|(?<![A-Za-z0-9])[Xx]{3,}(?![A-Za-z0-9])|\b(?:TODO|FIXME)\b",
                 question=False, flags=re.NOFLAG),
         Both("{count} of {rows} {answers} leave something to be filled in, such as {shown} ({places}): the model "
              "learns to leave such gaps.",
              "{rows}{answers}中有 {count} 个留有待填的空，如 {shown}（{places}）：模型会学着留空。"),
         Both("Fill it, or leave those rows out, unless such gaps are wanted.",
              "填上或去掉这些行，除非就要这样的写法。"),
         info=0.02, warn=0.1),
    Sign("nothing-said", (), _says_nothing,
         Both("{count} of {rows} {answers} say nothing, such as {shown} ({places}).",
              "{rows}{answers}中有 {count} 个没有内容，如 {shown}（{places}）。"),
         Both("Leave those rows out.", "去掉这些行。")),
    Sign("answer-is-question", (), _repeats_question,
         Both("{count} of {rows} {answers} repeat the question word for word ({places}).",
              "{rows}{answers}中有 {count} 个与问题一字不差（{places}）。"),
         Both("Look at the columns: is the answer in another one?", "检查字段：回答是不是在另一个字段里？")),
    Sign("encoding",
         ("\ufffd", "ï¿½", "ï»¿", "锟斤拷", "烫烫", "ã", "â", "ä", "å", "æ", "ç", "è", "é", "锛", "銆"),
         _search(rf"\ufffd|ï¿½|ï»¿|锟斤拷|烫烫烫|Ã[{_CP1252}]|Â[\u00a0-\u00bf]|â€[{_CP1252}]|"
                 rf"(?:[à-ï][{_CP1252}]{{2}}){{2}}|[锛銆][^\n]{{0,80}}[锛銆]", code=True, flags=re.NOFLAG),
         Both("{count} of {rows} rows hold letters that a wrong encoding has damaged, such as {shown} ({places}).",
              "{rows} 行中有 {count} 行含有因编码错误而损坏的字符，如 {shown}（{places}）。"),
         Both("Make the file again from its source, read and written as UTF-8.",
              "从源头重新生成文件，读写都用 UTF-8。")),
    Sign("html",
         ("<br", "</p>", "</div>", "</span>", "</li>", "</ul>", "</td>", "</font>", "<p>", "&nbsp;", "&amp;", "&lt;",
          "&gt;", "&quot;", "&#"),
         _search(r"<br\s?/?>|</(?:p|div|span|li|ul|td|font)>|<p>|&(?:nbsp|amp|lt|gt|quot|#\d{2,5});", question=False),
         Both("{count} of {rows} {answers} hold HTML, such as {shown} ({places}): the model learns to write it.",
              "{rows}{answers}中有 {count} 个含有 HTML，如 {shown}（{places}）：模型会学着写出来。"),
         Both("Turn it into plain text, unless the questions ask for HTML.", "转成纯文本，除非问题就是要 HTML。"),
         info=0.02, warn=0.1),
    Sign("refusals",
         ("as an ai", "as an artificial", "language model", "sorry", "afraid", "can't", "cannot", "作为", "抱歉",
          "无法"),
         _search(r"\A.{0,200}?(?:\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b|"
                 r"\bi(?:'m| am) (?:sorry|afraid),? (?:but )?(?:i|as)\b|"
                 r"\bi can(?:no|')t (?:assist|help with|fulfill|provide)\b|"
                 r"作为一?[个名款]?(?:AI|人工智能|大?语言模型)|抱歉，我(?:无法|不能)|我无法提供)", question=False,
                 flags=re.IGNORECASE | re.DOTALL),
         Both("{count} of {rows} {answers} decline, or speak “as an AI” ({places}): the model learns to.",
              "{rows}{answers}中有 {count} 个是拒答或“作为 AI”之类的套话（{places}）：模型会学成这样。"),
         Both("Leave such rows out, unless that is wanted.", "去掉这些行，除非就想要这样。"), info=0.05, warn=0.2),
    Sign("other-name",
         ("chatgpt", "gpt", "claude", "gemini", "bard", "openai", "文心一言", "通义千问", "讯飞星火"),
         _search(r"\b(?:i am|i'm|my name is|call me) (?:chatgpt|gpt-?[345]|claude|gemini|bard)\b|"
                 r"我(?:是|叫)\s?(?:chatgpt|gpt-?[345]|claude|文心一言|通义千问|讯飞星火)|"
                 r"\bi\b[^.\n]{0,60}(?:developed|trained|created) by openai|"
                 r"我[^。\n]{0,20}由\s?openai\s?(?:开发|训练)", question=False),
         Both("{count} of {rows} {answers} speak as another assistant, such as {shown} ({places}): the model takes on "
              "its name.",
              "{rows}{answers}中有 {count} 个以别家助手自称，如 {shown}（{places}）：模型会冒用这个名字。"),
         Both("Change those rows, or leave them out.", "改掉或去掉这些行。"), warn=0.02),
    Sign("bad-call", ("<tool_call>",), _bad_call,
         Both("in {count} of {rows} {answers} a tool call is no JSON: {shown} ({places}). No server could read what "
              "the model learns to write.",
              "{rows}{answers}中有 {count} 个的工具调用不是 JSON：{shown}（{places}）。"
              "模型学会的写法没有服务端能解析。"),
         Both("Write calls as {\"name\": …, \"arguments\": {…}}, or as tool_calls beside the content.",
              "调用写成 {\"name\": …, \"arguments\": {…}}，或放在 content 旁的 tool_calls 里。"), warn=0.0),
)
"""In the order in which they are told."""
