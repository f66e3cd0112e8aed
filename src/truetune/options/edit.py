"""Change one option in somebody's run.yaml, and leave every other character of the file as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.options.read import as_yaml, canonical_name, read_file


def set_in_yaml(path: Path, values: dict[str, Any]) -> None:
    """Set options in the file, where they stand (also under another name) or at its end.

    Raises:
        Problem: the file cannot be read as options, is JSON, or cannot be written.
    """
    read_file(path)  # says what is wrong with the file, if something is
    if path.suffix.lower() == ".json":
        raise problem("not-yaml", Both("only YAML files are changed.", "只修改 YAML 文件。"), option=str(path),
                      status=WRONG_OPTIONS, fix=Both(
                          f"Set it by hand: {', '.join(f'{name} = {value}' for name, value in values.items())}.",
                          f"请手动设置：{'，'.join(f'{name} = {value}' for name, value in values.items())}。"))
    text = path.read_bytes().decode("utf-8")
    for name, value in values.items():
        text = _set(text, name, as_yaml(name, value))
    try:
        path.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise problem("config-unwritable", option=str(path), message=Both(
            f"cannot be written: {error.strerror}.", f"无法写入：{error.strerror}。")) from None


def _set(text: str, name: str, line: str) -> str:
    """`text` with the option `name` replaced by `line` (`name: value`), or `line` added."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if canonical_name(str(key.value).replace("-", "_")) == name:
            start, end = key.start_mark.index, max(_end(value), key.end_mark.index + 1)
            after = text[start + len(text[start:end].rstrip()) :]
            return text[:start] + line + after
    return text.rstrip("\r\n") + (newline if text.strip() else "") + line + newline


def _end(node: yaml.Node) -> int:
    """Where what is written of a value ends. A block of lines claims the comments below it too, up to the next name."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return node.end_mark.index
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)
