"""The words of the log: what a run writes on the console, into events.jsonl, trainer_log.jsonl and all_results.json.

For each: what it is, what good and bad look like, and what to do then, in English and Chinese. `truetune explain` and
docs/options.md are drawn from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from truetune.options.schema import Pair


@dataclass(frozen=True)
class Term:
    """A word of the log.

    Args:
        what: what it is, in a sentence or two.
        unit: what it is counted in; None: a bare number.
        good, bad: what it looks like when all is well, and when not. None: it says nothing of how well a run goes.
        then: what to do when it looks bad.
        also: other words for it: keys of other files, what the console writes.
    """

    what: Pair
    unit: Pair | None = None
    good: Pair | None = None
    bad: Pair | None = None
    then: Pair | None = None
    also: tuple[str, ...] = ()


_STEPS, _TOKENS, _SECONDS = ("optimizer steps", "优化器步数"), ("tokens", "token"), ("seconds", "秒")
_LOSS = ("nats a learned token", "nat / 每个参与学习的 token")

TERMS: Mapping[str, Term] = {
    "loss": Term(
        ("How surprised the model is by the answers it learns from: the mean of -log(probability) over the learned "
         "tokens since the last log line. 0 is never surprised; 0.7 gives the right token every second guess.",
         "模型对要学的回答有多“意外”：上一行日志以来，所有参与学习的 token 的 -log(概率) 的平均值。0 表示毫不意外；"
         "0.7 约等于每两次猜对一个 token。"),
        _LOSS,
        ("Falls fast in the first tenth of the run and slowly after that, with noise from step to step. Chat data on "
         "an Instruct model often begins between 1 and 2.5. Only compare runs on the same data and template.",
         "前十分之一下降快，之后缓慢下降，步与步之间有抖动。Instruct 模型学对话数据常从 1 到 2.5 开始。"
         "只有数据和模板都相同的两次训练才能比较 loss。"),
        ("Flat: nothing is learned. Rising or jumping: the steps are too large. Below about 0.1: rows are learned by "
         "heart. At the start near ln(vocabulary), 10 to 12: the model or its template is not what it seems.",
         "一直不降：没学到东西。上升或突跳：步子太大。低于约 0.1：在死记数据。一开始就接近 ln(词表大小)，即 10 到 12："
         "模型或模板不对。"),
        ("Flat: three times the learning_rate, or train longer. Jumping: a third of it, or a warmup. By heart: fewer "
         "num_train_epochs, and val_size to see it. A bad start: look at the rows with truetune data show.",
         "不降：learning_rate 乘 3，或训练更久。突跳：learning_rate 除以 3，或加 warmup。死记：减少 num_train_epochs，"
         "并用 val_size 观察。开头就不对：用 truetune data show 查看数据。")),
    "eval_loss": Term(
        ("The loss on rows that are held out (val_size or eval_dataset): how well it does on what it has not seen. "
         "With several sets measured one by one it is that of all their tokens together.",
         "留出数据（val_size 或 eval_dataset）上的 loss：在没见过的数据上表现如何。分别评估多个数据集时，"
         "它是全部 token 合在一起的 loss。"),
        _LOSS,
        ("Falls along with loss and ends a little above it.", "随 loss 一起下降，最后略高于 loss。"),
        ("Rises while loss still falls: overfitting, the model learns rows by heart. Its lowest point was the best "
         "checkpoint. Far below loss: held-out rows stand in the training data too.",
         "loss 仍在下降而它开始上升：过拟合，模型在死记数据；它最低的地方是最好的检查点。远低于 loss："
         "训练数据里混进了留出的数据。"),
        ("Fewer num_train_epochs, early_stopping_steps, a lower learning_rate, a smaller lora_rank or more data; take "
         "the checkpoint where it was lowest.",
         "减少 num_train_epochs、设 early_stopping_steps、降低 learning_rate、减小 lora_rank 或增加数据；"
         "使用它最低时的检查点。")),
    "eval_NAME_loss": Term(
        ("The loss on the held-out rows of the data set NAME alone (eval_on_each_dataset).",
         "单独在数据集 NAME 的留出数据上的 loss（eval_on_each_dataset）。"),
        _LOSS,
        ("All of them fall.", "全部下降。"),
        ("One rises while others fall: what it teaches is being forgotten, or its answers are of another kind.",
         "一个上升而其他下降：它教的内容正在被遗忘，或它的回答风格与其他不同。"),
        ("Give that data set a larger share: mix_strategy and interleave_probs.",
         "提高该数据集的占比：mix_strategy 和 interleave_probs。")),
    "eval_perplexity": Term(
        ("e to the power of eval_loss: among how many equally likely tokens the model hesitates, on average, on rows "
         "it has not seen.",
         "e 的 eval_loss 次方：在没见过的数据上，模型平均相当于在多少个同样可能的 token 之间犹豫。"),
        None,
        ("Falls, and stays. 1 would be perfect; 2 to 8 is common for chat data.",
         "下降并保持。1 为完美；对话数据常见 2 到 8。"),
        ("Rises: as with eval_loss, from which it is made.", "上升：与 eval_loss 相同，它由 eval_loss 算出。"),
        ("As for eval_loss.", "同 eval_loss。"),
        ("perplexity", "ppl", "困惑度")),
    "rewards/accuracies": Term(
        ("DPO: the share of pairs whose chosen answer gained more (against the reference model) than the rejected one.",
         "DPO：相对参考模型，chosen 比 rejected 提升更多的样本对比例。"),
        None,
        ("From about 0.5 up to 0.7 or more; held-out rows a little below.", "从约 0.5 升到 0.7 以上；留出数据略低。"),
        ("Stays near 0.5: the steps are too small, or the pairs hardly differ. 1 from early on while eval_loss rises: "
         "the pairs are known by heart.",
         "停在 0.5 附近：步子太小，或两个回答差别太小。很早就到 1 而 eval_loss 上升：在死记数据。"),
        ("Three times the learning_rate, or a lower pref_beta; by heart: one epoch.",
         "learning_rate 乘 3，或降低 pref_beta；死记：只训练一个 epoch。"), ("accuracies",)),
    "rewards/margins": Term(
        ("DPO and KTO: how far chosen answers lead rejected ones, pref_beta times the difference of log-probabilities "
         "gained since the start.",
         "DPO、KTO：chosen 领先 rejected 多少，即从开始以来对数概率之差的变化乘以 pref_beta。"),
        None,
        ("Begins at 0 and rises, to about 0.5 to 5.", "从 0 开始上升，约到 0.5 至 5。"),
        ("In the tens: the model has moved far away from the reference, and its answers may fall apart.",
         "达到几十：模型已远离参考模型，回答可能崩坏。"),
        ("A higher pref_beta, a lower learning_rate, or pref_ftx.",
         "提高 pref_beta、降低 learning_rate，或设置 pref_ftx。"),
        ("margins",)),
    "reward": Term(
        ("GRPO and PPO: the mean reward of the answers that were written since the last log line, rewards added up "
         "with their weights. Evaluations ask once, without chance.",
         "GRPO、PPO：上一行日志以来所写回答的平均奖励，各奖励按权重相加。评估时每题只答一次，不随机。"),
        None,
        ("Rises, with noise from step to step.", "上升，步与步之间有抖动。"),
        ("Stays: nothing to learn from (see same_share), or the steps are too small. Rises while answers read worse: "
         "the reward is being cheated.",
         "不动：没有可学的（看 same_share），或步子太小。上升但回答越来越差：在钻奖励的空子。"),
        ("Easier questions, more num_generations, another learning_rate; against cheating a higher beta (GRPO) or "
         "ppo_kl_coef, and a better reward.",
         "换容易些的题、增大 num_generations、调整 learning_rate；防钻空子：提高 beta（GRPO）或 ppo_kl_coef，"
         "改进奖励。")),
    "same_share": Term(
        ("GRPO: the share of questions whose answers all earned the same, so that nothing is learned from them.",
         "GRPO：所有回答得分都相同的题目比例，这些题学不到东西。"),
        None,
        ("Below 0.5 while it learns; near 1 when all is learned.", "学习过程中低于 0.5；全部学会后接近 1。"),
        ("Near 1 from the start: the questions are too hard or too easy. Near 1 later with a low reward: all answers "
         "have become alike.",
         "一开始就接近 1：题目太难或太容易。后来接近 1 而奖励低：回答都变得一样了。"),
        ("Other questions, more num_generations; a lower learning_rate.",
         "换题、增大 num_generations；降低 learning_rate。")),
    "kl": Term(
        ("How far the model has moved from the reference: of PPO and GRPO on its own answers, of KTO on answers to "
         "other questions.",
         "模型离参考模型有多远：PPO 和 GRPO 在自己的回答上测，KTO 在别的问题的回答上测。"),
        ("nats", "nat"),
        ("A few nats an answer.", "每个回答几个 nat。"),
        ("Runs away, while the reward rises: the reward is being cheated.", "不断增大而奖励上升：在钻奖励的空子。"),
        ("A lower learning_rate, a higher ppo_kl_coef or beta.", "降低 learning_rate，提高 ppo_kl_coef 或 beta。")),
    "grad_norm": Term(
        ("Length of the gradient of all trained weights, before max_grad_norm cuts it: how strongly this step's rows "
         "pull at the weights.",
         "所有可训练权重的梯度长度，在 max_grad_norm 裁剪之前：这一步的数据有多用力地拉动权重。"),
        None,
        ("Highest in the first steps, then stays within a few times its usual size. The size itself differs from model "
         "to model and with lora_rank; only its course means something.",
         "开头几步最大，之后在平常大小的几倍以内。它的绝对大小因模型和 lora_rank 而异，要看的是走势。"),
        ("Ten times its usual size, again and again: an odd row, or steps that are too large. Growing all the time: "
         "the run is about to diverge. 0: nothing is trained. null in the files: a float16 step that overflowed and "
         "was left out; a few at the start are normal.",
         "反复达到平常的十倍：有异常数据，或步子太大。持续增大：即将发散。0：没有东西在训练。文件中为 null："
         "float16 溢出，这一步被跳过，开头出现几次是正常的。"),
        ("A third of learning_rate, a warmup, max_grad_norm 1.0 or 0.3, a larger batch; truetune data show finds odd "
         "rows. With fp16: bf16 if the device can.",
         "learning_rate 除以 3、加 warmup、max_grad_norm 设为 1.0 或 0.3、加大批次；用 truetune data show 找异常数据。"
         "用 fp16 时：设备支持就改用 bf16。"),
        ("grad",)),
    "learning_rate": Term(
        ("The learning rate of this very step, as lr_scheduler_type moves it: from 0 up to the learning_rate you set "
         "during the warmup, then down.",
         "这一步实际使用的学习率，由 lr_scheduler_type 决定：warmup 期间从 0 升到所设的 learning_rate，然后下降。"),
        None,
        ("Reaches the value you set early in the run and is near 0 at its end (constant schedules apart).",
         "较早达到所设的值，结束时接近 0（恒定调度除外）。"),
        ("Never reaches it: the warmup is longer than the run. Still high at the end: the last steps did not settle.",
         "始终达不到所设的值：warmup 比整个训练还长。结束时仍很高：最后几步没有稳定下来。"),
        ("A smaller warmup_ratio or warmup_steps, or a longer run; lr_scheduler_type linear or cosine.",
         "减小 warmup_ratio 或 warmup_steps，或训练更久；lr_scheduler_type 用 linear 或 cosine。"),
        ("lr",)),
    "epoch": Term(
        ("How often every row has been seen so far: 1.5 is once and a half.",
         "到目前为止全部数据看了几遍：1.5 是一遍半。"),
        ("rounds through the data", "遍"),
        ("Ends at num_train_epochs, or where max_steps or early stopping ends the run.",
         "结束于 num_train_epochs，或 max_steps、早停决定的位置。"),
        ("loss drops in a stair at each whole number: the rows are known by heart from the round before.",
         "每到整数 loss 就下一个台阶：上一遍已经把数据背下来了。"),
        ("Fewer num_train_epochs, or more data.", "减少 num_train_epochs，或增加数据。")),
    "step": Term(
        ("How many times the weights were changed so far. A step learns from per_device_train_batch_size x "
         "gradient_accumulation_steps rows.",
         "到目前为止权重更新了多少次。每步学习 per_device_train_batch_size x gradient_accumulation_steps 行。"),
        _STEPS,
        ("Some 50 to 100 at least in all; fewer hardly change a model.", "总数至少 50 到 100；再少模型几乎不变。"),
        ("A few dozen in the whole run.", "整个训练只有几十步。"),
        ("More num_train_epochs, or fewer rows a step.", "增加 num_train_epochs，或减少每步的行数。"),
        ("current_steps", "train_steps")),
    "total_steps": Term(
        ("How many steps the run will have in all: rows x num_train_epochs / rows a step, or max_steps.",
         "整个训练的总步数：行数 x num_train_epochs / 每步行数，或 max_steps。"),
        _STEPS),
    "tokens": Term(
        ("How many tokens were computed so far, questions and answers; padding is none of them, since there is none.",
         "到目前为止计算过的 token 数，包括问题和回答；没有填充，所以不含填充。"),
        _TOKENS, also=("total_tokens", "train_tokens")),
    "tokens_per_second": Term(
        ("Tokens computed in a second, on average since the start; evaluations and saving are not counted in.",
         "每秒计算的 token 数，从开始到现在的平均值；评估和保存的时间不算在内。"),
        ("tokens a second", "token / 秒"),
        ("Steady after the first steps.", "开头几步之后保持稳定。"),
        ("Sinks: another program wants the device, it grows hot, or memory runs out and is swapped. Low from the "
         "start: a number format that the device only emulates, or gradient checkpointing.",
         "逐渐下降：别的程序在占用设备、设备过热，或内存不足在换页。一开始就低：设备只能模拟的数值格式，"
         "或开了梯度检查点。"),
        ("A larger per_device_train_batch_size if memory allows, packing, flash_attn auto, bf16 where it is native, "
         "gradient_checkpointing false if it fits.",
         "显存允许就加大 per_device_train_batch_size；packing；flash_attn 用 auto；硬件原生支持时用 bf16；"
         "放得下就设 gradient_checkpointing: false。"),
        ("throughput", "tokens/s", "train_tokens_per_second")),
    "seconds": Term(
        ("Time spent on training steps so far; evaluations, saving and pauses are left out.",
         "到目前为止训练步所用的时间；不含评估、保存和暂停。"),
        _SECONDS, also=("train_runtime", "elapsed_time")),
    "remaining_time": Term(
        ("Time that is left at the pace so far, as hours:minutes:seconds.", "按目前速度剩余的时间，时:分:秒。"),
        also=("left", "剩余")),
    "percentage": Term(("How much of the run is done: step / total_steps.", "训练完成了多少：step / total_steps。"),
                       ("per cent", "%")),
    "train_loss": Term(
        ("The mean loss over the whole run, high beginning and all. It is higher than the last loss, and no measure of "
         "how good the model is now.",
         "整个训练期间 loss 的平均值，包含开头的高值。它高于最后的 loss，不代表模型现在的好坏。"),
        _LOSS,
        ("Only useful between runs on the same data with the same number of steps.",
         "只适合比较数据和步数都相同的训练。")),
    "train_peak_memory_gb": Term(
        ("The most memory that was held at one time: on the GPU where there is one, else of the process.",
         "同一时刻占用的最大内存：有 GPU 时为显存，否则为进程内存。"),
        ("GB (10^9 bytes)", "GB（10^9 字节）"),
        ("A tenth or more below what the device has.", "比设备容量低一成以上。"),
        ("Close to what the device has: one longer row and it is out of memory (OOM).",
         "接近设备容量：再来一行更长的数据就会显存不足（OOM）。"),
        ("Half of per_device_train_batch_size and twice gradient_accumulation_steps, a smaller cutoff_len, "
         "gradient_checkpointing true.",
         "per_device_train_batch_size 减半、gradient_accumulation_steps 加倍；减小 cutoff_len；"
         "gradient_checkpointing: true。"),
        ("peak_memory_gb",)),
}
"""Every word of the log by its name. NAME stands for any name."""
