"""Export an adapter by itself: its base stays what it is, and servers load the adapter beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

from truetune.data.template import make_renderer, settle_template
from truetune.files import write_json
from truetune.findings import WRONG_OPTIONS, Both, Say, problem, refuse
from truetune.model.adapters import MANIFEST, SETTINGS, adapters_of, read_settings, require_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.generation import read_generation, settle_generation
from truetune.model.value import FILE as VALUE_HEAD
from truetune.options import Config

WEIGHTS = "adapter_model.safetensors"


def write_adapter_alone(config: Config, folder: Path, say: Say) -> None:
    """Fill an empty folder with the adapter that `config` names: weights as they are, settings, the manifest that knows
    its base, the tokenizer with the template that trained it, generation settings, a reward model's value head.

    Its settings name the base as `model_name_or_path` does: a hub id, where one was given.

    Raises:
        Problem: there is no adapter, there are several, it is another base's, or its weights are no safetensors.
        OSError: the disk takes no more.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    adapters = adapters_of(config)
    if len(adapters) != 1:
        raise _not_one(len(adapters), config)
    base, adapter = find_model(config.model_name_or_path, config, say), adapters[0]
    require_base(adapter, base)
    _require_readable(adapter)
    trained = adapter if (adapter / "tokenizer.json").is_file() else base
    tokenizer = load_tokenizer(trained)
    refuse(settle_template(tokenizer, config))
    for name in (WEIGHTS, MANIFEST, VALUE_HEAD):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, folder / name)
    write_json(folder / SETTINGS, {**read_settings(adapter), "base_model_name_or_path": config.model_name_or_path,
                                   "inference_mode": True})
    tokenizer.save_pretrained(folder)
    stops = make_renderer(tokenizer, trained, config).stop_ids()
    settle_generation(read_generation([adapter, base]), config, stops).save_pretrained(folder)
    say(Both(f"{adapter} alone, for {config.model_name_or_path}",
             f"只导出适配器 {adapter}，基座为 {config.model_name_or_path}"))


def _not_one(count: int, config: Config) -> Exception:
    if not count:
        return problem("no-adapter", Both("no adapter is named that could be exported by itself.",
                                          "没有指定可单独导出的适配器。"), option="export_adapter_only",
                       where=config.origin("export_adapter_only"), status=WRONG_OPTIONS,
                       fix=Both("Give adapter_name_or_path, or the folder of a run.",
                                "请设置 adapter_name_or_path，或给出运行文件夹。"))
    return problem("several-adapters", Both(f"{count} adapters are named, each trained on the ones before it.",
                                            f"指定了 {count} 个适配器，后一个是在前面的基础上训练的。"),
                   option="export_adapter_only", where=config.origin("export_adapter_only"), status=WRONG_OPTIONS,
                   fix=Both("Export all but the last merged, and the last on that; or leave export_adapter_only out.",
                            "请先合并导出前面的适配器，再以它为基座单独导出最后一个；或去掉 export_adapter_only。"))


def _require_readable(adapter: Path) -> None:
    """Raises:
    Problem: the weights are missing, a pickle, or damaged.
    """
    file = adapter / WEIGHTS
    if not file.is_file():
        pickled = (adapter / "adapter_model.bin").is_file()
        said = Both("holds its weights as a pickle, which can run code when it is read",
                    "里的权重是 pickle，读取时可能执行代码") if pickled else \
            Both(f"has no {WEIGHTS}", f"里没有 {WEIGHTS}")
        raise problem("no-weights", Both(f"{adapter} {said}.", f"{adapter} {said.zh}。"), option="adapter_name_or_path",
                      fix=Both("Only safetensors are read.", "只读取 safetensors。"))
    try:
        with safe_open(file, framework="pt") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise problem("no-weights", Both(f"{file} cannot be read: {error}.", f"{file} 无法读取：{error}。"),
                      option="adapter_name_or_path", fix=Both("It is damaged or cut off: copy it again.",
                                                              "文件已损坏或不完整，请重新复制。")) from None
