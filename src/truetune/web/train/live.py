"""What changes on the Train tab while somebody types: which fields are shown, what is wrong, the command, the draft.

One handler does all of it from the texts of the form, and sends only what has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Finding, Problem
from truetune.jobs.queue import Job
from truetune.options import OPTIONS, Config
from truetune.rules import apply_rules
from truetune.rules.applies import missing
from truetune.run import CONFIG, read_state
from truetune.web.form import Form, Proposal, Texts, applying, as_file, configured
from truetune.web.roots import Roots
from truetune.web.train import panel
from truetune.web.train.checking import outside
from truetune.web.train.search import answer, found
from truetune.web.train.settings import commands, differences
from truetune.web.words import Language

if TYPE_CHECKING:
    from truetune.web.page import Page

FIXES = 4
"""Buttons for one-click fixes."""


@dataclass
class Seen:
    """What a browser was last sent, so that only changes are sent. cures: what the buttons for fixes set."""

    shown: dict[str, bool] = field(default_factory=dict)
    wrong: dict[str, bool] = field(default_factory=dict)
    groups: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    phrase: str = ""
    cures: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """What the texts of the form come to. sent: those that apply; findings: slips and rules."""

    texts: Texts
    sent: Texts
    config: Config
    findings: list[Finding]

    @property
    def wrong(self) -> set[str]:
        return {finding.option for finding in self.findings
                if finding.option and finding.severity == "error" and finding.id not in panel.NEEDED}


def state_of(texts: Texts, roots: Roots) -> State:
    """Everything that the options alone tell, at once, without torch."""
    sent = applying(texts)
    config, findings = configured(sent)
    return State(texts, sent, config, [*findings, *outside(config, roots), *apply_rules(config, "train")])


def proposed_folder(config: Config, roots: Roots, jobs: Sequence[Job], now: datetime) -> str:
    """saves/<model>/<method>/train_<date>, as LLaMA-Factory names it, where nothing is yet; "" before a model is
    chosen."""
    if not config.model_name_or_path:
        return ""
    model = re.sub(r"[^\w.+-]+", "-", Path(config.model_name_or_path).name).strip("-.") or "model"
    name = f"saves/{model}/{config.finetuning_type}/train_{now:%Y-%m-%d-%H-%M-%S}"
    taken = {job.output.resolve() for job in jobs if job.output}
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(each for each in names if not _taken(roots.home / each, taken))


def _taken(folder: Path, outputs: set[Path]) -> bool:
    return folder.resolve() in outputs or (folder / CONFIG).is_file()


def run_there(state: State, roots: Roots) -> tuple[Path, str] | None:
    """The run that output_dir holds already and its status, unless it is said what shall become of it."""
    config = state.config
    if not config.output_dir or config.overwrite_output_dir or config.resume_from_checkpoint:
        return None
    try:
        folder = roots.inside(config.output_dir)
    except Problem:
        return None
    return (folder, str(read_state(folder).get("status", "?"))) if (folder / CONFIG).is_file() else None


def visible(state: State, basic: Sequence[str], names: Sequence[str], matching: Sequence[str], phrase: str
            ) -> dict[str, bool]:
    """Which fields are shown. The others than the basic ones: those that were found, or, while nothing is searched,
    the advanced ones and what somebody has set."""
    def wanted(name: str) -> bool:
        if name in basic:
            return True
        if phrase.strip():
            return name in matching
        return OPTIONS[name].text.level != "expert" or name in state.texts
    return {name: wanted(name) and not missing(name, state.config) for name in names}


class Live:
    """The handler and what it writes to. groups: the folded groups by title, with the options in each."""

    def __init__(self, page: Page, form: Form, basic: Sequence[str], search: gr.Textbox, answered: gr.HTML,
                 groups: Mapping[str, tuple[gr.Accordion, Sequence[str]]]):
        self._page, self._form, self._basic, self._groups = page, form, basic, groups
        self.search, self._answered = search, answered
        self.seen, self._proposal = gr.State(Seen()), Proposal(form, "output_dir")
        self.draft = gr.BrowserState({}, storage_key="truetune-train", secret="truetune")

    def draw_side(self) -> None:
        """What stands beside the form."""
        self.findings = gr.HTML(elem_id="train-findings")
        with gr.Row(elem_id="train-fixes"):
            self.fixes = [gr.Button(visible=False, size="sm", elem_id=f"train-fix-{number}")
                          for number in range(FIXES)]

    def draw_before(self) -> None:
        """What stands beside Start."""
        self.before = gr.HTML(elem_id="train-before")
        with gr.Column(visible=False, elem_id="train-in-use") as self.in_use:
            self.in_use_words = gr.HTML()
            with gr.Row():
                said = self._page.wording
                self.go_on = said(gr.Button, value=Both("Go on with it", "接着训练"), size="sm")
                self.rename = said(gr.Button, value=Both("Another name", "换个名字"), size="sm")
                self.delete = said(gr.Button, value=_DELETE, size="sm", variant="stop")
                self.delete_now = said(gr.Button, value=Both("Really delete the run?", "确定删除那次运行？"), size="sm",
                                       variant="stop", visible=False)

    def draw_files(self) -> None:
        """The settings as others read them."""
        said = self._page.wording
        self.yaml = said(gr.Code, label=Both("run.yaml: share, copy or download it", "run.yaml：可分享、复制或下载"),
                         language="yaml", interactive=False, elem_id="train-yaml", buttons=["copy", "download"])
        self.command = said(gr.Code, label=Both("The same on the command line", "等价的命令行"), language="shell",
                            interactive=False, elem_id="train-command", wrap_lines=True)

    def draw_differences(self) -> None:
        """What was set, beside the defaults."""
        self.differences = gr.HTML(elem_id="train-differences")

    @property
    def inputs(self) -> list[Any]:
        """What `update` takes."""
        return [self._page.language, self.search, self.seen, self._proposal.component, self._form.held]

    @property
    def outputs(self) -> list[Any]:
        """What `update` may write."""
        folds = [fold for fold, _ in self._groups.values()]
        return [self.seen, self.draft, self.findings, *self.fixes, self.before, self.in_use, self.in_use_words,
                self.delete, self.delete_now, self.yaml, self.command, self.differences, self._answered, *folds,
                *self._form.places, self._proposal.component]

    def follow(self, updated: Any) -> None:
        """What is left to do once `update` has run."""
        self._proposal.after(updated)

    def update(self, language: Language, phrase: str, seen: Seen, proposed: Mapping[str, str], held: Mapping[str, Any]
               ) -> dict[Any, Any]:
        """Everything that follows from what was typed."""
        page, form = self._page, self._form
        texts, jobs = form.texts(held), page.queue.jobs()
        state = state_of(texts, page.roots)
        typed = self._proposal.typed(texts, "output_dir", proposed)
        if "output_dir" not in typed:
            proposed = self._proposal.value(self._folder(state.config, proposed["now"], jobs), proposed["now"])
            state = state_of({**typed, "output_dir": proposed["now"]}, page.roots)
        names = found(phrase or "", language)
        sent = self._fields(state, seen, names, phrase or "")
        there = run_there(state, page.roots)
        seen.cures = panel.cures(state.findings)[:FIXES]
        text = as_file(state.config, state.sent)
        return sent | {
            self.seen: seen, self._proposal.component: proposed, self.draft: {"texts": typed},
            self.findings: panel.findings(state.findings, language),
            **dict(zip(self.fixes, self._fix_buttons(seen.cures, language), strict=True)),
            self.before: panel.before_start(state.config.output_dir or "", jobs, language),
            self.in_use: gr.update(visible=there is not None),
            self.in_use_words: panel.in_use(*there, language) if there else "",
            self.delete: gr.update(visible=True), self.delete_now: gr.update(visible=False),
            self.yaml: text, self.command: commands(state.config, state.sent, "run.yaml"),
            self.differences: differences(state.config, state.sent, language),
            self._answered: answer(names, form.fields, state.config, phrase or "", language)}

    def _folder(self, config: Config, before: str, jobs: Sequence[Job]) -> str:
        """The run folder to propose, of the same time as the one before."""
        begun = re.search(r"train_([\d-]{19})", before)
        now = datetime.strptime(begun[1], _STAMP) if begun else datetime.now()
        return proposed_folder(config, self._page.roots, jobs, now)

    def _fields(self, state: State, seen: Seen, matching: Sequence[str], phrase: str) -> dict[Any, Any]:
        """Updates of the fields and folds that are to be shown, hidden, marked, opened or closed."""
        shown = visible(state, self._basic, list(self._form.fields), matching, phrase)
        wrong = {name: name in state.wrong for name in self._form.fields}
        sent: dict[Any, Any] = {}
        for name, each in self._form.fields.items():
            if seen.shown.get(name) != shown[name] or seen.wrong.get(name, False) != wrong[name]:
                sent[each.place] = gr.update(visible=shown[name],
                                             elem_classes=["field", "wrong"] if wrong[name] else ["field"])
        for title, (fold, names) in self._groups.items():
            some, before = any(shown[name] for name in names), seen.groups.get(title)
            wanted = (some, some and bool(phrase.strip()))
            if before is None or before[0] != some or seen.phrase != phrase:
                sent[fold] = gr.update(visible=wanted[0], open=wanted[1])
            seen.groups[title] = wanted
        seen.shown, seen.wrong, seen.phrase = shown, wrong, phrase
        return sent

    def _fix_buttons(self, cures: Sequence[Mapping[str, Any]], language: Language) -> list[Any]:
        shown = [gr.update(value=panel.cure_label(cure, language), visible=True) for cure in cures]
        return shown + [gr.update(visible=False)] * (FIXES - len(shown))


_STAMP = "%Y-%m-%d-%H-%M-%S"
_DELETE = Both("Delete it and start afresh", "删除并重新开始")
