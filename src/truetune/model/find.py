"""Find a model's folder, its tokenizer and its configuration: all that is needed before its weights, and no torch.

No network is needed for a local folder, and no code from the model is run.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truetune.findings import Both, Say, problem
from truetune.model.bundled import BUNDLED, bundled_folder
from truetune.options import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find_model(name: str, config: Config, say: Say) -> Path:
    """The local folder of a model: itself, the converted bundled one, or the download of a hub id.

    Raises:
        Problem: there is no such folder, or the hub does not give it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith("bundled/"):
        return bundled_folder(name, say)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise problem("not-a-model", Both(f"{folder} has no config.json, so it is not a model.",
                                              f"{folder} 里没有 config.json，不是模型。"),
                          option="model_name_or_path", where=config.origin("model_name_or_path"))
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise problem("no-model", Both(f"there is no folder {folder}.", f"没有文件夹 {folder}。"),
                      option="model_name_or_path", where=config.origin("model_name_or_path"))
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(name, revision=config.model_revision, cache_dir=config.cache_dir,
                                      allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        near = difflib.get_close_matches(name, BUNDLED, n=1)
        reason = str(error).strip().splitlines()[0][:160]
        raise problem("no-model", Both(f"{name!r} is no folder here, and the hub did not give it ({reason}).",
                                       f"{name!r} 不是本地文件夹，从 hub 也没有取到（{reason}）。"),
                      option="model_name_or_path", where=config.origin("model_name_or_path"),
                      fix=Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？") if near else
                      Both(f"Check the path or id; without a network use {next(iter(BUNDLED))}.",
                           f"请检查路径或 id；没有网络时可用 {next(iter(BUNDLED))}。")) from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, a fast one, since exact masks need the characters behind each token.

    Raises:
        Problem: there is none, or it has no fast version.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        if _plain(folder):
            return PreTrainedTokenizerFast.from_pretrained(folder)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # of a damaged file: tokenizers raises nothing but bare Exceptions
        reason = _first_line(error)
        raise problem("no-tokenizer", Both(f"{folder} has no tokenizer that can be read: {reason}",
                                           f"{folder} 里没有可读取的分词器：{reason}"),
                      option="model_name_or_path") from None
    if not tokenizer.is_fast:
        raise problem("slow-tokenizer", Both(f"the tokenizer of {folder} has no fast version, which exact masks need.",
                                             f"{folder} 的分词器没有快速版本，而精确的掩码需要它。"),
                      option="model_name_or_path")
    return tokenizer


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _plain(folder: Path) -> bool:
    """Whether the tokenizer is what its tokenizer.json says, with no class of its own. Then the model's configuration
    need not be read first, which takes seconds: it imports torch's compiler."""
    settings = folder / "tokenizer_config.json"
    if not ((folder / "tokenizer.json").is_file() and settings.is_file()):
        return False
    named = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
    return named in ("PreTrainedTokenizerFast", "TokenizersBackend")


def load_model_config(folder: Path) -> Any:
    """The model's config.json as transformers reads it; Any, since every architecture has a class of its own."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # of a damaged file: whatever the model's own class stumbles over
        reason = _first_line(error)
        raise problem("unknown-architecture", Both(f"transformers cannot read {folder / 'config.json'}: {reason}",
                                                   f"transformers 无法读取 {folder / 'config.json'}：{reason}"),
                      option="model_name_or_path",
                      fix=Both("A newer transformers may know it.", "更新版本的 transformers 可能支持。")) from None
