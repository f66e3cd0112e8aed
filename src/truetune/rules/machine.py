"""Rules: the machine, and paths."""

from __future__ import annotations

from truetune.findings import Both
from truetune.rules.ask import EVERY
from truetune.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule("fp16-on-cpu", "fp16", lambda c: bool(c.fp16) and c.use_cpu, "error",
         Both("this CPU has no float16 arithmetic, it would be emulated.", "CPU 没有 float16 运算，只能模拟。"),
         Both("Leave the precision unset, or set bf16.", "不填精度，或设置 bf16。"), cure=lambda c: {"fp16": False}),
    Rule("output-is-model", "output_dir",
         lambda c: bool(c.output_dir) and str(c.output_dir).rstrip("/") == str(c.model_name_or_path).rstrip("/"),
         "error",
         Both("the run would write into the folder of its own model.",
              "运行会写进基座模型自己的文件夹。"),
         Both("Choose another folder, such as saves/my-run.", "请换一个文件夹，例如 saves/my-run。")),
    *(Rule("not-expanded", path, lambda c, path=path: (getattr(c, path) or "").startswith(("~", "$")), "error",
           Both(f"{{{path}}} would be a folder of that very name: ~ and $ are not expanded.",
                f"{{{path}}} 会被当作文件夹的字面名字：~ 和 $ 不会展开。"),
           Both("Write the path out.", "请写出完整路径。"), EVERY)
      for path in ("model_name_or_path", "dataset_dir", "cache_dir", "output_dir", "export_dir")),
)
