"""Options: downloads, uploads and their tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from truetune.options.schema import Advice, Group, Text

_NO_TOKEN = ("tokens in files leak: set HF_TOKEN in the environment or run `hf auth login`",
             "写在文件里的 token 会泄露：请设置环境变量 HF_TOKEN 或运行 `hf auth login`")


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
        not_offered=_NO_TOKEN, free_on_resume=True, secret=True)] = None
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
        "Upload the trained model to Hugging Face, or to ModelScope where USE_MODELSCOPE_HUB=1 is set, once training "
        "has ended. Data, checkpoints and paths of this machine stay here.",
        "训练结束后把模型上传到 Hugging Face（设置 USE_MODELSCOPE_HUB=1 则上传到魔搭）。数据、检查点和本机路径不会"
        "上传。",
        higher=("the model is on the hub at the end", "结束时模型已在 hub 上"),
        lower=("it stays on this machine", "模型留在本机"),
        advice=(
            Advice("Log in before a long run, with a token that may write: `hf auth login`.",
                   "长时间训练之前先用有写权限的 token 登录：`hf auth login`。", "hf-tokens"),
        ),
        free_on_resume=True)] = False
    hub_model_id: Annotated[str | None, Text(
        "Name of the repository to upload to, as owner/name.",
        "上传到哪个仓库，写作 用户/名字。",
        level="expert", unset=("the name of output_dir, under your own name", "用你的用户名和 output_dir 的名字"),
        free_on_resume=True)] = None
    hub_token: Annotated[str | None, Text(
        "Token for uploading. Better not in a file.",
        "上传用的 token。最好不写进文件。",
        level="expert", unset=("HF_TOKEN in the environment, or the login on this machine",
                               "环境变量 HF_TOKEN，或本机的登录"),
        not_offered=_NO_TOKEN, free_on_resume=True, secret=True)] = None
    hub_strategy: Annotated[Literal["end", "every_save", "checkpoint", "all_checkpoints"], Text(
        "When what is uploaded. end: the model at the end; every_save: at each save too; checkpoint: with the last "
        "checkpoint, to go on elsewhere; all_checkpoints: with all of them.",
        "何时上传什么。end：结束时上传模型；every_save：每次保存都上传；checkpoint：连同最新的检查点，可在别处继续；"
        "all_checkpoints：连同全部检查点。",
        level="expert", no_effect=("the model is uploaded once, when training has ended; a checkpoint is gigabytes of "
                                   "optimizer that nobody but this run can use",
                                   "只在训练结束时上传一次模型；检查点里是以 GB 计的优化器状态，只有本次运行用得上"),
        free_on_resume=True)] = "every_save"
    hub_always_push: Annotated[bool, Text(
        "Start an upload although the last one is not finished.",
        "上一次上传未完成也开始新的上传。",
        level="expert",
        higher=("every save is uploaded", "每次保存都上传"),
        lower=("saves are skipped while an upload runs", "上传期间的保存会被跳过"),
        no_effect=("there is one upload, when training has ended", "只在训练结束时上传一次"),
        free_on_resume=True)] = False
    hub_private_repo: Annotated[bool | None, Text(
        "Make the repository private. One that exists stays what it is.",
        "把仓库设为私有。已存在的仓库保持不变。",
        level="expert",
        unset=("public, unless the owner's default says otherwise", "公开，除非所有者另有默认设置"),
        higher=("only you and your organisation see it", "只有你和你的组织可见"),
        lower=("everybody sees it", "所有人可见"), free_on_resume=True)] = None
    hub_revision: Annotated[str | None, Text(
        "Branch to upload to; it is made where it is not there.",
        "上传到哪个分支，不存在则创建。",
        level="expert", unset=("the main branch", "main 分支"), free_on_resume=True)] = None
    push_to_hub_model_id: Annotated[str | None, Text(
        "Old name for the last part of hub_model_id.",
        "hub_model_id 后半部分的旧写法。",
        level="expert", unset=("see hub_model_id", "见 hub_model_id"), free_on_resume=True)] = None
    push_to_hub_organization: Annotated[str | None, Text(
        "Old name for the first part of hub_model_id.",
        "hub_model_id 前半部分的旧写法。",
        level="expert", unset=("see hub_model_id", "见 hub_model_id"), free_on_resume=True)] = None
    push_to_hub_token: Annotated[str | None, Text(
        "Old name of hub_token.",
        "hub_token 的旧写法。",
        level="expert", unset=("see hub_token", "见 hub_token"), not_offered=_NO_TOKEN, free_on_resume=True,
        secret=True)] = None
    export_hub_model_id: Annotated[str | None, Text(
        "Upload what was exported to this repository too, as owner/name, in one commit: to Hugging Face, or to "
        "ModelScope where USE_MODELSCOPE_HUB=1 is set. An export that parity refuses is never uploaded.",
        "把导出的内容同时上传到这个仓库（用户/名字），一次提交：默认上传到 Hugging Face，设置 USE_MODELSCOPE_HUB=1 "
        "则上传到魔搭。没有通过一致性检查的导出不会上传。",
        unset=("it stays in export_dir", "只放在 export_dir"), free_on_resume=True)] = None
