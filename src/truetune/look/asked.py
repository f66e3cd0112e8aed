"""What the web page asks about a run that is being set up. It runs in the page's worker, since it needs torch, and
keeps what took long, so that an estimate follows while somebody changes a number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from truetune.check.examine import SAMPLE, check
from truetune.check.memory import Memory, Shape, shape_of
from truetune.check.pace import tokens_per_second
from truetune.check.preflight import plan_of, prepare
from truetune.check.room import A_STEP, PARTS, PHASES, Batches, Device, fits, most_rows, need, savings
from truetune.check.rows import row_findings
from truetune.check.suggest import Suggestion
from truetune.data.dataset import PER_ROW, Data
from truetune.data.messages import NOWHERE, BadRow, Conversation, Message, Role
from truetune.data.reading import STAGE_ROWS
from truetune.data.renderer import Renderer
from truetune.data.sources import Files, find_sources
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.findings import Both, Finding, Problem, Say, problem
from truetune.guide.recipe import make_recipe
from truetune.look.preview import preview
from truetune.look.show import first_rows
from truetune.look.told import Estimate, Example, Proposal, Shown, Suggested, Told, Verdict
from truetune.model.find import find_model
from truetune.model.precision import Precision, matmul_rate, pick_device, pick_precision, resolve
from truetune.model.vocabulary import read_vocabulary
from truetune.options import GROUPS, OPTIONS, Config
from truetune.options.kinds import KINDS
from truetune.options.sources import SOURCES
from truetune.rules import derive

ROWS = 3
"""Rows that the check shows as they are trained on."""
_KEPT = 4
"""So many models, and so many data sets, are kept."""
_Made = TypeVar("_Made")


# --------------------------------------------------------------------------------------------------------------- check


def check_run(config: Config, findings: Sequence[Finding], say: Say) -> Told:
    """Everything that can be known before training: what `truetune check` prints."""
    checked = check(config, findings, say)
    ready = checked.ready
    rows = first_rows(ready.train, ROWS, ready.renderer, ready.config) if ready else []
    return Told(checked.findings, [(part.name, part.title, part.lines) for part in checked.sections],
                [row.as_dict() for row in rows], _proposals(checked.suggestions))


def _proposals(suggestions: Iterable[Suggestion]) -> list[Proposal]:
    return [Proposal(dict(each.cure), each.gain) for each in suggestions]


# ------------------------------------------------------------------------------------------------------------ estimate


def estimate(config: Config, say: Say) -> Estimate:
    """Memory and time of a run, from what is on this machine: nothing is downloaded.

    Raises:
        Problem: model or data are not here, or cannot be read, or say nothing of what they need.
    """
    _require_here(config)
    config = derive(config)
    device = pick_device(config)
    precision = _precision(config, device)
    config = resolve(config, precision)
    known = _prepared(config, say)
    shape = _shape(known.base, config, precision)
    batches, here = Batches.of(known.data.train, config), Device.here(device)
    config = _settled(config, shape, batches, here)
    memory = need(shape, batches, config.rows_at_once, config, here)
    plan = plan_of(config, known.data)
    tokens = int(known.data.train.lengths.sum()) * known.data.scale
    seen = tokens * plan.total_steps / max(plan.steps_per_epoch, 1)
    pace = tokens_per_second(shape, _rate(precision.dtype, device), precision.dtype, device)
    return Estimate(
        _verdict(memory, here), here.kind == "cuda", memory.peak, here.free, here.total,
        {name: (PARTS[name], size) for name, size in memory.parts.items()}, PHASES[memory.phase], seen / pace,
        plan.total_steps, round(seen), round(plan.rows * known.data.scale), config.rows_at_once, shape.parameters,
        shape.trained, bool(config.gradient_checkpointing), _proposals(savings(shape, batches, config, here)))


def _verdict(memory: Memory, device: Device) -> Verdict:
    if memory.peak > device.free:
        return "too big"
    return "fits" if fits(memory, device) else "tight"


def _settled(config: Config, shape: Shape, batches: Batches, here: Device) -> Config:
    """What the options leave to the machine, settled as `check.room` settles it for a run."""
    if config.per_device_train_batch_size == "auto":
        rows = A_STEP * config.gradient_accumulation_steps
        fitting = most_rows(shape, batches, rows, config, here)
        config = config.with_values("rule: what fits", per_device_train_batch_size=fitting,
                                    gradient_accumulation_steps=rows // fitting)
    if config.gradient_checkpointing is None and KINDS[config.finetuning_type].checkpoints:
        without = need(shape, batches, config.rows_at_once, config, here, checkpointing=False)
        again = bool(config.activation_offload) or not fits(without, here)
        config = config.with_values("rule: what fits", gradient_checkpointing=again)
    return config


def _require_here(config: Config) -> None:
    """Raises:
    Problem: model or data have to be downloaded first, or are not named yet.
    """
    name = config.model_name_or_path
    if not name:
        raise problem("model-missing", Both("choose a model.", "请选择模型。"), option="model_name_or_path")
    if not config.dataset:
        raise problem("data-missing", Both("choose data.", "请选择数据。"), option="dataset")
    if not name.startswith("bundled/") and not Path(name).expanduser().is_dir():
        try:
            here = isinstance(try_to_load_from_cache(name, "config.json", cache_dir=config.cache_dir), str)
        except HFValidationError:
            here = True  # no id at all: what is wrong with it is told where it is looked for
        if not here and name.count("/") == 1 and not name.startswith((".", "/", "~")):
            raise _elsewhere(name, "model_name_or_path")
    for source in find_sources(config.dataset, config, "dataset"):
        if not isinstance(source.data, Files):
            raise _elsewhere(source.name, "dataset")


def _elsewhere(name: str, option: str) -> Problem:
    return Problem(Finding("not-here", "info", Both(f"{name} is not on this machine yet.", f"{name} 还不在本机。"),
                           option=option, fix=Both("Check downloads it; then the estimate is here.",
                                                   "“检查”会下载它，之后这里会显示估算。")))


# -------------------------------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True)
class _Prepared:
    base: Path
    renderer: Renderer
    data: Data
    findings: list[Finding]


_LATE = ("Quantization", "Method", "Loss", "Preference", "Reward", "Optimizer", "Parallel", "Tracking", "Generation",
         "Export", "Serving", "Evaluation", "Web")
"""Groups of options that say nothing of rows: these are read and tokenised alike."""
_NUMBERS = {
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "gradient_checkpointing", "warmup_steps", "warmup_ratio", "lr_scheduler_type",
    "max_grad_norm", "logging_steps", "save_strategy", "save_steps", "save_total_limit", "eval_strategy", "eval_steps",
    "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "before_after"}
"""Options that change neither rows nor what of a model is in memory: those that are turned most."""
_OF_ROWS = [option.name for option in OPTIONS.values()
            if option.name not in _NUMBERS and option.group.title[0] not in _LATE]
_OF_SHAPE = [option.name for group in GROUPS if group.title[0] not in ("Data", "Media", "Tracking", "Web")
             for option in OPTIONS.values() if option.group is group and option.name not in _NUMBERS]
_prepared_before: OrderedDict[Any, _Prepared] = OrderedDict()
_shapes_before: OrderedDict[Any, Shape] = OrderedDict()


def _remembered(before: OrderedDict[Any, _Made], key: Any, make: Callable[[], _Made]) -> _Made:
    """What was made before for this key, or what is made now; the oldest are forgotten."""
    if key not in before:
        before[key] = make()
        while len(before) > _KEPT:
            before.popitem(last=False)
    before.move_to_end(key)
    return before[key]


def _values(config: Config, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(repr(getattr(config, name)) for name in names)


def _prepared(config: Config, say: Say) -> _Prepared:
    """Tokenizer and rows; read again when a file of theirs has changed."""
    key = (_values(config, _OF_ROWS), *_marks(config))
    return _remembered(_prepared_before, key, lambda: _Prepared(*prepare(config, say, most=SAMPLE)))


def _marks(config: Config) -> list[tuple[str, int, int]]:
    """Files that rows and tokenizer come from, with when they were written."""
    paths = [path for option, names in (("dataset", config.dataset), ("eval_dataset", config.eval_dataset))
             for source in find_sources(names, config, option) if isinstance(source.data, Files)
             for path in source.data.paths]
    paths += [Path(config.dataset_dir) / "dataset_info.json"]
    model = Path(config.model_name_or_path or "").expanduser()
    paths += [model / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja")]
    return [(str(path), stat.st_mtime_ns, stat.st_size) for path in paths if path.is_file() and (stat := path.stat())]


def _shape(base: Path, config: Config, precision: Precision) -> Shape:
    file = base / "config.json"
    key = (_values(config, _OF_SHAPE), str(base), file.stat().st_mtime_ns, precision.name)
    return _remembered(_shapes_before, key, lambda: shape_of(base, config, precision))


_precisions: dict[Any, Precision] = {}


def _precision(config: Config, device: torch.device) -> Precision:
    """Where it is left open it is measured, which takes a fifth of a second."""
    key = (config.bf16, config.fp16, config.pure_bf16, str(device))
    if key not in _precisions:
        _precisions[key] = pick_precision(config, device)
    return _precisions[key]


@cache
def _rate(dtype: torch.dtype, device: torch.device) -> float:
    return matmul_rate(dtype, device, seconds=0.1)


# ---------------------------------------------------------------------------------------------- template, rows, recipe


def template_example(config: Config, turns: Sequence[tuple[Role, str]], say: Say) -> Example:
    """A conversation as a run would write it: with the template that is named, or the model's own.

    Raises:
        Problem: the model is not here or cannot be read, or brings no template and none is named.
    """
    name = config.model_name_or_path
    if not name:
        raise problem("model-missing", Both("choose a model.", "请选择模型。"), option="model_name_or_path")
    base = find_model(name, config, say)
    vocabulary = read_vocabulary(base, config)
    tokenizer = vocabulary.tokenizer
    findings = [*vocabulary.findings, *settle_template(tokenizer, config)]
    if config.stage == "pt":
        return Example(config.template, None, [], findings)
    require_template(tokenizer, name)
    renderer = make_renderer(tokenizer, base, config)
    row = Conversation(tuple(Message(role, text) for role, text in turns), (), NOWHERE)
    rendered = renderer.render([row])[0]
    if isinstance(rendered, BadRow):
        raise problem("not-rendered", rendered.reason, option="template")
    shown = preview(rendered, row, renderer, "conversations", config.cutoff_len, config.overlong)
    stops = [str(tokenizer.convert_ids_to_tokens(number)) for number in renderer.stop_ids()]
    return Example(config.template, shown.as_dict(), stops, findings)


def data_rows(config: Config, first: int, count: int, say: Say) -> Shown:
    """Rows of the mixture as they are trained on.

    Raises:
        Problem: of model, template and data.
    """
    known = _prepared(derive(config), say)
    rows = len(known.data.train.lengths) // PER_ROW[STAGE_ROWS[config.stage]]
    first = min(max(first, 0), max(rows - 1, 0))
    shown = first_rows(known.data.train, count, known.renderer, config, skip=first)
    refused = [(str(row.place), row.reason) for store in known.data.stores for row in store.refused()]
    return Shown(first, rows, [row.as_dict() for row in shown], refused,
                 [*known.findings, *row_findings(known.data, known.renderer, config)])


def recipe(config: Config, goal: str | None, say: Say) -> Suggested:
    """Settings for this model, data, machine and goal; what `config` was given stays.

    Raises:
        Problem: model or data cannot be read, or what was given does not go together.
    """
    made = make_recipe(config, goal or None, say)
    chosen = [(line.option, line.value, line.why, SOURCES[line.source].title if line.source in SOURCES else "")
              for line in made.lines if not config.given(line.option)]
    return Suggested(made.situation.goal, chosen, list(made.findings))
