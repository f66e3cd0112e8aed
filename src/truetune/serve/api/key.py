"""The key that clients must send, and from where they may.

Whoever can reach a port of this machine could use the model, and a web page that somebody has open can send requests
to 127.0.0.1. So there is always a key; it is made at the first start where none is given.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from truetune.findings import Both, Say, problem
from truetune.options import Config
from truetune.rules.api import is_public

FILE = "api_key"


def settle_key(config: Config, say: Say) -> str:
    """The key: `api_key`, or the user's own, which is made at the first start and shown that once.

    Raises:
        Problem: others can read the file it is kept in, or it cannot be written.
    """
    if config.api_key:
        return config.api_key
    file = config_folder() / FILE
    try:
        if file.is_file():
            return _kept(file, say)
        return _made(file, say)
    except OSError as error:
        raise problem("key-file", Both(f"the key cannot be kept in {file}: {error.strerror}.",
                                       f"无法在 {file} 保存密钥：{error.strerror}。"), option="api_key",
                      fix=Both("Set API_KEY in the environment.", "请设置环境变量 API_KEY。")) from None


def config_folder() -> Path:
    """Where this user's settings are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "truetune"


def _made(file: Path, say: Say) -> str:
    key = f"tt-{secrets.token_urlsafe(24)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(key + "\n")
    say(Both(f"API key, kept in {file} and shown only now:\nexport OPENAI_API_KEY={key}",
             f"API 密钥，保存在 {file}，只显示这一次：\nexport OPENAI_API_KEY={key}"))
    return key


def _kept(file: Path, say: Say) -> str:
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise problem("key-open", Both(f"others can read {file}.", f"其他用户可以读取 {file}。"), option="api_key",
                      fix=Both(f"chmod 600 {file} mends it.", f"请运行 chmod 600 {file}。"))
    key = file.read_text(encoding="utf-8").strip()
    if not key:
        raise problem("key-empty", Both(f"{file} is empty.", f"{file} 是空的。"), option="api_key",
                      fix=Both("Delete it, and a new key is made.", "删除它即可重新生成密钥。"))
    say(Both(f"API key: the one in {file}", f"API 密钥：见 {file}"))
    return key


def same_key(sent: str | None, key: str) -> bool:
    """Whether `Authorization: Bearer …` holds the key, in a time that says nothing of where they differ."""
    kind, _, token = (sent or "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), key.encode())


def own_host(header: str, bound: str) -> bool:
    """Whether the Host header names this machine as a client on it would. A page in a browser whose name was made to
    point here (DNS rebinding) sends its own name."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    return not is_public(name) or name.lower() == bound.lower()
