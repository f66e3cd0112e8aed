"""What an export holds, read from its folder: its files, what was proven of it, how to run it.

The command line, the model card and the page say it with the same words, from here. No torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from truetune.files import read_json
from truetune.findings import Both

PARITY = "parity.json"
Status = Literal["passed", "failed", "unproven"]

FILES: Mapping[str, Both] = {
    "adapter_model.safetensors": Both("the adapter, to be loaded beside its base", "适配器，与基座一起加载"),
    "model*.safetensors": Both("the model for transformers, vLLM and SGLang",
                               "供 transformers、vLLM 和 SGLang 使用的模型"),
    "*.gguf": Both("the model for llama.cpp", "供 llama.cpp 使用的模型"),
    "Modelfile": Both("how Ollama serves it", "供 Ollama 使用的说明"),
    PARITY: Both("what was proven; README.md holds the table", "证明的内容；README.md 里有表格"),
}
"""What an export may hold, by the names of files."""

PROVEN: Mapping[Status, Both] = {
    "passed": Both("Proven: the model is given the tokens that it was trained on, answers end where they did, and "
                   "words are as likely as they were.",
                   "已证明：模型得到的 token 与训练时相同，回答在相同处结束，各个词的概率一致。"),
    "failed": Both("**Failed**: what is served here is not what was trained.",
                   "**未通过**：这里部署的不是训练出的模型。"),
    "unproven": Both("Nothing was proven (export_parity: off, or a model without a chat template).",
                     "没有证明任何东西（export_parity: off，或模型没有对话模板）。"),
}
ID_COLUMNS = (Both("tokens", "token"), Both("same", "相同"), Both("conversations", "对话"), Both("ends", "结束符"),
              Both("limits", "限制"))
LOGIT_COLUMNS = (Both("probabilities", "概率"), Both("against", "对照"), Both("max |Δ log p|", "最大 |Δ log p|"),
                 Both("mean KL", "平均 KL"), Both("top-1", "top-1"), Both("allowed", "允许"), Both("near", "接近"))


def id_rows(layers: Sequence[Mapping[str, Any]], chinese: bool) -> list[list[str]]:
    """The table under `ID_COLUMNS`, of `layers` in parity.json."""
    rows = []
    for layer in layers:
        verdicts = [probe["verdict"] for probe in layer["probes"]]
        same, judged = verdicts.count("same"), verdicts.count("same") + verdicts.count("different")
        ends = "-" if layer["ends"] is None else mark(layer["ends"], chinese)
        rows.append([layer["layer"], mark(layer["same"], chinese), f"{same}/{judged}", ends,
                     str(verdicts.count("limit") or "-")])
    return rows


def logit_rows(distances: Sequence[Mapping[str, Any]], chinese: bool) -> list[list[str]]:
    """The table under `LOGIT_COLUMNS`, of `logits` in parity.json."""
    return [[each["form"], each["base"], f"{each['largest']:.3g}", f"{each['kl']:.2e}", f"{each['agreement']:.1%}",
             f"{each['bound']['kl']:g}, {each['bound']['agreement']:.0%}", mark(each["near"], chinese)]
            for each in distances]


def mark(good: bool, chinese: bool) -> str:
    """yes or NO."""
    return ("是" if good else "否") if chinese else "yes" if good else "NO"


def read_parity(folder: Path) -> dict[str, Any] | None:
    """What parity.json says, None where there is none that can be read."""
    told = read_json(folder / PARITY)
    return told if told.get("status") in PROVEN else None


def commands(folder: Path, name: str, place: str | None = None) -> list[tuple[Both, Sequence[str]]]:
    """How to run what lies in `folder`: for each tool the lines to type.

    Args:
        name: of the export, as a user has it. place: what its folder is called where the lines are typed; None: by
            that name.
    """
    place = name if place is None else place
    ggufs = sorted(shlex.quote(file.name) for file in folder.glob("*.gguf"))
    found: list[tuple[Both, Sequence[str]]] = []
    if (folder / "adapter_config.json").is_file():
        found.append((Both("truetune, with its base", "truetune（连同基座）"), (f"truetune chat {place}",)))
        return found + [(Both("llama.cpp, with its base", "llama.cpp（连同基座）"),
                         (f"llama-server --jinja -m BASE.gguf --lora {file}",)) for file in ggufs]
    if (folder / "config.json").is_file():
        found += [(_same("truetune"), (f"truetune chat {place}", f"truetune api {place}")),
                  (_same("vLLM"), (f"vllm serve {place}",)),
                  (_same("transformers"), ("from transformers import pipeline",
                                           f'pipe = pipeline("text-generation", "{place}")',
                                           'print(pipe([{"role": "user", "content": "Hi"}], max_new_tokens=200))'))]
    found += [(_same("llama.cpp"), (f"llama-server --jinja -m {file}",)) for file in ggufs[:1]]
    if (folder / "Modelfile").is_file():
        model = re.sub(r"[^\w.-]+", "-", name.lower())  # no spaces in the name of a model
        found.append((_same("Ollama"), (f"ollama create {model} -f Modelfile", f"ollama run {model}")))
    return found


def _same(name: str) -> Both:
    return Both(name, name)
