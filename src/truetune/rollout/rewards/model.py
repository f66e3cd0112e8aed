"""Reward models: what a value head says at the last token of prompt and answer.

Three kinds, told apart by what is named:

- an adapter (stage rm with LoRA), on the base that the policy has too. The base's frozen weights are held once for
  both, so it costs the adapter, and a forward pass over each answer;
- a whole model (stage rm with full or freeze tuning), with adapters of its own or not: it costs its size beside the
  policy;
- the address of a server.

A reward model reads answers as it was trained to: with what its template writes behind an answer that has ended, and
where its tokenizer or template is another one than the policy's, in its own tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truetune.check.preflight import Preflight
from truetune.data.messages import BadRow, Conversation, Message, ToolCall
from truetune.data.renderer import Rendered, Renderer, Run
from truetune.findings import Both, Finding, Problem, Say, problem
from truetune.model.adapters import put_adapter, put_adapters, virtual_of
from truetune.model.base import load_in
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.model.quantize import Codes, coded
from truetune.model.value import FILE, load_value_head, score
from truetune.options import Config
from truetune.rollout.rewards.endpoint import Endpoint
from truetune.rollout.rewards.reward import Answered, Reward, Unscored

Read = Callable[[Answered], list[Rendered]]
"""Answers as a reward model reads them."""


class Judge:
    """A reward model as a reward."""

    def __init__(self, path: str, option: str, policy: Policy, head: torch.nn.Linear, read: Read, say: Say):
        """path, option: what to name when a score is no number."""
        self.name, self.path, self.option = _called(path, option), path, option
        self.policy, self._head, self._read, self._say = policy, head, read, say
        self._compared = False

    def __call__(self, answered: Answered) -> list[float]:
        rows = self._read(answered)
        if not self._compared:
            self.policy.verify(rows[:2], self._say)
            self._compared = True
        scores = score(self.policy, self._head, rows).tolist()
        for number, row in zip(scores, answered.rows, strict=True):
            if not np.isfinite(number):
                raise Unscored(Finding("unscored", "error", Both(
                    f"reward model {self.path} gave {number}.", f"奖励模型 {self.path} 给出了 {number}。"),
                    option=self.option, where=row.where or None))
        return scores


class Server:
    """A server as a reward: it is sent whole conversations as text."""

    def __init__(self, endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase):
        self.name, self._endpoint, self._tokenizer = _called(endpoint.url, endpoint.option), endpoint, tokenizer

    def __call__(self, answered: Answered) -> list[float]:
        return self._endpoint.score([str(self._tokenizer.decode(row.ids.tolist())) for row in answered.rows])


def _called(path: str, option: str) -> str:
    """How a reward is called in logs: `reward_model`, or one of several by the last part of its path."""
    return option if option == "reward_model" else path.rstrip("/").rpartition("/")[2]


def reward_model(name: str, config: Config, ready: Preflight, policy: Policy, say: Say,
                 option: str = "reward_model") -> Reward:
    """The reward model that `name` says: a folder, a hub id, or the address of a server.

    Args:
        policy: with its adapter on it; the base of a reward adapter is shared with it.
        option: that names it.

    Raises:
        Problem: it cannot be loaded, does not score, or is an adapter of another base.
    """
    if "://" in name:
        return Server(Endpoint(name, option, config.origin(option)), ready.renderer.tokenizer)
    with _about(option, config):
        folder = Path(name).expanduser()
        if (folder / "adapter_config.json").is_file():
            return _adapter(folder, option, ready, policy, say)
        return _whole(name, option, config, ready, policy, say)


def _adapter(folder: Path, option: str, ready: Preflight, policy: Policy, say: Say) -> Judge:
    """A reward adapter on the policy's base."""
    causal = load_model(ready.base, policy.causal.dtype, torch.device("cpu"))
    share_frozen(causal, policy.causal)
    torch.nn.Module.to(causal, policy.causal.device)
    head = _value_head(causal, [folder], str(folder))
    model = put_adapter(causal, folder, ready.base)
    return _judge(str(folder), option, causal, model, head, _as_written(ready), policy, say)


