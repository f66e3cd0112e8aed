"""Rewards that are functions of the user, called as TRL calls them.

    def reward(prompts, completions, completion_ids, **kwargs) -> list[float | None]

prompts: the messages before each answer. completions: each answer as a list of one message. completion_ids: its
tokens. Every column of the data comes by its own name, one value for each answer; `answers` is the text that the data
answer, unless they have a column of that name. A function that does not take `**kwargs` gets what it names.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from truetune.findings import WRONG_OPTIONS, Both, Problem, problem
from truetune.options import Config
from truetune.rollout.rewards.reward import Answered, Unscored
from truetune.rollout.rewards.shipped import SHIPPED


class Function:
    """A function of the user as a reward."""

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name, self.function = name, function
        parameters = inspect.signature(function).parameters.values()
        self._takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self._named = {parameter.name: parameter.default is parameter.empty for parameter in parameters
                       if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)}

    def __call__(self, answered: Answered) -> Sequence[float | None]:
        known = {"answers": answered.references, **answered.columns, "prompts": answered.prompts,
                 "completions": answered.completions, "completion_ids": answered.ids}
        where = answered.rows[0].where
        missing = [name for name, needed in self._named.items() if needed and name not in known]
        if missing:
            raise Unscored.of(self.name, where, Both(f"takes {', '.join(missing)}, which the data do not have",
                                                     f"需要 {'、'.join(missing)}，数据里没有"),
                              Both(f"There are {', '.join(known)}.", f"可用的有：{'、'.join(known)}。"))
        given = known if self._takes_all else {name: known[name] for name in self._named if name in known}
        try:
            said = self.function(**given)
            return list(asyncio.run(said) if inspect.iscoroutine(said) else said)
        except (Exception, SystemExit) as error:  # not our code: whatever it raises is told, and the run is saved
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
            at = f"{Path(frame.filename).name}:{frame.lineno}"
            raise Unscored.of(self.name, where, Both(f"failed at {at} with {said}",
                                                     f"在 {at} 出错：{said}")) from error


def find_function(name: str, config: Config) -> Function:
    """The function that `name` says: `package.module.function` or `path/to/file.py:function`.

    Raises:
        Problem: it is not there, or its module cannot be imported.
    """
    place, colon, attribute = name.rpartition(":")
    try:
        if colon:
            module = _load_file(Path(place).expanduser())
        else:
            place, _, attribute = name.rpartition(".")
            if not place:
                raise _unknown(name, config)
            module = importlib.import_module(place)
    except Problem:
        raise
    except Exception as error:  # importing runs code that is not ours
        raise problem("no-reward", Both(f"{place} cannot be imported ({type(error).__name__}: {error}).",
                                        f"无法导入 {place}（{type(error).__name__}：{error}）。"),
                      option="reward_funcs", where=config.origin("reward_funcs"), status=WRONG_OPTIONS,
                      fix=Both("Name it as package.module.function or path/to/file.py:function.",
                               "请写成 package.module.function 或 path/to/file.py:function。")) from error
    function = vars(module).get(attribute)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise problem("no-reward", Both(f"{place} has no function {attribute!r}.",
                                        f"{place} 里没有函数 {attribute!r}。"),
                      option="reward_funcs", where=config.origin("reward_funcs"), status=WRONG_OPTIONS,
                      fix=Both(f"It has {', '.join(there) or 'none'}.", f"其中有：{'、'.join(there) or '无'}。"))
    return Function(attribute, function)


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _unknown(name: str, config: Config) -> Problem:
    return problem("no-reward", Both(f"{name!r} is no reward.", f"没有名为 {name!r} 的奖励。"), option="reward_funcs",
                   where=config.origin("reward_funcs"), status=WRONG_OPTIONS,
                   fix=Both(f"Shipped are {', '.join(SHIPPED)}; a function of yours is package.module.function or "
                            "path/to/file.py:function.",
                            f"自带的有：{'、'.join(SHIPPED)}；自己的函数写成 package.module.function 或 "
                            "path/to/file.py:function。"))
