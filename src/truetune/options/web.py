"""Options: the web page."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Group, Names, Text


class WebOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Web", "网页")

    web_host: Annotated[str, Text(
        "Address to listen on. GRADIO_SERVER_NAME in the environment is the same.",
        "监听地址。与环境变量 GRADIO_SERVER_NAME 相同。", free_on_resume=True)] = "127.0.0.1"
    web_port: Annotated[int, Field(ge=0, le=65535), Text(
        "Port to listen on; where it is taken, the next free one of 20; 0: any free one. GRADIO_SERVER_PORT in the "
        "environment is the same.",
        "监听端口；被占用时在其后 20 个里取第一个空闲的；0 表示任选一个空闲端口。与环境变量 GRADIO_SERVER_PORT 相同。",
        higher=("from 1024 on, no rights are needed", "1024 及以上不需要特权"),
        lower=("below 1024 the system may refuse it; 0 takes a free one and prints it",
               "低于 1024 可能被系统拒绝；0 会任选一个空闲端口并显示"), free_on_resume=True)] = 7860
    web_token: Annotated[str | None, Text(
        "Word without which the page lets nobody in; it stands in the link that is printed. TRUETUNE_TOKEN in the "
        "environment is the same, and is not seen in a process list.",
        "进入网页所需的 token，包含在启动时显示的链接里。与环境变量 TRUETUNE_TOKEN 相同，后者不会出现在进程列表里。",
        unset=("one is made at the first start and kept for this user", "首次启动时生成，并为该用户保存"),
        free_on_resume=True, secret=True)] = None
    web_roots: Annotated[Names, Text(
        "Folders that the page may read and write, beside the one it is started in.",
        "除启动时所在的文件夹外，网页还可以读写的文件夹。",
        unset=("only the folder it is started in", "只有启动时所在的文件夹"), free_on_resume=True)] = ()
    web_max_upload: Annotated[float, Field(gt=0), Text(
        "Largest file that can be uploaded, in MB (10^6 bytes).", "上传文件的大小上限，单位 MB（10^6 字节）。",
        level="expert", higher=("larger data files; they are copied to the disk first",
                                "可上传更大的数据文件，会先占用磁盘"),
        lower=("less disk for whoever sends nonsense", "误传大文件时占用的磁盘更少"), free_on_resume=True)] = 1000
    web_open_browser: Annotated[bool, Text(
        "Open the page in this machine's browser once it is up.", "启动后在本机浏览器中打开网页。",
        higher=("nothing to click; of no use on a machine without a screen", "无需点击；没有显示器的机器上无效"),
        lower=("click the link that is printed", "点击显示的链接"), free_on_resume=True)] = False
