"""The form of a job that takes a model, as the Evaluate and the Export tab have it: which model, what for, where to;
what is wrong with it, told while one types; and the button that hands it in.

What is typed becomes the options that `truetune export M …` and `truetune eval M …` make of the same words.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import gradio as gr

from truetune.findings import Both, Finding, Problem, refuse, worst_first
from truetune.jobs.queue import Job
from truetune.options import OPTIONS, Config
from truetune.options.read import COMMAND_LINE, read_config
from truetune.rules import apply_rules
from truetune.run import arguments_of, describe
from truetune.web.errors import in_words, show_findings
from truetune.web.form import Form, Proposal, Texts, at_rest
from truetune.web.job import Far, JobPanel
from truetune.web.models import newest_run, trained, with_chosen
from truetune.web.roots import Roots
from truetune.web.tables import findings_list, paragraph
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

_ONE_AT_A_TIME = Lock()
"""Two pages that start at once look at the queue one after the other."""
_NAMED = Both("named after the model, once one is picked", "选好模型后自动命名")
_MODEL = Both("a run, one of its checkpoints, an adapter, or a model's folder or hub id",
              "运行、检查点、适配器，或模型文件夹、hub 上的 id")


@dataclass(frozen=True)
class Purpose:
    """What somebody wants of the job. sets: options, as they are typed. shows: options that have a field here; where
    one is also set, its field begins with that."""

    words: Both
    sets: Mapping[str, str] = field(default_factory=dict)
    shows: Sequence[str] = ()


class JobForm(ABC):
    """One tab's form. Draw it with `draw_choice`, what the tab has of its own, and `draw_start`; then `wire` it.

    Attributes:
        verb, tab: of the command line; how its ids begin. folder, below: the option of the new folder, and where such
            folders are proposed. purposes: the first is chosen. advanced: options in a fold below. special: settings of
            fields, other than the schema gives.
        asked, wanted, begin, so_far, more: the words of the model's field, of the purposes, of the button, of the jobs
            so far and of the fold.
        first, ready: what is said before a model is picked, and when nothing is wrong.
        panel: the jobs of the verb.
    """

    verb: ClassVar[str]
    tab: ClassVar[str]
    folder: ClassVar[str]
    below: ClassVar[str]
    purposes: ClassVar[Mapping[str, Purpose]]
    advanced: ClassVar[Sequence[str]]
    special: ClassVar[Mapping[str, Mapping[str, Any]]]
    asked: ClassVar[Both]
    wanted: ClassVar[Both]
    begin: ClassVar[Both]
    so_far: ClassVar[Both]
    more: ClassVar[Both]
    first: ClassVar[Both]
    ready: ClassVar[Both]

    def __init__(self, page: Page):
        self.page, self.form = page, Form(page.wording, f"{self.tab}-")
        self._draft = page.drafts[self.tab]

    # ----------------------------------------------------------------------------------- what differs from tab to tab

    @abstractmethod
    def confined(self, purpose: str, texts: Texts) -> Texts:
        """What was typed, as the command takes it, every path within the folders of the page.

        Raises:
            Problem: one is not.
        """

    @abstractmethod
    def far(self, job: Job, log: str) -> Far | None:
        """How far a job that runs is, None where nobody knows."""

    def findings(self, purpose: str, config: Config) -> Iterator[Finding]:
        """What there is to say beside the rules."""
        yield from ()

    def in_the_way(self, folder: Path) -> bool:
        """Whether the command would refuse to write there: anything but an empty folder."""
        try:
            return folder.is_file() or any(folder.iterdir())
        except OSError:
            return False  # there is none, or somebody else's: writing there says why it does not work

    def words(self, config: Config, language: Language) -> list[str]:
        """Words of the command line beside the file of options."""
        return [f"--lang={'en' if language == 'en' else 'zh'}"]

    # ---------------------------------------------------------------------------------------------------- what is there

    def draw_choice(self) -> None:
        """The model, the purposes, and their fields."""
        words, draw = self.page.wording, self.form.draw
        self.model = words(gr.Dropdown, label=self.asked, info=_MODEL, choices=[], value=None, allow_custom_value=True,
                           elem_id=f"{self.tab}-model")
        self.purpose = words(gr.Radio, label=self.wanted, value=self._usual, elem_id=f"{self.tab}-purpose",
                             elem_classes="purposes", choices=lambda language: [
                                 (say(each.words, language), name) for name, each in self.purposes.items()])
        with gr.Row(elem_classes="fields"):
            for name in self.chosen:
                draw(name, visible=name in self.purposes[self._usual].shows, **self.special.get(name, {}))
            draw(self.folder, placeholder=_NAMED)
        self._proposal = Proposal(self.form, self.folder)
        with words(gr.Accordion, label=self.more, open=False), gr.Row(elem_classes="fields"):
            for name in self.advanced:
                draw(name)

    def draw_start(self) -> None:
        """What is wrong, the button, and the jobs."""
        words = self.page.wording
        self.check = words(gr.HTML, value=lambda language: paragraph(self.first, language),
                           elem_id=f"{self.tab}-check")
        self.start = words(gr.Button, value=self.begin, variant="primary", elem_id=f"{self.tab}-start")
        self.panel = JobPanel(self.page, self.verb, self.so_far, self.far)

    @property
    def chosen(self) -> Sequence[str]:
        """Options whose fields depend on the purpose."""
        return tuple(dict.fromkeys(name for purpose in self.purposes.values() for name in purpose.shows))

    @property
    def _usual(self) -> str:
        return next(iter(self.purposes))

    # ----------------------------------------------------------------------------------------------------- what happens

    @property
    def inputs(self) -> list[Any]:
        """What handlers take that read the form."""
        return [self.model, self.purpose, self.page.language, self.form.held]

    def wire(self) -> None:
        """Connect what was drawn."""
        page, form = self.page, self.form
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.model.focus(self._offered, [self.model, page.language], self.model, **quiet)
        fields = [form.fields[name] for name in self.chosen]
        self.purpose.change(self._fields_of, [self.purpose, form.held],
                            [*(each.place for each in fields), *(each.component for each in fields)], **quiet)
        proposed = self._proposal.component
        self._proposal.after(gr.on(
            [self.model.change, self.purpose.change], self._propose, [self.model, self.purpose, proposed], proposed,
            trigger_mode="always_last", **quiet))  # else a second choice is lost while the first is answered
        gr.on([self.model.change, self.purpose.change, form.held.change], self._look, [proposed, *self.inputs],
              [self.check, self._draft], trigger_mode="always_last", **quiet)
        page.blocks.load(self._restored, self._draft, [self.model, self.purpose, form.held, *form.components], **quiet)
        self._proposal.after(self.start.click(self._start, self.inputs, [self.panel.chosen, proposed],
                                              api_visibility="private"))

    def asked_for(self, model: str | None, purpose: str, held: Mapping[str, Any]) -> tuple[Config, list[Finding]]:
        """The configuration, and everything that can be said of it at once.

        Raises:
            Problem: a folder lies outside those of the page, or the options of a run cannot be read.
        """
        config, findings = configured_for(self.page.roots, model or "", self._texts(purpose, held))
        findings += [*placeless(apply_rules(config, self.verb)), *_no_model(config), *self._occupied(config),
                     *self.findings(purpose, config)]
        if not getattr(config, self.folder) and not any(each.option == self.folder for each in findings):
            findings.append(Finding("folder-missing", "error", Both("the results need a folder.",
                                                                    "结果需要一个文件夹。"), self.folder))
        return config, worst_first(findings)

    def _texts(self, purpose: str, held: Mapping[str, Any]) -> Texts:
        """What was typed that matters to the purpose, and what that sets by itself."""
        wanted = self.purposes[purpose]
        hidden = set(self.chosen).difference(wanted.shows)
        typed = {name: text for name, text in self.form.texts(held).items() if name not in hidden}
        return self.confined(purpose, typed | {name: text for name, text in wanted.sets.items()
                                               if name not in wanted.shows})

    def _occupied(self, config: Config) -> Iterator[Finding]:
        typed = getattr(config, self.folder)
        if not typed:
            return
        folder, another = Path(typed), Both("Choose another folder.", "请换一个文件夹。")
        if self.in_the_way(folder):
            yield Finding("folder-in-use", "error", Both(f"{folder} is there already.", f"{folder} 已经存在。"),
                          self.folder, fix=another)
        elif any(job.active and job.output == folder for job in self.page.queue.jobs()):
            yield Finding("folder-in-use", "error", Both(f"a job that waits or runs writes {folder}.",
                                                         f"已有任务要写入 {folder}。"), self.folder, fix=another)

    def _fields_of(self, purpose: str, held: Mapping[str, Any]) -> list[Any]:
        """The fields that a purpose shows; one that it also sets, and that nobody has filled, begins with that."""
        wanted = self.purposes[purpose]
        typed = self.form.texts(held)
        begun = {name: text for name, text in wanted.sets.items()
                 if name in wanted.shows and not typed.get(name, at_rest(OPTIONS[name]))}
        updates = self.form.updated(begun)
        return [*(gr.update(visible=name in wanted.shows) for name in self.chosen),
                *(updates.get(self.form.fields[name].component, gr.skip()) for name in self.chosen)]

    def _offered(self, model: str | None, language: Language) -> Any:
        return gr.update(choices=with_chosen(trained(self.page.roots, language), model))

    def _propose(self, model: str | None, purpose: str, proposed: Mapping[str, str]) -> Mapping[str, str]:
        """A new folder."""
        return self._proposal.value(propose(self.page, self.below, model, purpose), proposed["now"]) if model \
            else proposed

    def _look(self, proposed: Mapping[str, str], model: str | None, purpose: str, language: Language,
              held: Mapping[str, Any]) -> list[Any]:
        """What is wrong, as soon as something changes; and what a page that is loaded again begins with."""
        typed = self._proposal.typed(self.form.texts(held), self.folder, proposed)
        draft = {"model": model, "purpose": purpose, "texts": typed}
        if not model:
            return [paragraph(self.first, language), draft]
        try:
            _, findings = self.asked_for(model, purpose, held)
        except Problem as problem:
            findings = problem.findings
        told = [finding for finding in findings if finding.severity != "info"]
        return [findings_list(told, language) or paragraph(self.ready, language, "ok"), draft]

    def _restored(self, draft: Any) -> dict[Any, Any]:
        """What was typed before the page was loaded again, or in another language; at first the newest run."""
        kept = draft if isinstance(draft, Mapping) and isinstance(draft.get("texts"), Mapping) else {"texts": {}}
        purpose, texts = kept.get("purpose"), {name: str(text) for name, text in kept["texts"].items()}
        model = str(kept.get("model") or "") or newest_run(self.page.roots)
        return {self.model: model or gr.skip(), self.purpose: purpose if purpose in self.purposes else gr.skip(),
                self.form.held: texts, **self.form.updated(texts)}

    @in_words
    def _start(self, model: str | None, purpose: str, language: Language, held: Mapping[str, Any]) -> Any:
        if not model:
            raise Problem(Finding("model-missing", "error", self.first))
        with _ONE_AT_A_TIME:
            config, findings = self.asked_for(model, purpose, held)
            refuse(findings)
            job = self.page.queue.submit(self.verb, describe(config), Path(getattr(config, self.folder)),
                                         self.words(config, language))
        show_findings([finding for finding in findings if finding.severity == "warn"], language)
        another = propose(self.page, self.below, model, purpose)
        return [self.panel.handed_in(job), self._proposal.value(another, self.form.texts(held)[self.folder])]


def _no_model(config: Config) -> Iterator[Finding]:
    """That a folder holds no model, which else were told by the job, half a minute later."""
    folder = Path(config.model_name_or_path or "").expanduser()
    if folder.is_absolute() and not (folder / "config.json").is_file():
        yield Finding("not-a-model", "error", Both(f"{folder} has no config.json, so it is not a model.",
                                                   f"{folder} 里没有 config.json，不是模型。"), "model_name_or_path")


def configured_for(roots: Roots, model: str, texts: Mapping[str, str]) -> tuple[Config, list[Finding]]:
    """The configuration of a picked model with what was typed beside it, and the slips in it.

    Raises:
        Problem: the model's folder lies outside those of the page, or the options of its run cannot be read.
    """
    config, findings = read_config([*options_of(roots, model), *as_words(texts)])
    return config, placeless(findings)


def options_of(roots: Roots, typed: str) -> list[str]:
    """The words that a picked model stands for.

    Raises:
        Problem: a folder outside those of the page.
    """
    if typed.startswith(("/", "~", ".")) or (roots.home / typed).exists():
        return arguments_of(str(roots.inside(typed, "model_name_or_path")))
    return arguments_of(typed) if typed else []


def as_words(texts: Mapping[str, str]) -> list[str]:
    """What was typed as words of a command line; a field that was emptied says nothing."""
    return [f"--{name}={text}" for name, text in texts.items() if text]


def placeless(findings: list[Finding]) -> list[Finding]:
    """Findings without the place "command line": on the page it is the field of that name."""
    return [replace(each, where=None) if (each.where or "").startswith(COMMAND_LINE) else each for each in findings]


def propose(page: Page, below: str, model: str, purpose: str) -> str:
    """A folder `below` home called after the model, that is not there yet and that no job is about to write."""
    path, home = Path(model), page.roots.home
    name = f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name
    name = re.sub(r"[^\w.-]+", "-", name) or "model"
    taken = {job.output for job in page.queue.jobs() if job.active}
    folders = (f"{below}/{name}-{purpose}{f'-{number}' if number > 1 else ''}" for number in range(1, 1000))
    return next((folder for folder in folders if not (home / folder).exists() and home / folder not in taken), "")
