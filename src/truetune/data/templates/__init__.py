"""Chat templates by name: what LLaMA-Factory's 124 names write, as Jinja that is trained with and then saved.

A saved template is one text made of a header (the values of `table.py`), the macros of a tool format
(`tools/<format>.jinja`), a family (`<family>.jinja`: what a turn looks like) and the walk through a conversation
(`conversation.jinja`). It needs no other file, so any server that reads the tokenizer renders what was trained.

**Prompts are prefixes.** For every name, the messages before an answer, rendered with the generation prompt, are a
prefix of the same messages with that answer: exact masks can be proven. One exception: with `enable_thinking: null` the
prompt asks for an answer without a thought, so for an answer that has one it must be asked for with
`enable_thinking=True`. They are also a prefix of the whole conversation, unless thoughts of earlier answers go (below).

**Thinking** (reasoning templates only). Unset: answers stay as they are. True: an answer without a thought begins with
the empty block and learns it. False: thoughts are taken out, and the empty block stands in the prompt. Null: thoughts
stay, and the empty block stands in the prompt. It stands right behind the prompt, before an answer's own first line
feed, as in LLaMA-Factory. A thought is `reasoning_content`, or what stands between the template's thought words at the
start of an answer. Templates that do not reason write a thought like any other text.

**Earlier thoughts.** LLaMA-Factory keeps them when it trains over several turns and takes them out when it generates;
one saved template cannot do both. Ours does in training what chat does: `preserve_thinking: true` keeps them; false
(default) writes every answer but the last as if it had no thought. What a client sends back makes no difference then,
and data without thoughts are written as LLaMA-Factory trains them.

**The end-of-text token** of a template with `efficient_eos` stands behind the last answer only, and not when a prompt
is asked for: between turns the next turn's mark ends the answer.

**Where we leave LLaMA-Factory** (calls and results only; answers are the same letter by letter): calls of gemma4 and
youtu end as answers do, since there they never end; granite4's prompt behind a tool's result is the one behind a user;
results of several tools in a row are a turn each (in one turn for Qwen, Ling 2 and MiniMax-M2), not joined by Qwen's
marks everywhere.
"""

from truetune.data.templates.source import Thinking, find_template, render_text, template_source
from truetune.data.templates.table import TEMPLATES, Template

__all__ = ["TEMPLATES", "Template", "Thinking", "find_template", "render_text", "template_source"]
