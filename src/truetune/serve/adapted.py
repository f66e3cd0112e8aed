"""A model and the adapters that can be put on it, one at a time, each by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, PreTrainedModel

from truetune.findings import Both, problem
from truetune.model.adapters import adapters_of, put_adapters, quiet_peft, read_settings, require_base, virtual_of
from truetune.options import Config
from truetune.serve.backends import BESIDE, LOADED

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class AdaptedModel:
    """causal: the causal language model, adapters put into it. outer: what its `generate` is called on: PEFT's model
    where virtual tokens stand before every row, else the same. peft: PEFT's model, where several adapters are served.
    names: of those. active: the one that is on; None: the model as it was loaded. bare: as it was loaded it has none.
    """

    causal: PreTrainedModel
    outer: Any
    peft: PeftModel | None = None
    names: Sequence[str] = ()
    bare: bool = True
    active: str | None = None

    @classmethod
    def of(cls, causal: PreTrainedModel, base: Path, config: Config) -> AdaptedModel:
        """The model loaded from `base`, with `adapter_name_or_path` on it and `infer_adapters` beside that.

        Raises:
            Problem: an adapter is none, another base's, or of a kind of which a model has only one.
        """
        causal.generation_config = GenerationConfig()  # what is drawn is said in the request alone
        active = adapters_of(config)
        beside = {name: Path(str(folder)).expanduser() for name, folder in config.infer_adapters.items()}
        for name, folder in beside.items():
            _require_beside(name, folder, base)
        put = put_adapters(causal, active, base).eval() if active else None
        if not beside:
            return cls(causal, (virtual_of(put) if put else None) or causal)
        adapted = cls(causal, causal, _together(causal, put, beside), list(beside), not active)
        adapted._change(None)
        return adapted

    @property
    def virtual(self) -> bool:
        """Virtual tokens stand before every row."""
        return self.outer is not self.causal

    @contextmanager
    def using(self, name: str | None) -> Iterator[Any]:
        """The model that answers, with that adapter on until another is asked for."""
        if self.peft is not None and name != self.active:
            self._change(name)
        yield self.outer

    def _change(self, name: str | None) -> None:
        assert self.peft is not None
        tuner: Any = self.peft.base_model
        if name is None and self.bare:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            self.peft.set_adapter(name or LOADED, inference_mode=True)
        self.active = name


def _require_beside(name: str, folder: Path, base: Path) -> None:
    """Raises:
    Problem: the adapter cannot be served beside others.
    """
    require_base(folder, base)
    kind = str(read_settings(folder)["peft_type"])
    if kind not in BESIDE or name == LOADED:
        reason = Both(f"{name!r} ({folder}) is of the kind {kind}, of which a model takes one, from the start.",
                      f"{name!r}（{folder}）的类型是 {kind}，只能在加载模型时装上。") if name != LOADED else \
            Both(f"{name!r} is the name of the adapter that is loaded with the model.",
                 f"{name!r} 是随模型加载的适配器的名字。")
        raise problem("adapter-beside", reason, option="infer_adapters",
                      fix=Both("Give it as adapter_name_or_path." if name != LOADED else "Take another name.",
                               "请用 adapter_name_or_path 指定它。" if name != LOADED else "请换一个名字。"))


def _together(causal: PreTrainedModel, put: Any, beside: dict[str, Path]) -> PeftModel:
    """PEFT's model with all of the adapters, none of those beside on."""
    from peft import PeftModel

    with quiet_peft():
        for name, folder in beside.items():
            try:
                if put is None:
                    put = PeftModel.from_pretrained(causal, folder, adapter_name=name, autocast_adapter_dtype=False)
                else:
                    put.load_adapter(folder, name, autocast_adapter_dtype=False)
            except (ValueError, RuntimeError) as error:  # another kind, or other shapes
                raise problem("adapter-beside", Both(f"{name!r} ({folder}) cannot be put beside the others: {error}",
                                                     f"{name!r}（{folder}）无法与其他适配器一起装上：{error}"),
                              option="infer_adapters") from None
    return put.eval()
