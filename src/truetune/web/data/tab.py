"""The Data tab: the data sets of a folder, and what it takes to add one's own.

`sets` shows what is there and does something with one of them, `add` brings a new one; `view` draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both
from truetune.web.data import add, sets
from truetune.web.errors import in_words

if TYPE_CHECKING:
    from truetune.web.page import Page


@dataclass
class DataTab:
    """What the two parts of the tab are built with, and tell each other through.

    folder: what is typed as dataset_dir. parts: `gr.update(selected="add")` as an output shows the other part. chosen:
    the name of the data set that is shown. changed: counts up when something in the folder is changed. to_map: a data
    set whose columns are to be set anew, as `(name, path)`.
    """

    page: Page
    folder: gr.Textbox
    parts: gr.Tabs = field(init=False)
    chosen: gr.State = field(default_factory=lambda: gr.State(""))
    changed: gr.State = field(default_factory=lambda: gr.State(0))
    to_map: gr.State = field(default_factory=lambda: gr.State(()))

    def inside(self, typed: str) -> Path:
        """The folder of the data sets.

        Raises:
            Problem: it lies outside the folders that the page may use.
        """
        return self.page.roots.inside(typed.strip() or "data", "dataset_dir")

    def allowed(self, path: str) -> Path:
        """A data file that the page may read.

        Raises:
            Problem: it lies outside the folders that the page may use.
        """
        return self.page.roots.inside(path, "file_name")


def build(page: Page) -> None:
    """Fill the tab."""
    wording = page.wording
    with gr.Row(equal_height=False):
        folder = wording(gr.Textbox, value="data", max_lines=1, elem_id="data-folder", scale=4, min_width=300,
                         label=Both("Folder of the data sets (dataset_dir)", "数据集文件夹（dataset_dir）"), info=Both(
            "Its dataset_info.json names them. A folder that is not there yet is made when you add the first.",
            "其中的 dataset_info.json 登记各个数据集。文件夹不存在时，添加第一个数据集会自动创建。"))
        again = wording(gr.Button, value=Both("Look again", "刷新"), size="md", scale=0, min_width=140,
                        elem_id="data-refresh")
    tab = DataTab(page, folder)
    with gr.Tabs(elem_id="data-parts") as tab.parts:
        with wording(gr.Tab, label=Both("Your data sets", "已有数据集"), id="sets"):
            sets.build(tab)
        with wording(gr.Tab, label=Both("Add your own data", "添加自己的数据"), id="add"):
            add.build(tab)
    again.click(_counted_up, tab.changed, tab.changed, show_progress="hidden")
    page.settings.change(_folder_of, page.settings, folder, show_progress="hidden")


def _counted_up(changed: int) -> int:
    return changed + 1


@in_words
def _folder_of(settings: dict[str, Any]) -> Any:
    """The folder that the training form is filled with, so that both tabs show the same data sets."""
    return settings["dataset_dir"] if settings.get("dataset_dir") else gr.skip()
