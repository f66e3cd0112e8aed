"""What the API answers, by OpenAI's own client over a real server."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truetune.model.find import load_tokenizer
from truetune.model.load import load_model

from .server import CLOCK, CPU, HELLO, PARIS, ROME, WEATHER, Api, ask, running, streamed


def test_models_are_the_base_and_each_adapter(api: Api) -> None:
    assert [model.id for model in api.client.models.list()] == ["taught", "other"]
    assert api.client.models.retrieve("other").object == "model"
    assert ask(api, "Say hello.").choices[0].message.content == "Hello! 你好 🙂"
    assert ask(api, "Say hello.", model="other").choices[0].message.content != "Hello! 你好 🙂"
    assert ask(api, "Say hello.").choices[0].message.content == "Hello! 你好 🙂"


def test_an_answer_whole_and_streamed(api: Api) -> None:
    """The same text; letters are never cut in two; usage counts the tokens of the prompt that the renderer makes."""
    whole = ask(api, "Say hello.")
    assert whole.object == "chat.completion" and whole.choices[0].finish_reason == "stop" and whole.model == "taught"
    assert api.served.engine
    prompt = api.served.engine.prompt([{"role": "user", "content": "Say hello."}])
    assert whole.usage.prompt_tokens == len(prompt)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    said, chunks = streamed(api, "Say hello.", stream_options={"include_usage": True})
    assert said == {"content": "Hello! 你好 🙂", "thought": "", "calls": [], "finish": "stop"}
    assert chunks[0].choices[0].delta.role == "assistant" and "\ufffd" not in str(chunks)
    assert not chunks[-1].choices and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1]) and len({chunk.id for chunk in chunks}) == 1
    assert streamed(api, "Say hello.")[1][-1].choices[0].finish_reason == "stop"  # usage only where it is asked for


def test_a_thought_is_told_apart(api: Api) -> None:
    """As reasoning_content; an empty one not at all; and where thinking is switched off the prompt closes it."""
    message = ask(api, "One and one?").choices[0].message
    assert (message.content, message.reasoning_content) == ("Two.", "I add.")
    said, _ = streamed(api, "One and one?")
    assert (said["content"], said["thought"]) == ("Two.", "I add.")
    assert "reasoning_content" not in ask(api, "Say hello.").choices[0].message.model_dump()
    off = ask(api, "One and one?", extra_body={"enable_thinking": False})
    same = ask(api, "One and one?", extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert off.usage.prompt_tokens == same.usage.prompt_tokens > ask(api, "One and one?").usage.prompt_tokens


def test_tools_are_called(api: Api) -> None:
    """With text before the call, and several in parallel; streamed with index, id, name and arguments; and the results
    are read."""
    (choice,) = ask(api, "Weather in Paris?", tools=[WEATHER]).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content == "I will look."
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "get_weather", PARIS)
    assert streamed(api, "Weather in Paris?", tools=[WEATHER])[0] == {
        "content": "I will look.", "thought": "", "calls": [["get_weather", '{"city": "Paris"}']],
        "finish": "tool_calls"}

    both = ask(api, "Paris and Rome?", tools=[WEATHER]).choices[0].message
    assert [json.loads(call.function.arguments) for call in both.tool_calls] == [PARIS, ROME] and both.content is None
    assert len({call.id for call in both.tool_calls}) == 2
    said, _ = streamed(api, "Paris and Rome?", tools=[WEATHER])
    assert said["calls"] == [["get_weather", json.dumps(city)] for city in (PARIS, ROME)]
    one, _ = streamed(api, "Paris and Rome?", tools=[WEATHER], parallel_tool_calls=False)
    assert one["calls"] == [["get_weather", json.dumps(PARIS)]] and one["finish"] == "tool_calls"

    results = [{"role": "tool", "tool_call_id": call.id, "content": said}
               for call, said in zip(both.tool_calls, ("sunny", "rainy"), strict=True)]
    talk = [{"role": "user", "content": "Paris and Rome?"}, both.model_dump(exclude_none=True), *results]
    assert ask(api, talk, tools=[WEATHER]).choices[0].message.content == "Sun, then rain."


def test_tool_choice(api: Api) -> None:
    """none: tools are not offered. A named one, or `required`: it is called, with arguments that its schema allows,
    whatever was asked."""
    assert ask(api, "Say hello.", tools=[WEATHER], tool_choice="none").usage.prompt_tokens == \
        ask(api, "Say hello.").usage.prompt_tokens
    named = {"type": "function", "function": {"name": "get_weather"}}
    (choice,) = ask(api, "Say hello.", tools=[CLOCK, WEATHER], tool_choice=named).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) in (PARIS, ROME)
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    said, chunks = streamed(api, "Say hello.", tools=[CLOCK, WEATHER], tool_choice="required")
    ((name, arguments),) = said["calls"]
    assert json.loads(arguments) in ([PARIS, ROME] if name == "get_weather" else [{}]) and len(chunks) > 4


def test_answers_of_a_given_form(api: Api) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    number = json.loads(ask(api, "One and one?", response_format=form).choices[0].message.content)
    assert list(number) == ["n"] and 1 <= number["n"] <= 9
    said, _ = streamed(api, "One and one?", response_format=form)
    assert 1 <= json.loads(said["content"])["n"] <= 9 and not said["thought"]
    some = ask(api, "Say hello.", response_format={"type": "json_object"}, max_tokens=40).choices[0]
    assert some.message.content.lstrip().startswith("{")


def test_several_answers_seeds_and_stops(api: Api) -> None:
    """n answers differ by their seeds and are the same again; streamed they come side by side. A stop text ends an
    answer and is not part of it; so does the limit."""
    draw: dict[str, Any] = {"n": 3, "seed": 5, "temperature": 8.0, "top_p": 1, "max_tokens": 8}
    draw["extra_body"] = {"do_sample": True, "top_k": 40}
    texts, again = ([choice.message.content for choice in ask(api, "Say hello.", **draw).choices] for _ in range(2))
    assert len(set(texts)) == 3 and again == texts
    together = ["", "", ""]
    for chunk in ask(api, "Say hello.", stream=True, **draw):
        for choice in chunk.choices:
            together[choice.index] += choice.delta.content or ""
    assert together == texts
    (stopped,) = ask(api, "Say hello.", stop="!").choices
    assert (stopped.message.content, stopped.finish_reason) == ("Hello", "stop")
    (cut,) = ask(api, "Say hello.", max_completion_tokens=8, extra_body={"enable_thinking": False}).choices
    assert cut.finish_reason == "length" and ask(api, "Say hello.", max_tokens=8).usage.completion_tokens == 8


def test_log_probabilities_are_the_models_own(api: Api) -> None:
    """Of every token that was said, as transformers computes them over prompt and answer."""
    assert api.served.engine
    engine, question = api.served.engine, [{"role": "user", "content": "Say hello."}]
    told = ask(api, "Say hello.", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    text = "".join(token.token for token in told if token.bytes)
    assert "Hello!" in text and all(len(token.top_logprobs) == 2 for token in told)
    halves = [token for token in told if "\ufffd" in token.token]
    assert halves and all(token.bytes is None for token in halves)
    prompt = engine.prompt(question)
    answer = engine.tokenizer.encode("<think>\n\n</think>\n\nHello! 你好 🙂", add_special_tokens=False)
    model = load_model(Path(engine.model.config._name_or_path), torch.float32, CPU)
    with torch.inference_mode():
        logp = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    theirs = [float(logp[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)]
    assert [token.logprob for token in told] == pytest.approx(theirs, abs=1e-3)
    chunks = streamed(api, "Say hello.", logprobs=True)[1]
    again = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.logprob for token in again] == pytest.approx(theirs, abs=1e-3)


def test_plain_completions(api: Api) -> None:
    """Text, ids, or several of them; special tokens in the text are special, so a rendered prompt is answered as chat
    answers it."""
    assert api.served.engine
    engine, create = api.served.engine, api.client.completions.create
    ids = engine.prompt([{"role": "user", "content": "Say hello."}])
    text = str(engine.tokenizer.decode(ids))
    assert create(model="taught", prompt=ids, max_tokens=40).choices[0].text == "<think>\n\n</think>\n\nHello! 你好 🙂"
    answer = create(model="taught", prompt=[text, text], logprobs=1, max_tokens=40)
    assert [choice.text for choice in answer.choices] == ["<think>\n\n</think>\n\nHello! 你好 🙂"] * 2
    assert answer.usage and answer.usage.prompt_tokens == 2 * len(ids) and answer.object == "text_completion"
    logprobs: Any = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert all(len(top) == 1 for top in logprobs.top_logprobs) and logprobs.text_offset[1] == len(logprobs.tokens[0])
    pieces = [chunk.choices[0].text for chunk in create(model="taught", prompt=text, stream=True) if chunk.choices]
    assert "".join(pieces) == answer.choices[0].text and len(pieces) > 5


def test_embeddings(api: Api) -> None:
    """The mean of the last hidden states at length 1, alone or among others, as numbers or in base64; an adapter's are
    other ones."""
    assert api.served.engine
    engine = api.served.engine
    texts = ["Say hello.", "你好 " * 40, "One"]
    ids = engine.encode(texts[0])
    vectors = np.array([one.embedding for one in api.client.embeddings.create(model="taught", input=texts).data])
    model: Any = load_model(Path(engine.model.config._name_or_path), torch.float32, CPU)
    with torch.inference_mode():
        mean = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors[0], torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    _, _, raw = api.post("/v1/embeddings", model="taught", input=ids, encoding_format="base64")
    np.testing.assert_allclose(np.frombuffer(b64decode(raw["data"][0]["embedding"]), "<f4"), vectors[0], atol=1e-6)
    assert raw["usage"] == {"prompt_tokens": len(ids), "total_tokens": len(ids)}
    other = api.client.embeddings.create(model="other", input=texts[0]).data[0].embedding
    assert float(np.dot(other, vectors[0])) < 0.999


def test_tokens_as_vllm_tells_them(api: Api) -> None:
    """/tokenize tells what a conversation is read as, the very tokens that the chat is charged for; /detokenize goes
    back."""
    told = api.post("/tokenize", messages=HELLO, return_token_strs=True)[2]
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"]) == len(told["special"])
    assert told["count"] == ask(api, "Say hello.").usage.prompt_tokens and told["max_model_len"] == 1024
    text = api.post("/detokenize", tokens=told["tokens"])[2]["prompt"]
    assert "".join(told["texts"]) == text and text.endswith("<|im_start|>assistant\n")
    assert told["special"][0] and told["texts"][0] == "<|im_start|>" and not told["special"][1]
    closed = api.post("/tokenize", messages=HELLO, add_generation_prompt=False)[2]
    assert "token_strs" not in closed and told["tokens"][: closed["count"]] == closed["tokens"]
    bare = api.post("/tokenize", prompt="Say hello.")[2]
    assert api.post("/detokenize", tokens=bare["tokens"])[2] == {"prompt": "Say hello."}
    offered = api.post("/tokenize", messages=HELLO, tools=[WEATHER])[2]
    assert "get_weather" in api.post("/detokenize", tokens=offered["tokens"])[2]["prompt"]


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/tokenize", {}, None), ("/tokenize", {"messages": HELLO, "prompt": "x"}, None),
    ("/tokenize", {"messages": HELLO, "model": "nobody"}, "model"),
    ("/tokenize", {"messages": [{}]}, "messages[0].role"),
    ("/detokenize", {"tokens": [10**9]}, "tokens"), ("/detokenize", {"tokens": "x"}, "tokens")])
def test_tokens_that_are_refused(api: Api, path: str, body: dict[str, Any], param: str | None) -> None:
    status, _, told = api.post(path, **body)
    assert 400 <= status < 500 and told["error"]["param"] == param


def test_an_adapter_is_asked_as_it_was_trained(taught: Path, adapter: Path, tmp_path: Path) -> None:
    """With the template that was saved with it, while the model beside it keeps its own."""
    own = tmp_path / "own"
    shutil.copytree(adapter, own)
    tokenizer = load_tokenizer(taught)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    tokenizer.save_pretrained(own)
    with running(taught, infer_adapters=json.dumps({"plain": str(own)}), api_model_name="taught") as api:
        texts = ["".join(api.post("/tokenize", messages=HELLO, model=name, return_token_strs=True)[2]["texts"])
                 for name in ("taught", "plain")]
        asked = [ask(api, "Say hello.", model=name, max_tokens=1).usage.prompt_tokens for name in ("taught", "plain")]
    assert texts[0].startswith("<|im_start|>") and texts[1] == "[Say hello.]" and asked[0] > asked[1]


def test_a_reward_model_scores_and_does_not_answer(taught: Path, tmp_path: Path) -> None:
    """The value head at the last token of each text, as it is; LLaMA-Factory's form of request and answer."""
    from truetune.model.value import write_value_head

    folder = tmp_path / "reward"
    shutil.copytree(taught, folder)
    torch.manual_seed(2)
    weight, bias = torch.randn(1, 96), torch.tensor([0.25])
    write_value_head(folder, {"v_head.summary.weight": weight, "v_head.summary.bias": bias})
    texts = ["<|im_start|>user\nSay hello.<|im_end|>\n", "Hello! 你好", "One"]
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32, CPU)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    with torch.inference_mode():
        last = [model.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in ids]
    with running(folder) as api:
        status, _, told = api.post("/v1/score/evaluation", model="any", messages=texts)
        assert status == 200 and told["object"] == "score.evaluation" and told["model"] == "any"
        assert told["scores"] == pytest.approx([float(weight @ state + bias) for state in last], abs=1e-4)
        _, _, cut = api.post("/v1/score/evaluation", model="any", messages=texts[:1], max_length=1)
        assert cut["scores"] != told["scores"][:1]
        assert api.post("/v1/score/evaluation", model="any", messages=["word " * 2000])[0] == 400
        assert api.post("/v1/chat/completions", messages=HELLO)[0] == 405
        assert api.post("/v1/embeddings", input="a")[0] == 405
