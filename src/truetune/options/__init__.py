"""The schema: every option, declared once. One module a group; `schema` says what an option is, `read` takes in what a
person typed. Imports nothing but pydantic and PyYAML, so that `--help` stays fast; nothing here imports from elsewhere
in truetune but `findings`.
"""

from __future__ import annotations

from pydantic import PrivateAttr

from truetune.options.benchmark import BenchmarkOptions
from truetune.options.data import DataOptions
from truetune.options.export import ExportOptions
from truetune.options.generate import GenerateOptions
from truetune.options.hub import HubOptions
from truetune.options.loss import LossOptions
from truetune.options.media import MediaOptions
from truetune.options.method import MethodOptions
from truetune.options.model import ModelOptions
from truetune.options.optimizer import OptimizerOptions
from truetune.options.parallel import ParallelOptions
from truetune.options.preference import PreferenceOptions
from truetune.options.quantize import QuantizeOptions
from truetune.options.reward import RewardOptions
from truetune.options.rollout import RolloutOptions
from truetune.options.schema import Group, Option, facts
from truetune.options.serve import ServeOptions
from truetune.options.track import TrackOptions
from truetune.options.train import TrainOptions
from truetune.options.web import WebOptions

GROUPS: tuple[type[Group], ...] = (
    ModelOptions, QuantizeOptions, DataOptions, MediaOptions, MethodOptions, LossOptions, PreferenceOptions,
    RewardOptions, RolloutOptions, TrainOptions, OptimizerOptions, ParallelOptions, TrackOptions, HubOptions,
    GenerateOptions, ExportOptions, ServeOptions, BenchmarkOptions, WebOptions,
)


class Config(
    ModelOptions, QuantizeOptions, DataOptions, MediaOptions, MethodOptions, LossOptions, PreferenceOptions,
    RewardOptions, RolloutOptions, TrainOptions, OptimizerOptions, ParallelOptions, TrackOptions, HubOptions,
    GenerateOptions, ExportOptions, ServeOptions, BenchmarkOptions, WebOptions,
):
    """All options of a run, in one flat namespace, frozen, each with the place its value came from."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def origin(self, name: str) -> str | None:
        """Where the value of `name` was set (`run.yaml:7`, `command line`, `rule: …`); None: it is the default."""
        return self._origins.get(name)

    def given(self, name: str) -> bool:
        """Whether somebody set `name`, rather than it being the default."""
        return name in self._origins

    @property
    def rows_at_once(self) -> int:
        """per_device_train_batch_size, once `auto` has become a number."""
        assert isinstance(self.per_device_train_batch_size, int)
        return self.per_device_train_batch_size

    def with_values(self, origin: str, **values: object) -> Config:
        """A copy with `values` set, checked like any other input, their origin noted."""
        config = Config.model_validate({**self.model_dump(), **values})
        config._origins = {**self._origins, **dict.fromkeys(values, origin)}
        return config


OPTIONS: dict[str, Option] = {option.name: option for option in facts(GROUPS)}

__all__ = ["GROUPS", "OPTIONS", "Config", "Group", "Option"]
