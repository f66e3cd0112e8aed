"""What the model card of an export says beside what the model is: its files, how to run it, and what was proven."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from truetune.parity.report import Parity


def card_sections(folder: Path, name: str, parity: Parity) -> list[str]:
    """Lines of Markdown for what lies in `folder`. name: of the export, as a user has it."""
    return [*how_to_run(folder, name), *parity.markdown()]


def how_to_run(folder: Path, name: str) -> list[str]:
    """One command for each form that is there."""
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    commands: list[tuple[str, Sequence[str]]] = []
    if (folder / "adapter_config.json").is_file():
        commands.append(("truetune, with its base", (f"truetune chat {name}",)))
        commands += [("llama.cpp, with its base", (f"llama-server --jinja -m BASE.gguf --lora {file}",))
                     for file in ggufs]
        return _blocks(commands)
    elif (folder / "config.json").is_file():
        commands += [("truetune", (f"truetune chat {name}", f"truetune api {name}")), ("vLLM", (f"vllm serve {name}",)),
                     ("transformers", ("from transformers import pipeline",
                                       f'pipe = pipeline("text-generation", "{name}")',
                                       'print(pipe([{"role": "user", "content": "Hi"}], max_new_tokens=200))'))]
    commands += [("llama.cpp", (f"llama-server --jinja -m {file}",)) for file in ggufs[:1]]
    if (folder / "Modelfile").is_file():
        commands.append(("Ollama", (f"ollama create {name.lower()} -f Modelfile", f"ollama run {name.lower()}")))
    return _blocks(commands)


def _blocks(commands: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    lines = ["## How to run it", ""] if commands else []
    for tool, words in commands:
        lines += [f"{tool}:", "", "```", *words, "```", ""]
    return lines
