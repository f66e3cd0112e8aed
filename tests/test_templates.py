"""Named chat templates: what each family writes, its flags, thinking, calls, and what is said when it does not fit."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from truetune.data import templates
from truetune.data.templates import TEMPLATES, find_template, render_text, template_source
from truetune.data.templates.apply import apply_template, stop_words
from truetune.data.tools import TOOL_FORMATS
from truetune.findings import WRONG_OPTIONS, Finding, Problem


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, thought: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | ({"reasoning_content": thought} if thought else {})


def call(**arguments: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": arguments}}


TWO_TURNS = [user("A"), answer("B"), user("C"), answer("D")]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {
    "type": "object", "properties": {"x": {"type": "integer", "description": "a number"}}, "required": ["x"]}}}]
WITH_CALL = [user("A"), {"role": "assistant", "content": "", "tool_calls": [call(x=1)]},
             {"role": "tool", "content": "R"}, answer("B")]

WRITTEN = {  # system text S, then A, B, C, D in turn
    "chatml": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB"
        "<|im_end|>\n<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"),
    "ernie": ("<|im_start|>system\nS<|im_end|>\n\n<|im_start|>user\nA<|im_end|>\n\n<|im_start|>assistant\nB"
        "<|im_end|>\n\n<|im_start|>user\nC<|im_end|>\n\n<|im_start|>assistant\nD<|im_end|>\n\n"),
    "phi4": ("<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>A<|im_end|><|im_start|>assistant"
        "<|im_sep|>B<|im_end|><|im_start|>user<|im_sep|>C<|im_end|><|im_start|>assistant<|im_sep|>D<|im_end|>"),
    "sailor": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>question\nA<|im_end|>\n<|im_start|>answer\nB"
        "<|im_end|>\n<|im_start|>question\nC<|im_end|>\n<|im_start|>answer\nD<|im_end|>\n"),
    "youtu_vl": ("<|begin_of_text|>system\nS<|end_of_text|>\n<|begin_of_text|>user\nA<|end_of_text|>\n"
        "<|begin_of_text|>assistant\nB<|end_of_text|>\n<|begin_of_text|>user\nC<|end_of_text|>\n"
        "<|begin_of_text|>assistant\nD<|end_of_text|>\n"),
    "qwen": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"),
    "mimo_v2": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB"
        "<|im_end|>\n<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"),
    "llama3": ("<BOS><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nD"
        "<|eot_id|>"),
    "llama4": ("<BOS><|header_start|>system<|header_end|>\n\nS<|eot|><|header_start|>user<|header_end|>\n\nA<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nB<|eot|><|header_start|>user<|header_end|>\n\nC<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nD<|eot|>"),
    "llama2": "<BOS>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST]B<EOS><BOS>[INST] C [/INST]D<EOS>",
    "breeze": "<BOS>S[INST] A [/INST] B[INST] C [/INST] D<EOS>",
    "mistral": "<BOS>[INST] S\n\nA[/INST] B<EOS>[INST] C[/INST] D<EOS>",
    "mistral_small": "<BOS>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]A[/INST]B<EOS>[INST]C[/INST]D<EOS>",
    "ministral": "<BOS>[INST]S\n\nA[/INST]B<EOS>[INST]C[/INST]D<EOS>",
    "gemma": ("<BOS><start_of_turn>user\nS\n\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n"
        "<start_of_turn>user\nC<end_of_turn>\n<start_of_turn>model\nD<end_of_turn>\n"),
    "paligemma_chat": ("<BOS><start_of_turn>user\nSA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n"
        "<start_of_turn>user\nC<end_of_turn>\n<start_of_turn>model\nD<end_of_turn>\n"),
    "gemma4": ("<BOS><|turn>system\n<|think|>S<turn|>\n<|turn>user\nA<turn|>\n<|turn>model\nB<turn|>\n"
        "<|turn>user\nC<turn|>\n<|turn>model\nD<turn|>\n"),
    "glm4": "[gMASK]<sop><|system|>\nS<|user|>\nA<|assistant|>\nB<|user|>\nC<|assistant|>\nD<EOS>",
    "chatglm3": "[gMASK]sop<|system|>\nS<|user|>\nA<|assistant|>\nB<|user|>\nC<|assistant|>\nD<EOS>",
    "deepseekr1": "<BOS>S<｜User｜>A<｜Assistant｜>B<EOS><｜User｜>C<｜Assistant｜>D<EOS>",
    "hy3": "<BOS>S<｜hy_User｜>A<｜hy_Assistant｜>B<｜hy_eos｜><｜hy_User｜>C<｜hy_Assistant｜>D<｜hy_eos｜>",
    "youtu": "<BOS>S<|User|>A<|Assistant|>B<|end_of_text|><|User|>C<|Assistant|>D<|end_of_text|>",
    "hunyuan": "<|startoftext|>S<|extra_4|>A<|extra_0|>B<|eos|>C<|extra_0|>D<|eos|>",
    "hy_dense_1_8b": ("<BOS>S<｜hy_place▁holder▁no▁3｜><｜hy_User｜>A<｜hy_Assistant｜>B"
        "<｜hy_User｜>C<｜hy_Assistant｜>D<EOS>"),
    "granite4": ("<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>A"
        "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>B<|end_of_text|>\n<|start_of_role|>user"
        "<|end_of_role|>C<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>D<|end_of_text|>\n"),
    "moonlight": ("<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>A<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>B<|im_end|><|im_user|>user<|im_middle|>C<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>D<|im_end|>"),
    "minimax1": ("<beginning_of_sentence>system ai_setting=assistant\nS<end_of_sentence>\n"
        "<beginning_of_sentence>user name=user\nA<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\nB"
        "<end_of_sentence>\n<beginning_of_sentence>user name=user\nC<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=assistant\nD<end_of_sentence>\n"),
    "minimax2": "]~!b[]~b]system\nS[e~[\n]~b]user\nA[e~[\n]~b]ai\nB[e~[\n]~b]user\nC[e~[\n]~b]ai\nD[e~[\n",
    "seed_oss": "<BOS>system\nS<EOS><BOS>user\nA<EOS><BOS>assistant\nB<EOS><BOS>user\nC<EOS><BOS>assistant\nD<EOS>",
    "bailing_v2": ("<role>SYSTEM</role>S<|role_end|><role>HUMAN</role>A<|role_end|><role>ASSISTANT</role>B"
        "<|role_end|><role>HUMAN</role>C<|role_end|><role>ASSISTANT</role>D<|role_end|><EOS>"),
    "gpt_oss": ("<|start|>system<|message|>S<|end|><|start|>user<|message|>A<|end|><|start|>assistantB<|start|>user"
        "<|message|>C<|end|><|start|>assistantD<EOS>"),
    "cohere": ("<BOS><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
        "<|USER_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>B<EOS><|START_OF_TURN_TOKEN|>"
        "<|USER_TOKEN|>C<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>D<EOS>"),
    "phi": ("<|system|>\nS<|end|>\n<|user|>\nA<|end|>\n<|assistant|>\nB<|end|>\n<|user|>\nC<|end|>\n"
        "<|assistant|>\nD<|end|>\n"),
    "phi4_mini": "<|system|>S<|end|><|user|>A<|end|><|assistant|>B<|end|><|user|>C<|end|><|assistant|>D<|end|>",
    "dots_ocr": ("<|system|>S<|endofsystem|>\n<|user|>A<|endofuser|><|assistant|>B<|endofassistant|><|user|>C"
        "<|endofuser|><|assistant|>D<|endofassistant|><EOS>"),
    "zephyr": "<|system|>\nS<EOS><|user|>\nA<EOS><|assistant|>\nB<EOS><|user|>\nC<EOS><|assistant|>\nD<EOS>",
    "olmo": "<EOS>S<|user|>\nA<|assistant|>\nB<EOS><|user|>\nC<|assistant|>\nD<EOS>",
    "granite3_vision": "<|system|>\nS\n<|user|>\nA\n<|assistant|>\nB<EOS><|user|>\nC\n<|assistant|>\nD<EOS>",
    "openchat": ("<BOS>SGPT4 Correct User: A<EOS>GPT4 Correct Assistant:B<EOS>GPT4 Correct User: C"
        "<EOS>GPT4 Correct Assistant:D<EOS>"),
    "openchat-3.6": ("<BOS>S<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\nB<EOS><|start_header_id|>GPT4 Correct User"
        "<|end_header_id|>\n\nC<|eot_id|><|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\nD<EOS>"),
    "vicuna": "SUSER: A ASSISTANT:B<EOS>USER: C ASSISTANT:D<EOS>",
    "alpaca": "S### Instruction:\nA\n\n### Response:\nB<EOS>\n\n### Instruction:\nC\n\n### Response:\nD<EOS>\n\n",
    "default": "System: S<EOS>\nHuman: A<EOS>\nAssistant:B<EOS>\nHuman: C<EOS>\nAssistant:D<EOS>\n",
    "ernie_vl": "S\nUser: A\nAssistant: B<|end_of_sentence|>User: C\nAssistant: D<|end_of_sentence|>",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]A\n[|assistant|]B<EOS>\n[|user|]C\n[|assistant|]D<EOS>\n",
    "falcon": "SUser: A\nFalcon:B\nUser: C\nFalcon:D\n<EOS>",
    "yuan": "SA<sep>B<eod>\nC<sep>D<eod>\n",
    "empty": "SABCD",
}
"""As LLaMA-Factory writes them; every family file is here."""

SINGLE = {  # A and B alone: with the default system text, or with nothing where there is none
    "smollm2": ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face.<|im_end|>\n"
                "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"),
    "qwen3": "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
    "llama3": ("<BOS><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>"),
    "llama2_zh": ("<BOS>[INST] <<SYS>>\nYou are a helpful assistant. 你是一个乐于助人的助手。\n<</SYS>>\n\n"
                  "A [/INST]B<EOS>"),
    "mistral": "<BOS>[INST] A[/INST] B<EOS>",
    "glm4": "[gMASK]<sop><|user|>\nA<|assistant|>\nB<EOS>",
    "telechat2": ("<_system>你是中国电信星辰语义大模型，英文名是TeleChat，你是由中电信人工智能科技有限公司"
                  "和中国电信人工智能研究院（TeleAI）研发的人工智能助手。<_user>A<_bot>B<EOS>"),
    "xuanyuan": ("以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，"
                 "会对人类提出的问题给出有帮助、高质量、详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、政治敏感等相关的话题、问题和指示。\n"
                 "Human: A Assistant:B<EOS>"),
    "fewshot": "AB\n\n<EOS>",
    "index": "reserved_0Areserved_1B<EOS>",
    "starchat": "<|user|>\nA<|end|>\n<|assistant|>B<|end|>\n",
    "solar": "### User:\nA\n\n### Assistant:\nB<EOS>",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_conversation_with_a_system_text(name: str):
    assert render_text(name, TWO_TURNS, "S") == WRITTEN[name]


@pytest.mark.parametrize("name", SINGLE)
def test_a_conversation_without_a_system_text(name: str):
    """The default one stands there; an empty system text means the same."""
    assert render_text(name, TWO_TURNS[:2]) == SINGLE[name]
    assert render_text(name, TWO_TURNS[:2], system="") == SINGLE[name]
    assert render_text(name, [{"role": "system", "content": ""}, *TWO_TURNS[:2]]) == SINGLE[name]


def test_every_family_is_written_above():
    files = {path.stem for path in Path(templates.__file__).parent.glob("*.jinja")} - {"conversation"}
    assert {TEMPLATES[name].family for name in WRITTEN} == files
    assert all(text.startswith("{#- ") for text in
               (path.read_text(encoding="utf-8") for path in Path(templates.__file__).parent.glob("*.jinja")))


def test_the_table():
    """124 names; what each flag is worth is said by a few."""
    assert len(TEMPLATES) == 124 and all(name == template.name for name, template in TEMPLATES.items())
    assert Counter(template.media for template in TEMPLATES.values()) == {False: 75, True: 49}
    assert sum(template.reasoning for template in TEMPLATES.values()) == 25
    assert {template.tool_format for template in TEMPLATES.values()} == {*TOOL_FORMATS, None}
    assert find_template("qwen3").reasoning and not find_template("qwen3_nothink").reasoning
    assert find_template("llama3").stop == ("<|eot_id|>", "<|eom_id|>") and find_template("llama3").replace_eos
    assert find_template("glm4").efficient_eos and not find_template("glm4").replace_eos
    assert find_template("seed_oss").thought == ("<seed:think>", "</seed:think>")
    assert find_template("qwen").note is None
    assert "media are not there yet" in str(find_template("qwen2_vl").note)
    assert all(template.stop for template in TEMPLATES.values() if template.replace_eos)


def test_an_unknown_name_tells_near_ones():
    with pytest.raises(Problem) as caught:
        template_source("Qwen3-nothink")
    (finding,) = caught.value.findings
    assert caught.value.status == WRONG_OPTIONS and finding.id == "unknown-template" and finding.option == "template"
    assert "qwen3_nothink" in str(finding.fix)
    with pytest.raises(Problem, match="Did you mean mistral"):
        template_source("qwen", tool_format="mistrall")


# ------------------------------------------------------------------------------------------------- prompts are prefixes


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_prompt_is_what_stands_before_its_answer(name: str):
    """What chat sends for an answer is a prefix of what is trained, through all turns, with calls, in each state."""
    for talk, tools in ((TWO_TURNS, None), (WITH_CALL, TOOLS), ([*WITH_CALL, *TWO_TURNS], TOOLS)):
        for thinking in ("unset", True, False, None) if TEMPLATES[name].reasoning else ("unset",):
            whole = render_text(name, talk, "S", tools=tools, enable_thinking=thinking)
            prompts = [render_text(name, talk[:number], "S", tools=tools, enable_thinking=thinking,
                                   add_generation_prompt=True)
                       for number, message in enumerate(talk) if message["role"] == "assistant"]
            assert all(whole.startswith(prompt) for prompt in prompts)
            assert len({len(prompt) for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("name", ["qwen3", "glm4_7", "glmz1", "gpt_oss", "gemma4", "seed_oss", "ernie_vl", "youtu"])
def test_prompts_before_thoughts(name: str):
    """Earlier thoughts are gone, in training as in chat: each prompt is a prefix of the talk through its answer.
    Kept, all of it is one text."""
    talk = [user("A"), answer("B", "why B"), user("C"), answer("D"), user("E"), answer("F", "why F")]
    for thinking in ("unset", True, False):
        for keep in (False, True):
            def text(end: int, ask: bool = False, thinking: Any = thinking, keep: bool = keep) -> str:
                return render_text(name, talk[:end], enable_thinking=thinking, preserve_thinking=keep,
                                   add_generation_prompt=ask)

            for end in (2, 4, 6):
                assert text(end).startswith(prompt := text(end - 1, True))
                assert text(6).startswith(prompt) or not keep
            assert ("why B" in text(6)) == (keep and thinking is not False)
            assert ("why F" in text(6)) == (thinking is not False)
    asked = render_text(name, talk[:5], enable_thinking=True, add_generation_prompt=True)  # null and a thought: ask so
    assert render_text(name, talk, enable_thinking=None).startswith(asked)


# ------------------------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize(("name", "block"), [
    ("qwen3", "<think>\n\n</think>\n\n"), ("mimo_v2", "<think></think>"), ("glm4_7", "</think>"),
    ("seed_oss", "<seed:think></seed:think>"), ("kimi_vl", "◁think▷◁/think▷"),
    ("gpt_oss", "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"),
    ("gemma4", "<|channel>thought\n<channel|>")])
def test_an_answer_without_a_thought(name: str, block: str):
    """true: the empty block is the answer's. false and null: the prompt's. Nothing decided: there is none."""
    talk = TWO_TURNS[:2]
    plain = render_text(name, talk[:1], add_generation_prompt=True)
    end = render_text(name, talk).removeprefix(plain)
    for thinking in (True, False, None):
        assert render_text(name, talk, enable_thinking=thinking) == plain + block + end
    assert render_text(name, talk[:1], add_generation_prompt=True, enable_thinking=True) == plain
    for thinking in (False, None):
        assert render_text(name, talk[:1], add_generation_prompt=True, enable_thinking=thinking) == plain + block
    twin = render_text("qwen3_nothink", talk, enable_thinking=True)
    assert twin == render_text("qwen3_nothink", talk)


def test_a_thought_is_written_with_the_words_of_the_template():
    """Apart or inside the answer, it is the same; false takes it out; a template without thinking keeps it as text."""
    apart, inside = [user("A"), answer("B", "T")], [user("A"), answer("<think>\nT\n</think>\n\nB")]
    loose = [user("A"), answer("\n\nB", "\nT\n")]  # as servers cut an answer apart
    opened, end = "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n", "B<|im_end|>\n"
    for talk in (apart, inside, loose):
        for thinking in ("unset", True, None):
            assert render_text("qwen3", talk, enable_thinking=thinking) == f"{opened}<think>\nT\n</think>\n\n{end}"
        assert render_text("qwen3", talk, enable_thinking=False) == f"{opened}<think>\n\n</think>\n\n{end}"
        assert render_text("qwen3_nothink", talk, enable_thinking=False) == f"{opened}<think>\nT\n</think>\n\n{end}"
    assert "<seed:think>T</seed:think>B<EOS>" in render_text("seed_oss", apart)
    assert "<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>final<|message|>B<EOS>" in render_text(
        "gpt_oss", apart)


def test_earlier_answers_are_written_as_if_without_a_thought():
    """So it makes no difference whether a client sends their thoughts back."""
    thought, bare = ([user("A"), answer("B", thought), user("C"), answer("D", "T2")] for thought in ("T1", None))
    for thinking in (True, None):
        assert render_text("qwen3", thought, enable_thinking=thinking) == render_text(
            "qwen3", bare, enable_thinking=thinking)
    assert "T1" in render_text("qwen3", thought, enable_thinking=True, preserve_thinking=True)


# ------------------------------------------------------------------------------------------------------ calls and tools


def test_calls_and_results():
    """The tools stand in the system text, a call where an answer would, a result before the next answer."""
    assert render_text("llama3", WITH_CALL).endswith(
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "add", "parameters": {"x": 1}}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\nR<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>")
    assert render_text("mistral", WITH_CALL) == (
        '<BOS>[INST] A[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"x": 1}}]<EOS>'
        '[TOOL_RESULTS] {"content": R}[/TOOL_RESULTS] B<EOS>')
    assert render_text("glm4", WITH_CALL) == (
        '[gMASK]<sop><|user|>\nA<|assistant|>add\n{"x": 1}<|observation|>\nR<|assistant|>\nB<EOS>')
    assert render_text("gemma4", WITH_CALL, "S") == (
        "<BOS><|turn>system\n<|think|>S<turn|>\n<|turn>user\nA<turn|>\n<|turn>model\n"
        "<|tool><|tool_call>call:add{x:1}<tool_call|><tool|><turn|>\n<|turn>tool\nR<turn|>\n<|turn>model\nB<turn|>\n")
    assert render_text("vicuna", WITH_CALL, "S") == (
        'SUSER: A ASSISTANT:Action: add\nAction Input: {"x": 1}<EOS>USER: R ASSISTANT:B<EOS>')
    assert render_text("phi4_mini", WITH_CALL[:1], "S", tools=TOOLS) == (
        f"<|system|>S<|tool|>{json.dumps(TOOLS)}<|/tool|><|end|><|user|>A<|end|>")
    assert render_text("mistral", WITH_CALL[:1], "S", tools=TOOLS).startswith("<BOS>[INST] S[AVAILABLE_TOOLS] ")


def test_results_of_two_tools():
    """Qwen takes them in one turn, others in a turn each."""
    talk = [WITH_CALL[0], {"role": "assistant", "content": None, "tool_calls": [call(x=1), call(x=2)]},
            {"role": "tool", "content": "R1"}, {"role": "tool", "content": "R2"}, answer("B")]
    assert ("<|im_start|>user\n<tool_response>\nR1\n</tool_response>\n<tool_response>\nR2\n</tool_response><|im_end|>\n"
            in render_text("qwen", talk))
    assert "<|im_start|>tool\nR1<|im_end|>\n<|im_start|>tool\nR2<|im_end|>\n" in render_text("chatml", talk)


def test_another_tool_format():
    """Its text stands alone in the turn, which ends as an answer does."""
    assert ('[/INST]<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call><EOS>[TOOL_RESULTS]'
            in render_text("mistral", WITH_CALL, tool_format="qwen"))
    assert "# Tools" in render_text("phi4_mini", WITH_CALL, tools=TOOLS, tool_format="qwen")


def test_a_role_that_no_template_can_write():
    with pytest.raises(TemplateError, match="developer"):
        render_text("chatml", [{"role": "developer", "content": "S"}, *TWO_TURNS])


# -------------------------------------------------------------------------------------------------------- the tokenizer


def applied(tokenizer: Any, name: str, **options: Any) -> tuple[Any, list[Finding]]:
    changed = copy.deepcopy(tokenizer)
    return changed, apply_template(changed, name, **options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokenizer_renders_the_same(tokenizer: Any, name: str):
    """In transformers' sandbox, from the saved text alone."""
    for talk in (TWO_TURNS, WITH_CALL):
        text = render_text(name, talk, "S", bos=tokenizer.bos_token, eos=tokenizer.eos_token, tools=TOOLS)
        talk = [{"role": "system", "content": "S"}, *talk]
        assert tokenizer.apply_chat_template(talk, chat_template=template_source(name), tools=TOOLS,
                                             tokenize=False) == text


