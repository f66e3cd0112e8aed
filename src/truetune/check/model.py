"""What is wrong with a model's folder, told before anything of it is loaded: half-downloaded or pickled weights, files
that are not what their names say, architectures that cannot be trained, adapters that do not fit.

Read are JSON files and the headers of safetensors files, nothing else. Whatever lies there, nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from truetune.check.weights import Damaged, Tensor, is_there, read_header, read_json, read_text
from truetune.findings import Both, Finding, Severity
from truetune.options import Config
from truetune.options.kinds import KINDS

INDEX, WEIGHTS, ADAPTER = "model.safetensors.index.json", "model.safetensors", "adapter_config.json"
_JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json",
         INDEX)
"""Files that are read when a model is loaded, where they are there."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json",
               "sentencepiece.bpe.model")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_UNFINISHED = ("*.incomplete", "*.part", "*.aria2", "*.crdownload", "*.tmp", ".cache/huggingface/download/*.incomplete")
_AGAIN = Both("Download it again; `hf download` goes on where it stopped.", "重新下载；`hf download` 会从断点继续。")


def model_findings(base: Path, config: Config) -> list[Finding]:
    """What is wrong with the model in `base` (a folder, or whatever else was named) and with the adapter named beside
    it. An error means that it cannot be loaded."""
    findings = list(_no_folder(base, config))
    if findings:
        return findings
    findings = list(_broken_json(base, config))
    settings = _settings(base)
    findings += _kind(settings, base, config)
    tensors, of_weights = weights(base, config)
    findings += of_weights
    findings += _stored(settings.get("quantization_config"), tensors, config)
    findings += _shapes(settings, tensors, base, config)
    findings += _no_tokenizer(base, config)
    findings += _broken_template(base, config)
    findings += _too_long(settings, config)
    findings += _ranks(tensors, config)
    adapters = [Path(name).expanduser() / (config.adapter_folder or "") for name in config.adapter_name_or_path]
    for adapter in adapters:
        trained = adapter is adapters[-1] and not config.create_new_adapter
        findings += adapter_findings(adapter, tensors, config, trained)
    return findings


def _finding(id: str, severity: Severity, message: Both, config: Config, fix: Both | None = None,
             option: str = "model_name_or_path") -> Finding:
    return Finding(id, severity, message, option=option, where=config.origin(option), fix=fix)


# -------------------------------------------------------------------------------------------------- what it is at all


def _no_folder(base: Path, config: Config) -> Iterator[Finding]:
    """Things that people name in place of a model's folder."""
    if not base.is_dir():
        if base.suffix.lower() == ".gguf":
            yield _gguf(base, config)
        else:
            yield _finding("not-a-model", "error", Both(f"{base} is no folder.", f"{base} 不是文件夹。"), config,
                           Both("Name the folder that holds config.json.", "请给出 config.json 所在的文件夹。"))
        return
    if is_there(base / "config.json"):
        return
    if is_there(base / ADAPTER):
        of = _text(_settings(base, ADAPTER).get("base_model_name_or_path"))[:120] or "…"
        yield _finding("adapter-as-model", "error", Both(
            f"{base} holds an adapter, not a model.", f"{base} 里是适配器，不是模型。"), config, Both(
            f"model_name_or_path: {of}, adapter_name_or_path: {base}.",
            f"model_name_or_path: {of}，adapter_name_or_path: {base}。"))
    elif files := sorted(base.glob("*.gguf")):
        yield _gguf(files[0], config)
    else:
        yield _finding("not-a-model", "error", Both(
            f"{base} has no config.json, so it is not a model.", f"{base} 里没有 config.json，不是模型。"), config)


def _gguf(path: Path, config: Config) -> Finding:
    return _finding("gguf-model", "error", Both(
        f"{path} is a GGUF file: quantised for llama.cpp, it cannot be trained.",
        f"{path} 是 GGUF 文件：为 llama.cpp 量化的，不能训练。"), config, Both(
        "Name the model that it was made from, in safetensors.", "请用它量化前的 safetensors 模型。"))


