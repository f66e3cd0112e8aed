"""What the rows of a run tell: how many there are and of what kind, how long they are, how much of them is learned; and
what is wrong or doubtful about them.

Numbers come from the token stores, which is what training reads; what rows say is read once more (`words`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from truetune.check.doubts import listed, longer, percent, word_findings
from truetune.check.scripts import SCRIPTS
from truetune.check.section import Section
from truetune.check.signs import SIGNS
from truetune.check.template import thinking_findings
from truetune.check.words import Held, Seen, see
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
    section.findings = word_findings(seen, held, STAGE_ROWS[config.stage], config)
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
            places = listed([_place(rows, int(number)) for number in empty[:5]], len(empty))
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
    zh = [f"{refused:,} 行无法学习"] * bool(refused)
    zh += [f"{dropped:,} 行超过 {config.cutoff_len} 个 token"] * bool(dropped)
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
    total = len(rows.lengths)
    for id, flag, what, fix in told:
        having = rows.having(flag)
        if len(having):
            findings.append(Finding(id, "warn", Both(f"in {len(having)} of {total} rows {what}",
                                                     f"{total} 行中有 {len(having)} 行：{what.zh}"),
                                    option="dataset", where=str(_place(rows, int(having[0]))), fix=fix))
    return findings


def _place(rows: Rows | Stream, number: int) -> Place:
    """Where a row stands; of a stream, one of those that were looked at."""
    return (rows.sample if isinstance(rows, Stream) else rows)[number].place


# --------------------------------------------------------------------------------------------------------------- lines

Line = tuple[Words, Words]


def _row_lines(data: Data, config: Config) -> Iterator[Line]:
    """How many rows there are, and how many of them were read."""
    held = _held_rows(data, config)
    held_en, held_zh = (f", {held:,} held out", f"，留出 {held:,} 行") if held else ("", "")
    if isinstance(data.train, Stream):
        looked = len(data.train.lengths)
        yield Both("rows", "行数"), Both(f"a stream, of which the first {looked:,} rows are looked at{held_en}",
                                       f"流式读取，只看前 {looked:,} 行{held_zh}")
    else:
        rows, about = data.train_rows // PER_ROW[STAGE_ROWS[config.stage]], _about(data)
        joined = any(store.manifest.settings["joined"] for store in data.stores)
        what = Both(f"blocks of {config.cutoff_len:,} tokens ", f"块，每块 {config.cutoff_len:,} 个 token") if joined \
            else Both("", "行")
        yield Both("rows", "行数"), Both(f"{about}{rows:,} {what}to train on{held_en}",
                                       f"训练 {about.zh}{rows:,} {what.zh}{held_zh}")
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


def _held_rows(data: Data, config: Config) -> int:
    """How many rows measure, about so many where only the first were read."""
    measuring = [found for found in data.sets if found.option == "eval_dataset"]
    sequences = sum(len(found.store) * found.rows / max(found.store.manifest.raw_rows, 1) for found in measuring)
    if not measuring:
        sequences = sum(map(len, data.held_out.values())) * data.scale
    return round(sequences / PER_ROW[STAGE_ROWS[config.stage]])


def _about(data: Data) -> Both:
    """What stands before a number that is reckoned from a sample."""
    return Both("about ", "约 ") if data.scale != 1 else Both("", "")


def _repeat_lines(seen: Seen, held: Held) -> Iterator[Line]:
    parts = [(seen.repeated.count, "repeated", "行重复"),
             (seen.differing.count, "repeat a question with another answer", "行问题相同、回答不同"),
             (held.trained_on.count, "held out and trained on", "行既留出又参与训练")]
    parts = [part for part in parts if part[0]]
    if parts:
        yield Both("repeats", "重复"), Both(", ".join(f"{count:,} {en}" for count, en, _ in parts),
                                          "，".join(f"{count:,} {zh}" for count, _, zh in parts))


_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 32


def histogram(lengths: np.ndarray) -> tuple[str, int]:
    """Lengths as a row of bars from 0 on, and how much each bar spans; the last one holds everything longer."""
    most = int(np.quantile(lengths, 0.995, method="inverted_cdf"))
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
    return 64 * -(-int(np.quantile(lengths, 0.995, method="inverted_cdf")) // 64)


def _length_lines(data: Data, config: Config) -> Iterator[Line]:
    lengths = _natural(data)
    if not len(lengths):
        return
    bars, width = histogram(lengths)
    median, most, nearly = (int(np.quantile(lengths, part, method="inverted_cdf")) for part in (0.5, 0.95, 0.995))
    longest = int(lengths.max())
    limit = config.cutoff_len
    yield Both("tokens a row", "每行 token"), Both(
        f"{median:,} (half), {most:,} (95 %), {nearly:,} (99.5 %), {longest:,} (longest); cutoff_len {limit:,}",
        f"{median:,}（半数）、{most:,}（95 %）、{nearly:,}（99.5 %）、{longest:,}（最长）；cutoff_len {limit:,}")
    yield "", Both(f"{bars}  0 to {width * len(bars):,}, {width} a bar",
                   f"{bars}  0 到 {width * len(bars):,}，每格 {width}")
    if STAGE_ROWS[config.stage] == "documents":
        return
    enough = 64 * -(-longest // 64)
    if longest > limit:
        yield "", Both(f"cutoff_len: {cutoff_for(lengths):,} would keep 99.5 % whole, {enough:,} all",
                       f"cutoff_len: {cutoff_for(lengths):,} 可保住 99.5 % 的行，{enough:,} 可全部保住")
    elif limit >= WIDE * enough:
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
    about, epoch = _about(data), round(int(learned.sum()) * data.scale)
    median, share = int(np.median(learned)), percent(learned.sum() / max(int(data.train.lengths.sum()), 1))
    none = int((learned == 0).sum())
    among = Both("in those rows", "这些行共") if isinstance(data.train, Stream) else Both("an epoch", "每个 epoch ")
    yield Both("learned", "学习"), Both(
        f"{median:,} tokens of a row (median), {share} of all; {about}{epoch:,} {among}"
        + (f"; none of {count_of(none, 'row')}" if none else ""),
        f"每行 {median:,} 个 token（中位数），占全部的 {share}；{among.zh}{about.zh}{epoch:,} 个"
        + (f"；{none:,} 行没有可学的" if none else ""))


def _word_lines(seen: Seen) -> Iterator[Line]:
    """Languages, turns, system messages, thoughts and tools; answers judged, pairs."""
    if not seen.rows:
        return
    total = max(seen.scripts.total(), 1)
    mix = [(SCRIPTS[script], count) for script, count in seen.scripts.most_common(4)]
    if mix:
        yield Both("written in", "文字"), Both(
            ", ".join(f"{script} {percent(count / total)}" for script, count in mix),
            "，".join(f"{script.zh} {percent(count / total)}" for script, count in mix))
    several = seen.rows - seen.turns[0] - seen.turns[1]
    bare, kinds = seen.systems[""], len(seen.systems) - ("" in seen.systems)
    parts = [
        (several, f"{percent(several / seen.rows)} with several answers (up to {max(seen.turns)})",
         f"{percent(several / seen.rows)} 含多轮回答（最多 {max(seen.turns)} 轮）"),
        (kinds, f"{percent(1 - bare / seen.rows)} with a system message ({kinds} different)",
         f"{percent(1 - bare / seen.rows)} 带系统提示（{kinds} 种）"),
        (seen.thinks, f"{percent(seen.thinks / seen.rows)} with thoughts",
                      f"{percent(seen.thinks / seen.rows)} 带思考"),
        (seen.tools, f"{percent(seen.tools / seen.rows)} with tools", f"{percent(seen.tools / seen.rows)} 带工具"),
    ]
    parts = [part for part in parts if part[0]]
    if parts:
        yield Both("of the rows", "其中"), Both(", ".join(en for _, en, _ in parts),
                                              "，".join(zh for _, _, zh in parts))
    if seen.labels:
        good, bad = seen.labels[True], seen.labels[False]
        yield Both("judged", "标注"), Both(f"{good:,} good, {bad:,} bad", f"好 {good:,}，坏 {bad:,}")
    if seen.longer:
        ratio, share = longer(seen)
        yield Both("pairs", "成对"), Both(
            f"chosen is {ratio:.2f} times as long as rejected (median), longer in {percent(share)}",
            f"chosen 的长度是 rejected 的 {ratio:.2f} 倍（中位数），{percent(share)} 的对里更长")


# --------------------------------------------------------------------------------------------------------------- facts


def _facts(data: Data, seen: Seen, held: Held, config: Config) -> dict[str, Any]:
    """Numbers for programs."""
    lengths, learned = _natural(data), _learned(data, config)
    facts: dict[str, Any] = {
        "rows": data.train_rows // PER_ROW[STAGE_ROWS[config.stage]], "estimated": data.scale != 1,
        "held_out": _held_rows(data, config),
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
        _, width = histogram(lengths)
        facts["lengths"] = {
            **{name: int(np.quantile(lengths, part, method="inverted_cdf"))
               for name, part in (("p50", 0.5), ("p95", 0.95), ("p995", 0.995), ("longest", 1.0))},
            "cutoff_for_995": cutoff_for(lengths), "longer": int((lengths > config.cutoff_len).sum()),
            "histogram": np.bincount(np.minimum(lengths // width, _WIDTH - 1)).tolist(), "bar": width}
    if len(learned):
        facts["learned"] = {"median": int(np.median(learned)), "none": int((learned == 0).sum()),
                            "an_epoch": round(int(learned.sum()) * data.scale)}
    if seen.labels:
        facts["judged"] = {"good": seen.labels[True], "bad": seen.labels[False]}
    if seen.longer:
        facts["pairs"] = dict(zip(("length_ratio", "chosen_longer"), longer(seen), strict=True))
    return facts


def _sign_counts(seen: Seen) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, hits in seen.signs.items():
        counts[SIGNS[number].id] += hits.count
    return counts
