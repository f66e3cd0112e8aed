"""What a recipe is decided from: the model's config.json, the rows, the machine. No weights are read."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from truetune.data.dataset import PER_ROW
from truetune.data.formats import recognise
from truetune.data.messages import BadRow, Conversation, Document, Judged, Kind, Preference, Row
from truetune.data.reading import STAGE_ROWS, Refused, describe_refused, find_layout, read_source
from truetune.data.renderer import Rendered, Renderer
from truetune.data.sources import Source, find_sources
from truetune.data.template import make_renderer, settle_template
from truetune.findings import Both, Finding, Problem, Say, problem, refuse
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.model.memory import free_bytes
from truetune.model.precision import Precision, has_native_bf16, matmul_rate, pick_device, pick_precision
from truetune.options import Config

FALLBACK_TEMPLATE = "default"
"""For models without a chat template. Its marks are plain words and its end is the end-of-text token, which every base
model has learned; the marks of other templates are tokens that a base model has never seen."""
_LOOKED_AT = 5_000
"""Rows that are tokenised; of more, so many are drawn at random. 25 of them are longer than the quantile 0.995."""
_FORGIVEN = 0.05
"""Up to this share of rows that cannot be learned from they are left out; above, something is wrong with the data."""
_HAN = re.compile(r"[\u4e00-\u9fff]")
_CHINESE = re.compile(r"[\u4e00-\u9fff，。！？、；：]+")


@dataclass(frozen=True)
class ModelFacts:
    """base: its folder. parameters: how many weights. limit: the longest row it was made for, in tokens. kind: the
    architecture and size by which published measurements know it: (model_type, hidden size, layers, vocabulary).
    own_template: whether the tokenizer brings a chat template. switches: whether thinking can be switched."""

    base: Path
    parameters: int
    limit: int
    kind: tuple[str, int, int, int]
    own_template: bool
    switches: bool


@dataclass(frozen=True)
class DataFacts:
    """What the rows are.

    rows: that can be learned from. sequences: what they become, as far as is known (more than rows where a template
    rewrites earlier answers). lengths: (n,) tokens of each sequence looked at. learned: tokens learned of a sequence,
    on average. refused: rows that cannot be learned from. looked_at: how many rows were rendered. thinking,
    several_turns: shares of rows with thoughts, with several answers. chinese: share of letters. tokens_per_han: tokens
    that a Chinese letter becomes.
    """

    kind: Kind
    rows: int
    sequences: int
    lengths: np.ndarray
    learned: float
    refused: tuple[Refused, ...]
    looked_at: int
    thinking: float
    several_turns: float
    chinese: float
    tokens_per_han: float


@dataclass(frozen=True)
class MachineFacts:
    """free: bytes that can still be taken. bfloat16: whether it is computed natively. precision: the fastest safe one,
    or what the user fixed. flops: operations a second of a matrix product in it. measured: what was, in words."""

    device: torch.device
    free: int
    bfloat16: bool
    precision: Precision
    flops: float
    measured: str


@dataclass(frozen=True)
class Facts:
    """All three."""

    model: ModelFacts
    data: DataFacts
    machine: MachineFacts


def gather(config: Config, say: Say) -> Facts:
    """Everything that a recipe for `config` is decided from.

    Raises:
        Problem: of model and data together: what cannot be found or read, or too many rows that cannot be learned from.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    errors: list[Finding] = []
    sources: list[Source] = []
    try:
        sources = find_sources(config.dataset, config, "dataset")
    except Problem as error:
        errors += error.findings
    try:
        base = find_model(config.model_name_or_path, config, say)
        settings = load_model_config(base)
        tokenizer = load_tokenizer(base)
    except Problem as error:
        raise Problem([*error.findings, *errors], error.status) from None
    if errors:
        raise Problem(errors)
    model = _model(base, settings, str(tokenizer.chat_template or ""))  # before reading settles the template
    return Facts(model, _read(sources, config, base, tokenizer), _machine(config))


# --------------------------------------------------------------------------------------------------------------- model


def _model(base: Path, settings: Any, template: str) -> ModelFacts:
    text = settings.get_text_config()
    return ModelFacts(
        base, _parameters(settings, base), int(text.to_dict().get("max_position_embeddings") or 2**20),
        (text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size), bool(template),
        "enable_thinking" in template)


