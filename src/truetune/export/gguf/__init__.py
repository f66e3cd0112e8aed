"""GGUF: the file that llama.cpp, Ollama and what is built on them run. Needs the package gguf.

`write_gguf` makes one of a model folder: `architectures` says what llama.cpp wants to know of each family, `tensors`
reads the weights, `mixture` chooses a type for each, `quantise` packs them, `vocabulary` and `pretokenizers` put the
tokenizer in and `proof` shows that it gives the same ids. `importance` measures which columns matter, `adapter` writes
a LoRA by itself.
"""

from truetune.export.gguf.adapter import write_gguf_adapter
from truetune.export.gguf.importance import Importance, measure_importance
from truetune.export.gguf.write import require_convertible, write_gguf

__all__ = ["Importance", "measure_importance", "require_convertible", "write_gguf", "write_gguf_adapter"]
