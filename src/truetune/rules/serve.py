"""Rules: engines that answer."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import OPTIONS, Config
from truetune.rules.ask import is_set
from truetune.rules.rule import Rule

_ANSWERING = ("chat", "api", "eval")
_LEAVE_OUT = Both("Leave it out.", "请去掉。")
_CHANGES = ("quantization_bit", "rope_scaling", "resize_vocab", "add_tokens", "add_special_tokens",
            "new_special_tokens_config", "train_from_scratch")
"""Options that change the model while it is loaded, which only happens in this process."""


def _is_gguf(name: str | None) -> bool:
    return (name or "").endswith(".gguf")


def _elsewhere(c: Config) -> bool:
    return c.infer_backend != "huggingface"


def _of(prefix: str) -> list[str]:
    return [name for name in OPTIONS if name.startswith(prefix)]


RULES: tuple[Rule, ...] = (
    Rule("gguf-engine", "infer_backend",
         lambda c: _is_gguf(c.model_name_or_path) and c.infer_backend != "llamacpp", "error",
         Both("{model_name_or_path} is a GGUF file, which llama.cpp serves.",
              "{model_name_or_path} 是 GGUF 文件，由 llama.cpp 运行。"),
         Both("Set infer_backend: llamacpp.", "请设置 infer_backend: llamacpp。"), _ANSWERING,
         cure=lambda c: {"infer_backend": "llamacpp"}),
    Rule("endpoint-engine", "infer_endpoint", lambda c: bool(c.infer_endpoint) and not _elsewhere(c), "error",
         Both("nothing says what kind of server that is.", "没有说明那是哪一种服务。"),
         Both("Set infer_backend: vllm, sglang or llamacpp.", "请设置 infer_backend: vllm、sglang 或 llamacpp。"),
         _ANSWERING),
    Rule("endpoint-address", "infer_endpoint",
         lambda c: bool(c.infer_endpoint) and not str(c.infer_endpoint).startswith(("http://", "https://")), "error",
         Both("{infer_endpoint} is no address.", "{infer_endpoint} 不是地址。"),
         Both("It begins with http:// or https://, such as http://127.0.0.1:8000.",
              "应以 http:// 或 https:// 开头，例如 http://127.0.0.1:8000。"), _ANSWERING),
    Rule("endpoint-adapter", "adapter_name_or_path",
         lambda c: bool(c.infer_endpoint and c.adapter_name_or_path), "warn",
         Both("the server at infer_endpoint answers with the weights it has loaded; of the adapter only the tokenizer "
              "and the chat template are taken.",
              "infer_endpoint 的服务使用它自己加载的权重；这里只采用适配器的分词器和对话模板。"),
         Both("Load the adapter there, or leave infer_endpoint out.", "请在那里加载适配器，或去掉 infer_endpoint。"),
         _ANSWERING),
    Rule("engine-key", "infer_api_key", lambda c: bool(c.infer_api_key) and not c.infer_endpoint, "warn",
         Both("is sent to infer_endpoint, which is not set.", "是发给 infer_endpoint 的，而后者没有设置。"), _LEAVE_OUT,
         _ANSWERING),
    Rule("engine-changes", "infer_backend", lambda c: _elsewhere(c) and is_set(c, *_CHANGES), "error",
         Both("{infer_backend} reads the model as it is on disk; quantization_bit, rope_scaling and new tokens change "
              "it while it is loaded here.",
              "{infer_backend} 按磁盘上的样子读取模型，而 quantization_bit、rope_scaling 和新增 token 是在这里加载时"
              "才改动模型的。"),
         Both("Set infer_backend: huggingface, or export the model first.",
              "请设置 infer_backend: huggingface，或先导出模型。"), _ANSWERING,
         cure=lambda c: {"infer_backend": "huggingface"}),
    Rule("engine-merges", "infer_adapters",
         lambda c: bool(c.infer_adapters) and len(c.adapter_name_or_path) > 1, "error",
         Both("the first of adapter_name_or_path are merged into the base, which those beside it do not know.",
              "adapter_name_or_path 中靠前的适配器会合并进基座，旁边的适配器就对不上了。"),
         Both("Export the merged model, and serve that.", "请先导出合并后的模型，再部署它。"), _ANSWERING),
    Rule("engine-options", "infer_backend", lambda c: c.infer_backend != "vllm" and is_set(c, *_of("vllm_")), "info",
         Both("the vllm_ options have no effect with {infer_backend}.",
              "infer_backend 为 {infer_backend} 时，vllm_ 开头的选项不起作用。"), verbs=_ANSWERING),
    Rule("engine-options", "infer_backend",
         lambda c: c.infer_backend != "sglang" and is_set(c, *_of("sglang_")), "info",
         Both("the sglang_ options have no effect with {infer_backend}.",
              "infer_backend 为 {infer_backend} 时，sglang_ 开头的选项不起作用。"), verbs=_ANSWERING),
    Rule("engine-length", "infer_maxlen",
         lambda c: bool(c.infer_maxlen) and _elsewhere(c) and c.given(f"{c.infer_backend}_maxlen"), "info",
         Both("goes before vllm_maxlen and sglang_maxlen.", "优先于 vllm_maxlen 和 sglang_maxlen。"), verbs=_ANSWERING),
)
