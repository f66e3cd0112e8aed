"""Tokens and passwords are never written down: not in a run folder, not on a page."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Truetune, options, write_rows

from truetune.options import OPTIONS
from truetune.options.read import read_config
from truetune.run import describe

SECRET = "hf_thisIsNobodysToken"


def test_what_looks_like_a_secret_is_one():
    """A new option with a token, a key or a password has to say so."""
    named = {name for name in OPTIONS if name.endswith(("_token", "api_key", "_secret", "_webhook_url", "_password"))}
    assert named == {name for name, option in OPTIONS.items() if option.text.secret}


def test_config_yaml_names_it_and_keeps_it_out():
    config, findings = read_config([f"hub_token={SECRET}", "seed=3"])
    assert not findings
    text = describe(config)
    assert SECRET not in text
    assert "# hub_token: not written down" in text
    assert "seed: 3  # command line" in text


def test_no_file_of_a_run_holds_it(truetune: Truetune, tiny: Path, tmp_path: Path):
    """Typed in each of the ways, the token is in no file that the run has written."""
    write_rows(tmp_path / "rows.json", 4)
    done = truetune("train", *options(model_name_or_path=tiny, dataset="rows.json", output_dir="out", max_steps=1,
                                      before_after="false", hub_token=SECRET),
                    "--hf_hub_token", SECRET, f"ms_hub_token={SECRET}")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path
    command = json.loads((tmp_path / "out" / "environment.json").read_text(encoding="utf-8"))["command"]
    assert "--hub_token=…" in command and command[command.index("--hf_hub_token") + 1] == "…"
