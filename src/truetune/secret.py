"""Secrets of this user's that are made once and kept: the key of the API, the token of the web page."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from truetune.findings import Both, problem


def config_folder() -> Path:
    """Where this user's settings are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "truetune"


def kept_secret(file: Path, option: str, variable: str) -> tuple[str, bool]:
    """The secret in `file`, and whether it was made just now, since there was none.

    Args:
        option, variable: what to set instead, for messages: the option, and its name in the environment.

    Raises:
        Problem: others can read the file, it is empty, or it cannot be written.
    """
    try:
        return (_read(file, option), False) if file.is_file() else (_made(file), True)
    except OSError as error:
        raise problem("key-file", Both(f"the key cannot be kept in {file}: {error.strerror}.",
                                       f"无法在 {file} 保存密钥：{error.strerror}。"), option=option,
                      fix=Both(f"Set {variable} in the environment.", f"请设置环境变量 {variable}。")) from None


def _made(file: Path) -> str:
    key = f"tt-{secrets.token_urlsafe(24)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(key + "\n")
    return key


def _read(file: Path, option: str) -> str:
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise problem("key-open", Both(f"others can read {file}.", f"其他用户可以读取 {file}。"), option=option,
                      fix=Both(f"chmod 600 {file} mends it.", f"请运行 chmod 600 {file}。"))
    key = file.read_text(encoding="utf-8").strip()
    if not key:
        raise problem("key-empty", Both(f"{file} is empty.", f"{file} 是空的。"), option=option,
                      fix=Both("Delete it, and a new key is made.", "删除它即可重新生成密钥。"))
    return key
