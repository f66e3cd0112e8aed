"""From a trained model to files that servers load. `export` is the command from top to bottom; `merge` puts an adapter
into its base, `gguf` and `ollama` write their forms, and nothing counts as done before `parity` has proven it."""

from truetune.export.export import export

__all__ = ["export"]