def _broken_json(base: Path, config: Config) -> Iterator[Finding]:
    for name in _JSON:
        path = base / name
        if is_there(path):
            try:
                if not isinstance(read_json(path), dict):
                    raise Damaged(Both("does not hold a JSON object", "里不是 JSON 对象"))
            except Damaged as damaged:
                yield _finding("bad-model-file", "error", Both(f"{path} {damaged.reason.en}.",
                                                               f"{path} {damaged.reason.zh}。"), config, _AGAIN)


def _settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """What a JSON file says; nothing where it cannot be read, which `_broken_json` tells."""
    try:
        settings = read_json(folder / name)
    except Damaged:
        return {}
    return settings if isinstance(settings, dict) else {}


def _text(value: object) -> str:
    """A text out of a JSON file; empty if it is something else."""
    return value if isinstance(value, str) else ""


# -------------------------------------------------------------------------------------------------------- architecture

_NOT_CAUSAL = {
    "ForMaskedLM": Both("an encoder that fills gaps", "填空的编码器"),
    "ForPreTraining": Both("an encoder", "编码器"),
    "ForSequenceClassification": Both("a classifier", "分类模型"),
    "ForTokenClassification": Both("a classifier of tokens", "token 分类模型"),
    "ForQuestionAnswering": Both("a finder of answers in a text", "抽取式问答模型"),
    "ForImageClassification": Both("a classifier of images", "图像分类模型"),
    "ForCTC": Both("a speech recogniser", "语音识别模型"),
}
"""How the names of architectures end that do not write text from left to right."""


