"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness, `pip install lm-eval`), computed
by our policy: rows end to end without padding, the context that several continuations share computed once.

What is asked and how it is scored is the harness's own; only its three questions to a model are answered here. Its
tasks download their data from the hub; a folder of task files of one's own (`task_dir`) can name local data.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, StopStringCriteria

from truetune.data.batches import neighbours
from truetune.data.messages import Place
from truetune.data.renderer import answered
from truetune.evaluate.load import ENDLESS, IN_CHAT, PLAIN, Measured, asks_in_chat, load_measured
from truetune.evaluate.result import Column, Result
from truetune.findings import WRONG_OPTIONS, Both, Say, problem
from truetune.objectives.objective import Wants
from truetune.options import Config
from truetune.serve.generate import complete

_WINDOW = 4096
"""Longest row where the model says none: a text that goes on is read in windows."""
_ANSWER = 256
"""Tokens of an answer where a task does not say: the harness's own."""


class Chance(NamedTuple):
    """logp: of a continuation. greedy: whether it is the likeliest, token by token."""

    logp: float
    greedy: bool


def run_harness(config: Config, say: Say) -> Result:
    """Every task behind `lm_eval:`.

    Raises:
        Problem: the package, a task or its data cannot be had.
    """
    assert config.task is not None
    if find_spec("lm_eval") is None:
        raise problem("packages-missing", Both("lm_eval is not installed.", "没有安装 lm_eval。"), option="task",
                      where=config.origin("task"), status=WRONG_OPTIONS, fix="pip install lm-eval")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it tells at length what is told here
    own = Path(config.task_dir)
    manager = import_module("lm_eval.tasks").TaskManager(include_path=str(own) if own.is_dir() else None)
    names = [name.strip() for name in config.task.partition(":")[2].split(",") if name.strip()]
    _require_known(names, manager.all_tasks, own)
    measured = load_measured(config, say, shares=True)
    in_chat = asks_in_chat(measured, config)
    way = IN_CHAT if in_chat else PLAIN
    say(Both(f"lm-evaluation-harness: {', '.join(names)}, asked {way}",
             f"lm-evaluation-harness：{'、'.join(names)}，{way.zh}"))
    try:
        found: Any = import_module("lm_eval.evaluator").simple_evaluate(
            _as_harness_model(measured, config, say), tasks=list(names), task_manager=manager, limit=config.max_samples,
            num_fewshot=config.n_shot if config.given("n_shot") else None, apply_chat_template=in_chat,
            log_samples=False, bootstrap_iters=1000, random_seed=config.seed, numpy_random_seed=config.seed,
            torch_random_seed=config.seed, fewshot_random_seed=config.seed)
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise problem("task-data", Both(f"the data of a task cannot be had: {reason}", f"取不到任务的数据：{reason}"),
                      option="task", fix=Both(
                          "The harness downloads them from the hub; task files in task_dir can name local files.",
                          "lm-eval 从 hub 下载数据；task_dir 里的任务文件可以使用本地文件。")) from None
    scores = {"task": config.task, "model": config.model_name_or_path, "adapters": list(config.adapter_name_or_path),
              "asked": way.en, "results": found["results"], "samples": found["n-samples"], "n_shot": found["n-shot"]}
    plain = json.loads(json.dumps(scores, default=str))
    return Result(plain, _table(plain), (), {"lm_eval.json": plain})


def _require_known(names: Sequence[str], known: Sequence[str], own: Path) -> None:
    import difflib

    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise problem("unknown-task", Both(f"lm_eval knows no task {name!r}.", f"lm_eval 没有任务 {name!r}。"),
                          option="task", status=WRONG_OPTIONS,
                          fix=Both(f"Near: {', '.join(near)}.", f"相近的：{'、'.join(near)}。") if near else
                          Both(f"`lm-eval ls tasks` lists them; those of your own are looked for in {own}.",
                               f"`lm-eval ls tasks` 列出全部；自定义任务在 {own} 里查找。"))


def _table(scores: Mapping[str, Any]) -> list[Column]:
    lines = [(task, metric.partition(",")[0], value, each.get(metric.replace(",", "_stderr,")),
              scores["samples"].get(task, {}))
             for task, each in scores["results"].items() for metric, value in each.items()
             if isinstance(value, float) and "_stderr" not in metric]
    return [
        Column(Both("task", "任务"), [line[0] for line in lines]),
        Column(Both("metric", "指标"), [line[1] for line in lines]),
        Column(Both("value", "数值"), [f"{line[2]:.4f}" + (f" ± {line[3]:.4f}" if isinstance(line[3], float) else "")
                                      for line in lines], True),
        Column(Both("questions", "题数"), [str(line[4].get("effective", "")) for line in lines], True),
    ]


# ---------------------------------------------------------------------------------------------- what the harness asks


