"""What the rows of a run tell: how many there are and of what kind, how long they are, how much of them is learned; and
what is wrong or doubtful about them.

Numbers come from the token stores, which is what training reads; what rows say is read once more (`words`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truetune.check.scripts import SCRIPTS
from truetune.check.section import Section
from truetune.check.signs import SIGNS
from truetune.check.template import thinking_findings
from truetune.check.words import Held, Hits, Seen, see
from truetune.data.dataset import PER_ROW, Data
from truetune.data.messages import Place
from truetune.data.reading import STAGE_ROWS
from truetune.data.renderer import Renderer
from truetune.data.rows import Rows, Stream
from truetune.findings import Both, Finding, Words, count_of
from truetune.options import Config

if TYPE_CHECKING:
    from truetune.check.preflight import Preflight

NONE_LEARNED = 0.01
"""A larger share of rows of which nothing is learned means that masks or columns are wrong, not that a few rows are."""
REPEATED = (0.01, 0.05)
"""Shares of rows that stand there before from which it is told, and from which it is likely a mistake: a row that comes
twice weighs twice, and is learned by heart sooner."""
ALL_ALIKE = (0.5, 0.9)
"""Share of rows that have one and the same answer, from which it is likely a mistake: of an answer of several words, of
one word (classes may be that uneven)."""
ONE_WORD = 0.5
"""Share of answers of one word from which the model will hardly say more."""
CROSSED = 0.5
"""Share of rows that are asked in one script and answer in another: translations do, most other data do not."""
KTO_BALANCE = 4
"""More good than bad answers (or the other way round) than this, and the weights should make up for it (Ethayarajh et
al. 2024, arXiv:2402.01306, section 4.2: the weighted sides within 1 to 4/3 of each other)."""
LONGER = (0.75, 1.5)
"""Share of pairs whose chosen answer is longer, and how much longer it is (median), from which length is learned as
well as quality (Park et al. 2024, arXiv:2403.19159)."""
OVERLAP = 0.9
"""Share of held-out rows that are trained on too, from which the evaluation measures nothing but memory."""
WIDE = 4
"""So many times the longest row, and cutoff_len could be lower; it costs nothing, since nothing is padded."""


def data_section(ready: Preflight, config: Config) -> Section:
    """The data, as a part of the page. What `row_findings` tells is not told again.

    Raises:
        Problem: a data set that could be read before cannot be read again.
    """
    data = ready.data
    seen, held = see(data, config)
    section = Section("data", Both("Data", "数据"))
    section.lines = [*_row_lines(data, config), *_repeat_lines(seen, held), *_length_lines(data, config),
                     *_learned_lines(data, config), *_word_lines(seen)]
    section.facts = _facts(data, seen, held, config)
    kind = STAGE_ROWS[config.stage]
    section.findings = [*_repeat_findings(seen), *_overlap_findings(held, config), *_sign_findings(seen, kind),
                        *_answer_findings(seen), *_kto_findings(seen, config), *_pair_findings(seen)]
    return section


# ------------------------------------------------------------------------------------------------------------- numbers


def row_findings(data: Data, renderer: Renderer, config: Config) -> list[Finding]:
    """What the rows themselves tell: nothing to learn, answers without an end, prompts that chat would not send."""
    return [*_empty_findings(data, config), *_turn_findings(data.train),
            *thinking_findings(data.train, renderer, config)]


def _empty_findings(data: Data, config: Config) -> list[Finding]:
    """Rows of which nothing is learned, and sets of which nothing is left."""
    findings = []
    for option, rows in (("dataset", data.train), *(("eval_dataset", rows) for rows in data.held_out.values())):
        empty = np.flatnonzero(rows.learned == 0)
        if len(empty):
            total = len(rows.lengths)
            useless = len(empty) > NONE_LEARNED * total or not np.median(rows.learned)
            places = _listed([_place(rows, int(number)) for number in empty[:5]], len(empty))
            findings.append(Finding(
                "nothing-learned", "error" if useless else "warn", Both(
                    f"no token is learned of {len(empty):,} of {count_of(total, 'row')} ({places}).",
                    f"{total:,} 行中有 {len(empty):,} 行没有任何 token 被学习（{places}）。"),
                option=option, where=str(_place(rows, int(empty[0]))), fix=Both(
                    "Look at such a row with `truetune data show --row`: is its answer there, and does the chat "
                    "template write it?",
                    "用 `truetune data show --row` 看看这样的行：回答在不在，对话模板有没有写出它？")))
        if not len(rows.lengths) and (config.dataset or option != "dataset"):
            findings.append(_no_rows(data, config, option))
    return findings


def _no_rows(data: Data, config: Config, option: str) -> Finding:
    refused = sum(sum(store.manifest.refusals.values()) for store in data.stores)
    dropped = sum(store.manifest.dropped for store in data.stores)
    en = [f"{refused:,} cannot be learned from"] * bool(refused)
    en += [f"{dropped:,} longer than {config.cutoff_len} tokens"] * bool(dropped)
    zh = [f"{refused:,} 行无法学习"] * bool(refused) + [f"{dropped:,} 行超过 {config.cutoff_len} 个 token"] * bool(dropped)
    return Finding("no-rows-left", "error", Both(
        f"no row is left to learn from{': ' if en else ''}{', '.join(en)}.",
        f"没有可学习的行{'：' if zh else ''}{'，'.join(zh)}。"), option=option)


def _turn_findings(rows: Rows | Stream) -> list[Finding]:
    """The end of an answer must be learned, or generation never stops."""
    told = (
        ("no-end-of-turn", "endless",
         Both("the answer has no end-of-turn token, so the model does not learn to stop.",
              "回答没有结束符，模型学不会停下。"),
         Both("The chat template writes none; choose an Instruct version, or the template made for this model.",
              "对话模板没有写结束符；请换 Instruct 版模型，或用这个模型专用的模板。")),
        ("drift", "drifts",
         Both("the white space between prompt and answer becomes other tokens than in the prompt alone, which is what "
              "chat sends.", "提示与回答之间的空白和单独的提示切成了不同的 token，而对话时发送的是后者。"),
         Both("Begin answers with a word. If they do, it is the template that ends its prompt so.",
              "让回答以文字开头；如果已经是，那就是模板这样结束提示。")),
    )
    findings = []
    for id, flag, what, fix in told:
        having = rows.having(flag)
        if len(having):
            findings.append(Finding(id, "warn", Both(
                f"in {len(having)} of {len(rows.lengths)} rows {what}", f"{len(rows.lengths)} 行中有 {len(having)} 行：{what.zh}"),
                option="dataset", where=str(_place(rows, int(having[0]))), fix=fix))
    return findings


def _place(rows: Rows | Stream, number: int) -> Place:
    """Where a row stands; of a stream, one of those that were looked at."""
    return (rows.sample if isinstance(rows, Stream) else rows)[number].place


# --------------------------------------------------------------------------------------------------------------- lines

Line = tuple[Words, Words]


def _row_lines(data: Data, config: Config) -> Iterator[Line]:
    """How many rows there are, and how many of them were read."""
    held = sum(map(len, data.held_out.values())) // PER_ROW[STAGE_ROWS[config.stage]]
    held_en, held_zh = (f", {held:,} held out", f"，留出 {held:,} 行") if held else ("", "")
    if isinstance(data.train, Stream):
        looked = len(data.train.lengths)
        yield Both("rows", "行数"), Both(f"a stream, of which the first {looked:,} rows are looked at{held_en}",
                                       f"流式读取，只看前 {looked:,} 行{held_zh}")
    else:
        rows = data.train_rows // PER_ROW[STAGE_ROWS[config.stage]]
        about_en, about_zh = ("about ", "约 ") if data.scale != 1 else ("", "")
        yield Both("rows", "行数"), Both(f"{about_en}{rows:,} to train on{held_en}", f"训练 {about_zh}{rows:,} 行{held_zh}")
    for found in data.sets:
        raw = found.store.manifest.raw_rows
        if found.sampled:
            yield "", Both(f"{found.source.name}: sampled, the first {raw:,} of about {found.rows:,} rows",
                           f"{found.source.name}：抽样，只读约 {found.rows:,} 行中的前 {raw:,} 行")
        elif len(data.sets) > 1:
            yield "", Both(f"{found.source.name}: {count_of(raw, 'row')}", f"{found.source.name}：{raw:,} 行")
    refused = sum(sum(store.manifest.refusals.values()) for store in data.stores)
    dropped = sum(store.manifest.dropped for store in data.stores)
    if refused or dropped:
        yield Both("left out", "丢弃"), Both(
            f"{refused:,} that cannot be learned from, {dropped:,} longer than cutoff_len {config.cutoff_len}",
            f"无法学习的 {refused:,} 行，超过 cutoff_len {config.cutoff_len} 的 {dropped:,} 行")


def _repeat_lines(seen: Seen, held: Held) -> Iterator[Line]:
    parts = [(seen.repeated.count, "repeated", "行重复"), (seen.differing.count, "repeat a question with another answer",
                                                       "行问题相同、回答不同"),
             (held.trained_on.count, "held out and trained on", "行既留出又参与训练")]
    parts = [part for part in parts if part[0]]
    if parts:
        yield Both("repeats", "重复"), Both(", ".join(f"{count:,} {en}" for count, en, _ in parts),
                                          "，".join(f"{count:,} {zh}" for count, _, zh in parts))


_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 32


def histogram(lengths: np.ndarray) -> tuple[str, int]:
    """Lengths as a row of bars from 0 on, and how much each bar spans; the last one holds everything longer."""
    most = int(np.quantile(lengths, 0.995, method="higher"))
    width = max(1, -(-most // _WIDTH))
    counts = np.bincount(np.minimum(lengths // width, _WIDTH - 1))
    heights = np.ceil(counts * len(_BARS) / counts.max()).astype(int)
    return "".join(_BARS[height - 1] if height else " " for height in heights), width


def _natural(data: Data) -> np.ndarray:
    """The lengths of the rows to train on before any was cut or dropped; of a stream, of the first ones as they are."""
    if isinstance(data.train, Stream):
        return data.train.lengths
    lengths = [found.store.natural_lengths() for found in data.sets if found.option == "dataset"]
    return np.concatenate([np.zeros(0, np.int64), *(lengths or [store.natural_lengths() for store in data.stores])])


def cutoff_for(lengths: np.ndarray) -> int:
    """A cutoff_len that keeps 99.5 % of the rows whole, rounded up to 64."""
    return 64 * -(-int(np.quantile(lengths, 0.995, method="higher")) // 64)


def _length_lines(data: Data, config: Config) -> Iterator[Line]:
    lengths = _natural(data)
    if not len(lengths):
        return
    bars, width = histogram(lengths)
    median, most, nearly = (int(np.quantile(lengths, part, method="higher")) for part in (0.5, 0.95, 0.995))
    longest = int(lengths.max())
    yield Both("tokens a row", "每行 token"), Both(
        f"{median:,} (half), {most:,} (95 %), {nearly:,} (99.5 %), {longest:,} (longest); cutoff_len {config.cutoff_len:,}",
        f"{median:,}（半数）、{most:,}（95 %）、{nearly:,}（99.5 %）、{longest:,}（最长）；cutoff_len {config.cutoff_len:,}")
    yield "", Both(f"{bars}  0 to {width * len(bars):,}, {width} a bar",
                   f"{bars}  0 到 {width * len(bars):,}，每格 {width}")
    if STAGE_ROWS[config.stage] == "documents":
        return
    enough = 64 * -(-longest // 64)
    if longest > config.cutoff_len:
        yield "", Both(f"cutoff_len: {cutoff_for(lengths):,} would keep 99.5 % whole, {enough:,} all",
                       f"cutoff_len: {cutoff_for(lengths):,} 可保住 99.5 % 的行，{enough:,} 可全部保住")
    elif config.cutoff_len >= WIDE * enough:
        yield "", Both(f"cutoff_len: {enough:,} would hold all of them", f"cutoff_len: {enough:,} 就装得下所有行")


def _learned(data: Data, config: Config) -> np.ndarray:
    """Tokens learned of each row; of a pair, of both answers."""
    per_row = PER_ROW[STAGE_ROWS[config.stage]]
    learned = data.train.learned
    return learned[: len(learned) // per_row * per_row].reshape(-1, per_row).sum(axis=1)


def _learned_lines(data: Data, config: Config) -> Iterator[Line]:
    learned = _learned(data, config)
    if not len(learned):
        return
    epoch = round(int(learned.sum()) * data.scale)
    about_en, about_zh = ("about ", "约 ") if data.scale != 1 else ("", "")
    share = learned.sum() / max(int(data.train.lengths.sum()), 1)
    none = int((learned == 0).sum())
    among_en, among_zh = ("in those rows", "（所看的行）") if isinstance(data.train, Stream) else ("an epoch", "每个 epoch ")
    yield Both("learned", "学习"), Both(
        f"{int(np.median(learned)):,} tokens of a row (median), {percent(share)} of all; {about_en}{epoch:,} {among_en}"
        + (f"; none of {count_of(none, 'row')}" if none else ""),
        f"每行 {int(np.median(learned)):,} 个 token（中位数），占全部的 {percent(share)}；{among_zh}{about_zh}{epoch:,} 个"
        + (f"；{none:,} 行没有可学的" if none else ""))


def _word_lines(seen: Seen) -> Iterator[Line]:
    """Languages, turns, system messages, thoughts and tools; answers judged, pairs."""
    if not seen.rows:
        return
    total = max(seen.scripts.total(), 1)
    mix = [(SCRIPTS[script], count) for script, count in seen.scripts.most_common(4)]
    if mix:
        yield Both("written in", "文字"), Both(", ".join(f"{script} {percent(count / total)}" for script, count in mix),
                                             "，".join(f"{script.zh} {percent(count / total)}" for script, count in mix))
    several = seen.rows - seen.turns[0] - seen.turns[1]
    bare, kinds = seen.systems[""], len(seen.systems) - ("" in seen.systems)
    parts = [
        (several, f"{percent(several / seen.rows)} with several answers (up to {max(seen.turns)})",
         f"{percent(several / seen.rows)} 含多轮回答（最多 {max(seen.turns)} 轮）"),
        (kinds, f"{percent(1 - bare / seen.rows)} with a system message ({kinds} different)",
         f"{percent(1 - bare / seen.rows)} 带系统提示（{kinds} 种）"),
        (seen.thinks, f"{percent(seen.thinks / seen.rows)} with thoughts", f"{percent(seen.thinks / seen.rows)} 带思考"),
        (seen.tools, f"{percent(seen.tools / seen.rows)} with tools", f"{percent(seen.tools / seen.rows)} 带工具"),
    ]
    parts = [part for part in parts if part[0]]
    if parts:
        yield Both("of the rows", "其中"), Both(", ".join(en for _, en, _ in parts), "，".join(zh for _, _, zh in parts))
    if seen.labels:
        good, bad = seen.labels[True], seen.labels[False]
        yield Both("judged", "标注"), Both(f"{good:,} good, {bad:,} bad", f"好 {good:,}，坏 {bad:,}")
    if seen.longer:
        ratio, share = _longer(seen)
        yield Both("pairs", "成对"), Both(
            f"chosen is {ratio:.2f} times as long as rejected (median), longer in {percent(share)}",
            f"chosen 的长度是 rejected 的 {ratio:.2f} 倍（中位数），{percent(share)} 的对里更长")


def percent(share: float) -> str:
    """`12 %`, `0.4 %`, `100 %`; never 0 % of what is there, nor 100 % of what is not all."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    clear = min(max(share, 0.0001), 0.9999)
    return f"{clear * 100:.{0 if 0.0995 <= clear < 0.995 else 1 if 0.001 <= clear < 0.999 else 2}f} %"


