"""Options: downloads, uploads and their tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from truetune.options.schema import Advice, Group, Text

_OF_PUSH = ("a setting of push_to_hub, which is not done yet", "它是 push_to_hub 的附属设置，而后者暂不支持")


class HubOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Hub", "模型站")

    hf_hub_token: Annotated[str | None, Text(
        "Token for private and gated models on Hugging Face. Better not in a file.",
        "访问 Hugging Face 私有或受限模型的 token。最好不写进文件。",
        unset=("HF_TOKEN in the environment, or the login on this machine", "环境变量 HF_TOKEN，或本机的登录"),
        advice=(
            Advice("Log in once; a token in a file is soon in a repository. Give it read rights only.",
                   "登录一次即可；写在文件里的 token 很容易进入代码仓库。只给读权限。", "hf-tokens"),
        ),
        not_offered=(
            "tokens in files leak: set HF_TOKEN in the environment or run `hf auth login`",
            "写在文件里的 token 会泄露：请设置环境变量 HF_TOKEN 或运行 `hf auth login`"),
        free_on_resume=True, secret=True)] = None
    ms_hub_token: Annotated[str | None, Text(
        "Token for ModelScope. Better not in a file.",
        "魔搭（ModelScope）的 token。最好不写进文件。",
        level="expert", unset=("the login on this machine", "本机的登录"),
        not_offered=(
            "tokens in files leak: run `modelscope login`",
            "写在文件里的 token 会泄露：请运行 `modelscope login`"),
        free_on_resume=True, secret=True)] = None
    om_hub_token: Annotated[str | None, Text(
        "Token for Modelers. Better not in a file.",
        "魔乐（Modelers）的 token。最好不写进文件。",
        level="expert", unset=("the login on this machine", "本机的登录"),
        not_offered=(
            "tokens in files leak: log in with Modelers' own client",
            "写在文件里的 token 会泄露：请用魔乐自己的客户端登录"),
        free_on_resume=True, secret=True)] = None
    push_to_hub: Annotated[bool, Text(
        "Upload the trained model to Hugging Face.",
        "把训练好的模型上传到 Hugging Face。",
        higher=("the model is on the hub at the end", "结束时模型已在 hub 上"),
        lower=("it stays on this machine", "模型留在本机"),
        not_offered=(
            "nothing is uploaded; `hf upload` takes the run folder",
            "不会上传；可用 `hf upload` 直接上传运行文件夹"),
        free_on_resume=True)] = False
    hub_model_id: Annotated[str | None, Text(
        "Name of the repository to upload to, as owner/name.",
        "上传到哪个仓库，写作 用户/名字。",
        level="expert", unset=("the name of output_dir", "output_dir 的名字"),
        no_effect=_OF_PUSH, free_on_resume=True)] = None
    hub_token: Annotated[str | None, Text(
        "Token for uploading. Better not in a file.",
        "上传用的 token。最好不写进文件。",
        level="expert", unset=("the login on this machine", "本机的登录"),
        no_effect=_OF_PUSH, free_on_resume=True,
        secret=True)] = None
    hub_strategy: Annotated[Literal["end", "every_save", "checkpoint", "all_checkpoints"], Text(
        "When what is uploaded. end: the model at the end; every_save: at each save too; checkpoint: with the last "
        "checkpoint, to go on elsewhere; all_checkpoints: with all of them.",
        "何时上传什么。end：结束时上传模型；every_save：每次保存都上传；checkpoint：连同最新的检查点，可在别处继续；"
        "all_checkpoints：连同全部检查点。",
        level="expert", no_effect=_OF_PUSH, free_on_resume=True)] = "every_save"
    hub_always_push: Annotated[bool, Text(
        "Start an upload although the last one is not finished.",
        "上一次上传未完成也开始新的上传。",
        level="expert",
        higher=("every save is uploaded", "每次保存都上传"),
        lower=("saves are skipped while an upload runs", "上传期间的保存会被跳过"),
        no_effect=_OF_PUSH, free_on_resume=True)] = False
    hub_private_repo: Annotated[bool | None, Text(
        "Make the repository private.",
        "把仓库设为私有。",
        level="expert",
        unset=("public, unless the owner's default says otherwise", "公开，除非所有者另有默认设置"),
        higher=("only you and your organisation see it", "只有你和你的组织可见"),
        lower=("everybody sees it", "所有人可见"),
        no_effect=_OF_PUSH, free_on_resume=True)] = None
    hub_revision: Annotated[str | None, Text(
        "Branch to upload to.",
        "上传到哪个分支。",
        level="expert", unset=("the main branch", "main 分支"), no_effect=_OF_PUSH, free_on_resume=True)] = None
    push_to_hub_model_id: Annotated[str | None, Text(
        "Old name for the last part of hub_model_id.",
        "hub_model_id 后半部分的旧写法。",
        level="expert", unset=("see hub_model_id", "见 hub_model_id"),
        no_effect=_OF_PUSH, free_on_resume=True)] = None
    push_to_hub_organization: Annotated[str | None, Text(
        "Old name for the first part of hub_model_id.",
        "hub_model_id 前半部分的旧写法。",
        level="expert", unset=("see hub_model_id", "见 hub_model_id"),
        no_effect=_OF_PUSH, free_on_resume=True)] = None
    push_to_hub_token: Annotated[str | None, Text(
        "Old name of hub_token.",
        "hub_token 的旧写法。",
        level="expert", unset=("see hub_token", "见 hub_token"), no_effect=_OF_PUSH, free_on_resume=True,
        secret=True)] = None
    export_hub_model_id: Annotated[str | None, Text(
        "Upload the exported model to this repository too.",
        "导出的模型同时上传到这个仓库。",
        level="expert", unset=("it stays in export_dir", "只放在 export_dir"),
        not_offered=(
            "nothing is uploaded; `hf upload` takes export_dir as it is",
            "不会上传；可用 `hf upload` 直接上传 export_dir"),
        free_on_resume=True)] = None
