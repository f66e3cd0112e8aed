"""`truetune parity A B`: do two places serve the same model? Names the first thing that differs: the template, the
tokens, the stop ids, the sampling defaults, or the probabilities."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from truetune.findings import FAILED, OK, Both
from truetune.options import Config
from truetune.parity.compare import Compared, Difference, Row, compare
from truetune.parity.layers import First, Refused, Trained
from truetune.parity.logits import bound_of, distance, passages
from truetune.parity.places import Place, find_place
from truetune.parity.probes import PROBES
from truetune.parity.report import Parity
from truetune.report import Terminal


def parity(first: str, second: str, config: Config, terminal: Terminal, as_json: bool = False) -> int:
    """Compare, tell, and return the exit status: 0 the same, 1 not.

    Raises:
        Problem: a place cannot be found or asked.
    """
    with ExitStack() as opened:
        places = [opened.enter_context(find_place(name, config, terminal.say)) for name in (first, second)]
        if not isinstance(places[0].layer, Trained) and isinstance(places[1].layer, Trained):
            places.reverse()  # a place is held to what was trained
        found = compare_places(*places)
    if as_json:
        told = {"a": places[0].name, "b": places[1].name, **found.as_dict()}
        print(json.dumps({**told, "status": "different" if found.first else "same"}, indent=2, ensure_ascii=False))
        return FAILED if found.first else OK
    terminal.say(Both(f"{places[1].name}, beside {places[0].name}", f"{places[1].name}，对照 {places[0].name}"))
    found.show(terminal)
    return FAILED if found.first else OK


def compare_places(first: Place, second: Place) -> Parity:
    """What is the same and what is not, and what could not be asked."""
    left_out: list[Both] = []
    ids = _ids(first, second, left_out)
    drawn = _sampling(first, second, left_out)
    if drawn:
        ids = [replace(ids[0], wrong_sampling=drawn)] if ids else [Compared(second.name, (), wrong_sampling=drawn)]
    distances = []
    if first.logprobs and second.logprobs and first.layer:
        asked = passages(first.layer)
        wanted, found = first.logprobs(asked), second.logprobs(asked)
        distances.append(distance(second.name, found, first.name, wanted, bound_of(min(first.bits, second.bits))))
    else:
        silent = (second if first.logprobs else first).name
        left_out.append(Both(f"Not compared: probabilities, which {silent} does not tell.",
                             f"未比较：概率，{silent} 不提供。"))
    return Parity(tuple(ids), tuple(distances), tuple(left_out))


def _ids(first: Place, second: Place, left_out: list[Both]) -> list[Compared]:
    """The ids of both; where one of them only counts them, their number."""
    if first.layer and second.layer:
        truth = first.layer if isinstance(first.layer, Trained) else First(first.layer, first.bos)
        found = compare(truth, [second.layer])
        if found[0].ends is None:
            left_out.append(Both("Not compared: stop ids, which nobody tells.", "未比较：结束符，没有一方提供。"))
        return found
    teller, counter = (first, second) if first.layer else (second, first)
    if not teller.layer or not counter.count:
        left_out.append(Both("Not compared: tokens; neither tells its ids.", "未比较：token，双方都不提供 id。"))
        return []
    left_out.append(Both(f"{counter.name} does not tell its ids, only how many there are: that is compared. Its stop "
                         "ids are not known.", f"{counter.name} 不提供 id，只提供数目，因此只比较数目；其结束符未知。"))
    rows = [_counted(teller, counter, number) for number in range(len(PROBES)) if not PROBES[number].values]
    return [Compared(counter.name, tuple(row for row in rows if row))]


def _counted(teller: Place, counter: Place, number: int) -> Row | None:
    probe = PROBES[number]
    assert teller.layer and counter.count
    try:
        ids = teller.layer.prompt(probe)
    except Refused as refused:
        return Row(probe.name, "refused", note=refused.reason)
    count = counter.count(probe)
    if count == len(ids):
        return Row(probe.name, "same", count)
    cause = Both(f"{count} tokens instead of {len(ids)}: another template or tokenizer, or a beginning-of-text token "
                 "more or less", f"{count} 个 token，应为 {len(ids)} 个：模板或分词器不同，或多/少一个 BOS")
    return Row(probe.name, "different", count, difference=Difference("template", counter.name, cause, probe.name))


def _sampling(first: Place, second: Place, left_out: list[Both]) -> Difference | None:
    """The first sampling value that is not the same."""
    if first.sampling is None or second.sampling is None:
        silent = (first if first.sampling is None else second).name
        left_out.append(Both(f"Not compared: sampling defaults, of which {silent} says nothing.",
                             f"未比较：采样默认值，{silent} 没有说明。"))
        return None
    pairs = {name: (value, second.sampling[name]) for name, value in first.sampling.items() if name in second.sampling}
    apart = {name: pair for name, pair in pairs.items() if not np.isclose(*pair, rtol=1e-3)}
    if not apart:
        return None
    en = ", ".join(f"{name} {value:g} became {other:g}" for name, (value, other) in apart.items())
    zh = "，".join(f"{name} {value:g} 变成了 {other:g}" for name, (value, other) in apart.items())
    return Difference("sampling", second.name, Both(f"where a client says nothing, {en}: say them in each request, or "
                                                    "start the server with them",
                                                    f"客户端未指定时，{zh}：请在请求或启动参数里指定"))
