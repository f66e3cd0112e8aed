"""The key that clients must send, and from where they may.

Whoever can reach a port of this machine could use the model, and a web page that somebody has open can send requests
to 127.0.0.1. So there is always a key; it is made at the first start where none is given.
"""

from __future__ import annotations

import hmac

from truetune.findings import Both, Say
from truetune.options import Config
from truetune.rules.api import is_public
from truetune.secret import config_folder, kept_secret

FILE = "api_key"


def settle_key(config: Config, say: Say) -> str:
    """The key: `api_key`, or the user's own, which is made at the first start and shown that once.

    Raises:
        Problem: others can read the file it is kept in, or it cannot be written.
    """
    if config.api_key:
        return config.api_key
    file = config_folder() / FILE
    key, new = kept_secret(file, "api_key", "API_KEY")
    say(Both(f"API key, kept in {file} and shown only now:\nexport OPENAI_API_KEY={key}",
             f"API 密钥，保存在 {file}，只显示这一次：\nexport OPENAI_API_KEY={key}") if new else
        Both(f"API key: the one in {file}", f"API 密钥：见 {file}"))
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
