"""Rules: who may reach the page."""

from __future__ import annotations

from pathlib import Path

from truetune.findings import Both
from truetune.options import Config
from truetune.rules.api import is_public
from truetune.rules.rule import Rule

_VERBS = ("webui", "webchat")


def _not_folders(c: Config) -> list[str]:
    return [name for name in c.web_roots if not Path(name).expanduser().is_dir()]


RULES: tuple[Rule, ...] = (
    Rule("public-without-token", "web_host", lambda c: is_public(c.web_host) and not c.web_token, "error",
         Both("{web_host} can be reached by other machines, and no token is set.",
              "{web_host} 可被其他机器访问，而没有设置 token。"),
         Both("Set TRUETUNE_TOKEN in the environment; or leave web_host out, and reach the page from afar with "
              "ssh -L 7860:127.0.0.1:7860 USER@THIS_MACHINE.",
              "请设置环境变量 TRUETUNE_TOKEN；或去掉 web_host，从别处用 ssh -L 7860:127.0.0.1:7860 用户名@本机地址 "
              "访问。"), _VERBS),
    Rule("short-token", "web_token", lambda c: is_public(c.web_host) and 0 < len(c.web_token or "") < 16, "warn",
         Both("a token of fewer than 16 characters can be guessed.", "少于 16 个字符的 token 容易被猜到。"),
         Both("python -c 'import secrets; print(secrets.token_urlsafe(24))' makes one.",
              "可用 python -c 'import secrets; print(secrets.token_urlsafe(24))' 生成。"), _VERBS),
    Rule("no-such-root", "web_roots", lambda c: bool(_not_folders(c)), "error",
         Both("one of {web_roots} is no folder here.", "{web_roots} 里有的不是这里的文件夹。"),
         Both("Name folders that exist, separated by commas.", "请填写已存在的文件夹，用逗号分隔。"), _VERBS),
)
