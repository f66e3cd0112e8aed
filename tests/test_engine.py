"""Engines: many answers at once are the answers one at a time; how words are drawn; what goes wrong hurts one alone."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from conftest import options
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GenerationConfig,
    JambaConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.options.read import read_config
from truetune.serve.continuous import Continuous
from truetune.serve.detokenize import Detokenizer, Reader, Vocabulary
from truetune.serve.engine import Engine, defaults_of, load_engine
from truetune.serve.request import Answer, Full, Sampling, Token
from truetune.serve.sampling import Drawing, draw
from truetune.serve.single import Single

GREEDY = Sampling(12, temperature=0.0)
WORDS = "The quick brown fox jumps over the lazy dog; 一只敏捷的狐狸 and 10 others. "


def engine_of(model: Path, say: Callable[[Any], None] = lambda words: None, **more: object) -> Engine:
    config, findings = read_config(options(model_name_or_path=model, use_cpu=True, **more))
    assert not findings
    return load_engine(config, say)


@pytest.fixture(scope="module")
def engine(small: Path) -> Iterator[Engine]:
    with closing(engine_of(small, infer_batch=6)) as engine:
        yield engine


@pytest.fixture(scope="module")
def prompts(engine: Engine) -> list[list[int]]:
    """Of 1 to 400 tokens."""
    ids = engine.encode(WORDS * 40)
    places = ((3, 5), (0, 40), (7, 41), (1, 130), (20, 400))
    return [ids[:1], *(ids[start : start + length] for start, length in places)]


def ids_of(answer: Answer) -> list[int]:
    return [token.id for piece in answer for token in piece.tokens]


def text_of(answer: Answer) -> str:
    return "".join(piece.text for piece in answer)


def plain(model: Any, prompt: Sequence[int], length: int = 12, ends: Sequence[int] = ()) -> list[int]:
    """What transformers answers, the likeliest word every time."""
    ids = torch.tensor([prompt])
    settings = GenerationConfig(max_new_tokens=length, do_sample=False, pad_token_id=0, eos_token_id=list(ends) or None,
                                use_cache=True)
    with torch.inference_mode():
        said = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0].tolist()
    return [token for token in said[len(prompt) :] if token not in ends]


# ---------------------------------------------------------------------------------------------------------------------
# Many at once

def test_a_crowd_answers_as_each_alone(engine: Engine, prompts: list[list[int]]) -> None:
    """Whoever joins and leaves, every answer is what transformers gives for its prompt alone."""
    assert isinstance(engine.generator, Continuous)
    expected = [plain(engine.model, prompt, ends=engine.renderer.stop_ids()) for prompt in prompts]
    assert [ids_of(engine.complete(prompt, GREEDY)) for prompt in prompts] == expected
    left = [engine.complete(prompt, replace(GREEDY, max_new_tokens=400)) for prompt in prompts[1:4]]
    for answer in left:
        next(answer)
    crowd = [engine.complete(prompt, GREEDY) for prompt in prompts * 2]  # more than there are places
    for answer in left:
        answer.close()
    assert [ids_of(answer) for answer in crowd] == expected * 2


def test_a_seed_gives_the_same_words_whatever_else_runs(engine: Engine, prompts: list[list[int]]) -> None:
    drawn = Sampling(20, temperature=1.3, top_p=0.9, seed=7)
    alone = ids_of(engine.complete(prompts[2], drawn))
    beside = [engine.complete(prompt, replace(drawn, seed=None, top_k=5)) for prompt in prompts]
    assert ids_of(engine.complete(prompts[2], drawn)) == alone
    assert ids_of(engine.complete(prompts[2], replace(drawn, seed=8))) != alone
    assert all(ids_of(answer) for answer in beside)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end, "this was waited for in vain"
        time.sleep(0.005)


def test_who_leaves_frees_the_place(engine: Engine, prompts: list[list[int]]) -> None:
    """Closing an answer, or forgetting it, gives its place to whoever waits."""
    generator = engine.generator
    assert isinstance(generator, Continuous)
    endless = replace(GREEDY, max_new_tokens=7000, ignore_eos=True)
    answers = [engine.complete(prompt, endless) for prompt in prompts]
    waiting = engine.complete(prompts[0], GREEDY)
    for answer in answers:
        next(answer)
    assert (generator.running, generator.waiting) == (6, 1)
    answers[0].close()
    assert ids_of(waiting)
    del answers, answer
    wait(lambda: generator.running == 0)


def test_memory_stays_flat(small: Path, prompts: list[list[int]]) -> None:
    """Keys and values take what the longest answers take at once, however many there were."""
    with closing(engine_of(small, infer_batch=4)) as engine:
        generator = engine.generator
        assert isinstance(generator, Continuous)
        taken = []
        for _ in range(4):
            crowd = [engine.complete(prompts[number % 4], replace(GREEDY, max_new_tokens=3)) for number in range(12)]
            crowd[5].close()
            assert all(ids_of(answer) for number, answer in enumerate(crowd) if number != 5)
            wait(lambda: generator.running == 0)
            taken.append(generator.bytes)
        keys_of_a_token = 2 * 2 * 3 * 64 * 4  # keys and values, layers, heads, numbers, bytes
        assert len(set(taken)) == 1 and taken[0] <= 4 * 256 * keys_of_a_token


def test_a_long_prompt_holds_nobody_up(engine: Engine, prompts: list[list[int]]) -> None:
    """A prompt of 2,000 tokens is read in pieces, and the answer beside it goes on between them."""
    talking = engine.complete(prompts[3], replace(GREEDY, max_new_tokens=300, ignore_eos=True))
    next(talking)
    long = engine.complete((engine.encode(WORDS) * 200)[:2000], replace(GREEDY, max_new_tokens=1))
    said = 0
    while long._job._pieces.empty():  # pyright: ignore  (nothing has come yet)
        said += len(next(talking).tokens)
    assert said >= 2000 // 128 - 3
    talking.close()
    assert len(ids_of(long)) <= 1


def test_the_next_question_is_read_from_where_the_last_ended(engine: Engine) -> None:
    """Of a conversation that goes on only what is new is computed; the answer is the same."""
    talk = [{"role": "user", "content": WORDS * 3}]
    generator = engine.generator
    assert isinstance(generator, Continuous)
    first = text_of(engine.generate(talk, GREEDY))
    prompt = engine.prompt([*talk, {"role": "assistant", "content": first}, {"role": "user", "content": "And?"}])
    before = generator.read
    again = ids_of(engine.complete(prompt, GREEDY))
    assert generator.read - before < len(prompt) / 2
    assert again == plain(engine.model, prompt, ends=engine.renderer.stop_ids())


def test_a_full_queue_says_when_to_come_back(small: Path, prompts: list[list[int]]) -> None:
    with closing(engine_of(small, infer_batch=1, api_queue=2)) as engine:
        taken = [engine.complete(prompts[1], replace(GREEDY, max_new_tokens=4000, ignore_eos=True)) for _ in range(3)]
        next(taken[0])
        with pytest.raises(Full) as full:
            engine.complete(prompts[1], GREEDY)
        assert full.value.retry_after >= 1
        taken[1].close()
        taken[0].close()
        assert len(next(taken[2]).tokens) >= 1


def test_closing_ends_all(small: Path, prompts: list[list[int]]) -> None:
    engine = engine_of(small, infer_batch=1)
    answers = [engine.complete(prompts[1], replace(GREEDY, max_new_tokens=7000, ignore_eos=True)) for _ in range(3)]
    next(answers[0])
    engine.close()
    for answer in answers:
        with pytest.raises(Problem, match="closed"):
            list(answer)
    with pytest.raises(Problem, match="closed"):
        engine.complete(prompts[1], GREEDY)


@pytest.mark.parametrize("prompt, adapter, said", [
    ([], None, "empty"), ([1] * 9000, None, "9,000 tokens"), ([10**6], None, "token ids"), ([-1], None, "token ids"),
    ([1], "nobody", "no adapter 'nobody'")])
def test_what_cannot_be_answered_is_refused_at_once(engine: Engine, prompt: list[int], adapter: str | None, said: str):
    with pytest.raises(Problem, match=said):
        engine.complete(prompt, GREEDY, adapter)


def test_more_questions_than_the_queue_takes_are_answered_in_turn(small: Path) -> None:
    talks = [[{"role": "user", "content": f"Question {number}?"}] for number in range(7)]
    with closing(engine_of(small, infer_batch=2, api_queue=1, do_sample=False, max_new_tokens=5)) as engine:
        assert engine.answer(talks) == [text_of(engine.generate(talk)).strip() for talk in talks]


def test_an_answer_ends_where_there_is_no_more_room(small: Path, prompts: list[list[int]]) -> None:
    with closing(engine_of(small, infer_maxlen=50)) as engine:
        pieces = list(engine.complete(prompts[2], replace(GREEDY, max_new_tokens=100, ignore_eos=True)))
        assert pieces[-1].finish == "length"
        assert sum(len(piece.tokens) for piece in pieces) == 10


# ---------------------------------------------------------------------------------------------------------------------
# Adapters by name

def lora_of(model: Path, folder: Path, seed: int) -> Path:
    """A LoRA adapter of random numbers, which changes every answer."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), settings).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def adapters(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three adapters of the small model, the last of them damaged."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {name: lora_of(small, folder / name, seed) for seed, name in enumerate(("one", "other", "damaged"))}
    file = made["damaged"] / "adapter_model.safetensors"
    save_file({name: torch.full_like(weight, math.nan) for name, weight in load_file(file).items()}, file)
    return made


