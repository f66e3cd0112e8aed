"""What is doubtful about what rows say (`words`), as findings: repeated rows, rows that are trained on and measured,
signs of mistakes, answers that are all alike, labels and pairs that are uneven."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from truetune.check.scripts import SCRIPTS
from truetune.check.signs import SIGNS
from truetune.check.words import Held, Hits, Seen
from truetune.data.messages import Kind, Place
from truetune.findings import Both, Finding, Severity, count_of
from truetune.options import Config
from truetune.steps import round_of

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
OVERLAP = (0.02, 0.9)
"""Shares of held-out rows that are trained on too: from the first on the loss is visibly too low, from the second on
the evaluation measures nothing but memory."""


def word_findings(seen: Seen, held: Held, kind: Kind, config: Config) -> list[Finding]:
    """Everything that is doubtful about the rows that were read, in the order in which it is told."""
    learned = [] if round_of(config) else _answer_findings(seen)  # else the model writes its own answers
    return [*_repeat_findings(seen), *_overlap_findings(held, config), *_sign_findings(seen, kind),
            *learned, *_label_findings(seen, config), *_pair_findings(seen)]


def listed(places: Sequence[Place], count: int) -> str:
    """`3, 17, 20, …`: the first places of `count`, whose file is told beside; another file is named."""
    told, before = [], places[0].file if places else ""
    for place in places:
        told.append(str(place) if place.file != before else str(place.number))
        before = place.file
    return ", ".join([*told, *(["…"] if count > len(told) else [])])


def _hit_finding(id: str, severity: Severity, hits: Hits, of: int, message: Both, fix: Both,
                 called: Both | None = None) -> Finding:
    """A finding about rows. message: with {count}, {rows}, {shown}, {places}, and {answers}, what the rows are called.
    """
    called = called or Both("answers", " 个回答")
    values = {"count": f"{hits.count:,}", "rows": f"{of:,}", "places": listed(hits.places, hits.count),
              "shown": _quoted(hits.shown)}
    return Finding(id, severity, Both(message.en.format(**values, answers=called),
                                      message.zh.format(**values, answers=called.zh)),
                   option="dataset", fix=fix, where=str(hits.places[0]) or None)


def _quoted(text: str) -> str:
    """A few words of data, in quotes, control characters made visible."""
    return json.dumps(text if len(text) <= 40 else f"{text[:39]}…", ensure_ascii=False)


def _sign_findings(seen: Seen, kind: Kind) -> Iterator[Finding]:
    called = Both("texts", " 段文本") if kind == "documents" else None
    for number, hits in sorted(seen.signs.items()):
        sign, share = SIGNS[number], hits.count / seen.rows
        if share >= sign.info:
            severity = "warn" if share >= sign.warn else "info"
            yield _hit_finding(sign.id, severity, hits, seen.rows, sign.message, sign.fix, called)


def _repeat_findings(seen: Seen) -> Iterator[Finding]:
    share = seen.repeated.count / max(seen.rows, 1)
    if share >= REPEATED[0]:
        yield _hit_finding(
            "repeated-rows", "warn" if share >= REPEATED[1] else "info", seen.repeated, seen.rows,
            Both("{count} of {rows} rows stand there before, word for word ({places}): they weigh twice and are "
                 "learned by heart sooner.",
                 "{rows} 行中有 {count} 行与前面的行一字不差（{places}）：重复的行权重加倍，更快被死记。"),
            Both("Take repeated rows out; is a data set or a file named twice?",
                 "去掉重复行；数据集或文件是不是写了两遍？"))
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
        useless = decides and hits.count >= OVERLAP[1] * held.rows
        severity = "error" if useless else "warn" if hits.count >= OVERLAP[0] * held.rows else "info"
        decided = Both(" It decides here when the run stops or slows down.", "而这里由它决定何时停止或降低学习率。")
        places = listed(hits.places, hits.count)
        yield Finding("trained-and-measured", severity, Both(
            f"{hits.count:,} of {count_of(held.rows, 'held-out row')} are trained on too ({places}): on them the "
            f"evaluation measures memory.{decided.en if useless else ''}",
            f"留出的 {held.rows:,} 行中有 {hits.count:,} 行也在训练数据里（{places}）：在这些行上评估的只是记忆。"
            f"{decided.zh if useless else ''}"),
            option=option, where=str(hits.places[0]) or None, fix=Both(
                "Take them out of one side; repeated rows within a data set fall on both sides of val_size.",
                "从其中一边去掉；同一数据集里的重复行会落到 val_size 的两边。"))
    elif held.asked.count > REPEATED[1] * held.rows:
        hits = held.asked
        places = listed(hits.places, hits.count)
        yield Finding("trained-and-measured", "info", Both(
            f"the questions of {hits.count:,} of {count_of(held.rows, 'held-out row')} are trained on with other "
            f"answers ({places}).",
            f"留出的 {held.rows:,} 行中有 {hits.count:,} 行的问题以别的回答参与训练（{places}）。"),
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
            fix=Both("Right for a classifier; for a chat add longer answers.",
                     "做分类没问题；做对话请加入更长的回答。"))
    for (asked, answered), crossed in seen.crossed.most_common(1):
        if crossed >= max(CROSSED * seen.rows, 3):
            asks, answers = SCRIPTS[asked], SCRIPTS[answered]
            yield Finding("crossed-languages", "warn", Both(
                f"{crossed:,} of {seen.rows:,} rows are asked in {asks} and answer in {answers}: the model learns to "
                "change the language.",
                f"{seen.rows:,} 行中有 {crossed:,} 行用{asks.zh}提问、用{answers.zh}回答：模型会学着换语言。"),
                option="dataset", where=str(seen.first_crossed), fix=Both(
                    "Right for translation; otherwise answer as it is asked.",
                    "做翻译没问题；否则请用提问的语言回答。"))
    if seen.strays.count:
        yield _hit_finding(
            "stray-call", "warn", seen.strays, seen.tools,
            Both("{count} of {rows} rows with tools call one that is not among them, such as {shown} ({places}): the "
                 "model learns to invent tools.",
                 "{rows} 行带工具的数据中有 {count} 行调用了没有提供的工具，如 {shown}（{places}）："
                 "模型会学着编造工具。"),
            Both("Add it to the tools of those rows, or leave them out.", "把它加进这些行的 tools，或去掉这些行。"))


def _label_findings(seen: Seen, config: Config) -> Iterator[Finding]:
    good, bad = seen.labels[True], seen.labels[False]
    if not seen.labels:
        return
    if not good or not bad:
        all_of, none_of = (Both("good", "好"), Both("bad", "坏")) if good else (Both("bad", "坏"), Both("good", "好"))
        yield Finding("one-label", "error", Both(
            f"all {good + bad:,} answers are judged {all_of}, none {none_of}: KTO learns from the difference.",
            f"全部 {good + bad:,} 个回答都标为{all_of.zh}，没有{none_of.zh}的：KTO 学的是两者的差别。"),
            option="dataset", fix=Both(f"Add answers that are {none_of}, or train the good ones with stage: sft.",
                                       f"加入标为{none_of.zh}的回答，或用 stage: sft 学习好的回答。"))
        return
    good_weighs, bad_weighs = good * config.kto_chosen_weight, bad * config.kto_rejected_weight
    if max(good_weighs, bad_weighs) > KTO_BALANCE * min(good_weighs, bad_weighs):
        more = max(good_weighs, bad_weighs) / max(min(good_weighs, bad_weighs), 1e-9)
        lighter = "kto_rejected_weight" if good_weighs > bad_weighs else "kto_chosen_weight"
        weight = round(config.kto_chosen_weight * good / bad if good_weighs > bad_weighs
                       else config.kto_rejected_weight * bad / good, 2)
        yield Finding("uneven-labels", "warn", Both(
            f"{good:,} good and {bad:,} bad answers: one side weighs {more:.3g} times the other.",
            f"好 {good:,} 个、坏 {bad:,} 个：一边的权重是另一边的 {more:.3g} 倍。"), option=lighter,
            where=config.origin(lighter), cure={lighter: weight}, fix=Both(
                f"{lighter}: {weight:g} makes both sides weigh the same.", f"{lighter}: {weight:g} 可使两边权重相当。"))


def longer(seen: Seen) -> tuple[float, float]:
    """How much longer chosen is (median), and the share of pairs in which it is longer."""
    return float(np.median(seen.longer)), float(np.mean(np.array(seen.longer) > 1))


def _pair_findings(seen: Seen) -> Iterator[Finding]:
    if seen.same_pair.count:
        yield _hit_finding(
            "same-pair", "warn", seen.same_pair, seen.rows,
            Both("in {count} of {rows} pairs chosen and rejected differ in white space alone ({places}): there is "
                 "nothing to learn.",
                 "{rows} 对中有 {count} 对的 chosen 和 rejected 只有空白不同（{places}）：没有可学的。"),
            Both("Leave those pairs out.", "去掉这些对。"))
    if len(seen.longer) < 8:
        return
    ratio, share = longer(seen)
    if share >= LONGER[0] and ratio >= LONGER[1]:
        yield Finding("longer-is-better", "info", Both(
            f"chosen is longer in {percent(share)} of the pairs, {ratio:.1f} times (median): the model learns to say "
            "more.", f"{percent(share)} 的对里 chosen 更长，中位数 {ratio:.1f} 倍：模型会学着多说。"),
            option="dataset", fix=Both(
                "Add pairs whose shorter answer is the better one; pref_loss: simpo divides by the length.",
                "加入短回答更好的对；pref_loss: simpo 会按长度归一。"))


def percent(share: float) -> str:
    """`12 %`, `0.4 %`, `100 %`; never 0 % of what is there, nor 100 % of what is not all."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    clear = min(max(share, 0.0001), 0.9999)
    return f"{clear * 100:.{0 if 0.0995 <= clear < 0.995 else 1 if 0.00095 <= clear < 0.9995 else 2}f} %"
