"""The table of verbs: what each is called, which options its help shows, and the function that does its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from truetune.cli.about import run_env, run_explain, run_runs, run_schema, run_version
from truetune.cli.data import run_build, run_diff, run_show
from truetune.cli.models import run_eval, run_expand, run_export, run_parity
from truetune.cli.serving import run_api, run_chat, run_webchat, run_webui
from truetune.cli.training import run_check, run_find_lr, run_recipe, run_train


@dataclass(frozen=True)
class Verb:
    """A word on the command line that does something. groups: which options `--help` shows, by title. own: what it
    takes beside them, each with its help. run(words, chinese) returns the exit status."""

    run: Callable[[list[str], bool], int]
    en: str
    zh: str
    groups: tuple[str, ...] = ()
    own: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Verbs:
    """Words of which one must follow."""

    en: str
    zh: str
    words: Mapping[str, Verb | Verbs]


_RUN = ("Model", "Quantization", "Data", "Media", "Method", "Loss", "Preference", "Reward", "Rollouts", "Training",
        "Optimizer", "Parallel", "Tracking", "Hub")
_DATA = ("Model", "Data", "Media", "Hub")
"""The groups of options that a run and its data can have."""

VERBS = Verbs("Fine-tune language models", "微调语言模型", {
    "train": Verb(run_train, "check a run, then train it", "先检查，再训练", _RUN, own=(
        ("--no-check", "train without the page about it (what cannot run is still refused)",
         "跳过检查页直接训练（无法运行的仍会拒绝）"),)),
    "check": Verb(run_check, "what can be known before training", "训练前能知道的一切",
                  _RUN, own=(
                      ("--static", "the options only: no model, no data, at once",
                       "只看选项：不读模型和数据，立即完成"),
                      ("--measure", "also take one real step, and compare memory and time with the prediction",
                       "真正走一步，与预测的显存和时间比较"),
                      ("--apply N", "write suggestion N of the page into the YAML file",
                       "把检查页的第 N 条建议写入 YAML 文件"),
                      ("--json", "as JSON", "以 JSON 输出"))),
    "data": Verbs("look into the tokens that are trained on: build, show, diff",
                  "查看训练所用的 token：build、show、diff", {
        "build": Verb(run_build, "tokenise the data sets, or find them tokenised (no weights, no GPU)",
                      "把数据集分词，已有则直接使用（不需要权重和 GPU）", _DATA),
        "show": Verb(run_show, "the first rows as they are trained on, what was left out, how long rows are",
                     "按训练时的样子显示前几行、被丢弃的行和长度分布", _DATA, own=(
                         ("-n 3", "how many rows (or packs of rows)", "显示多少行（或多少个打包）"),
                         ("--row a.json:12", "this row instead: the file and the line where it begins",
                          "只显示这一行：文件名和起始行号"),
                         ("--ids", "with the id of every token", "同时显示每个 token 的 id"),
                         ("--json", "as JSON", "以 JSON 输出"),
                         ("--html page.html", "as a page for the browser", "生成网页文件"))),
        "diff": Verb(run_diff, "what differs between A and B: settings, rows, the first token (exit status 1)",
                     "A 与 B 的差别：设置、行、第一个不同的 token（有差别时退出码为 1）", _DATA, own=(
                         ("A B", "each a run.yaml, a run folder, a token store or a tokenized_path",
                          "各为 run.yaml、运行文件夹、分词结果文件夹或 tokenized_path"),
                         ("key=value …", "options for both; model_name_or_path lets ids of stores be shown as text",
                          "对两者都生效的选项；给出 model_name_or_path 可把 id 显示为文字"))),
    }),
    "recipe": Verb(run_recipe, "write a run.yaml for this model, data and machine, each value with its reason",
                   "按模型、数据和机器写出 run.yaml，每个值都附理由", ("Model", "Data", "Method", "Training"), own=(
                       ("--model M", "the model (model_name_or_path)", "模型（model_name_or_path）"),
                       ("--dataset D", "the data", "数据"),
                       ("--goal style", "style, knowledge, preference or reasoning; unset: as the data look",
                        "style（风格）、knowledge（知识）、preference（偏好）或 reasoning（推理）；不填按数据判断"),
                       ("--output run.yaml", "where it is written; - prints it", "写到哪里；- 表示直接打印"),
                       ("--overwrite", "replace the file if it is there", "文件已存在时覆盖"),
                       ("key=value …", "options that are not to be chosen but to be this",
                        "不由配方选择、而是固定的选项"))),
    "find-lr": Verb(run_find_lr, "try learning rates in short runs, and say which to set",
                    "用短训练试学习率，并给出建议",
                    ("Model", "Data", "Method", "Training"), own=(
                        ("run.yaml", "the run; key=value … changes its options", "训练配置；可用 key=value … 修改选项"),
                        ("--range", "one run whose rate grows, instead of three at x1/3, x1 and x3",
                         "一次学习率逐步升高的训练，代替 x1/3、x1、x3 三次"),
                        ("--steps 40", "steps of each run", "每次训练的步数"),
                        ("--output find-lr.png", "where the picture is drawn", "图片写到哪里"),
                        ("--apply", "set learning_rate in run.yaml to what is suggested",
                         "把建议的 learning_rate 写入 run.yaml"))),
    "chat": Verb(run_chat, "talk to a model, an adapter or a run folder", "与模型、适配器或运行文件夹对话",
                 ("Model", "Quantization", "Hub", "Generation", "Serving"), own=(
                     ("--once TEXT", "answer this and leave", "只回答这一句，然后退出"),)),
    "eval": Verb(run_eval, "measure a model: multiple choice (MMLU, CMMLU, C-Eval), perplexity, answers, lm-eval tasks",
                 "评测模型：选择题（MMLU、CMMLU、C-Eval）、困惑度、生成的回答、lm-eval 任务",
                 ("Evaluation", "Model", "Quantization", "Data", "Generation", "Serving", "Hub"), own=(
                     ("M", "a run folder, a checkpoint, a model folder or a hub id",
                      "运行文件夹、检查点、模型文件夹或 hub 上的 id"),
                     ("task=mmlu_test", "what to measure: see task", "测什么：见 task"),
                     ("--json", "as JSON", "以 JSON 输出"))),
    "api": Verb(run_api, "answer other programs, as OpenAI's API does", "以 OpenAI 的 API 形式为其他程序提供服务",
                ("Model", "Quantization", "Hub", "Generation", "Serving")),
    "webui": Verb(run_webui, "the web page: train, watch, chat, evaluate and export in a browser",
                  "网页界面：在浏览器里训练、观察、对话、评测和导出", ("Web",)),
    "webchat": Verb(run_webchat, "the page with only the chat, for one model", "只有对话的网页，用于一个模型",
                    ("Web",), own=(
        ("M", "the model to talk to: a run, a checkpoint, a model's folder or an id of a hub",
         "要对话的模型：运行、检查点、模型文件夹或 hub 上的 id"),)),
    "expand": Verb(run_expand, "add blocks to a model that change nothing at first, to train only those (LLaMA Pro)",
                   "给模型插入起初不改变输出的新块，之后只训练它们（LLaMA Pro）", ("Model", "Hub"), own=(
                       ("num_expand=8", "how many; it has to divide the number of layers",
                        "插入多少个，必须能整除层数"),
                       ("output_dir=D", "where the larger model is written", "扩展后的模型写到哪里"))),
    "export": Verb(run_export, "write a model for serving (hf, GGUF, Ollama), proven to be the one that was trained",
                   "导出用于部署的模型（hf、GGUF、Ollama），并证明它就是训练出的模型",
                   ("Model", "Quantization", "Hub", "Export")),
    "parity": Verb(run_parity, "whether two places serve the same model: names what differs first (exit status 1)",
                   "两处部署的是不是同一个模型：指出第一处差别（有差别时退出码为 1）", own=(
                       ("A B", "each a run, a model's folder, a .gguf file, a Modelfile or an address (http://…)",
                        "各为运行文件夹、模型文件夹、.gguf 文件、Modelfile 或地址（http://…）"),
                       ("--json", "as JSON", "以 JSON 输出"),
                       ("--api_key=…", "token that an address wants", "地址需要的 token"),
                       ("key=value …", "options for a model's folder, such as template=…",
                        "模型文件夹的选项，例如 template=…"))),
    "runs": Verb(run_runs, "the runs on this machine: state, loss, speed, where they are",
                 "本机上的运行：状态、loss、速度、位置", own=(
                     ("FOLDER …", "look below these folders instead of ./saves", "在这些文件夹下查找，而不是 ./saves"),
                     ("show R", "one run (its folder or its name): what can be done with it, its numbers",
                      "一个运行（文件夹或名字）：能做什么、各项数字"),
                     ("--json", "as JSON", "以 JSON 输出"))),
    "explain": Verb(run_explain, "what an option or a word of the log means, which way to turn it, what it costs",
                    "解释一个选项或日志字段：做什么、往哪边调、代价是什么", own=(
                        ("NAME …", "options by any of their names, words of the log (loss, grad_norm), groups",
                         "选项（任一名字）、日志字段（loss、grad_norm）或分组的名字"),
                        ("WORD", "anything else is searched for: overfit", "其他词则搜索，如：过拟合"),
                        ("", "without a name: an overview", "不写名字：总览"))),
    "schema": Verb(run_schema, "a JSON Schema of run.yaml, so that editors complete and check it",
                   "run.yaml 的 JSON Schema，让编辑器能补全和检查", own=(
                       ("> truetune.schema.json", "then, in the first line of run.yaml: "
                        "# yaml-language-server: $schema=truetune.schema.json",
                        "然后在 run.yaml 第一行写：# yaml-language-server: $schema=truetune.schema.json"),
                       ("--markdown", "every option as a page of documentation instead", "改为输出全部选项的文档页"))),
    "env": Verb(run_env, "versions and machine, for bug reports", "版本和机器信息，用于报告问题"),
    "version": Verb(run_version, "the version", "版本号"),
})
