"""Rules: what a model is exported as, and what has to be proven of it."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import Config
from truetune.options.gguf_types import GGUF_TYPES
from truetune.rules.ask import is_set
from truetune.rules.rule import Rule

FORMATS = ("hf", "gguf", "ollama")
_FITTED = ("gptq", "awq")
"""Ways to quantise that need texts."""
_GGUF = ("export_gguf_type", "export_imatrix")


def _writes_gguf(c: Config) -> bool:
    return bool({"gguf", "ollama"} & set(c.export_format))


RULES: tuple[Rule, ...] = (
    Rule("export-format", "export_format", lambda c: not c.export_format or not set(c.export_format) <= set(FORMATS),
         "error", Both("not something that can be exported.", "不支持这种导出格式。"),
         Both("One or several of hf, gguf, ollama.", "可写一个或多个：hf、gguf、ollama。"), ("export",)),
    Rule("gguf-type", "export_gguf_type",
         lambda c: not c.export_gguf_type or not set(c.export_gguf_type) <= set(GGUF_TYPES), "error",
         Both("there is no such type of GGUF file.", "没有这种 GGUF 类型。"),
         Both(f"One or several of {', '.join(GGUF_TYPES)}.", f"可写一个或多个：{'、'.join(GGUF_TYPES)}。"),
         ("export",)),
    Rule("gguf-importance", "export_gguf_type",
         lambda c: c.export_imatrix is False and any(kind in GGUF_TYPES and GGUF_TYPES[kind].importance
                                                     for kind in c.export_gguf_type), "error",
         Both("such small types are of no use without an importance matrix, and export_imatrix is off.",
              "这么小的类型没有 importance matrix 就无法使用，而 export_imatrix 已关闭。"),
         Both("Leave export_imatrix out, or choose q2_k or larger.", "请去掉 export_imatrix，或选 q2_k 及更大的类型。"),
         ("export",)),
    *(Rule("gguf-unused", name,
           lambda c, name=name: is_set(c, name) and (not _writes_gguf(c) or c.export_adapter_only), "warn",
           Both("no model is written as GGUF, so it has no effect.", "没有把模型导出为 GGUF，它不起作用。"),
           Both("export_format: gguf writes one.", "export_format: gguf 会写出 GGUF 文件。"), ("export",))
      for name in _GGUF),
    Rule("alone-format", "export_adapter_only", lambda c: c.export_adapter_only and "ollama" in c.export_format,
         "error", Both("an adapter by itself is exported as hf and gguf; ollama is made of the merged model.",
                       "单独的适配器可导出为 hf 和 gguf；ollama 由合并后的模型生成。"),
         Both("Leave one of the two out.", "两者只保留一个。"), ("export",)),
    Rule("alone-quantised", "export_adapter_only",
         lambda c: c.export_adapter_only and bool(c.export_quantization_bit), "error",
         Both("an adapter by itself is not quantised (export_quantization_bit).",
              "单独的适配器不量化（export_quantization_bit）。"),
         Both("Leave one of the two out.", "两者只保留一个。"), ("export",)),
    Rule("alone-nothing", "export_adapter_only",
         lambda c: c.export_adapter_only and len(c.adapter_name_or_path) != 1, "error",
         Both("needs exactly one adapter.", "需要恰好一个适配器。"),
         Both("Give adapter_name_or_path, or the folder of a run.", "请设置 adapter_name_or_path，或给出运行文件夹。"),
         ("export",)),
    Rule("quantised-hf", "export_quantization_bit",
         lambda c: bool(c.export_quantization_bit) and "hf" not in c.export_format, "error",
         Both("sets the bits of the hf export, and none is asked for.", "它设置 hf 导出的位数，而没有要求导出 hf。"),
         Both("GGUF files take theirs from export_gguf_type; or add hf to export_format.",
              "GGUF 的位数由 export_gguf_type 决定；或在 export_format 里加上 hf。"), ("export",)),
    Rule("method-unused", "export_quantization_method",
         lambda c: is_set(c, "export_quantization_method") and not c.export_quantization_bit, "warn",
         Both("without export_quantization_bit nothing is quantised.", "没有 export_quantization_bit，不会量化。"),
         Both("Set export_quantization_bit.", "请设置 export_quantization_bit。"), ("export",)),
    Rule("float-bits", "export_quantization_bit",
         lambda c: c.export_quantization_method == "fp8" and c.export_quantization_bit not in (None, 8), "error",
         Both("fp8 has 8 bits, not {export_quantization_bit}.", "fp8 是 8 位，不是 {export_quantization_bit} 位。"),
         Both("Set export_quantization_bit: 8, or export_quantization_method: gptq.",
              "请设置 export_quantization_bit: 8，或 export_quantization_method: gptq。"), ("export",),
         cure=lambda c: {"export_quantization_bit": 8}),
    Rule("calibration-missing", "export_quantization_bit",
         lambda c: bool(c.export_quantization_bit) and c.export_quantization_method in _FITTED
         and not c.export_quantization_dataset and not c.dataset, "error",
         Both("{export_quantization_method} needs texts to calibrate on.",
              "{export_quantization_method} 需要校准文本。"),
         Both("Give export_quantization_dataset, or export_quantization_method: rtn, which needs none.",
              "请设置 export_quantization_dataset，或使用不需要校准文本的 export_quantization_method: rtn。"),
         ("export",)),
    Rule("unproven-push", "export_parity", lambda c: c.export_parity == "off" and bool(c.export_hub_model_id), "error",
         Both("what nobody has proven is not published.", "未经证明的模型不会发布。"),
         Both("Leave export_parity out (full), or set ids; or leave export_hub_model_id out.",
              "请去掉 export_parity（即 full）或设为 ids；或去掉 export_hub_model_id。"), ("export",)),
)
