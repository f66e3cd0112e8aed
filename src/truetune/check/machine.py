"""What a run needs of this machine beside memory: room on the disk, devices, packages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from truetune.check.schedule import times
from truetune.check.section import Section
from truetune.findings import Both, Finding, Words
from truetune.options import Config
from truetune.report import machine
from truetune.steps import Plan

EXPORTS: Mapping[str, float] = {"merged (16 bit)": 2.0, "GGUF f16": 2.0, "GGUF q8_0": 1.0625, "GGUF q4_k_m": 0.6}
"""Bytes a weight of what a trained model may be written as. q8_0: 34 bytes for 32 weights; q4_k_m: about 4.8 bits."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on the disk. saved: of the adapter or model, as it is written at the end. state: what a checkpoint needs
    beside it to go on from. parameters: of the whole model."""

    saved: int
    state: int
    parameters: int


def disk_section(config: Config, plan: Plan, sizes: Sizes) -> Section:
    """Room that the run needs, and what may be made of its model afterwards."""
    section = Section("disk", Both("Disk", "磁盘"))
    folder = _existing(Path(config.output_dir or ".").expanduser())
    free = shutil.disk_usage(folder).free
    count = times(config.save_strategy, config.save_steps, plan)
    kept = min(count, config.save_total_limit or count)
    one = sizes.saved + (0 if config.save_only_model else sizes.state)
    # A checkpoint is written whole before the oldest is deleted.
    needed = sizes.saved + one * (kept + (1 if count > kept else 0))
    section.lines.append((Both("the run", "本次运行"), Both(
        f"{size(needed)}: {size(sizes.saved)} for the model, {kept} checkpoints of {size(one)}; {size(free)} free "
        f"in {folder}",
        f"{size(needed)}：模型 {size(sizes.saved)}，{kept} 个检查点各 {size(one)}；{folder} 剩余 {size(free)}")))
    exports = {name: int(each * sizes.parameters) for name, each in EXPORTS.items()}
    told = ", ".join(f"{name} {size(bytes)}" for name, bytes in exports.items())
    section.lines.append((Both("exports", "导出"), told))
    section.facts = {"needed": needed, "free": free, "checkpoint": one, "checkpoints": kept, "exports": exports}
    where = config.origin("output_dir")
    if needed > free:
        fewer = config.save_total_limit is None or config.save_total_limit > 1
        section.findings.append(Finding(
            "disk-full", "error", Both(
                f"the run writes up to {size(needed)}, and {folder} has {size(free)} left.",
                f"运行最多写入 {size(needed)}，而 {folder} 只剩 {size(free)}。"),
            option="output_dir", where=where, cure={"save_total_limit": 1} if fewer else None,
            fix=Both("Make room, or keep fewer checkpoints: save_total_limit: 1, or save_strategy: no.",
                     "清理磁盘，或少留检查点：save_total_limit: 1，或 save_strategy: no。")))
    elif needed + exports["merged (16 bit)"] > free:
        section.findings.append(Finding(
            "disk-tight", "warn", Both(
                f"after the run a merged model ({size(exports['merged (16 bit)'])}) will not fit beside it.",
                f"训练之后，合并的模型（{size(exports['merged (16 bit)'])}）放不下。"),
            option="output_dir", where=where,
            fix=Both("Make room, or export to another disk.", "清理磁盘，或导出到别的磁盘。")))
    return section


def machine_section(config: Config) -> Section:
    """Devices and packages."""
    section = Section("machine", Both("Machine", "机器"))
    found = machine()
    section.lines = [(name, value) for name, value in found.items()]
    section.facts = dict(found)
    section.findings = [*_package_findings(), *_missing_findings(config)]
    return section


def _existing(folder: Path) -> Path:
    """The nearest folder above that is there: the run folder itself is not made yet."""
    return next((path for path in (folder, *folder.resolve().parents) if path.is_dir()), Path("/"))


def _package_findings() -> list[Finding]:
    """Packages that are older than what truetune was written for."""
    findings = []
    try:
        needed = [Requirement(text) for text in requires("truetune") or ()]
    except PackageNotFoundError:  # run from its source folder
        return []
    for requirement in needed:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            there = ""
        if not there or not requirement.specifier.contains(there, prereleases=True):
            said = there or "not installed"
            findings.append(Finding(
                "package", "error", Both(
                    f"is {said}; truetune needs {requirement.specifier}.",
                    f"当前为 {there or '未安装'}，truetune 需要 {requirement.specifier}。"),
                option=requirement.name, fix=_pip(f'"{requirement.name}{requirement.specifier}"')))
    return findings


@dataclass(frozen=True)
class _Wanted:
    """A package that an option needs. when(config) true: `package`, installed by `pip install what`."""

    option: str
    when: Callable[[Config], bool]
    package: str
    what: str


_WANTED = (
    _Wanted("model_name_or_path", lambda c: (c.model_name_or_path or "").startswith("bundled/"), "gguf", "gguf"),
)


def _missing_findings(config: Config) -> list[Finding]:
    findings = []
    for wanted in _WANTED:
        if wanted.when(config):
            try:
                version(wanted.package)
            except PackageNotFoundError:
                findings.append(Finding(
                    "package-missing", "warn", option=wanted.option, where=config.origin(wanted.option),
                    fix=_pip(wanted.what),
                    message=Both(f"{wanted.package} is not installed.", f"未安装 {wanted.package}。")))
    return findings


def _pip(what: str) -> Words:
    return f"pip install {what}"


def size(bytes: float) -> str:
    """`1.3 GB`, `45 MB`; 10^9 bytes a GB."""
    return f"{bytes / 1e9:,.1f} GB" if bytes >= 1e8 else f"{bytes / 1e6:,.1f} MB"
