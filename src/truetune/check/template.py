"""The chat template of a run: which it is, what ends an answer and whether that is learned, what it adds by itself, and
whether data and model agree about thoughts, tools and the vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from truetune.check.model import embedding, head, longest_context, weights
from truetune.check.section import Section
from truetune.check.weights import Damaged, Tensor, read_json, read_rows
from truetune.data.renderer import Rendered, Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.templates import TEMPLATES
from truetune.data.tools import default_system_of
from truetune.findings import Both, Finding, Words
from truetune.model.vocabulary import may_grow
from truetune.options import Config

if TYPE_CHECKING:
    from truetune.check.preflight import Preflight

NEAR_ZERO = 0.1
"""A row this much shorter than others was never trained: Llama 3's base models have zeros there (torchtune issue 2429),
and weight decay draws what is never seen towards 0 (Land and Bartolo 2024, arXiv:2405.05417, section 3)."""
TWIN = 0.02
"""Rows that differ by less than this share of their length were never told apart. Measured on SmolLM2-135M-Instruct:
its unused tokens differ by 0.003 at most, its trained <|im_end|> from them by 0.14."""
_OTHERS = 256
"""So many ordinary rows are read to know how long rows are."""
_LOOKED_AT = 200
"""Rows of data that are looked at for their ids."""
SOME_THINK = 0.9
"""From this share of answers with a thought on, they are meant to be taught; below it, some think and some do not."""


def template_section(ready: Preflight, config: Config) -> Section:
    """The chat template, as a part of the page. What `row_findings` and the template itself tell is not told again."""
    section = Section("template", Both("Chat template", "对话模板"))
    renderer, rows = ready.renderer, ready.train
    tensors, _ = weights(ready.base, config)
    sample = [rows.sample[number] if isinstance(rows, Stream) else rows[number]
              for number in range(min(_LOOKED_AT, len(rows.lengths)))]
    matrix = head(tensors) or embedding(tensors)
    section.facts = {"stop_ids": renderer.stop_ids(), "vocabulary": len(renderer.tokenizer),
                     "rows_of_weights": matrix.shape[0] if matrix else None}
    section.lines.append((Both("stops at", "结束符"), ", ".join(
        f"{renderer.tokenizer.convert_ids_to_tokens(number)} ({number})" for number in renderer.stop_ids()) or "–"))
    section.findings += [*_vocabulary_findings(renderer, sample, matrix, config), *_context_findings(ready, config)]
    if config.stage == "pt":
        return section
    end = end_of_turn(ready.base, renderer, sample, matrix)
    section.lines.insert(0, (Both("template", "模板"), _origin(ready, config)))
    section.lines += [*_end_lines(rows, end), *_prompt_lines(rows), *_system_lines(renderer, config),
                      *_thinking_lines(rows, renderer, config), *_padding_lines(renderer)]
    section.facts |= {
        "template": config.template, "endless": len(rows.having("endless")), "drifts": len(rows.having("drifts")),
        "thinks": len(rows.having("thinks")), "switches": switches(renderer, config),
        "end_of_turn": end.as_dict() if end else None, "default_system": default_system_of(renderer.tokenizer) or None,
    }
    section.findings += [*_base_findings(end, config), *_thought_findings(rows, renderer, config),
                         *_bos_findings(sample, renderer)]
    return section


def _origin(ready: Preflight, config: Config) -> Both:
    """Which template it is and where it is from."""
    file = next((name for name in ("chat_template.jinja", "tokenizer_config.json")
                 if _brings(ready.base / name)), None)
    if not config.template:
        file = file or "tokenizer"
        return Both(f"the model's own ({file})", f"模型自带（{file}）")
    differs = any(finding.id == "template-differs" for finding in ready.findings)
    own = (Both(", other than the model's own", "，与模型自带的不同") if differs else
           Both(", which writes what the model's own does", "，与模型自带的写法相同")) if file else \
        Both("; the model brings none", "；模型没有自带模板")
    return Both(f"{config.template}, named{own.en}; saved with the model",
                f"指定的 {config.template}{own.zh}；随模型保存")


def _brings(path: Path) -> bool:
    """Whether a file brings a chat template."""
    return path.is_file() if path.suffix == ".jinja" else bool(_settings(path).get("chat_template"))


def _settings(path: Path) -> Mapping[str, Any]:
    """What a JSON file says; nothing where it cannot be read."""
    try:
        settings = read_json(path)
    except Damaged:
        return {}
    return settings if isinstance(settings, dict) else {}


# --------------------------------------------------------------------------------------------------------- end of turn


@dataclass(frozen=True)
class End:
    """The token that ends an answer. shipped: tokens at which the model, as it came, stops. length: of its row in the
    weights, by the usual length (None: not known). twin: a token whose row is the same, and by how much it differs."""

    token: str
    number: int
    shipped: Mapping[int, str]
    length: float | None = None
    twin: tuple[str, float] | None = None

    @property
    def untrained(self) -> bool | None:
        """None: the weights cannot tell."""
        if self.length is None:
            return None
        return self.length < NEAR_ZERO or self.twin is not None

    def as_dict(self) -> dict[str, Any]:
        return {"token": self.token, "id": self.number, "relative_length": self.length, "untrained": self.untrained,
                "twin": self.twin and self.twin[0], "shipped_stops": sorted(self.shipped)}


def end_of_turn(base: Path, renderer: Renderer, sample: list[Rendered], matrix: Tensor | None) -> End | None:
    """The special token at the end of the answers, and what the weights say about it. None: there is none.

    Args:
        matrix: with a row for each token that can be written.
    """
    tokenizer = renderer.tokenizer
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [int(row.ids[row.runs[-1].last - 1]) for row in sample if row.runs]
    number = next((end for end in ends if end in special), None)
    if number is None:
        return None
    shipped = {stop: str(tokenizer.convert_ids_to_tokens(stop)) for stop in _shipped_stops(base, len(tokenizer))}
    end = End(special[number], number, shipped)
    if matrix is None:
        return end
    written = {int(token) for row in sample for token in np.unique(row.ids)}
    unused = [token for token in special if token not in written and token not in renderer.stops][:64]
    others = np.linspace(0, matrix.shape[0] - 1, _OTHERS).astype(int).tolist()
    try:
        rows = read_rows(matrix, [number, *unused, *others])
    except Damaged:
        return end
    mine, idle, usual = rows[0], rows[1 : 1 + len(unused)], rows[1 + len(unused) :]
    length = float(np.linalg.norm(mine) / max(float(np.median(np.linalg.norm(usual, axis=1))), 1e-12))
    apart = np.linalg.norm(idle - mine, axis=1) / max(float(np.linalg.norm(mine)), 1e-12)
    nearest = int(apart.argmin()) if len(apart) else -1
    twin = (special[unused[nearest]], float(apart[nearest])) if nearest >= 0 and apart[nearest] < TWIN else None
    return End(special[number], number, shipped, length, twin)


def _shipped_stops(base: Path, vocabulary: int) -> list[int]:
    """Where the model stops as it came: generation_config.json, or config.json where that says nothing."""
    for name in ("generation_config.json", "config.json"):
        stops = _settings(base / name).get("eos_token_id")
        stops = stops if isinstance(stops, list) else [stops]
        found = [stop for stop in stops if isinstance(stop, int) and 0 <= stop < vocabulary]
        if found:
            return found
    return []


def _end_lines(rows: Rows | Stream, end: End | None) -> Iterator[tuple[Words, Words]]:
    total, endless = max(len(rows.lengths), 1), len(rows.having("endless"))
    learned = Both(f"learned in {total - endless:,} of {total:,} rows",
                   f"{total:,} 行中有 {total - endless:,} 行学习它")
    if end is None:
        yield Both("end of turn", "回答结尾"), Both("no token", "没有专门的 token")
        return
    state = Both("", "")
    if end.length is not None:
        state = Both(f"; its row in the weights has {end.length:.2f} times the usual length",
                     f"；它在权重中的行是常见长度的 {end.length:.2f} 倍")
    yield Both("end of turn", "回答结尾"), Both(f"{end.token} {learned.en}{state.en}",
                                                f"{end.token}，{learned.zh}{state.zh}")


def _base_findings(end: End | None, config: Config) -> Iterator[Finding]:
    """A base model does not know the token that ends a turn."""
    if end is None:
        return
    name = Path(config.model_name_or_path or "").name
    named_base = bool(re.search(r"(?:^|[-_.])base(?:$|[-_.])", name, re.IGNORECASE))
    stops_elsewhere = bool(end.shipped) and end.number not in end.shipped
    trains_it = config.finetuning_type == "full" or {"lm_head", "embed_tokens"} & {*config.additional_target}
    instruct = Both("Choose its Instruct or Chat version; or train the token too: additional_target: "
                    "embed_tokens,lm_head, or finetuning_type: full.",
                    "请换 Instruct 或 Chat 版；或者同时训练这个 token：additional_target: embed_tokens,lm_head，"
                    "或 finetuning_type: full。")
    if end.untrained:
        if end.twin:
            why = Both(f"its row in the weights is that of the unused {end.twin[0]} (they differ by {end.twin[1]:.2%})",
                       f"它在权重中的行与没用过的 {end.twin[0]} 一样（只差 {end.twin[1]:.2%}）")
        else:
            why = Both(f"its row in the weights has {end.length:.1%} of the usual length",
                       f"它在权重中的行只有常见长度的 {end.length:.1%}")
        yield Finding("untrained-end", "info" if trains_it else "warn", Both(
            f"{end.token}, which ends an answer, was never trained: {why}. It is a base model, and hardly learns to "
            "stop.",
            f"结束回答的 {end.token} 从未训练过：{why.zh}。这是基座模型，很难学会停下。"),
            option="model_name_or_path", where=config.origin("model_name_or_path"),
            fix=None if trains_it else instruct)
    elif stops_elsewhere or named_base:
        told = ", ".join(end.shipped.values()) or "–"
        seen = end.untrained is False
        signs = Both(f"as it came it stops at {told}" if stops_elsewhere else "by its name",
                     f"它原本在 {told} 停止" if stops_elsewhere else "从名字看")
        yield Finding("base-model", "info" if seen or trains_it else "warn", Both(
            f"this looks like a base model ({signs}), and answers end with {end.token}"
            f"{', whose row in the weights is trained' if seen else ''}: few rows may not teach it to stop.",
            f"这看起来是基座模型（{signs.zh}），而回答以 {end.token} 结束"
            f"{'（它在权重中的行训练过）' if seen else ''}：数据少时可能学不会停下。"),
            option="model_name_or_path", where=config.origin("model_name_or_path"), fix=instruct)


# ------------------------------------------------------------------------------------------------- what it adds itself


def _prompt_lines(rows: Rows | Stream) -> Iterator[tuple[Words, Words]]:
    drifts = len(rows.having("drifts"))
    but = Both(f", but for white space in {drifts:,}", f"，但有 {drifts:,} 行空白不同") if drifts else Both("", "")
    yield Both("prompt", "提示"), Both(f"what chat sends is how every row begins{but} (proven row by row)",
                                     f"对话时发送的内容与每行的开头一致{but.zh}（逐行验证）")


def _system_lines(renderer: Renderer, config: Config) -> Iterator[tuple[Words, Words]]:
    system = default_system_of(renderer.tokenizer)
    if system:
        shown = json.dumps(system if len(system) <= 70 else f"{system[:69]}…", ensure_ascii=False)
        yield Both("system", "系统提示"), Both(f"{shown} where a row brings none", f"没有系统提示的行会加上 {shown}")


def _padding_lines(renderer: Renderer) -> Iterator[tuple[Words, Words]]:
    tokenizer = renderer.tokenizer
    if tokenizer.pad_token is not None and tokenizer.pad_token == tokenizer.eos_token:
        yield Both("padding", "填充"), Both(
            f"{tokenizer.pad_token}, the end of text too: harmless, since masks go by position and nothing is padded",
            f"{tokenizer.pad_token} 兼作结束符：无害，掩码按位置确定，也不做填充")


def _bos_findings(sample: list[Rendered], renderer: Renderer) -> Iterator[Finding]:
    bos = renderer.tokenizer.bos_token_id
    twice = [row for row in sample if len(row) > 1 and row.ids[0] == row.ids[1] == bos]
    if isinstance(bos, int) and twice:
        yield Finding("bos-twice", "warn", Both(
            f"rows begin with {renderer.tokenizer.bos_token} twice; servers send it once, or twice in other places.",
            f"每行开头有两个 {renderer.tokenizer.bos_token}；部署时通常只发送一个。"), option="template",
            where=twice[0].where, fix=Both("Take it out of the data or out of the template.",
                                           "从数据或模板里去掉一个。"))


# ------------------------------------------------------------------------------------------------------------ thinking


def switches(renderer: Renderer, config: Config) -> bool:
    """Whether this model thinks or not as it is told."""
    named = TEMPLATES.get(config.template or "")
    return named.reasoning if named else "enable_thinking" in str(renderer.tokenizer.chat_template)


def thinking_findings(rows: Rows | Stream, renderer: Renderer, config: Config) -> list[Finding]:
    """A model that thinks or not, as it is told, unlearns to think from answers without thoughts."""
    if not switches(renderer, config) or len(rows.having("thinks")) or not len(rows.lengths) \
            or config.enable_thinking is not True:
        return []
    return [Finding("no-thoughts", "warn", Both(
        "no answer holds a thought, and this model can think: it would learn to think nothing when it is asked to "
        "think.",
        "没有一个回答带思考，而这个模型会思考：它会学成被要求思考时什么也不想。"), option="enable_thinking",
        where=config.origin("enable_thinking"), cure={"enable_thinking": False}, fix=Both(
            "enable_thinking: false teaches the answers without touching how it thinks.",
            "enable_thinking: false 只教回答，不影响它的思考。"), source="empty-thoughts")]


def _thinking_lines(rows: Rows | Stream, renderer: Renderer, config: Config) -> Iterator[tuple[Words, Words]]:
    thinks, total = len(rows.having("thinks")), len(rows.lengths)
    if switches(renderer, config):
        setting = json.dumps(config.enable_thinking)
        yield Both("thinking", "思考"), Both(
            f"can be switched; enable_thinking: {setting}; {thinks:,} of {total:,} answers hold a thought",
            f"可开关；enable_thinking: {setting}；{total:,} 个回答中 {thinks:,} 个带思考")
    elif thinks:
        yield Both("thinking", "思考"), Both(f"cannot be switched; {thinks:,} of {total:,} answers hold a thought",
                                           f"不可开关；{total:,} 个回答中 {thinks:,} 个带思考")


def _thought_findings(rows: Rows | Stream, renderer: Renderer, config: Config) -> Iterator[Finding]:
    """Thoughts in the data that the template takes out, or knows nothing of."""
    having, total = rows.having("thinks"), len(rows.lengths)
    if not len(having):
        return
    share, where = len(having) / total, (rows.sample if isinstance(rows, Stream) else rows)[int(having[0])].where
    if switches(renderer, config):
        if config.enable_thinking is False:
            yield Finding("thoughts-removed", "info", Both(
                f"the thoughts of {len(having):,} of {total:,} answers are taken out, and not learned.",
                f"{total:,} 个回答中有 {len(having):,} 个的思考会被去掉，不会学习。"), option="enable_thinking",
                where=config.origin("enable_thinking"),
                fix=Both("enable_thinking: true learns them.", "enable_thinking: true 会学习它们。"))
        elif config.enable_thinking is True and share < SOME_THINK:
            yield Finding("some-thoughts", "info", Both(
                f"{len(having):,} of {total:,} answers hold a thought; the others learn to think nothing.",
                f"{total:,} 个回答中有 {len(having):,} 个带思考；其余的会学成什么也不想。"), option="enable_thinking",
                where=config.origin("enable_thinking"), cure={"enable_thinking": None}, fix=Both(
                    "enable_thinking: null keeps the thoughts, and puts the empty one into the prompt of the others.",
                    "enable_thinking: null 保留思考，其余回答把空思考放进提示。"))
    elif "think" not in str(renderer.tokenizer.chat_template):
        yield Finding("thoughts-as-text", "info" if share >= SOME_THINK else "warn", Both(
            f"{len(having):,} of {total:,} answers hold a thought, and this template knows none: <think> is learned as "
            "plain text, which servers show.",
            f"{total:,} 个回答中有 {len(having):,} 个带思考，而这个模板不认识思考：<think> 会当普通文本学习，"
            "部署时会显示出来。"),
            option="dataset", where=where, fix=Both(
                "Right to teach a model to think; otherwise take the thoughts out of the data.",
                "教模型思考就没问题；否则请从数据里去掉思考。"))


# ----------------------------------------------------------------------------------------------- vocabulary and context


def _context_findings(ready: Preflight, config: Config) -> Iterator[Finding]:
    """Rows with more tokens than the model has positions for: it fails on them, or has never seen such a place."""
    settings = _settings(ready.base / "config.json")
    positions, lengths = longest_context(settings, config), ready.train.lengths
    longer = int((lengths > positions).sum()) if positions else 0
    if longer:
        yield Finding("rows-beyond-context", "error", Both(
            f"{longer:,} of {len(lengths):,} rows have more tokens (up to {int(lengths.max()):,}) than the model has "
            f"positions ({positions:,}).",
            f"{len(lengths):,} 行中有 {longer:,} 行的 token（最多 {int(lengths.max()):,} 个）超过模型的位置数"
            f"（{positions:,}）。"),
            option="cutoff_len", where=config.origin("cutoff_len"), cure={"cutoff_len": positions}, fix=Both(
                f"cutoff_len: {positions} leaves them out or cuts them, as overlong says.",
                f"cutoff_len: {positions} 会按 overlong 丢弃或截断它们。"))


def _vocabulary_findings(renderer: Renderer, sample: list[Rendered], matrix: Tensor | None,
                         config: Config) -> Iterator[Finding]:
    """Tokens for which the model has no row."""
    if matrix is None or may_grow(config):
        return
    rows, tokenizer = matrix.shape[0], renderer.tokenizer
    used = max([*renderer.stop_ids(), *(int(row.ids.max()) for row in sample if len(row))], default=0)
    beyond = sorted((number, token) for token, number in _added(tokenizer).items() if number >= rows)
    fix = Both("Use the tokenizer that came with these weights.", "请用与这些权重配套的分词器。")
    if used >= rows:
        token = tokenizer.convert_ids_to_tokens(used)
        yield Finding("vocabulary", "error", Both(
            f"the tokenizer writes {token!r} as {used}, and the model has only {rows:,} rows of weights.",
            f"分词器把 {token!r} 写成 {used}，而模型只有 {rows:,} 行权重。"), option="model_name_or_path",
            where=config.origin("model_name_or_path"), fix=fix)
    elif beyond:
        number, token = beyond[0]
        yield Finding("vocabulary", "info", Both(
            f"for {len(beyond)} tokens of the tokenizer, from {token!r} ({number}) on, the model has no row of "
            "weights; none is in these data.",
            f"分词器有 {len(beyond)} 个 token（从 {token!r}（{number}）起）在模型里没有权重；这些数据没有用到。"),
            option="model_name_or_path", where=config.origin("model_name_or_path"), fix=fix)


def _added(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, int]:
    """Tokens beside the vocabulary proper, which is where surplus ones are."""
    return {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
