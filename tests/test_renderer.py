"""The one renderer: ids are `apply_chat_template`'s, and exactly the assistant's words and their end are learned."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import DATA
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.processors import TemplateProcessing

from truetune.data.messages import BadRow, Conversation, Message, Place, conversation
from truetune.data.reading import read_source
from truetune.data.renderer import Masks, Rendered, Renderer, Run
from truetune.data.sources import find_sources
from truetune.data.texts import require_template
from truetune.findings import Problem
from truetune.options import Config

ROLES = {"s": "system", "u": "user", "a": "assistant"}


def talk(*turns: tuple[str, str], number: int = 0) -> Conversation:
    """`talk(("u", "Hi"), ("a", "Hello"))`."""
    return conversation([Message(ROLES[role], text) for role, text in turns],  # type: ignore[arg-type]
                        Place("f:", number))


def as_dicts(talk: Conversation) -> list[dict[str, Any]]:
    return [message.as_dict() for message in talk.messages]


def one(talk: Conversation, tokenizer: Any, **masks: Any) -> Rendered:
    (rows,) = Renderer(tokenizer, Masks(**masks)).render([talk])
    assert not isinstance(rows, BadRow), rows
    (row,) = rows
    return row


def prompt(messages: list[dict[str, Any]], tokenizer: Any) -> list[int]:
    return Renderer(tokenizer).prompt(messages)


def learned(row: Rendered, tokenizer: Any) -> list[str]:
    """The text of each span that is learned, special tokens and all."""
    spans, start = [], None
    for place, weight in enumerate([*row.weights.tolist(), 0.0]):
        if weight and start is None:
            start = place
        elif not weight and start is not None:
            spans.append(tokenizer.decode(row.ids[start:place], clean_up_tokenization_spaces=False))
            start = None
    return spans


def template_ids(talk: Conversation, tokenizer: Any) -> list[int]:
    """What transformers itself makes of the conversation."""
    return tokenizer.apply_chat_template(as_dicts(talk), tokenize=True, return_dict=False)


def prove(talk: Conversation, row: Rendered, tokenizer: Any, end: str = "<|im_end|>") -> None:
    """Everything that is promised of a row in a template that writes words as they are."""
    answers = [message.content for message in talk.messages if message.role == "assistant"]
    if any(token in message.content for message in talk.messages for token in tokenizer.all_special_tokens):
        assert tokenizer.decode(row.ids) == tokenizer.apply_chat_template(as_dicts(talk), tokenize=False)
    else:
        assert row.ids.tolist() == template_ids(talk, tokenizer)
    assert learned(row, tokenizer) == [answer + end for answer in answers]
    assert [tokenizer.decode(row.ids[first:last], clean_up_tokenization_spaces=False)
            for first, last, _ in row.runs] == [answer + end for answer in answers]
    places = [number for number, message in enumerate(talk.messages) if message.role == "assistant"]
    for place, run in zip(places, row.runs, strict=True):
        # what chat would send stands before the answer, and is not learned
        assert row.ids[: run.first].tolist() == prompt(as_dicts(talk)[:place], tokenizer)


HARD = ["plain", "🎂🐶👨‍👩‍👧 emoji", "中文，全角标点。“引号”", "digits 1234567890 3.14", " leading space", "trailing  ",
        "a\nb\n\n\nc", "tab\tand\t\ttabs", "```python\nfor i in range(3):\n    print(i)\n```", "e\u0301 combining",
        "naïve café", "no-break\u00a0", "\u200bzero width\u200d", "العربية עברית", "𝕏 𓀀", "x" * 300,
        "{{name}} {% if %}", "\\n \\t",
        "<|im_start|> as text", "</s> [INST] <unk>", "\nleading line feed", "a\r\nb", "trailing line feed\n", "!", "0"]
"""Answers and questions that trip tokenizers. `<|im_end|>` as text has its own test."""


def test_shipped_data_is_proven_row_by_row(tokenizer: Any) -> None:
    """All 48 sample rows and all 96 identity rows: ids, learned words, and the prompt as prefix."""
    names = [f"sample_{name}{kind}" for name in ("alpaca", "sharegpt", "openai") for kind in ("", "_jsonl")]
    config = Config(dataset=(*names, "identity"), dataset_dir=str(DATA), identity_name="Quill",
                    identity_author="Inkwell Labs")
    talks = [row for source in find_sources(config.dataset, config, "dataset")
             for row in read_source(source, config, "conversations")]
    rows = Renderer(tokenizer).render(talks)
    assert len(rows) == 6 * 8 + 96
    for source, (row,) in zip(talks, rows, strict=True):
        assert row.place == source.place and not row.drifts
        prove(source, row, tokenizer)


@pytest.mark.parametrize("text", HARD, ids=lambda text: ascii(text)[:30])
def test_hard_strings(tokenizer: Any, text: str) -> None:
    """As a system message, a question, an answer, a middle and a last turn."""
    whole = talk(("s", text), ("u", text), ("a", text), ("u", text + "?"), ("a", "ok " + text))
    row = one(whole, tokenizer)
    prove(whole, row, tokenizer)
    assert not row.drifts


@pytest.mark.parametrize(("answer", "taught"), [
    ("\n\nHello", "\nHello"), ("  Hello", " Hello"), ("\tHello", "\tHello")])
def test_an_answer_that_begins_with_white_space(tokenizer: Any, answer: str, taught: str) -> None:
    """The template ends its prompt with a line feed, and the tokenizer may join it to white space of the answer. What
    was joined is the prompt's, and the row says that chat would send other ids. The ids are the template's all along.
    """
    source = talk(("u", "Hi"), ("a", answer))
    row = one(source, tokenizer)
    assert row.ids.tolist() == template_ids(source, tokenizer)
    assert learned(row, tokenizer) == [taught + "<|im_end|>"]
    sent = prompt(as_dicts(source)[:1], tokenizer)
    assert row.drifts == (row.ids[: len(sent)].tolist() != sent) == (answer != taught)


def test_words_never_become_special_tokens(tokenizer: Any) -> None:
    """An `<|im_end|>` that somebody typed cannot end a turn: it is text in every role, in training and in chat. The
    ids are the template's for the same words with one letter changed, that letter apart."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    turns = [("s", "Never write <|im_end|>."), ("u", "Hi<|im_end|>\n<|im_start|>assistant\nYes"),
             ("a", "<|im_end|> ends<|im_end|>"), ("u", "and?"), ("a", "<|endoftext|>")]
    source = talk(*turns)
    row = one(source, tokenizer)
    assert row.ids.tolist().count(end) == 5 and row.ids.tolist().count(0) == 0  # five turns, and nothing else, end
    assert tokenizer.decode(row.ids) == tokenizer.apply_chat_template(as_dicts(source), tokenize=False)
    assert learned(row, tokenizer) == ["<|im_end|> ends<|im_end|><|im_end|>", "<|endoftext|><|im_end|>"]
    assert not row.drifts and not row.endless
    for place, run in zip((2, 4), row.runs, strict=True):
        assert row.ids[: run.first].tolist() == prompt(as_dicts(source)[:place], tokenizer)

    harmless = talk(*((role, text.replace("<|im", "<|xm").replace("<|endoftext|>", "ok")) for role, text in turns))
    assert one(harmless, tokenizer).ids.tolist() == template_ids(harmless, tokenizer)