def test_adapters_by_name(small: Path, adapters: dict[str, Path], prompts: list[list[int]]) -> None:
    """Several adapters answer side by side, each as it does alone; without a name the model answers as it was loaded:
    the base, or with the adapter that was named first."""
    alone: dict[str | None, list[int]] = {}
    for name in (None, "one", "other"):
        more = {"adapter_name_or_path": adapters[name]} if name else {}
        with closing(engine_of(small, **more)) as engine:
            alone[name] = ids_of(engine.complete(prompts[2], GREEDY))
    assert len(set(map(tuple, alone.values()))) == 3
    beside = json.dumps({name: str(adapters[name]) for name in ("one", "other")})
    with closing(engine_of(small, infer_adapters=beside)) as engine:
        assert list(engine.adapters) == ["one", "other"]
        crowd = [(name, engine.complete(prompts[2], GREEDY, name)) for _ in range(3) for name in alone]
        for name, answer in crowd:
            assert ids_of(answer) == alone[name], name
    beside = json.dumps({"other": str(adapters["other"])})
    with closing(engine_of(small, adapter_name_or_path=adapters["one"], infer_adapters=beside)) as engine:
        assert [ids_of(engine.complete(prompts[2], GREEDY, name)) for name in (None, "other", None)] == [
            alone["one"], alone["other"], alone["one"]]


