"""Options: how long, how fast and how exactly is trained; what is written when."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Table, Text

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "reduce_lr_on_plateau", "warmup_stable_decay",
]


class TrainOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Training", "训练")

    stage: Annotated[Literal["pt", "sft", "rm", "dpo", "kto"], Text(
        "What is trained for. sft: answer as the data answers. The others (pt: plain text, rm and dpo: pairs of "
        "answers, kto: answers judged) are read by `truetune data` and trained later.",
        "训练目标。sft：像数据那样回答。其余（pt：纯文本，rm 和 dpo：成对回答，kto：好坏标注）目前可用 "
        "truetune data 查看，训练随后支持。", level="basic")] = "sft"
    do_train: Annotated[bool, Text("Train. Off, with do_eval on: only evaluate.",
                                   "进行训练。关闭且开启 do_eval 时只做评估。", free_on_resume=True)] = True
    do_eval: Annotated[bool, Text("Evaluate at the end.", "结束时评估。", free_on_resume=True)] = False
    output_dir: Annotated[str | None, Text(
        "The run folder: everything a run writes goes here.", "运行文件夹：一次训练写的所有东西都在这里。",
        level="basic", free_on_resume=True)] = None
    overwrite_output_dir: Annotated[bool, Text(
        "Delete the run that output_dir holds and start afresh.", "删除 output_dir 里已有的运行，重新开始。",
        free_on_resume=True)] = False
    resume_from_checkpoint: Annotated[str | None, Text(
        "true: go on from the newest checkpoint in output_dir. Or the folder of a checkpoint.",
        "true：从 output_dir 里最新的检查点继续；也可以写某个检查点的文件夹。", free_on_resume=True)] = None

    num_train_epochs: Annotated[float, Field(gt=0), Text(
        "How often all rows are seen. Higher: learned better, then by heart.",
        "全部数据看几遍。调高：先是学得更好，之后变成死记。", level="basic")] = 3.0
    max_steps: Annotated[int, Field(ge=-1), Text(
        "Stop after so many optimizer steps; -1: num_train_epochs decides.",
        "优化器走多少步后停止；-1 表示由 num_train_epochs 决定。")] = -1
    per_device_train_batch_size: Annotated[int, Field(gt=0), Text(
        "Rows computed at once. Higher: more memory; per step learned from = this x gradient_accumulation_steps.",
        "一次计算的行数。调高：更占显存；每步学习的行数 = 它 x gradient_accumulation_steps。", level="basic")] = 8
    gradient_accumulation_steps: Annotated[int, Field(gt=0), Text(
        "Batches whose gradients are added before a step: a larger batch without its memory.",
        "累加多少个批次的梯度再走一步：不增加显存的大批次。", level="basic")] = 1
    learning_rate: Annotated[float, Field(gt=0), Text(
        "Size of the steps. Higher: learns faster, then diverges. LoRA wants about 10 times what full wants.",
        "步长。调高：学得更快，过高会发散。LoRA 大约需要 full 的 10 倍。", level="basic")] = 5e-5
    lr_scheduler_type: Annotated[Schedule, Text(
        "How the learning rate moves during the run.", "学习率随训练如何变化。")] = "linear"
    lr_scheduler_kwargs: Annotated[Table, Field(default_factory=dict), Text(
        "Settings of the schedule, as YAML or JSON, such as {\"num_cycles\": 2}.",
        "调度器的参数，YAML 或 JSON，如 {\"num_cycles\": 2}。", level="expert")]
    warmup_steps: Annotated[float, Field(ge=0), Text(
        "Steps over which the learning rate rises from 0; below 1: a share of all steps.",
        "学习率从 0 升起所用的步数；小于 1 时为总步数的比例。")] = 0
    warmup_ratio: Annotated[float, Field(ge=0, le=1), Text(
        "The same as a share of all steps.", "同上，按总步数的比例。")] = 0.0
    weight_decay: Annotated[float, Field(ge=0), Text(
        "Pull of the weights towards 0 (AdamW, decoupled), not on biases and norms.",
        "把权重拉向 0 的力度（AdamW 解耦式），不作用于偏置和归一化层。")] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0), Text(
        "Longer gradients are cut to this length; 0: never.", "梯度超过这个长度就裁剪；0 表示不裁剪。")] = 1.0
    seed: Annotated[int, Field(ge=0), Text("Start of everything random.", "一切随机的起点。")] = 42
    data_seed: Annotated[int | None, Field(ge=0), Text(
        "The same for the order of the rows; unset: seed.", "数据顺序的随机种子；不填用 seed。", level="expert")] = None
    disable_shuffling: Annotated[bool, Text(
        "Take the rows in the order of the file.", "按文件里的顺序取数据。", level="expert")] = False

    bf16: Annotated[bool | None, Text(
        "Compute in bfloat16 with master weights in float32. All precisions unset: the faster safe one is measured.",
        "用 bfloat16 计算，主权重为 float32。精度都不填时实测后选更快且安全的。", level="basic")] = None
    fp16: Annotated[bool | None, Text(
        "Compute in float16 with loss scaling; only on devices that support it.",
        "用 float16 计算并缩放损失；仅限支持的设备。")] = None
    pure_bf16: Annotated[bool, Text(
        "Weights and steps in bfloat16, no master weights: half the memory, small updates are lost.",
        "权重和更新都用 bfloat16，没有主权重：省一半内存，但会丢失小的更新。", level="expert")] = False
    tf32: Annotated[bool | None, Text(
        "Faster, rougher float32 products on NVIDIA GPUs.", "在 NVIDIA GPU 上用更快、更粗的 float32 乘法。",
        level="expert")] = None
    gradient_checkpointing: Annotated[bool | None, Text(
        "Compute the layers a second time instead of keeping them: much less memory, about a third slower. Unset: only "
        "where the largest batch would not fit without, which is measured.",
        "重算各层而不保存：显存大减，约慢三分之一。不填则先实测，只在最大的批次放不下时启用。",
        also={"disable_gradient_checkpointing": {"true": "false", "false": "true"}}, free_on_resume=True)] = None

    logging_steps: Annotated[float, Field(gt=0), Text(
        "Steps between two log lines; below 1: a share of all steps.", "每多少步记录一次；小于 1 为总步数的比例。",
        free_on_resume=True)] = 10
    logging_first_step: Annotated[bool, Text("Log the first step too.", "第一步也记录。",
                                             free_on_resume=True)] = False
    eval_strategy: Annotated[Literal["no", "steps", "epoch"], Text(
        "When the held-out data is evaluated.", "何时用留出的数据评估。",
        also={"evaluation_strategy": None})] = "no"
    eval_steps: Annotated[float | None, Field(gt=0), Text(
        "Steps between two evaluations; unset: logging_steps.", "每多少步评估一次；不填同 logging_steps。")] = None
    per_device_eval_batch_size: Annotated[int, Field(gt=0), Text(
        "Rows evaluated at once.", "评估时一次计算的行数。", free_on_resume=True)] = 8
    early_stopping_steps: Annotated[int | None, Field(gt=0), Text(
        "Stop after so many evaluations without a better loss.", "连续多少次评估没有改善就停止。")] = None
    save_strategy: Annotated[Literal["no", "steps", "epoch"], Text(
        "When checkpoints are written.", "何时写检查点。", free_on_resume=True)] = "steps"
    save_steps: Annotated[float, Field(gt=0), Text(
        "Steps between two checkpoints; below 1: a share of all steps.",
        "每多少步写一个检查点；小于 1 为总步数的比例。",
        free_on_resume=True)] = 500
    save_total_limit: Annotated[int | None, Field(gt=0), Text(
        "Keep only the newest so many checkpoints.", "只保留最新的若干个检查点。", free_on_resume=True)] = None
    save_only_model: Annotated[bool, Text(
        "Checkpoints without what resuming needs: smaller, and a run cannot go on from them.",
        "检查点不含继续训练所需的状态：更小，但不能从它继续。", level="expert", free_on_resume=True)] = False