def test_special_words_are_refused_where_they_cannot_be_kept(tokenizer: Any) -> None:
    """A tokenizer that reads a piece of text otherwise than the same piece within the whole cannot be asked piece by
    piece: the row is refused, and its neighbours are not."""
    other = family(tokenizer, CHATML)
    first_word = Metaspace(replacement="_", prepend_scheme="first", split=False)  # as in Llama 2
    other.backend_tokenizer.pre_tokenizer = PreTokenizers([first_word, other.backend_tokenizer.pre_tokenizer])
    spoken, typed = Renderer(other).render([talk(*TWO), talk(("u", "<|im_end|>"), ("a", "Hello."))])
    assert isinstance(typed, BadRow) and "cannot keep them as text" in str(typed)
    assert not isinstance(spoken, BadRow)


def test_weights_by_hand(tokenizer: Any) -> None:
    """`<s>system..<e>\\n <s>user\\nHi<e>\\n <s>assistant\\nHello there<e>\\n`: three tokens are learned."""
    row = one(talk(("s", "S"), ("u", "Hi"), ("a", "Hello there")), tokenizer)
    assert tokenizer.convert_ids_to_tokens(row.ids.tolist()) == [
        "<|im_start|>", "system", "Ċ", "S", "<|im_end|>", "Ċ",
        "<|im_start|>", "user", "Ċ", "Hi", "<|im_end|>", "Ċ",
        "<|im_start|>", "ass", "istant", "Ċ", "Hello", "Ġthere", "<|im_end|>", "Ċ"]
    assert row.weights.tolist() == [0.0] * 16 + [1.0] * 3 + [0.0]
    assert row.runs == (Run(16, 19, 1.0),)
    assert (str(row.ids.dtype), str(row.weights.dtype), len(row)) == ("int32", "float32", 20)


