"""How fast `truetune api` answers many people at once, and what it withstands.

    python benchmarks/serve.py speed [--llamafactory PATH/llamafactory-cli] [--model M] [--clients 8] [--rounds 3]

starts both servers on this machine with the same model and asks them in turn, a round each: `clients` people at once,
each with one question after another, streamed, greedy, `--tokens` long at most. It prints for each server the median
over rounds of all tokens a second (counted by one tokenizer), and of the time to the first word. One client alone is
measured too.

    python benchmarks/serve.py endure [--model M] [--requests 1000]

asks one server whole and half requests, some of which hang up on the way, some are no JSON, have no key or are far too
long, 16 at a time and in a fixed random order. It prints what was answered, how many places and waiting requests are
left at the end, whether the answer to one question is still what it was, and how the server's memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from truetune.model.find import find_model, load_tokenizer
from truetune.options.read import read_config

KEY = "benchmark"
QUESTIONS = [
    "Tell me a long story about a lighthouse.", "Explain how rain forms, step by step.",
    "What should a beginner know about baking bread?", "Describe a day in the life of a sailor.",
    "How does a bicycle stay upright?", "Write about the history of writing.",
    "Why is the sky blue? Explain in detail.",
    "Give advice to somebody who moves to a new city.", "What is a neural network? Explain at length.",
    "Describe the seasons in the far north.", "How are bridges built?", "Tell me about the life of bees.",
    "What makes a good friend? Write an essay.", "Explain the rules of chess.", "How does a clock work?",
    "Describe how a letter travels from one town to another.",
]


@dataclass(frozen=True)
class Server:
    name: str
    address: str
    process: subprocess.Popen

    @property
    def memory(self) -> float:
        """MB of the server and its children."""
        whole = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in [whole, *whole.children(recursive=True)]) / 1e6


@contextmanager
def serving(name: str, command: Sequence[str], **environment: str) -> Iterator[Server]:
    """A server of this command on a free port, ready to answer; ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {**os.environ, "API_PORT": port, "API_HOST": "127.0.0.1", "API_KEY": KEY, **environment}
    log = Path(f"serve-{name}.log").open("w", encoding="utf-8")  # noqa: SIM115  (it lives as long as the server)
    process = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
    server = Server(name, f"http://127.0.0.1:{port}", process)
    try:
        asyncio.run(_ready(server))
        yield server
    finally:
        process.terminate()
        process.wait(30)
        log.close()


async def _ready(server: Server) -> None:
    async with _client() as client:
        while server.process.poll() is None:
            try:
                async with client.get(f"{server.address}/v1/models") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise SystemExit(f"{server.name} has ended: see serve-{server.name}.log")


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"},
                                 timeout=aiohttp.ClientTimeout(total=900), connector=aiohttp.TCPConnector(limit=0))


def _asked(question: str, tokens: int, **more: object) -> dict[str, object]:
    return {"model": "model", "messages": [{"role": "user", "content": question}], "max_tokens": tokens,
            "temperature": 0, "stream": True, **more}


@dataclass
class Round:
    """What `clients` people at once were answered. text: every answer. first: seconds to each answer's first word."""

    seconds: float = 0.0
    text: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


async def ask_all(server: Server, questions: Sequence[str], clients: int, tokens: int, model: str) -> Round:
    result, waiting = Round(), iter(questions)

    async def person(client: aiohttp.ClientSession) -> None:
        for question in waiting:
            start, said, first = time.perf_counter(), [], None
            body = _asked(question, tokens) | {"model": model}
            async with client.post(f"{server.address}/v1/chat/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                async for line in answer.content:
                    word = _word(line)
                    if word:
                        first = first or time.perf_counter() - start
                        said.append(word)
            result.text.append("".join(said))
            result.first.append(first or float("nan"))

    async with _client() as client:
        start = time.perf_counter()
        await asyncio.gather(*(person(client) for _ in range(clients)))
        result.seconds = time.perf_counter() - start
    return result


def _word(line: bytes) -> str:
    """The text in one line of a stream."""
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


async def _served_name(server: Server) -> str:
    async with _client() as client, client.get(f"{server.address}/v1/models") as answer:
        return (await answer.json())["data"][0]["id"]


def speed(args: argparse.Namespace) -> None:
    folder = find_model(args.model, read_config([])[0], print)
    tokenizer = load_tokenizer(folder)
    ours = [sys.executable, "-m", "truetune", "api", f"model_name_or_path={args.model}", *args.set]
    with serving("truetune", ours) as first:
        if not args.llamafactory:
            return _race([first], args, tokenizer)
        theirs = [args.llamafactory, "api", "--model_name_or_path", str(folder), "--template", args.template,
                  "--infer_dtype", args.their_dtype]
        with serving("llamafactory", theirs, DISABLE_VERSION_CHECK="1", MAX_CONCURRENT=args.their_concurrent) as second:
            _race([first, second], args, tokenizer)


def _race(servers: Sequence[Server], args: argparse.Namespace, tokenizer) -> None:
    for clients in dict.fromkeys((1, args.clients)):
        rates: dict[str, list[float]] = {server.name: [] for server in servers}
        firsts: dict[str, list[float]] = {server.name: [] for server in servers}
        for number in range(args.rounds + 1):  # the first round warms up and does not count
            for server in servers:
                name = asyncio.run(_served_name(server))
                count = clients if number == 0 else max(2, clients * args.each)
                questions = (QUESTIONS * 8)[:count]
                result = asyncio.run(ask_all(server, questions, clients, args.tokens, name))
                if number:
                    tokens = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in result.text)
                    rates[server.name].append(tokens / result.seconds)
                    firsts[server.name].append(statistics.median(result.first))
        for server in servers:
            rate, first = rates[server.name], firsts[server.name]
            print(f"{server.name:<14} {clients} at once: {statistics.median(rate):7.1f} tokens/s "
                  f"({min(rate):.1f} to {max(rate):.1f}), first word after {statistics.median(first):.2f} s "
                  f"({min(first):.2f} to {max(first):.2f}), {server.memory:,.0f} MB", flush=True)