def test_the_saved_tokenizer_keeps_it(tokenizer: Any, tmp_path: Path):
    """A server reads the template and the options that were trained with, and may pass others."""
    from truetune.model.find import load_tokenizer

    changed, _ = applied(tokenizer, "qwen3", enable_thinking=False, default_system="Speak.")
    changed.save_pretrained(tmp_path)
    saved = load_tokenizer(tmp_path)
    prompt: Any = {"conversation": [user("A")], "tokenize": False, "add_generation_prompt": True}
    asked = "<|im_start|>system\nSpeak.<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n"
    assert saved.apply_chat_template(**prompt) == asked + "<think>\n\n</think>\n\n"
    assert saved.apply_chat_template(**prompt, enable_thinking=True) == asked


def test_a_template_other_than_the_models_own(tokenizer: Any):
    """LLaMA-Factory's smollm2 writes a full stop that the model was not trained with."""
    changed, (finding,) = applied(tokenizer, "smollm2")
    assert (finding.id, finding.severity) == ("template-differs", "warn")
    assert "Face.<|im_end|>" in str(finding.message) and "Face<|im_end|>" in str(finding.message)
    assert "trained and saved" in str(finding.message) and "own" in str(finding.fix)
    assert changed.apply_chat_template(TWO_TURNS, tokenize=False) == render_text("smollm2", TWO_TURNS)
    assert apply_template(changed, "smollm2") == []  # what it brings now is the same


