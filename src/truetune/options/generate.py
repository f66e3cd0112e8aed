"""Options: how answers are generated."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Advice, Group, Text


class GenerateOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Generation", "生成")

    do_sample: Annotated[bool, Text(
        "Draw words at random by their probability.", "按概率随机取词。",
        higher=("every answer is another one", "每次回答都不同"),
        lower=("always the likeliest word: the same answer every time, more prone to repeat itself",
               "总取最可能的词：每次回答相同，更容易重复"), quality="depends",
        advice=(Advice("Do not switch it off for thinking models: Qwen3's card warns of endless repetition.",
                       "思考模型不要关闭：Qwen3 的模型卡提醒会无限重复。", "qwen3"),), free_on_resume=True)] = True
    temperature: Annotated[float, Field(ge=0), Text(
        "How flat the probabilities are made before a word is drawn; 0: always the likeliest word.",
        "取词前把概率分布拉平的程度；0：总取最可能的词。", level="basic",
        higher=("more surprising, and more often wrong", "更多样，也更容易出错"),
        lower=("more predictable, and more alike", "更稳定，也更雷同"), quality="depends",
        advice=(Advice("Take what the model's card says: Qwen3 0.6 when it thinks, 0.7 when it does not.",
                       "按模型卡的建议：Qwen3 思考时 0.6，不思考时 0.7。", "qwen3"),), free_on_resume=True)] = 0.95
    top_p: Annotated[float, Field(gt=0, le=1), Text(
        "Draw only among the likeliest words that together have this probability; 1: among all.",
        "只在累计概率达到该值的最可能的词里取；1：不限。", level="basic",
        higher=("unlikely words get a chance", "不太可能的词也有机会"), lower=("safer, more alike", "更稳妥，也更雷同"),
        quality="depends",
        advice=(Advice("The paper that proposed it used 0.95, to cut off the tail of unlikely words, from which text "
                       "falls apart.", "提出它的论文用 0.95，目的是切掉不可能的词的长尾，文本正是因它变乱。",
                       "nucleus"),
                Advice("Qwen3: 0.95 when it thinks, 0.8 when it does not.", "Qwen3：思考时 0.95，不思考时 0.8。",
                       "qwen3")), free_on_resume=True)] = 0.7
    top_k: Annotated[int, Field(ge=0), Text(
        "Draw only among so many of the likeliest words; 0: no limit.", "只在最可能的若干个词里取；0 不限。",
        higher=("more variety", "更多样"),
        lower=("safer; 1 is the same as do_sample off", "更稳妥；1 等于关闭 do_sample"), quality="depends",
        advice=(Advice("Qwen3: 20.", "Qwen3：20。", "qwen3"),), free_on_resume=True)] = 50
    max_new_tokens: Annotated[int, Field(gt=0), Text(
        "Longest answer, in tokens.", "回答最多的 token 数。", level="basic",
        higher=("long answers are not cut; a model that does not stop takes longer",
                "长回答不会被截断；停不下来时等得更久"),
        lower=("long answers are cut in the middle", "长回答会在中途截断"), memory="up", speed="down",
        advice=(Advice("Thinking takes room: Qwen3's card gives 32,768 tokens to an answer.",
                       "思考很占长度：Qwen3 的模型卡建议 32768。", "qwen3"),), free_on_resume=True)] = 1024
    repetition_penalty: Annotated[float, Field(gt=0), Text(
        "Above 1, words that were already said become less likely; 1: off.",
        "大于 1 时说过的词更不可能再出现；1：关闭。",
        higher=("less repetition; much above 1.2 words that are needed go missing",
                "重复更少；远高于 1.2 时会丢掉必要的词"),
        lower=("words are repeated as the model likes", "按模型的习惯重复"), quality="depends",
        advice=(Advice("The paper that proposed it found about 1.2 to balance repetition and truth, without sampling.",
                       "提出它的论文在不采样时认为约 1.2 能兼顾不重复与正确。", "ctrl"),), free_on_resume=True)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1), Text(
        "Draw only among words at least so many times as likely as the likeliest; 0: no limit.",
        "只在概率不低于最可能的词的这个倍数的词里取；0：不限。", level="expert",
        higher=("safer, more alike", "更稳妥，也更雷同"),
        lower=("unlikely words get a chance where the model is unsure", "模型不确定时，不太可能的词也有机会"),
        quality="depends",
        advice=(Advice("The paper that proposed it recommends 0.05 to 0.1; the limit then follows how sure the model "
                       "is, also at high temperatures.",
                       "提出它的论文建议 0.05 到 0.1；这样限制会随模型的把握程度变化，温度高时也管用。", "min-p"),),
        free_on_resume=True)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2), Text(
        "Subtracted from the logits of words that the answer already holds (not the question).",
        "从回答里已出现的词（不含提问）的 logits 中减去该值。", level="expert",
        higher=("more new topics", "更多新话题"), lower=("below 0 words come back more", "小于 0 时词更容易重现"),
        quality="depends", free_on_resume=True)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2), Text(
        "The same for each time that the answer holds the word.", "同上，按该词在回答中出现的次数累加。",
        level="expert", higher=("less repetition, the more often a word was said", "词出现越多次，越不易再出现"),
        lower=("below 0 words come back more", "小于 0 时词更容易重现"), quality="depends",
        free_on_resume=True)] = 0.0
    generation_seed: Annotated[int | None, Field(ge=0), Text(
        "The same seed gives the same words.", "种子相同，回答就相同。", level="expert",
        higher=("other words, no better and no worse", "换一种回答，不更好也不更差"),
        lower=("other words, no better and no worse", "换一种回答，不更好也不更差"),
        unset=("another answer every time", "每次回答都不同"), free_on_resume=True)] = None
    num_beams: Annotated[int, Field(gt=0), Text(
        "Answers followed side by side, of which the likeliest is given.", "并行搜索多少个候选，取概率最高的。",
        level="expert",
        not_offered=("answers are drawn one word after another, without a beam search", "逐词生成，不做 beam search"),
        free_on_resume=True)] = 1
    length_penalty: Annotated[float, Text(
        "Above 0 favours long answers in a beam search.", "beam search 中大于 0 偏向长回答。", level="expert",
        no_effect=("a setting of num_beams, which is not done yet", "这是 num_beams 的设置，该功能尚未支持"),
        free_on_resume=True)] = 1.0
    max_length: Annotated[int, Field(gt=0), Text(
        "Longest prompt and answer together.", "提示与回答合计的最大长度。", level="expert",
        no_effect=("max_new_tokens is the limit", "以 max_new_tokens 为准"), free_on_resume=True)] = 1024
    skip_special_tokens: Annotated[bool, Text(
        "Leave special tokens out of what is shown.", "显示时去掉特殊 token。", level="expert",
        not_offered=("answers are shown without special tokens", "显示的回答总是不含特殊 token"),
        free_on_resume=True)] = True

    predict_with_generate: Annotated[bool, Text(
        "After the last step, let the model answer the evaluation data, and compare what it says with the data's "
        "answers (ROUGE-1, ROUGE-2, ROUGE-L, BLEU-4). Needs the extra `metrics`.",
        "最后一步之后让模型回答评估数据，并与数据中的回答比较（ROUGE-1、ROUGE-2、ROUGE-L、BLEU-4）。需要安装附加包 "
        "`metrics`。", speed="down",
        higher=("answers to read in generated_predictions.jsonl, and scores; writing them takes its time",
                "有 generated_predictions.jsonl 里的回答和分数；生成需要时间"),
        lower=("an evaluation measures the loss alone", "评估只测损失"), free_on_resume=True)] = False
    generation_max_length: Annotated[int | None, Field(gt=0), Text(
        "Longest answer then. Unset: cutoff_len.", "此时回答的最大长度。不填同 cutoff_len。", level="expert",
        no_effect=("max_new_tokens is the limit", "以 max_new_tokens 为准"), free_on_resume=True)] = None
    generation_num_beams: Annotated[int | None, Field(gt=0), Text(
        "Beams then. Unset: num_beams.", "此时的 beam 数。不填同 num_beams。", level="expert",
        also={"eval_num_beams": None},
        not_offered=("answers are drawn one word after another, without a beam search", "逐词生成，不做 beam search"),
        free_on_resume=True)] = None
    generation_config: Annotated[str | None, Text(
        "A file with other settings of generation then. Unset: the model's.",
        "此时其他生成设置的文件。不填则用模型自己的。", level="expert",
        not_offered=("the generation options are taken (temperature, top_p and others)",
                     "采用生成选项（temperature、top_p 等）"), free_on_resume=True)] = None
    sortish_sampler: Annotated[bool, Text(
        "Draw rows of like length together then.", "此时把长度相近的行放在一起。", level="expert",
        no_effect=("prompts of like length are always answered together", "长度相近的提示总是一起回答"),
        free_on_resume=True)] = False
