"""Options: where a run's numbers go."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text

_OF_SWANLAB = ("a setting of use_swanlab, which is not done yet", "它是 use_swanlab 的附属设置，而后者暂不支持")
_OF_PROFILER = (
    "a setting of enable_torch_profiler, which is not done yet",
    "它是 enable_torch_profiler 的附属设置，而后者暂不支持")
_OF_TRACKER = (
    "it is for trackers, which are not connected yet; the same numbers are in events.jsonl",
    "它用于实验记录平台，暂不支持；同样的数字在 events.jsonl 里")
_METRICS = ("there is no metrics function in Python here", "这里没有 Python 指标函数")
_LOGS = ("what a run prints does not depend on it", "运行的输出不受它影响")


class TrackOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Tracking", "记录")

    report_to: Annotated[Names, Text(
        "Experiment trackers that get the run's numbers: wandb, tensorboard, swanlab, mlflow, trackio and others; "
        "none.",
        "把训练数据发送到哪些实验记录平台：wandb、tensorboard、swanlab、mlflow、trackio 等；none 表示不用。",
        free_on_resume=True)] = ("none",)
    run_name: Annotated[str | None, Text(
        "A name for the run at trackers.",
        "运行在实验记录平台上的名字。",
        unset=("the name of the run folder", "运行文件夹的名字"),
        no_effect=(
            "a run goes by its folder's name, and trackers are not connected yet",
            "运行以文件夹名为准，而实验记录平台暂不支持"),
        free_on_resume=True)] = None
    plot_loss: Annotated[bool, Text(
        "Draw training_loss.png: the loss as it was and smoothed, and the evaluation loss.",
        "画出 training_loss.png：原始和平滑后的 loss，以及评估 loss。",
        higher=("a picture in the run folder", "运行文件夹里有一张图"),
        lower=("no picture; events.jsonl still has the numbers", "没有图；数字仍在 events.jsonl 里"),
        free_on_resume=True)] = True
    include_num_input_tokens_seen: Annotated[bool | Literal["all", "non_padding", "no"], Text(
        "Count the tokens seen, in the log: all, or without padding (non_padding); true means all, no and false none.",
        "在日志里记录已见的 token 数：all 为全部，non_padding 不含填充；true 等于 all，no 和 false 不记录。",
        level="expert",
        higher=("tokens are in the log", "日志里有 token 数"),
        lower=("they would not be", "日志里没有"),
        no_effect=("tokens are always counted", "总是统计 token 数"), free_on_resume=True)] = True
    include_tokens_per_second: Annotated[bool, Text(
        "Tell tokens a second in the results.",
        "在结果里给出每秒 token 数。",
        level="expert",
        higher=("speed is in the results", "结果里有速度"),
        lower=("it would not be", "结果里没有"),
        no_effect=(
            "train_tokens_per_second is always in all_results.json",
            "all_results.json 里总有 train_tokens_per_second"),
        free_on_resume=True)] = False
    include_effective_tokens_per_second: Annotated[bool, Text(
        "Tell tokens a second without padding, in the results.",
        "在结果里给出每秒有效（不含填充）token 数。",
        level="expert",
        higher=("speed is in the results", "结果里有速度"),
        lower=("it would not be", "结果里没有"),
        no_effect=(
            "there is no padding, so train_tokens_per_second in all_results.json is that number",
            "没有填充，all_results.json 里的 train_tokens_per_second 就是它"),
        free_on_resume=True)] = False
    include_for_metrics: Annotated[Names, Text(
        "What else a metrics function in Python gets: inputs, loss.",
        "Python 指标函数还能得到什么：inputs、loss。",
        level="expert", unset=("nothing", "没有"), no_effect=_METRICS, free_on_resume=True)] = ()
    include_inputs_for_metrics: Annotated[bool, Text(
        "Give the inputs to a metrics function in Python.",
        "把输入传给 Python 指标函数。",
        level="expert", memory="up",
        higher=("it sees the inputs", "它能看到输入"),
        lower=("it sees answers and labels only", "它只看到输出和标签"),
        no_effect=_METRICS, free_on_resume=True)] = False
    project: Annotated[str, Text(
        "Project of the run at a tracker.",
        "运行在记录平台上的项目名。",
        level="expert", no_effect=_OF_TRACKER, free_on_resume=True)] = "huggingface"
    trackio_space_id: Annotated[str | None, Text(
        "Hugging Face Space that shows Trackio's board.",
        "显示 Trackio 面板的 Hugging Face Space。",
        level="expert", unset=("on this machine", "在本机"), no_effect=_OF_TRACKER, free_on_resume=True)] = None
    trackio_bucket_id: Annotated[str | None, Text(
        "Hugging Face bucket that keeps Trackio's numbers.",
        "保存 Trackio 数据的 Hugging Face bucket。",
        level="expert", unset=("made for the Space", "随 Space 创建"),
        no_effect=_OF_TRACKER, free_on_resume=True)] = None
    trackio_static_space_id: Annotated[str | None, Text(
        "Hugging Face Space that shows Trackio's board as it stands at the end.",
        "显示 Trackio 最终面板的静态 Hugging Face Space。",
        level="expert", unset=("none", "没有"), no_effect=_OF_TRACKER, free_on_resume=True)] = None
    logging_dir: Annotated[str | None, Text(
        "Folder for TensorBoard's files.",
        "TensorBoard 文件的文件夹。",
        level="expert", unset=("a folder in output_dir", "output_dir 里的一个文件夹"),
        no_effect=_OF_TRACKER, free_on_resume=True)] = None
    log_level: Annotated[Literal["detail", "debug", "info", "warning", "error", "critical", "passive"], Text(
        "How much libraries print, from everything to almost nothing: detail, debug, info, warning, error, critical; "
        "passive leaves it to them.",
        "各库输出多少信息，由多到少：detail、debug、info、warning、error、critical；passive 由它们自己决定。",
        level="expert", no_effect=_LOGS, free_on_resume=True)] = "passive"
    log_level_replica: Annotated[Literal["detail", "debug", "info", "warning", "error", "critical", "passive"], Text(
        "The same for all processes but the first: detail, debug, info, warning, error, critical or passive.",
        "除第一个进程外，其余进程的输出级别：detail、debug、info、warning、error、critical 或 passive。",
        level="expert",
        no_effect=("this run is one process", "本次运行只有一个进程"), free_on_resume=True)] = "warning"
    log_on_each_node: Annotated[bool, Text(
        "Print on every machine, not only on the first.",
        "每台机器都输出，而不只是第一台。",
        level="expert",
        higher=("every machine prints", "每台机器都输出"),
        lower=("the first machine prints", "只有第一台输出"),
        no_effect=("this run is one process", "本次运行只有一个进程"), free_on_resume=True)] = True
    logging_nan_inf_filter: Annotated[bool, Text(
        "Leave losses that are not finite out of the logged mean.",
        "把非有限的 loss 排除在日志均值之外。",
        level="expert",
        higher=("a broken step is hidden in the mean", "出错的一步会被均值掩盖"),
        lower=("the log shows nan or inf", "日志里出现 nan 或 inf"),
        no_effect=(
            "a loss that is not finite stops the run and names the rows, so nothing has to be left out",
            "loss 非有限时会停止并指出数据行，无需过滤"),
        free_on_resume=True)] = True
    disable_tqdm: Annotated[bool | None, Text(
        "Draw no progress bar.",
        "不显示进度条。",
        level="expert",
        unset=("a bar on a terminal, lines elsewhere", "终端里显示进度条，其他情况逐行输出"),
        higher=("no bar", "没有进度条"),
        lower=("a bar", "有进度条"),
        no_effect=(
            "the bar is drawn on a terminal only; a file or a pipe gets plain lines",
            "进度条只在终端里显示；写入文件或管道时是普通的行"),
        free_on_resume=True)] = None
    debug: Annotated[Names, Text(
        "transformers' debugging: underflow_overflow looks for numbers out of range, tpu_metrics_debug prints a TPU's.",
        "transformers 的调试：underflow_overflow 查找溢出的数，tpu_metrics_debug 输出 TPU 指标。",
        level="expert", speed="down", unset=("off", "关闭"),
        no_effect=(
            "a loss or gradient that is not finite stops the run anyway, and its rows are kept",
            "loss 或梯度非有限时总会停止，并保留相应的数据行"),
        free_on_resume=True)] = ()
    skip_memory_metrics: Annotated[bool, Text(
        "Do not measure memory.",
        "不测量内存。",
        level="expert", speed="up",
        higher=("nothing is measured", "不测量"),
        lower=("memory is in the results", "结果里有内存占用"),
        no_effect=(
            "peak memory is always in all_results.json, and costs no time",
            "all_results.json 里总有峰值内存，不花时间"),
        free_on_resume=True)] = True
    tpu_metrics_debug: Annotated[bool, Text(
        "Print a TPU's numbers. The old way to write debug: tpu_metrics_debug.",
        "输出 TPU 指标。debug: tpu_metrics_debug 的旧写法。",
        level="expert",
        higher=("they are printed", "输出"),
        lower=("they are not", "不输出"),
        no_effect=("TPUs are not used", "不支持 TPU"), free_on_resume=True)] = False
    use_swanlab: Annotated[bool, Text(
        "Send the run's numbers to SwanLab.",
        "把训练数据发送到 SwanLab。",
        higher=("the run can be watched in the browser", "可在浏览器里查看训练"),
        lower=("nothing is sent", "不发送"),
        not_offered=(
            "nothing is sent; the same numbers are in events.jsonl and trainer_log.jsonl",
            "不会发送；同样的数字在 events.jsonl 和 trainer_log.jsonl 里"),
        free_on_resume=True)] = False
    swanlab_project: Annotated[str, Text(
        "SwanLab's project.",
        "SwanLab 的项目名。",
        level="expert", no_effect=_OF_SWANLAB, free_on_resume=True)] = "llamafactory"
    swanlab_workspace: Annotated[str | None, Text(
        "SwanLab's workspace.",
        "SwanLab 的空间。",
        level="expert", unset=("your own", "自己的空间"), no_effect=_OF_SWANLAB, free_on_resume=True)] = None
    swanlab_run_name: Annotated[str | None, Text(
        "The run's name at SwanLab.",
        "在 SwanLab 上的运行名。",
        level="expert", unset=("SwanLab makes one up", "由 SwanLab 起名"),
        no_effect=_OF_SWANLAB, free_on_resume=True)] = None
    swanlab_mode: Annotated[Literal["cloud", "local"], Text(
        "cloud: sent to SwanLab's server; local: kept in swanlab_logdir.",
        "cloud：发送到 SwanLab 服务器；local：存放在 swanlab_logdir。",
        level="expert", no_effect=_OF_SWANLAB, free_on_resume=True)] = "cloud"
    swanlab_api_key: Annotated[str | None, Text(
        "Key for SwanLab's server. Better not in a file: log in with `swanlab login`.",
        "SwanLab 服务器的密钥。最好不写进文件，用 `swanlab login` 登录。",
        level="expert", unset=("the login on this machine", "本机的登录"),
        no_effect=_OF_SWANLAB, free_on_resume=True,
        secret=True)] = None
    swanlab_logdir: Annotated[str | None, Text(
        "Folder for SwanLab's files.",
        "SwanLab 文件的文件夹。",
        level="expert", unset=("a folder swanlog", "swanlog 文件夹"),
        no_effect=_OF_SWANLAB, free_on_resume=True)] = None
    swanlab_lark_webhook_url: Annotated[str | None, Text(
        "Lark (Feishu) address to which SwanLab sends news of the run.",
        "SwanLab 发送训练消息的飞书 webhook 地址。",
        level="expert", unset=("no messages", "不发消息"), no_effect=_OF_SWANLAB, free_on_resume=True,
        secret=True)] = None
    swanlab_lark_secret: Annotated[str | None, Text(
        "Secret of that Lark (Feishu) bot.",
        "该飞书机器人的密钥。",
        level="expert", unset=("none", "没有"), no_effect=_OF_SWANLAB, free_on_resume=True,
        secret=True)] = None
    enable_torch_profiler: Annotated[bool, Text(
        "Record what each operation costs for a few steps, with PyTorch's profiler.",
        "用 PyTorch profiler 记录几步中各操作的开销。",
        level="expert", memory="up", speed="down",
        higher=("a trace for the browser; recorded steps are slow", "得到可在浏览器查看的 trace；记录的步更慢"),
        lower=("full speed", "全速"),
        advice=(
            Advice("A few steps are enough: traces grow large quickly.",
                   "几步就够：trace 很快就变得很大。", "pytorch-profiler"),
        ),
        not_offered=("nothing is recorded; the log has tokens a second", "不会记录；日志里有每秒 token 数"),
        free_on_resume=True)] = False
    profiler_output_dir: Annotated[str | None, Text(
        "Folder for the profiler's traces.",
        "profiler 的 trace 写到哪个文件夹。",
        level="expert", unset=("profiler/rank_N in output_dir", "output_dir 里的 profiler/rank_N"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = None
    profiler_wait_steps: Annotated[int, Field(ge=0), Text(
        "Steps before each recording.",
        "每轮记录之前跳过的步数。",
        level="expert",
        higher=("later steps are recorded", "记录更靠后的步"),
        lower=("recording begins sooner", "更早开始记录"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = 1
    profiler_warmup_steps: Annotated[int, Field(ge=0), Text(
        "Steps that are recorded and thrown away, while the profiler warms up.",
        "profiler 预热、丢弃记录的步数。",
        level="expert",
        higher=("truer numbers", "数字更准"),
        lower=("the first numbers hold the profiler's own cost", "最初的数字含 profiler 自身的开销"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = 1
    profiler_active_steps: Annotated[int, Field(gt=0), Text(
        "Steps that are recorded and kept.",
        "记录并保留的步数。",
        level="expert", memory="up", speed="down",
        higher=("more to average over; larger traces", "可平均的更多；trace 更大"),
        lower=("smaller traces", "trace 更小"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = 1
    profiler_repeat: Annotated[int, Field(ge=0), Text(
        "How often all that is repeated; 0: to the end of the run.",
        "以上过程重复几轮；0 表示直到结束。",
        level="expert", memory="up", speed="down",
        higher=("more recordings", "记录更多"),
        lower=("fewer recordings; 0 never stops", "记录更少；0 不停止"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = 1
    profiler_record_shapes: Annotated[bool, Text(
        "Record the shapes of inputs.",
        "记录输入的形状。",
        level="expert", speed="down",
        higher=("costs can be told apart by shape", "可按形状区分开销"),
        lower=("smaller traces", "trace 更小"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = True
    profiler_profile_memory: Annotated[bool, Text(
        "Record memory as it is taken and given back.",
        "记录内存的申请与释放。",
        level="expert", speed="down",
        higher=("memory over time is in the trace", "trace 里有内存变化"),
        lower=("smaller traces", "trace 更小"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = True
    profiler_with_stack: Annotated[bool, Text(
        "Record where in the code each operation was called.",
        "记录每个操作在代码中的调用位置。",
        level="expert", speed="down",
        higher=("costs lead back to lines of code", "可追溯到代码行"),
        lower=("much smaller traces", "trace 小得多"),
        no_effect=_OF_PROFILER, free_on_resume=True)] = True
    profile_modules: Annotated[Names, Text(
        "Modules whose time is measured in every logged step, by name pattern such as *.mlp.",
        "每次记录日志时测量哪些模块的时间，按名字模式，如 *.mlp。",
        level="expert", speed="down", unset=("none", "没有"),
        not_offered=("time is not measured by module", "不按模块计时"), free_on_resume=True)] = ()
