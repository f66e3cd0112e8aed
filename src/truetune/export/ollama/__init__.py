"""Ollama: a Modelfile with the trained template, proven.

`derive` finds a Go template that writes what the trained Jinja template writes (`probes` asks it, `emit` puts the
answers together, `gotemplate` runs the result as Go would, `ollama` prepares messages as Ollama does), `modelfile`
writes and reads Modelfiles, `form` is what one says, `write` puts everything into a folder. May import data, model and
serve; nothing of these imports it.

Which template Ollama uses, as facts from its source (https://github.com/ollama/ollama): a Modelfile's TEMPLATE, always,
until it learned in 2026 to let llama.cpp render the GGUF file's own Jinja template (`chatModeForModel` in
server/routes.go). Since then it takes that one where the file's template can do more than TEMPLATE, tools mostly
(`shouldPreferChatTemplate` in server/images.go). Both ways are proven by parity: the first by the form made here, the
other by llama.cpp itself.

**Tools** are left out of TEMPLATE. A Go template is given tools as fields of fixed kinds with properties sorted by
name, and writes JSON without spaces and with `<`, `>` and `&` as escapes (`templateTool` and `json` in
template/template.go); the order and the fields in which a tool was given, and trained, are gone by then. An older
Ollama refuses tools then, a newer one renders them with the GGUF file's template, as trained.
"""

from truetune.export.ollama.form import OllamaForm
from truetune.export.ollama.write import read_modelfile, write_modelfile

__all__ = ["OllamaForm", "read_modelfile", "write_modelfile"]
