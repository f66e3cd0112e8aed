"""Scores from a server: what LLaMA-Factory asks a reward server, and what its own `api` answers.

    POST {"model": "model", "messages": [text, ...]}  →  {"scores": [number, ...]}

Each text is a whole conversation, prompt and answer, as the model reads it, special tokens too. A server may be down,
slow or talk nonsense for a moment: it is asked again after growing pauses, then the run stops and says what came.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from truetune.findings import Both, Finding, problem
from truetune.rollout.rewards.reward import Unscored

TIMEOUT = 120.0
"""Seconds that one answer may take: a large reward model reads some dozens of texts."""
PAUSES = (1.0, 4.0, 15.0)
"""Seconds to wait before asking again."""
_MOST = 2**26
"""Bytes of an answer that are read; scores of a million texts fit."""
_LARGEST = 2.0**127
"""Scores are learned from in float32."""


class _Nonsense(Exception):
    """The server answered something else than scores. Its argument: what, for people."""


class _StayHere(HTTPRedirectHandler):
    """Answers are not sent on to wherever a server points."""

    def redirect_request(self, req: Request, fp: object, code: int, msg: str, headers: object, newurl: str) -> None:
        return None


class Endpoint:
    """A server that scores texts."""

    def __init__(self, url: str, option: str = "reward_model", where: str | None = None, timeout: float = TIMEOUT,
                 pauses: Sequence[float] | None = None):
        """option, where: what to name when it fails. timeout: seconds for one answer. pauses: seconds before each new
        try; None: `PAUSES`.

        Raises:
            Problem: `url` is no http address.
        """
        self.url, self.option, self.where, self.timeout = url, option, where, timeout
        self.pauses = PAUSES if pauses is None else pauses
        if not url.startswith(("http://", "https://")):
            raise problem("reward-url", Both(f"{url} is not the address of a server.", f"{url} 不是服务地址。"),
                          option=option, where=where,
                          fix=Both("Give one that begins with http:// or https://.",
                                   "请填写以 http:// 或 https:// 开头的地址。"))

    def score(self, texts: Sequence[str]) -> list[float]:
        """What each text is worth.

        Raises:
            Unscored: the server gave no scores, asked again and again.
        """
        failure: Exception = TimeoutError()
        for pause in (0.0, *self.pauses):
            time.sleep(pause)
            try:
                return _scores(self._ask(texts), len(texts))
            except (_Nonsense, HTTPException, OSError, ValueError) as error:  # URLError and TimeoutError are OSErrors
                failure = error
        raise self._failed(failure)

    def _ask(self, texts: Sequence[str]) -> bytes:
        """The body of the answer, all of it within `timeout`."""
        body = json.dumps({"model": "model", "messages": list(texts)}).encode()
        request = Request(self.url, body, {"Content-Type": "application/json"})
        end, pieces, size = time.monotonic() + self.timeout, [], 0
        with build_opener(_StayHere).open(request, timeout=self.timeout) as answer:
            while piece := answer.read1(2**16):
                pieces.append(piece)
                size += len(piece)
                if time.monotonic() > end:
                    raise TimeoutError
                if size > _MOST:
                    raise _Nonsense(Both(f"its answer is longer than {_MOST:,} bytes", f"应答超过 {_MOST:,} 字节"))
        return b"".join(pieces)

    def _failed(self, failure: Exception) -> Unscored:
        times, reason = len(self.pauses) + 1, self._told(failure)
        return Unscored(Finding("reward-endpoint", "error",
                                Both(f"the reward server {self.url} gave no scores, asked {times} times: {reason}.",
                                     f"向奖励服务 {self.url} 请求了 {times} 次，都没有得到分数：{reason.zh}。"),
                                option=self.option, where=self.where,
                                fix=Both("Start it, see what it answers, and go on with resume_from_checkpoint: true.",
                                         "请启动该服务并检查它的应答，再用 resume_from_checkpoint: true 继续。")))

    def _told(self, failure: Exception) -> Both:
        """A failure in words."""
        cause = failure.reason if type(failure) is URLError else failure
        match cause:
            case _Nonsense():
                return cause.args[0]
            case TimeoutError():
                return Both(f"no answer within {self.timeout:g} s", f"{self.timeout:g} 秒内没有应答")
            case HTTPError():
                return Both(f"it answers {cause.code} {cause.reason}", f"应答 {cause.code} {cause.reason}")
        return Both(f"it cannot be reached ({cause})", f"无法连接（{cause}）")


def _scores(body: bytes, count: int) -> list[float]:
    """The scores in an answer."""
    try:
        answer = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        begin = body[:80].decode(errors="replace")
        raise _Nonsense(Both(f"its answer is not JSON: {begin!r}", f"应答不是 JSON：{begin!r}")) from None
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        raise _Nonsense(Both("its answer has no list `scores`", "应答里没有列表 scores"))
    if len(scores) != count:
        raise _Nonsense(Both(f"it gave {len(scores)} scores for {count} texts",
                             f"{count} 条文本得到了 {len(scores)} 个分数"))
    for number, score in enumerate(scores):
        if not isinstance(score, float) or not abs(score) < _LARGEST:
            raise _Nonsense(Both(f"score {number} is {str(score)[:40]}, not a finite number",
                                 f"第 {number} 个分数是 {str(score)[:40]}，不是有限的数"))
    return scores