def _kind(settings: Mapping[str, Any], base: Path, config: Config) -> Iterator[Finding]:
    """Architectures and formats that cannot be trained here."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not settings:
        return
    name = str(base / "config.json")
    kind = _text(settings.get("model_type"))[:40]
    architectures = settings.get("architectures")
    first = _text(architectures[0])[:60] if isinstance(architectures, list) and architectures else ""
    other = Both("Name a causal language model.", "请换成因果语言模型。")
    if not kind:
        yield _finding("bad-model-file", "error", Both(f"{name} does not say model_type.", f"{name} 没有 model_type。"),
                       config, _AGAIN)
    elif kind not in CONFIG_MAPPING:
        en, zh = (", and code that comes with a model is never run", "，而随模型附带的代码从不运行") \
            if settings.get("auto_map") else ("", "")
        yield _finding("unknown-architecture", "error", Both(
            f"transformers knows no model_type {kind!r}{en}.",
            f"transformers 不认识 model_type {kind!r}{zh}。"), config, Both(
            "A newer transformers may know it; some models have a version for transformers (often named -hf).",
            "更新的 transformers 可能支持；有的模型另有 transformers 版本（名字常带 -hf）。"))
    elif settings.get("is_encoder_decoder") is True:
        yield _finding("encoder-decoder", "error", Both(
            f"{kind} reads with an encoder and writes with a decoder; only causal language models are trained here.",
            f"{kind} 是编码器-解码器结构；这里只训练因果语言模型。"), config, other)
    elif what := next((what for end, what in _NOT_CAUSAL.items() if first.endswith(end)), None):
        yield _finding("not-causal", "error", Both(
            f"{first} is {what}; only causal language models are trained here.",
            f"{first} 是{what.zh}；这里只训练因果语言模型。"), config, other)
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        media = any("vision" in key or "audio" in key for key in settings)
        yield _finding("multimodal-model" if media else "not-causal", "error", Both(
            f"{kind} {'also takes pictures or sound, and' if media else ''} has no form that only writes text."
            .replace("  ", " "),
            f"{kind} {'还接收图像或声音，' if media else ''}没有纯文本的因果语言模型形式。"), config, other)
    elif "vision_config" in settings or "audio_config" in settings:
        yield _finding("multimodal-model", "info", Both(
            f"{kind} also takes pictures or sound; only its text part is trained.",
            f"{kind} 还接收图像或声音；这里只训练文本部分。"), config)


def _stored(said: object, tensors: Mapping[str, Tensor], config: Config) -> Iterator[Finding]:
    """Weights that were quantised before they were saved: what becomes of them, or why they cannot be used. said: in
    config.json."""
    from truetune.model.stored import codes_of, format_of, why_not

    if not said:
        return
    method = (_text(said.get("quant_method"))[:40] if isinstance(said, dict) else "") or "quantised"
    form, fault = format_of(said), why_not(said)
    if not fault and form and tensors and not any(form.mark in name for name in tensors):
        fault = Both(f"named {method} in config.json, and there is no such tensor ({form.mark})",
                     f"config.json 写的是 {method}，但没有这种张量（{form.mark}）")
    if fault or not isinstance(said, dict):
        yield _quantised(method, config, fault or _CODES_OF_WHAT)
        return
    codes = codes_of(said)
    if config.quantization_bit:
        yield _finding("quantised-twice", "error", Both(
            f"its weights are quantised already ({method}).", f"它的权重已经量化（{method}）。"), config, Both(
            "Leave quantization_bit out: they are read as they are.", "请去掉 quantization_bit：会按原样读取。"),
            option="quantization_bit")
    elif codes and not KINDS[config.finetuning_type].adapter:
        yield _finding("quantised-model", "error", Both(
            f"its weights stay codes ({codes}), which {config.finetuning_type} cannot train.",
            f"它的权重保持为编码（{codes}），{config.finetuning_type} 无法训练。"), config, Both(
            "finetuning_type: lora trains an adapter beside them.", "finetuning_type: lora 可以在旁边训练适配器。"),
            option="finetuning_type")
    else:
        en, zh = (f"stay as they are ({codes})", f"保持原样（{codes}）") if codes else (
            "are made plain weights while it is loaded, which take the memory of 16 bits",
            "加载时还原成普通权重，按 16 位占用内存")
        yield _finding("quantised-model", "info", Both(
            f"its weights were quantised before they were saved ({method}); they {en}.",
            f"它的权重在保存前已经量化（{method}），{zh}。"), config)


_CODES_OF_WHAT = Both("codes, and config.json does not say of what", "编码，而 config.json 没有说明编码方式")


def _quantised(method: str, config: Config, why: Both) -> Finding:
    name = config.model_name_or_path or ""
    plain = re.sub(r"[-_](gptq|awq|fp8|int[48]|[48]bit|bnb|gguf|mxfp4|nvfp4|w4a16|w8a8).*$", "", name,
                   flags=re.IGNORECASE)
    return _finding("quantised-model", "error", Both(
        f"its weights are quantised already ({method}) and cannot be trained: they are {why.en}.",
        f"它的权重已经量化（{method}），不能训练：{why.zh}。"), config, Both(
        f"Name the model that it was made from{f': {plain}' if plain != name else ''}.",
        f"请用量化之前的模型{f'：{plain}' if plain != name else ''}。"))


# ------------------------------------------------------------------------------------------------------------- weights


def weights(base: Path, config: Config) -> tuple[dict[str, Tensor], list[Finding]]:
    """The tensors of a model by name, and what is wrong with their files."""
    shards, index = _shards(base)
    findings: list[Finding] = []
    if not shards:
        findings += _no_weights(base, config)
    tensors: dict[str, Tensor] = {}
    absent, damaged = [], []
    for shard in shards:
        path = base / shard
        if not is_there(path):
            absent.append(shard)
            continue
        try:
            tensors |= read_header(path)
        except Damaged as damage:
            damaged.append((path, damage.reason))
    unfinished = next((file for pattern in _UNFINISHED for file in sorted(base.glob(pattern))), None)
    hint = Both(f" {unfinished.name} shows that a download was interrupted.", f"{unfinished.name} 说明下载中断过。") \
        if unfinished else Both("", "")
    if absent:
        first = f"{absent[0]:.80}{', …' if len(absent) > 1 else ''}"
        findings.append(_finding("weights-missing", "error", Both(
            f"{len(absent)} of {len(shards)} weight files that {INDEX} names are not in {base} ({first}).{hint.en}",
            f"{INDEX} 列出的 {len(shards)} 个权重文件中有 {len(absent)} 个不在 {base} 里（{first}）。{hint.zh}"),
            config, _AGAIN))
    findings += [_finding("weights-damaged", "error", Both(f"{path} {reason.en}.{hint.en}",
                                                           f"{path} {reason.zh}。{hint.zh}"),
                          config, _AGAIN) for path, reason in damaged[:3]]
    lost = [name for name in index if name not in tensors] if not absent and not damaged else []
    if lost:
        findings.append(_finding("weights-damaged", "error", Both(
            f"{len(lost)} tensors that {INDEX} names are in no file ({lost[0]:.80}).",
            f"{INDEX} 列出的 {len(lost)} 个张量不在任何文件里（{lost[0]:.80}）。"), config, _AGAIN))
    odd = {tensor.dtype: 0 for tensor in tensors.values() if tensor.dtype not in _PLAIN}
    for tensor in tensors.values():
        if tensor.dtype in odd:
            odd[tensor.dtype] += tensor.end - tensor.begin
    if sum(odd.values()) > _CODES * sum(tensor.end - tensor.begin for tensor in tensors.values()) \
            and not _settings(base).get("quantization_config"):
        findings.append(_quantised(", ".join(sorted(odd)), config, _CODES_OF_WHAT))
    return tensors, findings


_PLAIN = ("F32", "F16", "BF16", "F64")
_CODES = 0.2
"""Share of the bytes that are no plain numbers, from which weights are codes. (Old models keep masks as bytes.)"""


def _shards(base: Path) -> tuple[list[str], list[str]]:
    """The weight files of a model as transformers looks for them, and the tensors that an index promises."""
    if is_there(base / WEIGHTS):
        return [WEIGHTS], []
    table = _settings(base, INDEX).get("weight_map")
    if not isinstance(table, dict):
        return [], []
    promised = {name: file for name, file in table.items() if isinstance(file, str) and file == Path(file).name}
    return sorted({*promised.values()}), [*promised]


def _no_weights(base: Path, config: Config) -> Iterator[Finding]:
    pickles = sorted(file.name for pattern in _PICKLES for file in base.glob(pattern))
    others = sorted(file.name for file in base.glob("*.safetensors"))
    if others:
        some = ", ".join([*others[:3], *(["…"] if len(others) > 3 else [])])
        yield _finding("no-weights", "error", Both(
            f"{base} has neither {WEIGHTS} nor {INDEX}, only {some}.",
            f"{base} 里既没有 {WEIGHTS} 也没有 {INDEX}，只有 {some}。"),
            config, _AGAIN)
    elif pickles:
        yield _finding("pickled-weights", "error", Both(
            f"the weights in {base} are pickles ({pickles[0]}), which can run any program when they are read; only "
            "safetensors are.",
            f"{base} 的权重是 pickle（{pickles[0]}），读取时可能执行任意代码；这里只读 safetensors。"), config, Both(
            "Look for a version in safetensors (on the hub often another branch), or convert a file you trust with "
            "safetensors' convert tool.",
            "找 safetensors 版本（模型站上常在另一个分支），或用 safetensors 的转换工具转换可信的文件。"))
    else:
        hub = not Path(config.model_name_or_path or "").expanduser().exists()
        en, zh = (" (pickles are not downloaded)", "（不下载 pickle）") if hub else ("", "")
        yield _finding("no-weights", "error", Both(f"there are no safetensors weights in {base}{en}.",
                                                   f"{base} 里没有 safetensors 权重{zh}。"), config,
                       Both("Look for a version in safetensors.", "请找 safetensors 版本。") if hub else _AGAIN)


_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight",
               "tok_embeddings.weight", "embeddings.weight")
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


def embedding(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The matrix with a row for each token that is read."""
    return _largest(tensors, _EMBEDDINGS)


