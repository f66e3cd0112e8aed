"""Rules: who may reach the server."""

from __future__ import annotations

from ipaddress import ip_address

from truetune.findings import Both
from truetune.options import Config
from truetune.rules.rule import Rule


def is_public(host: str) -> bool:
    """Whether other machines can reach this address."""
    try:
        return not ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() != "localhost"


def _open_to_all(c: Config) -> bool:
    return is_public(c.api_host) and not c.api_key


RULES: tuple[Rule, ...] = (
    Rule("public-without-key", "api_host", _open_to_all, "error",
         Both("{api_host} can be reached by other machines, and no key is set.",
              "{api_host} 可被其他机器访问，而没有设置密钥。"),
         Both("Set API_KEY in the environment, or api_host: 127.0.0.1.",
              "请设置环境变量 API_KEY，或改用 api_host: 127.0.0.1。"), ("api",)),
    Rule("short-key", "api_key", lambda c: bool(c.api_key) and is_public(c.api_host) and len(c.api_key or "") < 16,
         "warn", Both("a key of fewer than 16 characters can be guessed.", "少于 16 个字符的密钥容易被猜到。"),
         Both("python -c 'import secrets; print(secrets.token_urlsafe(24))' makes one.",
              "可用 python -c 'import secrets; print(secrets.token_urlsafe(24))' 生成。"), ("api",)),
)