def _parameters(settings: Any, base: Path) -> int:
    """How many weights the model has: counted on an empty one, so that every architecture is counted as it is."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        file, reason = base / "config.json", str(error).splitlines()[0]
        raise problem("unknown-architecture", Both(f"{file} describes no causal language model: {reason}",
                                                   f"{file} 描述的不是因果语言模型：{reason}"),
                      option="model_name_or_path") from None
    return sum(weight.numel() for weight in model.parameters())


# ---------------------------------------------------------------------------------------------------------------- data


def kind_of(source: Source) -> Kind:
    """What the rows of a data set are, as dataset_info.json says or their columns tell.

    Raises:
        Problem: they cannot be read, or are of no known format.
    """
    first = [row.values for row in islice(source.rows(), 100)]
    layout = source.layout or (recognise(first) if first else None)
    return layout.kind if layout else find_layout(source, Config.model_validate({}),
        "conversations").kind  # which says what is wrong


def _read(sources: Sequence[Source], config: Config, base: Path, tokenizer: PreTrainedTokenizerBase) -> DataFacts:
    kind = STAGE_ROWS[config.stage] if config.given("stage") else kind_of(sources[0])
    if not tokenizer.chat_template and kind != "documents" and not config.template:
        config = config.with_values("rule: no template", template=FALLBACK_TEMPLATE)
    refuse(settle_template(tokenizer, config))
    renderer = make_renderer(tokenizer, base, config)
    drawn, refused, rows = _Drawn(), [], 0
    for source in sources:
        there = 0
        for row in read_source(source, config, kind):
            if isinstance(row, Refused):
                refused.append(row)
            else:
                there += 1
                drawn.add(row)
        rows += source.num_samples or there
    rendered, odd = _render(drawn.rows, renderer)
    _forgive([*refused, *odd], rows + len(refused), bool(rendered))
    return _describe(kind, rows, drawn.rows, rendered, [*refused, *odd], tokenizer)


def _forgive(refused: Sequence[Refused], total: int, some: bool) -> None:
    """Raises:
    Problem: nothing is left, or more is wrong than a few rows.
    """
    serious = any(row.id != "bad-row" for row in refused) or len(refused) > _FORGIVEN * max(total, 1)
    if serious or not some:
        nothing = Finding("no-rows-left", "error", Both("no row is left to learn from.", "没有可以学习的行。"))
        raise Problem(replace(finding, option="dataset") for finding in describe_refused(refused, total) or [nothing])


def _render(rows: Sequence[Row], renderer: Renderer) -> tuple[list[Rendered], list[Refused]]:
    """Rows as sequences, and those of which none can be made."""
    chunks = [rows[first : first + 1000] for first in range(0, len(rows), 1000)]
    rendered: list[Rendered] = []
    refused: list[Refused] = []
    for chunk, results in zip(chunks, renderer.stream(chunks), strict=True):
        for row, sequences in zip(chunk, results, strict=True):
            if isinstance(sequences, BadRow):
                refused.append(Refused(row.place, str(sequences), sequences.id, sequences.fix))
            else:
                rendered += sequences
    return rendered, refused


def _describe(kind: Kind, rows: int, drawn: Sequence[Row], rendered: Sequence[Rendered], refused: Sequence[Refused],
              tokenizer: PreTrainedTokenizerBase) -> DataFacts:
    texts = [_text(row) for row in drawn]
    answers = [sum(message.role == "assistant" for message in talk.messages) for talk in map(_talk, drawn) if talk]
    return DataFacts(
        kind, rows, max(1, round(rows * len(rendered) / (PER_ROW[kind] * len(drawn)))),
        np.array([len(sequence) for sequence in rendered]),
        float(np.mean([np.count_nonzero(sequence.weights[1:]) for sequence in rendered])),
        tuple(refused), len(drawn), float(np.mean([sequence.thinks for sequence in rendered])),
        float(np.mean(np.array(answers) > 1)) if answers else 0.0,
        sum(len(_HAN.findall(text)) for text in texts) / max(sum(map(len, texts)), 1),
        _tokens_per_han(texts, tokenizer))


class _Drawn:
    """Up to `_LOOKED_AT` rows, each as likely as every other (Vitter 1985, algorithm R), the same ones every time."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._seen, self._random = 0, random.Random(0)

    def add(self, row: Row) -> None:
        self._seen += 1
        if len(self.rows) < _LOOKED_AT:
            self.rows.append(row)
        elif (place := self._random.randrange(self._seen)) < _LOOKED_AT:
            self.rows[place] = row


def _talk(row: Row) -> Conversation | None:
    match row:
        case Conversation():
            return row
        case Judged(talk) | Preference(talk):
            return talk
    return None


def _text(row: Row) -> str:
    """Everything said in a row."""
    if isinstance(row, Document):
        return row.text
    talk = _talk(row)
    return "".join(message.content for message in talk.messages) if talk else ""


def _tokens_per_han(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> float:
    """Tokens that a Chinese letter becomes, over up to 20,000 of them; 0 where there are hardly any."""
    letters = "".join(hit for text in texts[:2000] for hit in _CHINESE.findall(text))[:20_000]
    ids = tokenizer(letters, add_special_tokens=False)["input_ids"] if len(letters) > 200 else []
    return len(ids) / max(len(letters), 1)


# ------------------------------------------------------------------------------------------------------------- machine


def _machine(config: Config) -> MachineFacts:
    device = pick_device(config)
    native = has_native_bf16(device)
    formats = (torch.float32, torch.bfloat16) if native else (torch.float32,)
    rates = {dtype: matmul_rate(dtype, device, seconds=0.1) for dtype in formats}
    fastest = max(rates, key=lambda dtype: rates[dtype])
    told = ", ".join(f"{str(dtype).removeprefix('torch.')} {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in rates.items())
    precision = Precision(fastest, fastest is not torch.float32, False, told)
    if config.given("bf16") or config.given("fp16") or config.pure_bf16:
        precision = pick_precision(config, device)
    flops = rates.get(precision.dtype, rates[torch.float32])
    return MachineFacts(device, free_bytes(device), native, precision, flops, told)
