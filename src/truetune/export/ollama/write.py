"""A Modelfile beside a GGUF file, with all that Ollama has to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from truetune.data.messages import BadRow
from truetune.data.template import make_renderer
from truetune.data.texts import Writer
from truetune.export.ollama.derive import derive
from truetune.export.ollama.form import OllamaForm, Value
from truetune.export.ollama.header import Header, header_of
from truetune.export.ollama.modelfile import form_of_text, read_text, stops_safely, text_of_form
from truetune.export.ollama.probes import Render
from truetune.files import write_text
from truetune.findings import Both, Say, problem
from truetune.model.find import load_tokenizer
from truetune.options import Config
from truetune.serve.engine import defaults_of

NAME = "Modelfile"
_CACHE_BYTES = 4 << 30
"""What the keys and values of one conversation may take: Ollama sets num_ctx tokens aside when it loads a model."""
_DATED = "{%- macro strftime_now(form) -%}{{ form }}{%- endmacro -%}\n"
"""In front of a template: every date is written as its form."""


def write_modelfile(folder: Path, gguf: str, source: Path, config: Config, say: Say, *,
                    adapter: str = "") -> OllamaForm:
    """Write `folder/Modelfile`, whose TEMPLATE is proven to write what the tokenizer's own template writes.

    Args:
        folder: where the GGUF file is. gguf: its name there. source: the model it was made of (transformers' form).
        adapter: the name of a GGUF adapter there; then `gguf` is its base, by a name there or a path.

    Raises:
        Problem: the template cannot be written in Go, not even for plain chats; or a text in it cannot stand in a
            Modelfile.
    """
    tokenizer = load_tokenizer(source)
    renderer = make_renderer(tokenizer, source, config)
    settings = _json(source / "config.json")
    file = folder / gguf
    opening, family = header_of(file) if file.is_file() else \
        Header(bool(renderer.opening_ids()), str(settings.get("model_type", "")))
    template = str(tokenizer.chat_template or "")
    _require_dateless(tokenizer, template)
    render = _render_by(Writer(tokenizer, False))
    derived = derive(render, str(tokenizer.bos_token or ""), opening, family)
    stops = [str(tokenizer.decode([token])) for token in renderer.stop_ids()]
    parameters: dict[str, Value] = {**_drawn(config, source), "num_ctx": _context(settings, config)}
    form = OllamaForm(gguf if "/" in gguf else f"./{gguf}", derived.template.source,
                      tuple(stop for stop in stops if stops_safely(stop)), parameters,
                      _system(config.default_system, render), f"./{adapter}" if adapter else "", opening, family,
                      (_SPECIAL, *((_TOOLS,) * ("tools" in template)), *derived.left_out, *_unwritten(stops)))
    if form.system:
        form.prompt([{"role": "user", "content": "Hello."}])  # else every chat would fail, by its own system text
    write_text(folder / NAME, text_of_form(form, _COMMENTS))
    if form_of_text((folder / NAME).read_text(encoding="utf-8"), opening, family) != form:
        raise problem("unwritable-modelfile", Both("the Modelfile does not read as it was written.",
                                                   "写出的 Modelfile 读回来不一致。"), option="export_format")
    _tell(form, Path(config.export_dir or folder), say)
    return form


def read_modelfile(path: Path) -> OllamaForm:
    """What a Modelfile of ours says; what only its GGUF file knows is read from that, if it is there.

    Raises:
        Problem: it is no Modelfile of ours.
    """
    text = read_text(path)
    file = path.parent / form_of_text(text).weights
    return form_of_text(text, *header_of(file)) if file.is_file() else form_of_text(text)


_COMMENTS = (Both("Written by truetune; TEMPLATE was derived from the trained chat template and proven equal.",
                  "由 truetune 生成；TEMPLATE 由训练所用的对话模板推导并经过验证。"),
             Both("To use it: ollama create NAME -f Modelfile", "使用方法：ollama create 名字 -f Modelfile"))
_SPECIAL = Both("words that look like a special token: Ollama reads them as the token",
                "看起来像特殊 token 的文字：Ollama 会当作 token")
_TOOLS = Both("tools and their results: a Go template is given them sorted and writes other JSON than was trained. An "
              "Ollama that renders the GGUF file's own template serves them as trained; an older one refuses them",
              "工具及其结果：Go 模板拿到的工具已被重新排序，写出的 JSON 与训练不同。能使用 GGUF 自带模板的新版 Ollama "
              "会按训练时的方式处理；旧版会拒绝")


def _unwritten(stops: Sequence[str]) -> list[Both]:
    """Stop words that cannot stand in a Modelfile. They still end an answer where the GGUF file says that they do."""
    return [Both(f"the stop word {stop!r}, which cannot stand in a Modelfile",
                 f"停止词 {stop!r}，它无法写进 Modelfile") for stop in stops if not stops_safely(stop)]


def _tell(form: OllamaForm, folder: Path, say: Say) -> None:
    drawn = ", ".join(f"{name} {value}" for name, value in form.parameters.items())
    say(Both(f"Modelfile: stops at {' '.join(form.stops)}; {drawn} (Ollama's own would be temperature 0.8, top_k 40, "
             "top_p 0.9, repeat_penalty 1.1)",
             f"Modelfile：停止词 {' '.join(form.stops)}；{drawn}（Ollama 自己的默认值是 temperature 0.8、top_k 40、"
             "top_p 0.9、repeat_penalty 1.1）"))
    for words in form.left_out:
        say(Both(f"Ollama, not as trained: {words}", f"Ollama 与训练不同：{words.zh}"))
    name = folder.resolve().name.lower() or "model"
    say(Both(f"to use it: cd {folder} && ollama create {name} -f {NAME}",
             f"使用：cd {folder} && ollama create {name} -f {NAME}"))


# ── The template ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _render_by(writer: Writer) -> Render:
    def render(messages, generation, think):
        values = {} if think is None else {"enable_thinking": think}
        (text,) = writer.apply([(messages, ())], generation_prompt=generation, **values)
        return None if isinstance(text, BadRow) else text

    return render


def _require_dateless(tokenizer: Any, template: str) -> None:
    """Raises:
    Problem: the template writes today's date, which would be the day of the export for ever.
    """
    if "strftime_now" not in template:
        return
    talk = [{"role": "user", "content": "Hello."}]
    one, other = (str(tokenizer.apply_chat_template(talk, chat_template=before + template, tokenize=False))
                  for before in ("", _DATED))
    if one != other:
        raise problem("no-ollama-template", Both(
            "the trained chat template writes today's date, which a Modelfile cannot write in the same form.",
            "训练所用的对话模板会写当天日期，Modelfile 无法以同样的格式写出。"), option="export_format",
            fix=Both("Train with a named template (template: llama3), or export gguf: llama.cpp renders the template "
                     "itself.", "请用命名模板训练（例如 template: llama3），或导出 gguf：llama.cpp 会自己渲染模板。"))


def _system(wanted: str | None, render: Render) -> str:
    """SYSTEM: the system text that was asked for, unless the template already brings it."""
    if not wanted:
        return ""
    written = render([{"role": "user", "content": "Hello."}], True, None) or ""
    return "" if wanted in written else wanted


# ── Parameters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _drawn(config: Config, source: Path) -> dict[str, Value]:
    """How words are drawn: what chat does where nobody says otherwise. Ollama's names, and its own values where they
    would change what was asked for: it looks back over 64 tokens only to penalise repetition, transformers over all."""
    wanted = defaults_of(config, source)
    drawn: dict[str, Value] = {"temperature": wanted.temperature, "top_p": wanted.top_p, "top_k": wanted.top_k,
                               "min_p": wanted.min_p, "repeat_penalty": wanted.repetition_penalty}
    return drawn | ({"repeat_last_n": -1} if wanted.repetition_penalty != 1 else {})


def _context(settings: Mapping[str, Any], config: Config) -> int:
    """num_ctx: as many tokens as the model reads, but no more than fit into 4 GB of keys and values (16 bits each);
    never fewer than it was trained with."""
    text = settings.get("text_config") or settings
    longest = int(text.get("max_position_embeddings") or 4096)
    heads = int(text.get("num_attention_heads") or 1)
    size = int(text.get("head_dim") or int(text.get("hidden_size") or 64) // heads)
    each = 4 * int(text.get("num_hidden_layers") or 1) * int(text.get("num_key_value_heads") or heads) * size
    fitting = max(_CACHE_BYTES // each // 1024 * 1024, 2048, config.cutoff_len)
    return min(longest, fitting)


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