def _as_harness_model(measured: Measured, config: Config, say: Say) -> Any:
    """`measured` as a model of the harness, whose base class is only there where the package is."""
    base, utils = import_module("lm_eval.api.model").TemplateLM, import_module("lm_eval.utils")
    tokenizer, opening = measured.renderer.tokenizer, measured.renderer.opening_ids()
    longest = _WINDOW if measured.longest == ENDLESS else measured.longest
    begin: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

    class Ours(base):
        """Log-probabilities of the policy, answers of the model itself."""

        tokenizer_name = str(config.model_name_or_path)

        @property
        def eot_token_id(self) -> int:
            return begin

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            ids = tokenizer.encode(string, add_special_tokens=False)
            bare = add_special_tokens is None and ids[: len(opening)] != opening
            return [*opening, *ids] if add_special_tokens or bare else ids

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return str(tokenizer.apply_chat_template(chat_history, tokenize=False,
                                                     add_generation_prompt=add_generation_prompt,
                                                     continue_final_message=not add_generation_prompt))

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            pairs = [(context, continuation) for _, context, continuation in requests]
            return [(chance.logp, chance.greedy) for chance in chances(measured, pairs, longest, say)]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            sums = []
            for request in requests:
                ids = tokenizer.encode(request.args[0], add_special_tokens=False)
                windows = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, begin, longest, 1))
                sums.append(sum(chance.logp for chance in chances(measured, list(windows), longest, say)))
            return sums

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return list(written(measured, [request.args for request in requests], self.tok_encode, longest))

    ours: Any = Ours()
    ours.tokenizer = tokenizer
    return ours


def chances(measured: Measured, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], longest: int,
            say: Say) -> list[Chance]:
    """The log-probability of each continuation behind its context, both in token ids.

    Contexts that several have are computed once; too long ones lose their beginning.
    """
    numbers: dict[tuple[int, ...], int] = {}
    rows = []
    for context, continuation in pairs:
        kept = list(context)[-max(longest + 1 - len(continuation), 1):]
        number = numbers.setdefault(tuple(kept), len(numbers) + 1)
        rows.append(answered(kept, continuation, Place("context ", number)))
    found: dict[int, Chance] = {}
    order = sorted(range(len(rows)), key=lambda row: (len(pairs[row][0]), rows[row].place.number))
    measured.policy.verify(sorted(rows, key=len)[:2], say)
    with measured.policy.still():
        for some in neighbours(len(rows[row]) for row in order):
            batch = measured.policy.lay_out([rows[order[place]] for place in some])
            said = measured.policy.outputs(batch, Wants(tokens=_greedy))
            owner = batch.rows.cpu().numpy()
            logp, greedy = said.logp.double().cpu().numpy(), said.tokens[:, 0].cpu().numpy()
            for place, row in enumerate(some):
                mine = owner == place
                found[order[row]] = Chance(float(logp[mine].sum()), bool(greedy[mine].all()))
    return [found[row] for row in range(len(rows))]


def _greedy(logits: torch.Tensor, targets: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
    """1 where a token is the likeliest."""
    return (logits.argmax(dim=1) == targets)[:, None].float()


def written(measured: Measured, asked: Sequence[tuple[str, Mapping[str, Any]]], encode: Any,
            longest: int) -> Iterator[str]:
    """The answer to each text, up to the first of its stop words. Those drawn alike are answered together."""
    tokenizer, stops = measured.renderer.tokenizer, measured.renderer.stop_ids()
    answers: dict[int, str] = {}
    groups: dict[str, list[int]] = {}
    for number, (_, how) in enumerate(asked):
        groups.setdefault(json.dumps(how, sort_keys=True, default=str), []).append(number)
    for numbers in groups.values():
        how = asked[numbers[0]][1]
        words = [how["until"]] if isinstance(how.get("until"), str) else list(how.get("until") or [])
        most = int(how.get("max_gen_toks") or how.get("max_new_tokens") or _ANSWER)
        drawn = {"do_sample": True, "temperature": float(how["temperature"])} \
            if how.get("do_sample") and how.get("temperature") else {"do_sample": False}
        generation = GenerationConfig(max_new_tokens=most, eos_token_id=stops, use_cache=True,
                                      pad_token_id=stops[0], **drawn)
        prompts = [encode(asked[number][0])[-max(longest - most, 1):] for number in numbers]
        with measured.policy.generating() as causal:
            stopping = [StopStringCriteria(tokenizer, words)] if words else []
            said = complete(causal, prompts, generation, criteria=stopping)
        for number, ids in zip(numbers, said, strict=True):
            text = str(tokenizer.decode(ids, skip_special_tokens=True))
            answers[number] = min((text.split(word)[0] for word in words if word), key=len, default=text)
    return (answers[number] for number in range(len(asked)))