# --------------------------------------------------------------------------------------------------------------- facts


def _facts(data: Data, seen: Seen, held: Held, config: Config) -> dict[str, Any]:
    """Numbers for programs."""
    lengths, learned = _natural(data), _learned(data, config)
    facts: dict[str, Any] = {
        "rows": data.train_rows // PER_ROW[STAGE_ROWS[config.stage]], "estimated": data.scale != 1,
        "held_out": sum(map(len, data.held_out.values())) // PER_ROW[STAGE_ROWS[config.stage]],
        "sets": [{"name": found.source.name, "option": found.option, "rows": found.rows,
                  "read": found.store.manifest.raw_rows, "sampled": found.sampled,
                  "refused": sum(found.store.manifest.refusals.values()), "dropped": found.store.manifest.dropped}
                 for found in data.sets],
        "looked_at": seen.rows, "repeated": seen.repeated.count, "differing": seen.differing.count,
        "held_out_looked_at": held.rows, "held_out_trained_on": held.trained_on.count,
        "scripts": {str(SCRIPTS[script]): count / seen.scripts.total() for script, count in seen.scripts.items()},
        "several_answers": seen.rows - seen.turns[0] - seen.turns[1],
        "systems": len(seen.systems) - ("" in seen.systems), "thinks": seen.thinks, "tools": seen.tools,
        "signs": dict(_sign_counts(seen)),
    }
    if len(lengths):
        bars, width = histogram(lengths)
        facts["lengths"] = {
            **{name: int(np.quantile(lengths, part, method="higher"))
               for name, part in (("p50", 0.5), ("p95", 0.95), ("p995", 0.995), ("longest", 1.0))},
            "cutoff_for_995": cutoff_for(lengths), "longer": int((lengths > config.cutoff_len).sum()),
            "histogram": np.bincount(np.minimum(lengths // width, _WIDTH - 1)).tolist(), "bar": width}
    if len(learned):
        facts["learned"] = {"median": int(np.median(learned)), "none": int((learned == 0).sum()),
                            "an_epoch": round(int(learned.sum()) * data.scale)}
    if seen.labels:
        facts["judged"] = {"good": seen.labels[True], "bad": seen.labels[False]}
    if seen.longer:
        facts["pairs"] = dict(zip(("length_ratio", "chosen_longer"), _longer(seen), strict=True))
    return facts


def _sign_counts(seen: Seen) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, hits in seen.signs.items():
        counts[SIGNS[number].id] += hits.count
    return counts


# ------------------------------------------------------------------------------------------------------------ findings


def _listed(places: Sequence[Place], count: int) -> str:
    """`data/a.json:3, 17, 20, …`: the first places of `count`; a file is named once."""
    told, before = [], ""
    for place in places:
        told.append(str(place) if place.file != before else str(place.number))
        before = place.file
    return ", ".join([*told, *(["…"] if count > len(told) else [])])


def _hit_finding(id: str, severity: str, hits: Hits, of: int, message: Both, fix: Both, **more: Any) -> Finding:
    """A finding about rows. message: with {count}, {rows}, {shown} and {places}, and whatever is in `more`."""
    values = {"count": f"{hits.count:,}", "rows": f"{of:,}", "places": _listed(hits.places, hits.count),
              "shown": _quoted(hits.shown), **more}
    en, zh = (text.format(**values) for text in message)
    return Finding(id, severity, Both(en, zh), option="dataset", fix=fix,  # pyright: ignore[reportArgumentType]
                   where=str(hits.places[0]) or None)


def _quoted(text: str) -> str:
    """A few words of data, in quotes, control characters made visible."""
    return json.dumps(text if len(text) <= 40 else f"{text[:39]}…", ensure_ascii=False)


def _sign_findings(seen: Seen, kind: str) -> Iterator[Finding]:
    en, zh = ("texts", "段文本") if kind == "documents" else ("answers", "个回答")
    for number, hits in sorted(seen.signs.items()):
        sign, share = SIGNS[number], hits.count / seen.rows
        if share >= sign.info:
            message = Both(sign.message.en.replace("{answers}", en), sign.message.zh.replace("{answers}", zh))
            yield _hit_finding(sign.id, "warn" if share >= sign.warn else "info", hits, seen.rows, message, sign.fix)


def _repeat_findings(seen: Seen) -> Iterator[Finding]:
    share = seen.repeated.count / max(seen.rows, 1)
    if share >= REPEATED[0]:
        yield _hit_finding(
            "repeated-rows", "warn" if share >= REPEATED[1] else "info", seen.repeated, seen.rows,
            Both("{count} of {rows} rows stand there before, word for word ({places}): they weigh twice and are learned "
                 "by heart sooner.", "{rows} 行中有 {count} 行与前面的行一字不差（{places}）：重复的行权重加倍，更快被死记。"),
            Both("Take repeated rows out; is a data set or a file named twice?", "去掉重复行；数据集或文件是不是写了两遍？"))
    share = seen.differing.count / max(seen.rows, 1)
    if share >= REPEATED[0]:
        yield _hit_finding(
            "several-answers", "info", seen.differing, seen.rows,
            Both("{count} of {rows} rows repeat an earlier question with another answer ({places}).",
                 "{rows} 行中有 {count} 行的问题前面出现过，但回答不同（{places}）。"),
            Both("Right if several answers are right; otherwise the model learns their mean.",
                 "如果多种回答都对就没问题，否则模型学到的是它们的折中。"))


def _overlap_findings(held: Held, config: Config) -> Iterator[Finding]:
    hits, option = held.trained_on, "eval_dataset" if config.eval_dataset else "val_size"
    if hits.count:
        decides = bool(config.early_stopping_steps) or config.lr_scheduler_type == "reduce_lr_on_plateau"
        severity = "error" if decides and hits.count >= OVERLAP * held.rows else "warn"
        places = _listed(hits.places, hits.count)
        decided = Both(" It decides here when the run stops or slows down.", "而这里由它决定何时停止或降低学习率。")
        yield Finding("trained-and-measured", severity, Both(
            f"{hits.count:,} of {count_of(held.rows, 'held-out row')} are trained on too ({places}): on them the "
            f"evaluation measures memory.{decided.en if severity == 'error' else ''}",
            f"留出的 {held.rows:,} 行中有 {hits.count:,} 行也在训练数据里（{places}）：在这些行上评估的只是记忆。"
            f"{decided.zh if severity == 'error' else ''}"),
            option=option, where=str(hits.places[0]) or None, fix=Both(
                "Take them out of one side; repeated rows within a data set fall on both sides of val_size.",
                "从其中一边去掉；同一数据集里的重复行会落到 val_size 的两边。"))
    elif held.asked.count > REPEATED[1] * held.rows:
        hits = held.asked
        places = _listed(hits.places, hits.count)
        yield Finding("trained-and-measured", "info", Both(
            f"the questions of {hits.count:,} of {count_of(held.rows, 'held-out row')} are trained on with other answers "
            f"({places}).", f"留出的 {held.rows:,} 行中有 {hits.count:,} 行的问题以别的回答参与训练（{places}）。"),
            option=option, where=str(hits.places[0]) or None)


def _answer_findings(seen: Seen) -> Iterator[Finding]:
    """Answers that are all alike, of one word, or in another script than the question; calls of tools not offered."""
    count, begins = seen.most_frequent
    several_words = " " in begins or len(begins) > 12
    if seen.rows >= 8 and not seen.labels and count >= ALL_ALIKE[0 if several_words else 1] * seen.rows:
        yield Finding("same-answer", "warn", Both(
            f"{count:,} of {seen.rows:,} rows have the same answer, {_quoted(begins)}: the model learns to say nothing "
            "else.", f"{seen.rows:,} 行中有 {count:,} 行的回答都是 {_quoted(begins)}：模型会只说这一句。"),
            option="dataset", fix=Both("Is the answer in another column?", "回答是不是在另一个字段里？"))
    elif seen.rows >= 8 and seen.one_word >= ONE_WORD * seen.rows:
        yield Finding("one-word", "info", Both(
            f"{seen.one_word:,} of {seen.rows:,} answers are one word: the model learns to answer so briefly.",
            f"{seen.rows:,} 个回答中有 {seen.one_word:,} 个只有一个词：模型会学得这么简短。"), option="dataset",
            fix=Both("Right for a classifier; for a chat add longer answers.", "做分类没问题；做对话请加入更长的回答。"))
    for (asked, answered), crossed in seen.crossed.most_common(1):
        if crossed >= max(CROSSED * seen.rows, 3):
            asks, answers = SCRIPTS[asked], SCRIPTS[answered]
            yield Finding("crossed-languages", "warn", Both(
                f"{crossed:,} of {seen.rows:,} rows are asked in {asks} and answer in {answers}: the model learns to "
                "change the language.",
                f"{seen.rows:,} 行中有 {crossed:,} 行用{asks.zh}提问、用{answers.zh}回答：模型会学着换语言。"), option="dataset",
                where=str(seen.first_crossed), fix=Both("Right for translation; otherwise answer as it is asked.",
                                                        "做翻译没问题；否则请用提问的语言回答。"))
    if seen.strays.count:
        yield _hit_finding(
            "stray-call", "warn", seen.strays, seen.tools,
            Both("{count} of {rows} rows with tools call one that is not among them, such as {shown} ({places}): the "
                 "model learns to invent tools.",
                 "{rows} 行带工具的数据中有 {count} 行调用了没有提供的工具，如 {shown}（{places}）：模型会学着编造工具。"),
            Both("Add it to the tools of those rows, or leave them out.", "把它加进这些行的 tools，或去掉这些行。"))


def _kto_findings(seen: Seen, config: Config) -> Iterator[Finding]:
    good, bad = seen.labels[True], seen.labels[False]
    if not seen.labels:
        return
    if not good or not bad:
        all_of, none_of = (Both("good", "好"), Both("bad", "坏")) if good else (Both("bad", "坏"), Both("good", "好"))
        yield Finding("one-label", "error", Both(
            f"all {good + bad:,} answers are judged {all_of}, none {none_of}: KTO learns from the difference.",
            f"全部 {good + bad:,} 个回答都标为{all_of.zh}，没有{none_of.zh}的：KTO 学的是两者的差别。"), option="dataset",
            fix=Both(f"Add answers that are {none_of}, or train the good ones with stage: sft.",
                     f"加入标为{none_of.zh}的回答，或用 stage: sft 学习好的回答。"))
    elif max(good, bad) > KTO_BALANCE * min(good, bad):
        fewer = "kto_rejected_weight" if good > bad else "kto_chosen_weight"
        weight = round(max(good, bad) / min(good, bad), 1)
        if config.kto_chosen_weight == config.kto_rejected_weight:
            yield Finding("uneven-labels", "warn", Both(
                f"{good:,} good and {bad:,} bad answers weigh {max(good, bad) / min(good, bad):.1f} : 1.",
                f"好 {good:,} 个、坏 {bad:,} 个，权重为 {max(good, bad) / min(good, bad):.1f} : 1。"), option=fewer,
                where=config.origin(fewer), cure={fewer: weight},
                fix=Both(f"{fewer}: {weight:g} makes both sides weigh the same.", f"{fewer}: {weight:g} 可使两边权重相当。"))


def _longer(seen: Seen) -> tuple[float, float]:
    """How much longer chosen is (median), and the share of pairs in which it is longer."""
    return float(np.median(seen.longer)), float(np.mean(np.array(seen.longer) > 1))


def _pair_findings(seen: Seen) -> Iterator[Finding]:
    if seen.same_pair.count:
        yield _hit_finding(
            "same-pair", "warn", seen.same_pair, seen.rows,
            Both("in {count} of {rows} pairs chosen and rejected differ in white space alone ({places}): there is "
                 "nothing to learn.", "{rows} 对中有 {count} 对的 chosen 和 rejected 只有空白不同（{places}）：没有可学的。"),
            Both("Leave those pairs out.", "去掉这些对。"))
    if len(seen.longer) < 8:
        return
    ratio, share = _longer(seen)
    if share >= LONGER[0] and ratio >= LONGER[1]:
        yield Finding("longer-is-better", "info", Both(
            f"chosen is longer in {percent(share)} of the pairs, {ratio:.1f} times (median): the model learns to say more.",
            f"{percent(share)} 的对里 chosen 更长，中位数 {ratio:.1f} 倍：模型会学着多说。"), option="dataset", fix=Both(
                "Add pairs whose shorter answer is the better one; pref_loss: simpo divides by the length.",
                "加入短回答更好的对；pref_loss: simpo 会按长度归一。"))