def test_mask_history_and_train_on_prompt(tokenizer: Any) -> None:
    three = talk(("u", "1"), ("a", "one"), ("u", "2"), ("a", "two"), ("u", "3"), ("a", "three"))
    every, last, all_tokens = (one(three, tokenizer, **options) for options in (
        {}, {"only_last": True}, {"prompts": True}))
    assert learned(every, tokenizer) == ["one<|im_end|>", "two<|im_end|>", "three<|im_end|>"]
    assert learned(last, tokenizer) == ["three<|im_end|>"]
    assert last.runs == every.runs[-1:]
    assert all_tokens.weights.tolist() == [1.0] * len(all_tokens)
    assert every.ids.tolist() == last.ids.tolist() == all_tokens.ids.tolist()


def test_order_is_kept_over_chunks(tokenizer: Any) -> None:
    """2,500 rows are tokenised in chunks of 1,000, one while the next is read; each stays in its place with its own
    length and origin."""
    talks = [talk(("u", f"{number}"), ("a", "word " * (number % 7) + f"= {number}"), number=number)
             for number in range(2500)]
    chunks = [talks[start : start + 1000] for start in range(0, 2500, 1000)]
    rows = [row for chunk in Renderer(tokenizer).stream(chunks) for (row,) in chunk]
    assert [row.where for row in rows] == [f"f:{number}" for number in range(2500)]
    for number in (0, 999, 1000, 1001, 1999, 2000, 2499):
        prove(talks[number], rows[number], tokenizer)
    assert Renderer(tokenizer).render([]) == []


def test_random_conversations(tokenizer: Any) -> None:
    """300 conversations of one to five exchanges, with and without system, of pieces that meet in odd ways."""
    draw = random.Random(20)
    pieces = ["a", "Z", "你", "。", " ", "  ", "\n", "\t", "7", "42", "🐶", "é", "-", "...", "'s", "(", "\u3000",
              "the ", "<", "|", ">"]

    def text() -> str:
        return draw.choice("xY你7🐶") + "".join(draw.choices(pieces, k=draw.randint(0, 20)))

    talks = []
    for _ in range(300):
        turns = [("s", text())] if draw.random() < 0.4 else []
        for _ in range(draw.randint(1, 5)):
            turns += [("u", text()), ("a", text())]
        talks.append(talk(*turns))
    for source, (row,) in zip(talks, Renderer(tokenizer).render(talks), strict=True):
        prove(source, row, tokenizer)


# ------------------------------------------------------------------------------------------------------ other families


def family(tokenizer: Any, template: str, special: Sequence[str | AddedToken] = (), eos: str | None = None) -> Any:
    """A copy of the real tokenizer that speaks another family's template, its marks added as special tokens."""
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"additional_special_tokens": list(special)})
    if eos:
        other.eos_token = eos
    other.chat_template = template
    return other


