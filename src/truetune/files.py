"""Writing files so that a reader, a kill or a power cut never meets half of one.

What is being written has a hidden name (`.NAME.part`), reaches the disk, and is then renamed. `tidy` clears away what a
killed process left behind.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from truetune.findings import Both, Words


def write_text(path: Path, text: str) -> None:
    """Replace `path` as a whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    _to_disk(part)
    part.replace(path)


def write_file(path: Path, fill: Callable[[Path], None]) -> None:
    """Replace `path` as a whole by what `fill` writes. Whatever it raises is raised, and then nothing has changed."""
    part = path.with_name(f".{path.name}.part")
    try:
        fill(part)
        _to_disk(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none that can be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def write_folder(folder: Path, fill: Callable[[Path], Path | None]) -> Path:
    """Make `folder` by filling a hidden one beside it and renaming that once everything is on the disk. `fill` may say
    that it is to be another folder on the same disk; which one it is comes back.

    Whatever `fill` raises is raised; then nothing is left behind and an older `folder` still stands. A kill between the
    two renames leaves the older one as `.old`, and `tidy` puts it back.
    """
    part = folder.with_name(f".{folder.name}.part")
    folder = _fill(part, fill) or folder
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    part.rename(folder)
    _to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def write_into(folder: Path, fill: Callable[[Path], None]) -> None:
    """Like `write_folder`, but what `fill` writes joins the other files in `folder`, each replaced as a whole."""
    part = folder / ".files.part"
    _fill(part, fill)
    for file in part.iterdir():
        file.replace(folder / file.name)
    part.rmdir()
    _to_disk(folder)


def remove_folder(folder: Path) -> None:
    """Delete a folder; a reader sees it whole or not at all."""
    doomed = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def tidy(folder: Path) -> None:
    """Clear away what a killed process left half done in `folder`; nobody may be writing it."""
    for old in folder.glob(".checkpoint-*.old"):
        whole = folder / old.name.removeprefix(".").removesuffix(".old")
        if whole.exists():
            shutil.rmtree(old)
        else:
            old.rename(whole)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def disk_refusal(error: Exception, folder: Path) -> Words | None:
    """Why the disk under `folder` takes no more, in words; None if `error` is about something else.

    Rust libraries (safetensors, tokenizers) raise errors of their own that quote the system's: `… (os error 28)`.
    """
    quoted = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error))
    code = int(quoted[1] or quoted[2]) if quoted else None
    if code not in _REFUSALS:
        return None
    if code == errno.ENOSPC:
        free = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
        return Both(f"the disk is full ({free} free)", f"磁盘已满（剩余 {free}）")
    return os.strerror(code)


def _fill(part: Path, fill: Callable[[Path], Path | None]) -> Path | None:
    """A new folder, filled and on the disk, or not there at all; what `fill` gave."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    readable = part.stat().st_mode & 0o666
    try:
        given = fill(part)
        for file in part.rglob("*"):
            if file.is_file():
                file.chmod(readable)  # safetensors makes files that only their owner can read
                _to_disk(file)
        _to_disk(part)
        return given
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