def head(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The matrix with a row for each token that is written: the head, or the embeddings where they are shared."""
    return _largest(tensors, _HEADS) or embedding(tensors)


def _largest(tensors: Mapping[str, Tensor], ends: tuple[str, ...]) -> Tensor | None:
    found = [tensor for name, tensor in tensors.items() if len(tensor.shape) == 2
             and any(name == end or name.endswith(f".{end}") for end in ends)]
    return max(found, key=lambda tensor: tensor.shape[0], default=None)


def _shapes(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Path,
            config: Config) -> Iterator[Finding]:
    """Whether config.json, or what transformers takes where it says nothing, fits the weights."""
    matrix = embedding(tensors)
    if matrix is None or not settings:
        return
    layers = [int(found[1]) for name in tensors if "vision" not in name and (found := _LAYER.search(name))]
    actual = {"vocab_size": matrix.shape[0], "hidden_size": matrix.shape[1]}
    if layers:
        actual["num_hidden_layers"] = max(layers) + 1
    for field, number in actual.items():
        told, said = _declared(settings, field)
        # Some models have layers that predict further tokens, some embeddings a width of their own.
        more = field == "num_hidden_layers" and isinstance(told, int) and told < number
        own = field == "hidden_size" and any(value == number for key, value in settings.items() if "embed" in key)
        if told is not None and told != number and not more and not own:
            source = Both(f"says {field}: {told!r:.40}", f"写的是 {field}: {told!r:.40}") if said else Both(
                f"does not say {field}, for which transformers takes {told}", f"没有 {field}，transformers 取 {told}")
            yield _finding("config-mismatch", "error", Both(
                f"{base / 'config.json'} {source.en}, and the weights have {number}.",
                f"{base / 'config.json'} {source.zh}，而权重是 {number}。"), config, _AGAIN)


def _declared(settings: Mapping[str, Any], field: str) -> tuple[object, bool]:
    """What config.json says a field is, or what transformers takes where it is not there; and whether it says it.
    (None, False): nobody knows."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    inner = settings.get("text_config")
    part = inner if isinstance(inner, dict) else settings
    kind = _text(part.get("model_type")) or _text(settings.get("model_type"))
    if kind not in CONFIG_MAPPING:
        return None, False
    form = CONFIG_MAPPING[kind]
    name = form.attribute_map.get(field, field)
    for place in (part, settings):
        if name in place or field in place:
            return place.get(name, place.get(field)), True
    default = form().to_dict().get(name)
    return (default, False) if isinstance(default, int) else (None, False)


def _no_tokenizer(base: Path, config: Config) -> Iterator[Finding]:
    if not any(is_there(base / name) for name in _TOKENIZERS):
        yield _finding("no-tokenizer", "error", Both(
            f"there is no tokenizer in {base} ({', '.join(_TOKENIZERS[:3])}, …).",
            f"{base} 里没有分词器（{', '.join(_TOKENIZERS[:3])} 等）。"), config, Both(
            "Copy it from the model that these weights come from.", "从这些权重所属的模型复制过来。"))


def _broken_template(base: Path, config: Config) -> Iterator[Finding]:
    """A chat template that cannot be read. (Where another one is named, it is not used.)"""
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    sources = {base / "tokenizer_config.json": _text(_settings(base, "tokenizer_config.json").get("chat_template"))}
    file = base / "chat_template.jinja"
    try:
        if is_there(file):
            sources[file] = read_text(file)
        for path, source in sources.items():
            file = path
            _compile_jinja_template(source)
    except Damaged as damaged:
        reason = damaged.reason
    except (TemplateSyntaxError, RecursionError) as error:
        told = f"{error.message} (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else str(error)
        reason = Both(f"is no chat template that can be read: {told}", f"不是可读的对话模板：{told}")
    else:
        return
    yield _finding("bad-model-file", "info" if config.template else "error",
                   Both(f"{file} {reason.en}.", f"{file} {reason.zh}。"), config, _AGAIN)


def longest_context(settings: Mapping[str, Any], config: Config) -> int | None:
    """Positions that the model knows, once they are stretched; None where its config.json does not say, or they are
    stretched for as long as rows are."""
    known = _positions(settings)
    if not known or not config.rope_scaling:
        return known
    return round(known * config.rope_factor) if config.rope_factor else None


def _positions(settings: Mapping[str, Any]) -> int | None:
    inner = settings.get("text_config")
    for part in (inner, settings):
        if isinstance(part, dict):
            for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
                number = part.get(name)
                if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                    return number
    return None


def _too_long(settings: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """A cutoff_len beyond what the model has positions for. (Nobody asked for the default, and rows may be short.)"""
    positions = longest_context(settings, config)
    if positions and config.cutoff_len > positions:
        asked = config.given("cutoff_len")
        yield Finding("beyond-context", "error" if asked else "info", Both(
            f"the model knows {positions:,} positions, and rows may have {config.cutoff_len:,} tokens: it has never "
            "seen the ones behind.",
            f"模型只有 {positions:,} 个位置，而每行可达 {config.cutoff_len:,} 个 token：后面的位置它从没见过。"),
            option="cutoff_len", where=config.origin("cutoff_len"), cure={"cutoff_len": positions}, fix=Both(
                f"cutoff_len: {positions}, or a model with longer context (rope_scaling: yarn stretches the positions "
                "it knows, and needs training on long rows).",
                f"cutoff_len: {positions}，或换上下文更长的模型（rope_scaling: yarn 会拉伸已学的位置，"
                "需要在长数据上训练）。"))


# ------------------------------------------------------------------------------------------------------------ adapters


def _ranks(tensors: Mapping[str, Tensor], config: Config) -> Iterator[Finding]:
    """A rank above the smaller side of a matrix: more numbers than the matrix itself has, and no more can be said."""
    kind, every = KINDS[config.finetuning_type], config.lora_target == ("all",)
    fixed = config.pissa_init or config.init_lora_weights == "olora"
    if "lora_alpha" not in kind.options or config.adapter_name_or_path or not (config.given("lora_rank") or fixed):
        return
    sides = {}
    for name, tensor in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        inside = any(part.isdigit() for part in parts)  # embeddings and head are in no layer
        if inside and len(tensor.shape) == 2 and (every or parts[-1] in config.lora_target):
            sides.setdefault(min(tensor.shape), parts[-1])
    least = min(sides, default=config.lora_rank)
    if config.lora_rank > least:
        yield Finding("rank-above-layer", "error" if fixed else "warn", Both(
            f"{config.lora_rank} is more than {least}, the smaller side of {sides[least]}: what is above is of no use.",
            f"{config.lora_rank} 大于 {sides[least]} 较短的一边 {least}：多出来的秩没有用。"), option="lora_rank",
            where=config.origin("lora_rank"), cure={"lora_rank": least},
            fix=Both(f"lora_rank: {least} at most.", f"lora_rank 最大取 {least}。"))


def adapter_findings(folder: Path, tensors: Mapping[str, Tensor], config: Config,
                     trained: bool = True) -> Iterator[Finding]:
    """What is wrong with an adapter, and whether it fits the model whose tensors are given. trained: it is the one that
    is trained on, and not merged before."""

    def finding(id: str, severity: Severity, message: Both, fix: Both | None = None) -> Finding:
        return _finding(id, severity, message, config, fix, option="adapter_name_or_path")

    if not folder.is_dir():
        if config.adapter_name_or_path and str(folder).count("/") == 1 and not str(folder).startswith((".", "/", "~")):
            return  # a hub id: whoever loads it tells
        yield finding("no-adapter", "error", Both(f"there is no folder {folder}.", f"没有文件夹 {folder}。"))
        return
    path = folder / ADAPTER
    if not is_there(path):
        model = is_there(folder / "config.json")
        yield finding("not-an-adapter", "error", Both(
            f"{folder} has no {ADAPTER}, so it is no adapter{' but a whole model' if model else ''}.",
            f"{folder} 里没有 {ADAPTER}，不是适配器{'，而是完整的模型' if model else ''}。"),
            Both(f"model_name_or_path: {folder}.", f"model_name_or_path: {folder}。") if model else None)
        return
    try:
        settings = read_json(path)
        if not isinstance(settings, dict):
            raise Damaged(Both("does not hold a JSON object", "里不是 JSON 对象"))
    except Damaged as damaged:
        yield finding("bad-model-file", "error", Both(f"{path} {damaged.reason.en}.",
                                                      f"{path} {damaged.reason.zh}。"), _AGAIN)
        return
    yield from _adapter_settings(settings, folder, config, trained)
    try:
        parts = read_header(folder / "adapter_model.safetensors")
    except Damaged as damaged:
        pickled = is_there(folder / "adapter_model.bin")
        reason = Both("is not there, only the pickle adapter_model.bin, which is not read",
                      "不存在，只有不会读取的 pickle 文件 adapter_model.bin") if pickled else damaged.reason
        yield finding("weights-damaged", "error", Both(f"{folder / 'adapter_model.safetensors'} {reason.en}.",
                                                       f"{folder / 'adapter_model.safetensors'} {reason.zh}。"), _AGAIN)
        return
    yield from _adapter_shapes(parts, tensors, folder, config)


def _adapter_settings(settings: Mapping[str, Any], folder: Path, config: Config,
                      trained: bool) -> Iterator[Finding]:
    def finding(id: str, severity: Severity, message: Both, fix: Both | None = None) -> Finding:
        return _finding(id, severity, message, config, fix, option="adapter_name_or_path")

    kind, task = _text(settings.get("peft_type"))[:40], settings.get("task_type")
    known = {known.peft: name for name, known in KINDS.items() if known.adapter}
    if kind.upper() not in known:
        yield finding("adapter-kind", "error", Both(
            f"{folder} is of the kind {kind or 'unknown'}, which is not trained here.",
            f"{folder} 的类型是 {kind or '未知'}，这里不支持。"),
            Both(f"Known are {', '.join(known)}.", f"支持：{'、'.join(known)}。"))
    elif trained and kind.upper() != KINDS[config.finetuning_type].peft:
        yield finding("adapter-kind", "error", Both(
            f"{folder} is of the kind {kind}, and finetuning_type is {config.finetuning_type}.",
            f"{folder} 的类型是 {kind}，而 finetuning_type 是 {config.finetuning_type}。"),
            Both(f"Set finetuning_type: {known[kind.upper()]}.", f"请设置 finetuning_type: {known[kind.upper()]}。"))
    elif not trained and not next(each for each in KINDS.values() if each.peft == kind.upper()).merges:
        yield finding("no-merge", "error", Both(
            f"{folder} is of the kind {kind}, which cannot be merged into the base.",
            f"{folder} 的类型是 {kind}，无法合并进基座。"))
    if task not in (None, "CAUSAL_LM"):
        yield finding("adapter-kind", "error", Both(
            f"{folder} was made for {task!r:.40}, not for a causal language model (CAUSAL_LM).",
            f"{folder} 用于 {task!r:.40}，不是因果语言模型（CAUSAL_LM）。"))
    of, ours = _text(settings.get("base_model_name_or_path"))[:120], config.model_name_or_path or ""
    if of and _last(of) != _last(ours):
        yield finding("other-base", "warn", Both(f"{folder} was trained on {of}, and model_name_or_path is {ours}.",
                                                 f"{folder} 是在 {of} 上训练的，而 model_name_or_path 是 {ours}。"),
                      Both("Right if it is the same model under another name.", "如果是同一个模型换了名字就没问题。"))
    rank = settings.get("r")
    if trained and isinstance(rank, int) and config.given("lora_rank") and rank != config.lora_rank:
        yield Finding("adapter-rank", "info", Both(
            f"{folder} has rank {rank}, which stays: lora_rank {config.lora_rank} has no effect on it.",
            f"{folder} 的秩是 {rank}，不会改变：lora_rank {config.lora_rank} 对它不起作用。"), option="lora_rank",
            where=config.origin("lora_rank"))


def _last(name: str) -> str:
    """What a model is called, whoever keeps it and wherever."""
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()


def _adapter_shapes(parts: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path,
                    config: Config) -> Iterator[Finding]:
    """LoRA's A has as many columns as the matrix it is put on, B as many rows."""
    matched, wrong = 0, []
    by_name = {name.removesuffix(".weight"): tensor.shape for name, tensor in tensors.items()}
    for name, tensor in parts.items():
        found = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.weight)?", name)
        shape = by_name.get(found[1]) if found else None
        if found and shape and len(shape) == len(tensor.shape) == 2:
            size = tensor.shape[1] if found[2] == "A" else tensor.shape[0]
            matched += 1
            if size not in shape:
                wrong.append((found[1], size, shape))
    lora = [name for name in parts if ".lora_" in name]
    if wrong:
        name, size, shape = wrong[0]
        yield _finding("adapter-mismatch", "error", Both(
            f"{folder} does not fit this model: it is for a {name} of size {size}, the model's is {shape[0]} x "
            f"{shape[1]}.",
            f"{folder} 与这个模型不匹配：它的 {name} 大小是 {size}，而模型的是 {shape[0]} x {shape[1]}。"), config,
            Both("Name the base it was trained on.", "请用它训练时的基座模型。"), option="adapter_name_or_path")
    elif lora and tensors and not matched:
        yield _finding("adapter-mismatch", "error", Both(
            f"{folder} does not fit this model: the model has none of its modules ({lora[0]}).",
            f"{folder} 与这个模型不匹配：模型没有它的任何模块（{lora[0]}）。"), config,
            Both("Name the base it was trained on.", "请用它训练时的基座模型。"), option="adapter_name_or_path")
