"""Generate answers with transformers: one conversation as a stream, or several at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.findings import Both, Say, refuse
from truetune.model.adapters import adapters_of, put_adapters, virtual_of
from truetune.model.base import load_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.precision import pick_device
from truetune.options import Config
from truetune.serve.generate import When, complete

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Engine:
    """A model ready to answer, and how it draws words."""

    model: Any  # a causal model of transformers or PEFT, whose `generate` type checkers cannot see
    renderer: Renderer
    sampling: GenerationConfig

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.renderer.tokenizer

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """The answer to each conversation, those of like length generated together."""
        prompts = [self.renderer.prompt(messages) for messages in conversations]
        with torch.inference_mode():
            answers = complete(self.model, prompts, self.sampling)
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def stream(self, messages: Messages) -> Generator[str]:
        """The answer piece by piece. Closing the iterator stops the generation."""
        ids = torch.tensor([self.renderer.prompt(messages)], device=self.model.device)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)  # pyright: ignore
        closed = Event()
        failure: list[BaseException] = []

        def generate() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer,
                                        generation_config=self.sampling,
                                        stopping_criteria=StoppingCriteriaList([When(closed.is_set)]))
            except BaseException as error:  # told to the reader, who waits on the other side of the queue
                failure.append(error)
                streamer.end()

        worker = Thread(target=generate, daemon=True)
        worker.start()
        try:
            yield from streamer
        finally:
            closed.set()
            worker.join()
        if failure:
            raise failure[0]


def load_engine(config: Config, say: Say) -> Engine:
    """The model that `config` names, with its adapters put on it if there are some.

    Raises:
        Problem: the model or adapter cannot be loaded, or the adapter belongs to another base.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    base = find_model(config.model_name_or_path, config, say)
    tokenizer, trained = load_tokenizer(base), base
    device = pick_device(config)
    model = load_base(base, config, inference_dtype(config, base), device)
    adapters = adapters_of(config)
    if adapters:
        whole = put_adapters(model, adapters, base).eval()
        model = virtual_of(whole) or model  # other adapters are inside the model itself
    for adapter in adapters:
        if (adapter / "tokenizer.json").is_file():
            tokenizer, trained = load_tokenizer(adapter), adapter
    for finding in refuse(settle_template(tokenizer, config)):
        say(Both(finding.line(), finding.line(chinese=True)))
    require_template(tokenizer, config.model_name_or_path)
    renderer = make_renderer(tokenizer, trained, config)
    return Engine(model, renderer, sampling(config, renderer))


def inference_dtype(config: Config, base: Path) -> torch.dtype:
    """`infer_dtype`; auto is the model's own."""
    if config.infer_dtype != "auto":
        return getattr(torch, config.infer_dtype)
    from truetune.model.find import load_model_config

    return load_model_config(base).dtype or torch.float32


def sampling(config: Config, renderer: Renderer) -> GenerationConfig:
    """The generation options as transformers takes them. A temperature of 0 is greedy."""
    ends, tokenizer = renderer.stop_ids(), renderer.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    shared: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "eos_token_id": ends, "pad_token_id": pad,
                              "repetition_penalty": config.repetition_penalty, "use_cache": True}
    if not config.do_sample or config.temperature == 0:
        return GenerationConfig(do_sample=False, **shared)
    return GenerationConfig(do_sample=True, temperature=config.temperature, top_p=config.top_p, top_k=config.top_k,
                            **shared)
