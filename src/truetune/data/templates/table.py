"""The 124 template names of LLaMA-Factory, and what each fills into its family's Jinja file.

Facts only: a row says which family writes a name, what it puts into that family's blanks, and its flags. The texts that
a model was given as its default system text are its makers' and stand here letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from truetune.findings import Both

Value = str | bool | tuple[str, str] | None


@dataclass(frozen=True)
class Template:
    """One named template.

    family: the .jinja file that writes it. values: that file's blanks. stop: words that end an answer when served.
    efficient_eos: the end-of-text token stands behind the last answer of a conversation only. replace_eos: the first
    stop word becomes the tokenizer's end-of-text token. tool_format: None means `default`, whose macros are then used.
    reasoning: the model can think, so enable_thinking matters. thought: the words around a thought. media: made for a
    model that also sees or hears. text_marks: its marks are ordinary text, so they need not be tokens.
    """

    name: str
    family: str
    values: Mapping[str, Value] = field(repr=False)
    default_system: str = ""
    stop: tuple[str, ...] = ()
    efficient_eos: bool = False
    replace_eos: bool = False
    tool_format: str | None = None
    reasoning: bool = False
    thought: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    empty_thought: str | None = None
    media: bool = False
    text_marks: bool = False

    @property
    def note(self) -> Both | None:
        """The line that tells what is not there yet for a model that also sees or hears."""
        if not self.media:
            return None
        return Both(f"{self.name} is for a model that also takes pictures, video or sound: only its text is trained "
                    "here; media are not there yet.",
                    f"{self.name} 用于还能接收图片、视频或音频的模型：这里只训练文本，多媒体暂不支持。")


TEMPLATES: dict[str, Template] = {}
"""By name."""

_BLANKS: dict[str, dict[str, Value]] = {
    "chatml": {"open": "<|im_start|>", "close": "<|im_end|>", "between": "\n", "gap": "\n", "with_bos": False,
               "user_role": "user", "answer_role": "assistant", "tool_role": "user",
               "result_open": "", "result_close": ""},
    "llama3": {"head_open": "<|start_header_id|>", "head_close": "<|end_header_id|>", "end": "<|eot_id|>"},
    "llama2": {"bos_each_turn": True, "system_open": "<<SYS>>\n", "system_close": "\n<</SYS>>\n\n", "ask": "",
               "answer_eos": True, "folds_system": True},
    "mistral": {"space": "", "system_open": "", "system_close": "\n\n", "folds_system": True},
    "gemma": {"system_close": "\n\n", "folds_system": True},
    "glm": {"opening": "[gMASK]<sop>"},
    "deepseek": {"user_mark": "<｜User｜>", "ask": "<｜Assistant｜>", "end_mark": "", "result_open": "",
                 "result_close": ""},
    "hunyuan": {"start": "", "system_end": "<|extra_4|>", "user_open": "", "user_end": "<|extra_0|>",
                "answer_open": "", "answer_end": ""},
    "granite": {"tool_role": "user"},
    "seed": {"call_break": False},
    "bailing": {"end": "", "result_open": "", "result_close": ""},
    "phi": {"between": "\n", "ask": "<|assistant|>\n", "system_end": "<|end|>\n", "user_end": "<|end|>\n",
            "answer_end": "<|end|>\n"},
    "zephyr": {"eos_first": False, "eos_turns": False, "system_mark": "<|system|>\n", "turn_end": ""},
    "openchat": {"head_open": "", "head_close": ":", "end": ""},
    "labels": {"with_bos": False, "start": "", "system_open": "", "system_close": "", "user_open": "",
               "user_close": "", "ask": "", "answer_open": "", "answer_close": "", "eos_turns": False,
               "answer_eos": True},
}
"""The blanks of each family as most of its names fill them."""

_IM_END = ("<|im_end|>",)
_GLM_STOP = ("<|user|>", "<|observation|>")
_THINK = ("<think>", "</think>")
_HELPFUL = "You are a helpful assistant."
_CURIOUS = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the user's questions.")


def _add(family: str, names: str, blanks: Mapping[str, Value] | None = None, *, system: str = "",
         stop: tuple[str, ...] = (), efficient_eos: bool = False, replace_eos: bool = False,
         tools: str | None = None, reasoning: bool = False, thought: tuple[str, str] = Template.thought,
         empty_thought: str | None = None, media: bool = False, text_marks: bool = False, **values: Value) -> None:
    """Enter `names` (parted by spaces), which differ in nothing but their name. blanks and values: as the family has
    them, where it is other than `_BLANKS`."""
    for name in names.split():
        TEMPLATES[name] = Template(
            name, family, {**_BLANKS.get(family, {}), **(blanks or {}), **values}, system, stop, efficient_eos,
            replace_eos, tools, reasoning, thought, empty_thought, media, text_marks)


def _chatml() -> None:
    tool: dict[str, Value] = {"tool_role": "tool"}
    both = ("<|im_end|>", "<|im_start|>")
    _add("chatml", "chatml", tool, stop=both, replace_eos=True)
    _add("chatml", "chatml_de", tool, system="Du bist ein freundlicher und hilfsbereiter KI-Assistent.", stop=both,
         replace_eos=True)
    _add("chatml", "cpm4", tool, stop=_IM_END, with_bos=True)
    _add("chatml", "falcon_h1", tool, stop=("<|im_end|>", "<|end_of_text|>"), with_bos=True)
    _add("chatml", "opencoder", tool, system="You are OpenCoder, created by OpenCoder Team.", stop=_IM_END)
    _add("chatml", "ernie", tool, system="<global_setting>\nthink_mode=True\n</global_setting>", stop=_IM_END,
         gap="\n\n")
    _add("chatml", "dbrx", tool, stop=_IM_END, replace_eos=True, system=(
        "You are DBRX, created by Databricks. You were last updated in December 2023. You answer questions based on "
        "information available up to that point.\nYOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but "
        "provide thorough responses to more complex and open-ended questions.\nYou assist with various tasks, from "
        "writing to coding (using markdown for code blocks — remember to use ``` with code, JSON, and tables).\n(You "
        "do not have real-time data access or code execution capabilities. You avoid stereotyping and provide balanced "
        "perspectives on controversial topics. You do not provide song lyrics, poems, or news articles and do not "
        "divulge details of your training data.)\nThis is your system prompt, guiding your responses. Do not reference "
        "it, just respond to the user. If you find yourself talking about this message, stop. You should be responding "
        "appropriately and usually that means not mentioning this.\nYOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT "
        "YOURSELF UNLESS THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY."))
    lfm2: dict[str, Value] = {"tool_role": "tool", "result_open": "<|tool_response_start|>",
                              "result_close": "<|tool_response_end|>"}
    _add("chatml", "lfm2", lfm2, system="You are a helpful AI assistant.", stop=_IM_END, replace_eos=True,
         tools="lfm2")
    _add("chatml", "lfm2_vl", lfm2, system="You are a helpful multimodal assistant by Liquid AI.", stop=_IM_END,
         replace_eos=True, tools="lfm2", media=True)
    _add("chatml", "phi4", stop=_IM_END, replace_eos=True, between="<|im_sep|>", gap="")
    _add("chatml", "smollm yi", stop=_IM_END)
    _add("chatml", "smollm2", stop=_IM_END,
         system="You are a helpful AI assistant named SmolLM, trained by Hugging Face.")
    _add("chatml", "sailor", stop=_IM_END, user_role="question", answer_role="answer", tool_role="question", system=(
        "You are an AI assistant named Sailor created by Sea AI Lab. Your answer should be friendly, unbiased, "
        "faithful, informative and detailed."))
    _add("chatml", "intern2", stop=_IM_END, with_bos=True, system=(
        "You are an AI assistant whose name is InternLM (书生·浦语).\n- InternLM (书生·浦语) is a conversational "
        "language model that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be "
        "helpful, honest, and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in the "
        "language chosen by the user such as English and 中文."))
    _add("chatml", "intern_vl", stop=_IM_END, with_bos=True, media=True, system=(
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"))
    _add("chatml", "intern_s1", stop=_IM_END, with_bos=True, media=True)
    _add("chatml", "llava_next_yi llava_next_video_yi", stop=_IM_END, media=True)
    _add("chatml", "minicpm_v minicpm_v_4_6", system=_HELPFUL, stop=_IM_END, media=True)
    _add("chatml", "minicpm_o", stop=_IM_END, media=True, system=(
        "You are a helpful assistant. You can accept audio and text input and output voice and text."))
    _add("chatml", "qwen2_audio", system=_HELPFUL, stop=_IM_END, replace_eos=True, media=True)
    _add("chatml", "youtu_vl", system=_HELPFUL, stop=("<|end_of_text|>",), media=True, open="<|begin_of_text|>",
         close="<|end_of_text|>")


def _qwen() -> None:
    def add(names: str, tools: str = "qwen", *, system: str = "", reasoning: bool = False, media: bool = True,
            thought: tuple[str, str] = Template.thought, **values: Value) -> None:
        _add("qwen", names, values, system=system, stop=_IM_END, replace_eos=True, tools=tools, reasoning=reasoning,
             thought=thought, media=media)

    add("qwen", system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", media=False)
    add("qwen3", reasoning=True, media=False)
    add("qwen3_nothink", media=False)
    add("llava_next_qwen qwen2_vl qwen2_omni", system=_HELPFUL)
    add("keye_vl qwen3_vl qwen3_omni", reasoning=True)
    add("qwen3_vl_nothink qwen3_omni_nothink")
    add("qwen3_5 qwen3_6", "qwen3_5", reasoning=True)
    add("qwen3_5_nothink", "qwen3_5")
    add("mimo", system=_HELPFUL, reasoning=True, media=False)
    add("mimo_v2", system="You are MiMo, a helpful AI assistant engineered by Xiaomi.", reasoning=True, media=False,
        thought=_THINK)
    add("mimo_vl", system="You are MiMo, an AI assistant developed by Xiaomi.", reasoning=True)
    add("moss_vl", trims_lone_tools=True)


def _headers_and_brackets() -> None:
    eot = ("<|eot_id|>", "<|eom_id|>")
    _add("llama3", "llama3", stop=eot, replace_eos=True, tools="llama3")
    _add("llama3", "mllama llava_next_llama3", stop=eot, replace_eos=True, tools="llama3", media=True)
    _add("llama3", "llama4", stop=("<|eot|>", "<|eom|>"), replace_eos=True, tools="llama3", media=True,
         head_open="<|header_start|>", head_close="<|header_end|>", end="<|eot|>")
    _add("openchat", "openchat")
    _add("openchat", "openchat-3.6", stop=("<|eot_id|>",), head_open="<|start_header_id|>",
         head_close="<|end_header_id|>\n\n", end="<|eot_id|>")
    _add("llama2", "llama2", text_marks=True)
    _add("llama2", "llama2_zh", system="You are a helpful assistant. 你是一个乐于助人的助手。", text_marks=True)
    _add("llama2", "breeze", efficient_eos=True, text_marks=True, bos_each_turn=False, system_open="", system_close="",
         ask=" ", answer_eos=False, folds_system=False)
    _add("mistral", "mistral", tools="mistral", space=" ")
    _add("mistral", "llava_next_mistral llava_next_video_mistral", tools="mistral", media=True, space=" ")
    _add("mistral", "ministral", tools="mistral")
    _add("mistral", "ministral3 pixtral", tools="mistral", media=True)
    _add("mistral", "mistral_small", tools="mistral", media=True, folds_system=False, system_open="[SYSTEM_PROMPT]",
         system_close="[/SYSTEM_PROMPT]")


def _turns_with_marks() -> None:
    turn = ("<end_of_turn>",)
    _add("gemma", "gemma", stop=turn, replace_eos=True)
    _add("gemma", "gemma2", stop=("<eos>", "<end_of_turn>"), efficient_eos=True)
    _add("gemma", "gemma3 gemma3n", stop=turn, replace_eos=True, media=True)
    _add("gemma", "paligemma_chat", stop=turn, replace_eos=True, media=True, system_close="")
    _add("gemma4", "gemma4 gemma4n", system=_HELPFUL, stop=("<turn|>",), replace_eos=True, tools="gemma4",
         reasoning=True, thought=("<|channel>thought\n", "<channel|>"), media=True)
    _add("granite", "granite3")
    _add("granite", "granite4", system="You are Granite, developed by IBM. You are a helpful AI assistant.",
         stop=("<|end_of_text|>",), tools="default", tool_role="tool")
    _add("kimi", "moonlight", system="You are a helpful assistant provided by Moonshot-AI.", stop=_IM_END,
         replace_eos=True)
    _add("kimi", "kimi_vl", system="You are a helpful assistant", stop=_IM_END, reasoning=True,
         thought=("◁think▷", "◁/think▷"), media=True)
    _add("minimax1", "minimax1", system=_HELPFUL, stop=("<end_of_sentence>",), tools="minimax1")
    _add("minimax2", "minimax2", stop=("[e~[",), tools="minimax2", reasoning=True,
         system="You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.")
    _add("cohere", "cohere")
    _add("gpt_oss", "gpt_oss", system="You are ChatGPT, a large language model trained by OpenAI.", efficient_eos=True,
         reasoning=True,
         thought=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"))
    _add("phi", "phi phi_small", stop=("<|end|>",), replace_eos=True)
    _add("phi", "phi4_mini", stop=("<|end|>",), replace_eos=True, between="", ask="<|assistant|>",
         system_end="<|end|>", user_end="<|end|>", answer_end="<|end|>", tool_marks=("<|tool|>", "<|/tool|>"))
    _add("phi", "starchat", stop=("<|end|>",), ask="<|assistant|>")
    _add("phi", "dots_ocr", stop=("<|endofassistant|>",), efficient_eos=True, media=True, between="",
         ask="<|assistant|>", system_end="<|endofsystem|>\n", user_end="<|endofuser|>",
         answer_end="<|endofassistant|>")
    _add("zephyr", "zephyr", system="You are Zephyr, a helpful assistant.", eos_turns=True)
    _add("zephyr", "granite3_vision", system=_CURIOUS, media=True, turn_end="\n")
    _add("zephyr", "olmo", eos_first=True, system_mark="")
    _add("seed", "seed_coder", system=(
        "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance Seed, and you "
        "only answer questions related to computer science. For politically sensitive questions, security and privacy "
        "issues, and other non-computer science questions, you will refuse to answer.\n\n"))
    _add("seed", "seed_oss", tools="seed_oss", reasoning=True, thought=("<seed:think>", "</seed:think>"),
         call_break=True)


def _marks_before_speakers() -> None:
    _add("glm", "glm4", stop=_GLM_STOP, efficient_eos=True, tools="glm4")
    _add("glm", "glm_ocr", stop=_GLM_STOP, efficient_eos=True, tools="glm4", media=True)
    _add("glm", "glmz1", stop=_GLM_STOP, efficient_eos=True, tools="glm4", reasoning=True)
    _add("glm", "chatglm3", stop=_GLM_STOP, efficient_eos=True, tools="glm4", opening="[gMASK]sop")
    _add("glm", "glm4v", stop=(*_GLM_STOP, "</answer>"), efficient_eos=True, tools="glm4", reasoning=True, media=True)
    _add("glm", "glm4_moe", stop=_GLM_STOP, efficient_eos=True, tools="glm4_moe", reasoning=True)
    _add("glm", "glm4_5v", stop=(*_GLM_STOP, "</answer>"), efficient_eos=True, tools="glm4_moe", reasoning=True,
         media=True)
    # GLM-4.7 tells that it did not think by the closing word alone
    _add("glm", "glm4_7", stop=_GLM_STOP, efficient_eos=True, tools="glm4_moe", reasoning=True, thought=_THINK,
         empty_thought="</think>")
    _add("glm", "aeva", stop=_GLM_STOP, efficient_eos=True, tools="glm4_moe", reasoning=True, thought=_THINK,
         empty_thought="</think>", system=(
             "You are an AI assistant named Aeva created by Zongzhi Lou. Your answer should be friendly, unbiased, "
             "faithful, informative and detailed."))
    _add("deepseek", "deepseek3")
    _add("deepseek", "deepseekr1", reasoning=True)
    _add("deepseek", "hy3", stop=("<｜hy_eos｜>",), replace_eos=True, reasoning=True, thought=_THINK,
         user_mark="<｜hy_User｜>", ask="<｜hy_Assistant｜>", end_mark="<｜hy_eos｜>")
    _add("deepseek", "youtu", stop=("<|end_of_text|>",), replace_eos=True, tools="default", reasoning=True,
         user_mark="<|User|>", ask="<|Assistant|>", end_mark="<|end_of_text|>", result_open="<tool_response>\n",
         result_close="\n</tool_response>")
    _add("bailing", "bailing", stop=("<|endoftext|>",), efficient_eos=True)
    _add("bailing", "bailing_v2", stop=("<|endoftext|>",), efficient_eos=True, tools="ling", end="<|role_end|>",
         result_open="\n<tool_response>\n", result_close="\n</tool_response>")
    _add("hunyuan", "hunyuan", stop=("<|eos|>",), start="<|startoftext|>", answer_end="<|eos|>")
    _add("hunyuan", "hy_dense_7b", stop=("<|eos|>",), efficient_eos=True)
    small: dict[str, Value] = {"system_end": "<｜hy_place▁holder▁no▁3｜>", "user_open": "<｜hy_User｜>"}
    end = "<｜hy_place▁holder▁no▁2｜>"
    _add("hunyuan", "hunyuan_small", small, stop=(end,), start="<｜hy_begin▁of▁sentence｜>",
         user_end="<｜hy_place▁holder▁no▁8｜>", answer_end=end)
    _add("hunyuan", "hy_dense_1_8b", small, stop=(end,), efficient_eos=True, user_end="",
         answer_open="<｜hy_Assistant｜>")


def _labels() -> None:
    _add("labels", "vicuna", system=_CURIOUS, user_open="USER: ", ask=" ASSISTANT:")
    _add("labels", "llava llava_next llava_next_video video_llava", system=_CURIOUS, media=True, user_open="USER: ",
         ask=" ASSISTANT:")
    _add("labels", "alpaca", user_open="### Instruction:\n", ask="\n\n### Response:\n", answer_close="\n\n", system=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n"))
    _add("labels", "default", system_open="System: ", system_close="\n", user_open="Human: ", ask="\nAssistant:",
         answer_close="\n", eos_turns=True)
    _add("labels", "empty", answer_eos=False)
    _add("labels", "fewshot", efficient_eos=True, answer_eos=False, answer_close="\n\n")
    _add("labels", "paligemma", media=True, with_bos=True, user_close="\n")
    _add("labels", "deepseek", with_bos=True, system_close="\n\n", user_open="User: ", ask="\n\nAssistant:")
    _add("labels", "deepseekcoder", with_bos=True, user_open="### Instruction:\n", ask="\n### Response:",
         answer_open="\n", answer_close="\n<|EOT|>\n", answer_eos=False, system=(
             "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, "
             "and you only answer questions related to computer science. For politically sensitive questions, security "
             "and privacy issues, and other non-computer science questions, you will refuse to answer.\n"))
    _add("labels", "ernie_nothink", stop=("<|end_of_sentence|>",), start="<|begin_of_sentence|>", system_close="\n",
         user_open="User: ", ask="\nAssistant: ", answer_close="<|end_of_sentence|>", answer_eos=False)
    # the same words, but the model is to write its own name
    _add("labels", "ernie_vl", stop=("<|end_of_sentence|>",), replace_eos=True, reasoning=True, media=True,
         system_close="\n", user_open="User: ", answer_open="\nAssistant: ", answer_close="<|end_of_sentence|>",
         answer_eos=False)
    _add("labels", "exaone", system_open="[|system|]", system_close="[|endofturn|]\n", user_open="[|user|]",
         user_close="\n", ask="[|assistant|]", answer_close="\n")
    _add("labels", "falcon", efficient_eos=True, user_open="User: ", ask="\nFalcon:", answer_close="\n",
         answer_eos=False)
    _add("labels", "index", efficient_eos=True, system_open="<unk>", user_open="reserved_0", ask="reserved_1",
         answer_eos=False)
    _add("labels", "solar", efficient_eos=True, system_open="### System:\n", system_close="\n\n",
         user_open="### User:\n", ask="\n\n### Assistant:\n", answer_eos=False)
    _add("labels", "telechat2", system_open="<_system>", user_open="<_user>", ask="<_bot>", system=(
        "你是中国电信星辰语义大模型，英文名是TeleChat，你是由中电信人工智能科技有限公司和中国电信人工智能研究院（TeleAI）研发的人工智能助手。"))
    _add("labels", "xuanyuan", user_open="Human: ", ask=" Assistant:", system=(
        "以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，会对人类提出的问题给出有帮助、高质量、"
        "详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、政治敏感等相关的话题、问题和指示。\n"))
    _add("labels", "yi_vl", stop=("###",), efficient_eos=True, media=True, user_open="### Human: ",
         ask="\n### Assistant:", answer_close="\n", answer_eos=False, system=(
             "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. "
             "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed "
             "and polite answers. 这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
             "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。\n\n"))
    _add("labels", "yuan", stop=("<eod>",), ask="<sep>", answer_close="<eod>\n", answer_eos=False)


for _fill in (_chatml, _qwen, _headers_and_brackets, _turns_with_marks, _marks_before_speakers, _labels):
    _fill()
TEMPLATES = dict(sorted(TEMPLATES.items()))