def _whole(name: str, option: str, config: Config, ready: Preflight, policy: Policy, say: Say) -> Judge:
    """A reward model of its own, with adapters on it or not."""
    base = find_model(name, config, say)
    adapters = [Path(adapter) for adapter in config.reward_model_adapters] if option == "reward_model" else []
    bits = config.reward_model_quantization_bit if option == "reward_model" else None
    causal = load_in(Codes.plain(bits), base, policy.causal.dtype, policy.causal.device, f"{option}_quantization_bit")
    head = _value_head(causal, [*reversed(adapters), base], name)
    model = put_adapters(causal, adapters, base) if adapters else causal
    size = sum(weight.numel() * weight.element_size() for weight in causal.parameters()) / 1e9
    say(Both(f"the reward model {name} is held beside the policy: {size:.1f} GB",
             f"奖励模型 {name} 与策略模型同时驻留：{size:.1f} GB"))
    tokenizer, own = load_tokenizer(base), ready.renderer.tokenizer
    alike = tokenizer.get_vocab() == own.get_vocab() and tokenizer.chat_template in (None, own.chat_template)
    read = _as_written(ready) if alike else _rendered(Renderer(tokenizer), name, option)
    return _judge(name, option, causal, model, head, read, policy, say)


def _judge(name: str, option: str, causal: PreTrainedModel, model: torch.nn.Module, head: torch.nn.Linear, read: Read,
           policy: Policy, say: Say) -> Judge:
    """model: `causal` with its adapter."""
    model.requires_grad_(False).eval()
    return Judge(name, option, Policy(causal, outer=virtual_of(model), fast=len(policy.ways) > 1), head, read, say)


def share_frozen(causal: PreTrainedModel, policy: PreTrainedModel) -> None:
    """Let `causal`, another copy of the same base, hold the frozen weights of `policy` instead of its own. Weights that
    are trained stay its own, as they were loaded. Layers that the policy holds in codes are shared whole."""
    for name, layer in list(coded(policy)):
        causal.set_submodule(name.replace(".base_layer", ""), layer)
    frozen = {name.replace(".base_layer", "").replace(".original_module", ""): weight
              for name, weight in policy.named_parameters() if not weight.requires_grad}
    for name, weight in causal.named_parameters():
        other = frozen.get(name)
        if other is not None and (other.shape, other.dtype) == (weight.shape, weight.dtype):
            weight.data = other.data


def _value_head(causal: PreTrainedModel, folders: Sequence[Path], name: str) -> torch.nn.Linear:
    """The value head in the first of `folders` that has one."""
    head = load_value_head(causal, folders)
    if head is None:
        raise problem("no-value-head", Both(f"{name} has no {FILE}, so it gives no scores.",
                                            f"{name} 里没有 {FILE}，无法打分。"),
                      fix=Both("Name what stage rm has written.", "请填写 stage: rm 训练得到的文件夹。"))
    return head


def _as_written(ready: Preflight) -> Read:
    """Answers in the very tokens that the policy wrote. Rows of the data go on behind the end of the turn with what the
    template writes there (a line feed, mostly), and that is where a reward model was trained to score: it is added to
    every answer that has ended."""
    sample = ready.sample()[0]
    end = sample.runs[-1].last if sample.runs else len(sample)
    stop, tail = int(sample.ids[end - 1]), sample.ids[end:]

    def closed(row: Rendered) -> Rendered:
        return replace(row, ids=np.concatenate([row.ids, tail])) if int(row.ids[-1]) == stop else row

    return lambda answered: [closed(row) for row in answered.rows]


def _rendered(renderer: Renderer, name: str, option: str) -> Read:
    """Answers rendered by the reward model's own template and tokenizer."""

    def read(answered: Answered) -> list[Rendered]:
        talks = [Conversation(tuple(map(_message, [*prompt, *completion])), place=row.place) for prompt, completion, row
                 in zip(answered.prompts, answered.completions, answered.rows, strict=True)]
        rows: list[Rendered] = []
        for talk, sequences in zip(talks, renderer.render(talks), strict=True):
            if isinstance(sequences, BadRow):
                raise Unscored(Finding("unscored", "error", Both(
                    f"the template of reward model {name} refuses this row: {sequences}.",
                    f"奖励模型 {name} 的模板拒绝这一行：{sequences}。"), option=option, where=talk.where or None))
            row = sequences[-1]
            rows.append(row if row.runs else replace(row, runs=(Run(len(row) - 1, len(row), 1.0),)))
        return rows

    return read


def _message(message: Mapping[str, Any]) -> Message:
    """The inverse of `Message.as_dict`."""
    calls = tuple(ToolCall(call["function"]["name"], call["function"]["arguments"])
                  for call in message.get("tool_calls", ()))
    return Message(message["role"], message["content"], message.get("reasoning_content"), calls)


@contextmanager
def _about(option: str, config: Config) -> Iterator[None]:
    """Problems of finding and loading a model are told as problems of `option`."""
    try:
        yield
    except Problem as error:
        raise Problem([replace(finding, option=option, where=config.origin(option)) for finding in error.findings],
                      error.status) from None