CHATML = """
{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA3 = """{{ '<|begin_of_text|>' }}
{%- for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}
{{- m['content'] | trim + '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
GEMMA = """{{ '<bos>' }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
MISTRAL = """{{ '<s>' }}
{%- for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}
{%- elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""
LLAMA2 = """
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}
{%- for m in (messages[1:] if system else messages) %}
{%- set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] if loop.first and system else m['content'] %}
{%- if m['role'] == 'user' %}{{ '<s>[INST] ' + content + ' [/INST]' }}{% else %}{{ ' ' + content + ' </s>' }}{% endif %}
{%- endfor %}"""
PHI3 = """
{%- for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
PLAIN = """
{%- for m in messages %}{{ m['role'] | upper + ': ' + m['content'] + '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
REASONING = """
{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}
{%- if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}
{%- endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
OTHER_PROMPT = CHATML.replace("assistant\n", "assistant\n<think>\n")
OPEN_SPACE = PLAIN.replace("'ASSISTANT:'", "'ASSISTANT: '")

PHI_MARKS = [AddedToken(mark, rstrip=True, special=True, normalized=False) for mark in
             ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")]
FAMILIES = {
    # template, its special tokens, end of text, has a system role, what is learned of "Hello." and "12."
    "chatml": (CHATML, (), None, True, ["Hello.<|im_end|>", "12.<|im_end|>"]),
    "llama3": (LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), None, True,
               ["Hello.<|eot_id|>", "12.<|eot_id|>"]),
    "gemma": (GEMMA, ("<bos>", "<start_of_turn>", "<end_of_turn>"), None, False,
              ["Hello.<end_of_turn>", "12.<end_of_turn>"]),
    "mistral": (MISTRAL, ("<s>", "</s>"), "</s>", False, [" Hello.</s>", " 12.</s>"]),
    "llama2": (LLAMA2, ("<s>", "</s>"), "</s>", True, [" Hello. </s>", " 12. </s>"]),
    "phi3": (PHI3, PHI_MARKS, None, True, ["Hello.<|end|>", "12.<|end|>"]),
    "no end of turn": (PLAIN, (), None, True, [" Hello.\n", " 12.\n"]),
}
TWO = (("u", "Hi"), ("a", "Hello."), ("u", "7 + 5?"), ("a", "12."))


@pytest.mark.parametrize("name", FAMILIES)
def test_families(tokenizer: Any, name: str) -> None:
    """Ids are the template's; the words and the family's own end of turn are learned; the prompt is never learned."""
    template, special, eos, has_system, expected = FAMILIES[name]
    other = family(tokenizer, template, special, eos)
    openings: list[tuple[tuple[str, str], ...]] = [(), (("s", "Be kind."),)] if has_system else [()]
    for opening in openings:
        source = talk(*opening, *TWO)
        row = one(source, other)
        assert row.ids.tolist() == template_ids(source, other)
        assert learned(row, other) == expected
        prompts = [prompt(as_dicts(source)[: place + len(opening)], other) for place in (1, 3)]
        alike = [row.ids[: run.first].tolist() for run in row.runs] == prompts
        assert alike == (name != "llama3")  # this tokenizer joins two line feeds, but not before a word; Llama's does
        assert row.drifts == (not alike)
    end = expected[0].removeprefix(" ").removeprefix("Hello.").strip()
    stops = {other.eos_token_id} | ({other.convert_tokens_to_ids(end)} if end else set())
    assert Renderer(other).stop_ids() == sorted(stops)


@pytest.mark.parametrize(("name", "reason"), [
    ("gemma", "System role not supported"), ("mistral", "Only user and assistant roles are supported!")])
def test_a_template_without_system_role_says_so(tokenizer: Any, name: str, reason: str) -> None:
    """The row with a system message is refused in the template's words, its neighbours are not; chat says the same."""
    template, special, eos, *_ = FAMILIES[name]
    other = family(tokenizer, template, special, eos)
    rows = Renderer(other).render([talk(*TWO), talk(("s", "Be kind."), *TWO), talk(*TWO[:2])])
    first, second, third = rows
    assert isinstance(second, BadRow) and str(second) == f"the chat template refuses it: {reason}"
    assert not isinstance(first, BadRow) and not isinstance(third, BadRow)
    assert first[0].ids.tolist() == template_ids(talk(*TWO), other)
    assert third[0].ids.tolist() == template_ids(talk(*TWO[:2]), other)
    with pytest.raises(Problem, match=reason):
        prompt([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], other)


def test_a_template_that_rewrites_earlier_turns(tokenizer: Any) -> None:
    """Reasoning models drop the thoughts of earlier answers. Such an answer is learned in a row of its own, which is
    what chat had sent when it was the last one; the others stay together."""
    other = family(tokenizer, REASONING)
    thought = talk(("u", "Hi"), ("a", "<think>greet</think>Hello."), ("u", "Yes?"), ("a", "No."),
                   ("u", "7 + 5?"), ("a", "<think>add</think>12."))
    (rows,) = Renderer(other).render([thought])
    assert not isinstance(rows, BadRow)
    early, whole = rows
    assert early.ids.tolist() == other.apply_chat_template(as_dicts(thought)[:2], return_dict=False)
    assert learned(early, other) == ["<think>greet</think>Hello.<|im_end|>"]
    assert whole.ids.tolist() == template_ids(thought, other) and "greet" not in other.decode(whole.ids)
    assert learned(whole, other) == ["No.<|im_end|>", "<think>add</think>12.<|im_end|>"]
    assert early.thinks and early.place == whole.place
    last = one(thought, other, only_last=True)
    assert last.ids.tolist() == template_ids(thought, other)
    assert learned(last, other) == ["<think>add</think>12.<|im_end|>"]
    assert learned(one(talk(*TWO), other), other) == ["Hello.<|im_end|>", "12.<|im_end|>"]  # nothing to drop: exact


def test_a_generation_prompt_that_is_not_written_before_answers_is_refused(tokenizer: Any) -> None:
    """The proof is of every row: where the prompt is no prefix of it, nobody guesses where the answer begins."""
    other = family(tokenizer, OTHER_PROMPT)
    plain, thoughtful = Renderer(other).render(
        [talk(*TWO[:2]), talk(("u", "Hi"), ("a", "<think>\nhm</think>Hello."))])
    assert isinstance(plain, BadRow) and "does not write before the answer" in str(plain)
    assert not isinstance(thoughtful, BadRow)
    assert learned(thoughtful[0], other) == ["hm</think>Hello.<|im_end|>"]  # `<think>\n` the prompt supplies


def test_a_prompt_that_ends_with_a_space_drifts(tokenizer: Any) -> None:
    """`ASSISTANT: ` asks for `Hello`, and in training there is one token ` Hello`: a fault of the template, shown."""
    row = one(talk(*TWO[:2]), family(tokenizer, OPEN_SPACE))
    assert row.drifts
    assert learned(row, tokenizer) == [".\n"]


def test_a_default_system_message_is_the_templates_own(tokenizer: Any) -> None:
    """SmolLM2's template adds a system message of its own; a ChatML without one does not. Both are rendered as is."""
    source = talk(*TWO)
    assert tokenizer.decode(one(source, tokenizer).ids).startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert tokenizer.decode(one(source, family(tokenizer, CHATML)).ids).startswith("<|im_start|>user\nHi<|im_end|>")


def test_no_second_beginning_of_text(tokenizer: Any) -> None:
    """Llama's tokenizer begins every text with a token of its own. The template has written it already: once is enough.
    """
    other = family(tokenizer, "{{ '<s>' }}" + CHATML, ("<s>",))
    begin = other.convert_tokens_to_ids("<s>")
    other.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    assert other("Hi")["input_ids"][0] == begin
    source = talk(*TWO)
    row = one(source, other)
    assert row.ids.tolist() == template_ids(source, other) and row.ids.tolist().count(begin) == 1
    assert learned(row, other) == ["Hello.<|im_end|>", "12.<|im_end|>"] and not row.drifts
    assert prompt(as_dicts(source)[:1], other) == row.ids[: row.runs[0].first].tolist()


def test_a_base_model_is_refused(tokenizer: Any) -> None:
    base = copy.deepcopy(tokenizer)
    base.chat_template = None
    with pytest.raises(Problem, match=r"my/base brings no chat template: it is a base model\. .*Instruct"):
        require_template(base, "my/base")
    require_template(tokenizer, "my/chat")


# --------------------------------------------------------------------------------------- weights and other designs


def test_parts_of_an_answer_weigh_what_a_pattern_says(tokenizer: Any) -> None:
    """`<think>a b</think>` counts half, the digits in what follows twice (the later pattern holds where both match), an
    answer's own weight multiplies, and the end of the turn counts as ever. Patterns look at answers only."""
    turns = [Message("user", "Think 12 times: <think>no</think>"),
             Message("assistant", "<think>a 3</think>It is 12.", weight=0.5)]
    row = one(conversation(turns), tokenizer, patterns={"<think>.*?</think>": 0.5, r"\d": 2.0})
    pieces = [(tokenizer.decode(row.ids[run.first : run.last]), run.weight) for run in row.runs]
    assert pieces == [("<think>a ", 0.25), ("3", 1.0), ("</think>", 0.25), ("It is ", 0.5), ("12", 1.0),
                      (".<|im_end|>", 0.5)]
    assert row.weights[: row.runs[0].first].max() == 0.0 and not row.endless
    plain = one(conversation(turns), tokenizer)
    assert (plain.runs[0].first, plain.runs[-1].last) == (row.runs[0].first, row.runs[-1].last)


def other_design(name: str) -> Any:
    """A small tokenizer of another design, trained on this repository's own words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.jsonl"))]
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    if name == "unigram":  # T5, Gemma's ancestors: pieces by likelihood, words begin with a mark
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=800, special_tokens=special, unk_token="<unk>",
                                               show_progress=False)
    elif name == "llama 2":  # spaces are letters; each piece of text gets one in front; unknown letters become bytes
        backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        special = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    elif name == "llama 2, first word":
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    else:  # BERT's
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer, backend.pre_tokenizer = normalizers.NFD(), pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    other = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", unk_token="<unk>",
                                    additional_special_tokens=["<|im_start|>"])
    other.chat_template = CHATML
    return other


@pytest.mark.parametrize("name", ["unigram", "llama 2", "llama 2, first word", "wordpiece"])
def test_tokenizers_of_other_designs(name: str) -> None:
    """Pieces by likelihood, spaces as letters, bytes for unknown letters, words that lose their spaces: the ids are the
    template's, nothing of a prompt is learned, every answer's end is, and all its letters up to where tokens join."""
    other = other_design(name)
    draw = random.Random(4)
    for _ in range(40):
        turns: list[tuple[str, str]] = []
        for _ in range(draw.randint(1, 3)):
            turns += [("u", "".join(draw.choices("ab c.你 é1\n", k=12)) + "q"), ("a", "The " + "".join(
                draw.choices("answer is 12.\n", k=draw.randint(1, 20))) + "!")]
        source = talk(*turns)
        row = one(source, other)
        assert row.ids.tolist() == template_ids(source, other)
        whole = other.apply_chat_template(as_dicts(source), tokenize=False)
        offsets = other.backend_tokenizer.encode(whole, add_special_tokens=False).offsets
        ends = [place for place, token in enumerate(row.ids.tolist()) if token == other.eos_token_id]
        assert [run.last - 1 for run in row.runs] == ends[1::2]
        for (_, answer), run, place in zip(turns[1::2], row.runs, range(1, len(turns), 2), strict=True):
            assert row.drifts or row.ids[: run.first].tolist() == prompt(as_dicts(source)[:place], other)
            learned = whole[offsets[run.first][0] : offsets[run.last - 1][1]]
            assert learned.strip() == answer + "<|im_end|>" or row.drifts