async def _endure(server: Server, count: int, size: int, seed: int) -> Counter[str]:
    """Send `count` requests of many kinds, 16 at a time; what became of them."""
    dice, told, gate = random.Random(seed), Counter(), asyncio.Semaphore(16)
    url, name = f"{server.address}/v1/chat/completions", await _served_name(server)

    async def whole(client: aiohttp.ClientSession, stream: bool) -> str:
        async with client.post(url, json=_asked(dice.choice(QUESTIONS), 12, stream=stream, model=name)) as answer:
            body = await answer.read()
            complete = answer.status != 200 or (b"[DONE]" in body if stream else b'"finish_reason"' in body)
            return f"answered {answer.status}" if complete else "lost"

    async def hangs_up(client: aiohttp.ClientSession, stream: bool) -> str:
        try:
            async with asyncio.timeout(dice.uniform(0.01, 0.6)):
                async with client.post(url, json=_asked(dice.choice(QUESTIONS), 200, stream=stream, model=name)) as it:
                    await it.read()
        except TimeoutError:
            return "hung up"
        return "answered before it hung up"

    async def refused(client: aiohttp.ClientSession, kind: str) -> str:
        body, headers = {
            "no JSON": (b'{"model": "m", "messages": [{"role"', {}),
            "no messages": (b'{"model": "m"}', {}),
            "too long": (json.dumps(_asked("word " * 20_000, 4, model=name)).encode(), {}),
            "too large": (b"[" * size, {}),
            "no key": (json.dumps(_asked("Hi", 4)).encode(), {"Authorization": "Bearer no"}),
            "other model": (json.dumps(_asked("Hi", 4, model="nobody")).encode(), {}),
        }[kind]
        async with client.post(url, data=body, headers={"Content-Type": "application/json", **headers}) as answer:
            await answer.read()
            return f"{kind}: {answer.status}"

    async def half() -> str:
        """A request whose body never comes."""
        host, port = server.address.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer benchmark\r\n"
                     b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"model\":")
        await writer.drain()
        await asyncio.sleep(dice.uniform(0, 0.5))
        writer.close()
        return "half a request"

    async def one(client: aiohttp.ClientSession) -> None:
        async with gate:
            kind = dice.random()
            try:
                if kind < 0.45:
                    told[await whole(client, dice.random() < 0.5)] += 1
                elif kind < 0.75:
                    told[await hangs_up(client, dice.random() < 0.7)] += 1
                elif kind < 0.95:
                    told[await refused(client, dice.choice(
                        ["no JSON", "no messages", "too long", "too large", "no key", "other model"]))] += 1
                else:
                    told[await half()] += 1
            except aiohttp.ClientError as error:
                told[f"connection: {type(error).__name__}"] += 1

    async with _client() as client:
        await asyncio.gather(*(one(client) for _ in range(count)))
    return told


async def _answer(server: Server) -> str:
    async with _client() as client:
        body = _asked(QUESTIONS[0], 24, stream=False, model=await _served_name(server))
        async with client.post(f"{server.address}/v1/chat/completions", json=body) as answer:
            return (await answer.json())["choices"][0]["message"]["content"]


async def _gauges(server: Server) -> list[str]:
    async with _client() as client, client.get(f"{server.address}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return [line for line in lines if not line.startswith("#") and ("running" in line or "waiting" in line)]


def endure(args: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "truetune", "api", f"model_name_or_path={args.model}", *args.set]
    with serving("truetune", command) as server:
        before, memory = asyncio.run(_answer(server)), []
        for part in range(5):
            told = asyncio.run(_endure(server, args.requests // 5, 5_000_000, part))
            time.sleep(1)
            memory.append(server.memory)
            print(f"part {part + 1}: {dict(sorted(told.items()))}; {memory[-1]:,.0f} MB", flush=True)
        print("left over:", *asyncio.run(_gauges(server)), sep="\n  ")
        after = asyncio.run(_answer(server))
        print(f"the same answer as before: {before == after}")
        print(f"memory after each fifth: {', '.join(f'{each:,.0f}' for each in memory)} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "endure"])
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--llamafactory", help="its command, of an environment of its own")
    parser.add_argument("--template", default="smollm2", help="LLaMA-Factory's name of the model's template")
    parser.add_argument("--their-dtype", default="auto")
    parser.add_argument("--their-concurrent", default="1", help="LLaMA-Factory's MAX_CONCURRENT")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--each", type=int, default=2, help="questions of each client a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="further options of truetune")
    args = parser.parse_args()
    {"speed": speed, "endure": endure}[args.what](args)


if __name__ == "__main__":
    main()