def test_a_failing_request_hurts_nobody_else(small: Path, adapters: dict[str, Path], prompts: list[list[int]]) -> None:
    """A damaged adapter fails its own answers alone. Those that get its places afterwards are right: nothing of it is
    left there, behind their own tokens, beside longer answers."""
    beside = json.dumps({name: str(folder) for name, folder in adapters.items()})
    with closing(engine_of(small, infer_adapters=beside, infer_batch=3)) as engine:
        short, long = prompts[2], prompts[4]
        expected = {len(prompt): ids_of(engine.complete(prompt, GREEDY)) for prompt in (short, long)}
        asked = [(short, None), (long, "damaged"), (long, "damaged"), (short, None), (long, None), (short, None)]
        crowd = [engine.complete(prompt, GREEDY, name) for prompt, name in asked]
        for (prompt, name), answer in zip(asked, crowd, strict=True):
            if name:
                with pytest.raises(Problem, match="not finite"):
                    list(answer)
            else:
                assert ids_of(answer) == expected[len(prompt)]


def test_an_adapter_of_another_base_is_refused(bundled: Path, small: Path, adapters: dict[str, Path], tmp_path: Path):
    from truetune.model.load import fingerprint

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapters["one"] / name).read_bytes())
    manifest = {"base_model": "other", "base_fingerprint": fingerprint(bundled), "merged": {}}
    (tmp_path / "truetune.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(Problem, match="was trained on other"):
        engine_of(small, infer_adapters=json.dumps({"one": str(tmp_path)}))


# ---------------------------------------------------------------------------------------------------------------------
# Families

SMALL: dict[str, Any] = {
    "vocab_size": 2000, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 512, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
FAMILIES = {
    "window": MistralConfig(**SMALL, sliding_window=16),
    "softcap": Gemma2Config(**SMALL, sliding_window=16, attn_logit_softcapping=2.0, final_logit_softcapping=5.0,
                            query_pre_attn_scalar=7),
    "experts": Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "partial": PhiConfig(**SMALL, partial_rotary_factor=0.5),
    "states": JambaConfig(**SMALL, mamba_d_state=4, mamba_dt_rank=4, num_experts=2, num_experts_per_tok=1,
                          attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
                          use_mamba_kernels=False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_answer_as_in_transformers(family: str, small: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    """Windows, squashed scores, experts, heads that turn in part: all share their steps. A model with layers that carry
    a state from token to token does not: it says so, and answers one by one, as rightly."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(FAMILIES[family])
    model.save_pretrained(tmp_path)
    load_tokenizer(small).save_pretrained(tmp_path)
    told: list[str] = []
    with closing(engine_of(tmp_path, lambda words: told.append(str(words)))) as engine:
        together = isinstance(engine.generator, Continuous)
        assert together == (family != "states")
        assert together or any("one at a time" in line for line in told)
        some = [prompts[1], prompts[3], prompts[4]]
        crowd = [engine.complete(prompt, replace(GREEDY, ignore_eos=True)) for prompt in some * 2]
        said = [ids_of(answer) for answer in crowd]
        assert said == [plain(engine.model, prompt) for prompt in some] * 2
        assert len(set(map(tuple, said))) > 1


def test_virtual_tokens_are_answered_one_by_one(small: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    """An adapter of virtual tokens stands before every row, which only PEFT's own forward pass does."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(small)
    tuned = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5))
    tuned.save_pretrained(tmp_path)
    with closing(engine_of(small, adapter_name_or_path=tmp_path)) as engine:
        assert isinstance(engine.generator, Single)
        crowd = [engine.complete(prompt, replace(GREEDY, ignore_eos=True)) for prompt in prompts[1:3]]
        assert [ids_of(answer) for answer in crowd] == [plain(tuned.eval(), prompt) for prompt in prompts[1:3]]


# ---------------------------------------------------------------------------------------------------------------------
# How words are drawn

class At(Drawing):
    """Draws at a given chance."""

    at = 0.0

    def chance(self) -> float:
        return self.at


def theirs(sampling: Sampling, logits: torch.Tensor, said: Sequence[int]) -> torch.Tensor:
    """(V,) probabilities after transformers' own processors."""
    steps: list[Any] = [RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
                        TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    ids: Any = torch.tensor([list(said)])
    return LogitsProcessorList(steps)(ids, logits[None].clone())[0].softmax(dim=-1)


WAYS = [Sampling(1, temperature=temperature, repetition_penalty=penalty, top_k=top_k, top_p=top_p, min_p=min_p)
        for temperature, penalty, top_k, top_p, min_p in (
            (1.0, 1.0, 0, 1.0, 0.0), (0.7, 1.0, 0, 1.0, 0.0), (1.0, 1.3, 0, 1.0, 0.0), (1.0, 1.0, 5, 1.0, 0.0),
            (1.5, 1.0, 0, 0.8, 0.0), (1.0, 1.0, 0, 1.0, 0.2), (0.9, 1.1, 7, 0.6, 0.05), (2.0, 0.8, 0, 0.95, 0.1),
            (1.0, 1.0, 0, 0.9999, 0.0))]


def test_words_are_drawn_as_in_transformers() -> None:
    """All ways at once, one a row: at every chance the word is the one at which transformers' probabilities, added up,
    exceed it. 3,000 words, so that top_p alone has to look beyond the first thousand."""
    torch.manual_seed(0)
    said = [3, 4, 4, 5]
    logits = torch.randn(len(WAYS), 3000) * 1.5
    logits[:, said] += 4
    expected = [theirs(way, row, said) for way, row in zip(WAYS, logits, strict=True)]
    for step in range(60):
        drawings = [At(way, said) for way in WAYS]
        for drawing in drawings:
            drawing.at = (step + 0.5) / 60
        for way, row, chances, word in zip(WAYS, logits, expected, draw(logits, drawings), strict=True):
            order = (row if way.repetition_penalty == 1 else chances).argsort(descending=True) if (
                way.top_k or way.top_p < 1) else torch.arange(3000)
            sums = chances[order].double().cumsum(dim=-1)
            place = int((order == word.id).nonzero())
            below = float(sums[place - 1]) if place else 0.0
            assert below - 1e-5 <= (step + 0.5) / 60 <= float(sums[place]) + 1e-5, way
            assert chances[word.id] > 0, way


def test_each_penalty_has_its_own_meaning() -> None:
    """OpenAI's penalties count words of the answer alone: once (presence), or each time (frequency)."""
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.0]])
    presence = Drawing(Sampling(9, temperature=0.0, presence_penalty=0.8), [1])
    assert [draw(logits, [presence])[0].id for _ in range(4)] == [0, 1, 0, 0]  # 2.0 | 1.2, 1.5 | 1.2, 0.7 | 1.2, 0.7
    frequency = Drawing(Sampling(9, temperature=0.0, frequency_penalty=0.4), [1])
    assert [draw(logits, [frequency])[0].id for _ in range(5)] == [0, 0, 1, 0, 1]  # 2 | 1.6 | 1.2, 1.5 | 1.2, 1.1 | 0.8
    repetition = Drawing(Sampling(9, temperature=0.0, repetition_penalty=2.0), [0])
    assert draw(logits, [repetition])[0].id == 1  # 2.0 / 2, since it stands in the prompt


def test_log_probabilities_are_the_models_own(engine: Engine, prompts: list[list[int]]) -> None:
    """Temperature, penalties and limits change what is drawn, not what is told of it."""
    sampling = Sampling(5, temperature=0.5, top_k=3, repetition_penalty=1.5, seed=1, top_logprobs=2)
    tokens = [token for piece in engine.complete(prompts[2], sampling) for token in piece.tokens]
    ids = [*prompts[2], *(token.id for token in tokens)]
    with torch.inference_mode():
        logp = engine.model(input_ids=torch.tensor([ids])).logits[0, len(prompts[2]) - 1 :].log_softmax(dim=-1)
    for token, row in zip(tokens, logp, strict=False):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        assert [word for word, _, _ in token.top] == row.topk(2).indices.tolist()
        assert token.top[0][2] == pytest.approx(float(row.max()), abs=1e-4)
        assert token.text == engine.tokenizer.decode([token.id])


def test_defaults_are_those_saved_with_the_model(small: Path, tmp_path: Path) -> None:
    """An option that somebody gave, else generation_config.json beside the model, else the option's own default."""
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20}', encoding="utf-8")
    config, _ = read_config(options(model_name_or_path=small, top_k=3, generation_seed=5))
    assert defaults_of(config, tmp_path) == Sampling(1024, 0.6, top_p=0.7, top_k=3, seed=5)
    greedy, _ = read_config(options(model_name_or_path=small, do_sample=False))
    assert defaults_of(greedy, tmp_path).temperature == 0
    (tmp_path / "generation_config.json").write_text('{"do_sample": false}', encoding="utf-8")
    assert defaults_of(read_config(options(model_name_or_path=small))[0], tmp_path).temperature == 0
    warm, _ = read_config(options(model_name_or_path=small, temperature=0.5))
    assert defaults_of(warm, tmp_path).temperature == 0.5


SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "size"],
          "properties": {"name": {"enum": ["fox", "dog", "狐狸"]},
                         "size": {"type": "integer", "maximum": 99, "minimum": 0},
                         "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}}}


def test_a_schema_is_followed(engine: Engine, prompts: list[list[int]]) -> None:
    """Drawn at a high temperature, beside answers without a schema, every answer is JSON that the schema allows."""
    wild = Sampling(200, temperature=1.5, schema=SCHEMA)
    crowd = [engine.complete(prompts[2], replace(wild, seed=seed)) for seed in range(6)]
    free = engine.complete(prompts[2], GREEDY)
    said = [text_of(answer) for answer in crowd]
    for text in said:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(said)) > 1
    assert ids_of(free) == plain(engine.model, prompts[2], ends=engine.renderer.stop_ids())
    any_object = text_of(engine.complete(prompts[2], Sampling(12, temperature=1.0, seed=1, schema={})))
    assert any_object.startswith("{")


def test_a_schema_that_comes_to_its_limits_fails_alone(engine: Engine, prompts: list[list[int]]) -> None:
    """llguidance gives up on an answer; the one beside it goes on."""
    longer = replace(GREEDY, max_new_tokens=60, ignore_eos=True)
    expected = ids_of(engine.complete(prompts[2], longer))
    beside = engine.complete(prompts[2], longer)
    first = next(beside)
    deep: Any = engine.complete((engine.encode(WORDS) * 200)[:1500], replace(GREEDY, schema=SCHEMA))
    deep._job.drawing.allowed.take(10**6)  # while its prompt is read: a token that there is not, after which it fails
    with pytest.raises(Problem, match="cannot be followed"):
        list(deep)
    assert [token.id for token in first.tokens] + ids_of(beside) == expected