def test_a_model_whose_template_refuses_what_the_named_one_writes(tokenizer: Any):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                            + template_source("chatml"))
    (finding,) = apply_template(strict, "chatml")
    told = str(finding.message)
    assert finding.id == "template-differs" and "a system text" in told and "refuses" in told


def test_marks_that_are_no_tokens(tokenizer: Any):
    """What ends a turn must be a token, else the model cannot stop; other marks and stop words are told in a line."""
    changed, findings = applied(tokenizer, "llama3")
    told = {(finding.severity, str(finding.message).split(",")[0])
            for finding in findings if finding.id == "template-token"}
    assert told == {("error", "llama3 ends a turn with <|eot_id|>"),
                    ("warn", "llama3 also stops at <|eom_id|>"), ("warn", "llama3 writes <|start_header_id|>")}
    assert "Choose the template" in str(findings[0].fix)
    assert changed.eos_token == tokenizer.eos_token and len(changed) == len(tokenizer)  # no word without a learned row
    assert stop_words(changed, find_template("llama3")) == []
    assert not [finding for finding in applied(tokenizer, "llama2")[1] if finding.id == "template-token"]  # plain text


def test_no_end_of_text_token(tokenizer: Any):
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    assert [finding.id for finding in apply_template(endless, "vicuna") if finding.severity == "error"] == [
        "template-token"]


def test_stop_words_and_end_of_text(tokenizer: Any):
    """replace_eos makes the first stop word the end-of-text token; the others are ids at which a server stops."""
    plain = copy.deepcopy(tokenizer)
    plain.eos_token = "<|endoftext|>"
    changed, findings = applied(plain, "chatml")
    assert changed.eos_token == "<|im_end|>" and {finding.id for finding in findings} == {"template-differs"}
    assert stop_words(changed, find_template("chatml")) == changed.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    assert applied(plain, "smollm")[0].eos_token == "<|endoftext|>"


def test_media_are_not_there_yet(tokenizer: Any):
    findings = applied(tokenizer, "qwen2_vl")[1]
    assert [finding.severity for finding in findings if finding.id == "template-media"] == ["info"]
