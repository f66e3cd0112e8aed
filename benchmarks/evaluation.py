r"""How many multiple-choice questions a CPU second `truetune eval` answers, beside a loop that pads rows.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py [--questions 48] [--shots 5] [--words 60] [--dtype float32]

Both read the same token ids (made-up questions after the same solved examples). The loop is what LLaMA-Factory's
evaluator does: four rows at once, padded on the right to the longest, logits of every position, of which the last one's
are read. Ours lays rows end to end, computes the examples once for as many rows as fit, and the head at one position of
each row. The floor is each token once: the examples, and each question's own, at the rate at which this machine reads
one long row. The two have to choose the same letters.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch

from truetune.data.messages import Place
from truetune.evaluate.benchmarks.answer import letter_chances
from truetune.evaluate.benchmarks.ask import WORDINGS, Letters, ask, find_letters, in_chat, turns_of
from truetune.evaluate.benchmarks.files import Question, Subject
from truetune.evaluate.load import Measured, load_measured
from truetune.options.read import read_config

_WORDS = ("river", "stone", "engine", "market", "window", "theory", "colour", "season", "bridge", "letter", "number")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--words", type=int, default=60, help="of a question, its choices apart; half to twice as many")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    config, _ = read_config(["--model_name_or_path=bundled/smollm2-135m-instruct", f"--infer_dtype={args.dtype}",
                             "--mask_history=true", "--use_cpu=true"])
    measured = load_measured(config, print, shares=True)
    subject, write = made(args), in_chat(measured.renderer)
    letters = find_letters(turns_of(subject, subject.questions[0], args.shots, WORDINGS["en"]), 4, write)
    rows = ask(subject, letters, write, WORDINGS["en"], measured.longest).rows
    measured.policy.verify(sorted(rows, key=len)[:2], print)
    tokens = sum(len(row) - 1 for row in rows)
    least = measured.policy.lay_out(rows).tokens
    print(f"{len(rows)} questions, {tokens:,} tokens, {least:,} without the examples' repetitions; {args.dtype}, "
          f"{torch.get_num_threads()} thread(s)")
    ours, seconds = timed(lambda: letter_chances(measured.policy, rows, letters).argmax(axis=1))
    theirs, padded = timed(lambda: by_padding(measured, [row.ids[:-1] for row in rows], letters))
    floor = least / rate(measured)
    print(f"ours {len(rows) / seconds:.2f} questions/s ({seconds:.1f} s); padded, four at once "
          f"{len(rows) / padded:.2f} ({padded:.1f} s): {padded / seconds:.1f}x. Floor {floor:.1f} s: ours is "
          f"{seconds / floor:.2f}x it. "
          f"Same letters: {int((ours == theirs).sum())} of {len(rows)}")


def made(args: argparse.Namespace) -> Subject:
    """Questions of random words, of different lengths."""
    draw = random.Random(1)

    def question(number: int) -> Question:
        text = " ".join(draw.choices(_WORDS, k=draw.randint(args.words // 2, args.words * 2)))
        choices = tuple(" ".join(draw.choices(_WORDS, k=draw.randint(1, 8))) for _ in range(4))
        return Question(f"{text}?", choices, draw.randrange(4), Place("made:", number))

    return Subject("made", "words", "", tuple(map(question, range(args.questions))),
                   tuple(map(question, range(args.shots))))


def by_padding(measured: Measured, rows: list[np.ndarray], letters: Letters, at_once: int = 4) -> np.ndarray:
    """The letters that plain transformers chooses, rows padded on the right."""
    chosen = []
    with measured.policy.generating() as causal:
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            ids = torch.zeros(len(some), max(map(len, some)), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(some):
                ids[place, : len(row)], mask[place, : len(row)] = torch.from_numpy(row.astype(np.int64)), 1
            logits = causal(input_ids=ids, attention_mask=mask).logits  # (4, T, V)
            last = logits[torch.arange(len(some)), mask.sum(dim=1) - 1]
            chosen += last[:, list(letters.ids)].argmax(dim=1).tolist()
    return np.array(chosen)


def rate(measured: Measured, length: int = 1024) -> float:
    """Tokens a second of one long row, its logits left out: nothing that reads every token is faster."""
    ids = torch.randint(1000, 2000, (1, length))
    with measured.policy.generating() as causal:
        _, seconds = timed(lambda: causal.base_model(input_ids=ids, use_cache=False))
    return length / seconds


def timed(work):
    """What `work` gives, and the seconds of all its threads (others may compute on the machine): the fewer of two."""
    seconds = []
    for _ in range(2):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return found, min(seconds)


if __name__ == "__main__":
    main()