def test_a_schema_that_is_none_is_refused(engine: Engine) -> None:
    with pytest.raises(Problem, match="cannot be followed"):
        engine.complete([1], replace(GREEDY, schema={"type": "nothing at all"}))


# ---------------------------------------------------------------------------------------------------------------------
# Text from ids

def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 has it: words begin with a mark for their space, other characters are bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁Hello", "▁you", ",", "▁", "lo"]
    tokenizer = Tokenizer(BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>",
                              byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([  # pyright: ignore[reportAttributeAccessIssue]
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    reader = Reader(Vocabulary(tokenizer))
    return [reader.push(token) for token in ids]


def test_pieces_are_whole_characters_and_nothing_is_lost(tokenizer: Any) -> None:
    """Byte-level: characters of several tokens come with their last one. What the pieces say is what is decoded."""
    text = " Hello  you,\n👩‍👩‍👧 一只狐狸 naïve 🦊!"
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = pieces_of(tokenizer, [ids[0], tokenizer.eos_token_id, *ids[1:]])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces


def test_spaces_of_sentencepiece_are_kept() -> None:
    tokenizer = sentencepiece_like()
    words = tokenizer.convert_tokens_to_ids(
        ["▁Hello", ",", "▁you", "▁", *(f"<0x{byte:02X}>" for byte in "狐🦊".encode()), "▁you", "</s>"])
    pieces = pieces_of(tokenizer, words)
    assert "".join(pieces) == "Hello, you 狐🦊 you" == tokenizer.decode(words, skip_special_tokens=True)
    assert pieces[:3] == ["Hello", ",", " you"]
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_character_are_told_at_last() -> None:
    """A model may write them; the answer goes on."""
    tokenizer = sentencepiece_like()
    broken = [3 + 0xFF] * 9
    pieces = pieces_of(tokenizer, [*broken, *tokenizer.convert_tokens_to_ids(["▁Hello"])])
    assert pieces[:7] == [""] * 7 and "\ufffd" in "".join(pieces) and pieces[-1].endswith("Hello")


def written(tokenizer: Any, text: str, *stops: str) -> tuple[list[str], bool]:
    writing = Detokenizer(Vocabulary(tokenizer), stops)
    pieces = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        piece = writing.push(Token(token, ""))
        pieces += [piece.text] if piece else []
        if writing.stopped:
            break
    return [*pieces, writing.end("stop").text], writing.stopped


def test_a_stop_text_ends_the_answer_wherever_tokens_end(tokenizer: Any) -> None:
    """Text that may be the beginning of a stop text is held back until it is not."""
    pieces, stopped = written(tokenizer, "One two\n\nUser: three", "\n\nUser:")
    assert stopped and "".join(pieces) == "One two"
    pieces, stopped = written(tokenizer, "One two\n\nUsed three", "\n\nUser:")
    assert not stopped and "".join(pieces) == "One two\n\nUsed three"
    assert not any(piece.endswith("\n") for piece in pieces)
    pieces, stopped = written(tokenizer, "abcabd", "abd", "zzz")
    assert stopped and "".join(pieces) == "abc"


def test_an_answer_stops_at_a_text(engine: Engine, prompts: list[list[int]]) -> None:
    whole = text_of(engine.complete(prompts[2], replace(GREEDY, ignore_eos=True)))
    middle = whole[len(whole) // 2 :][:4]
    pieces = list(engine.complete(prompts[2], replace(GREEDY, ignore_eos=True, stop=(middle,))))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(middle)]
    assert pieces[-1].finish == "stop"
