"""Verbs of the data: `data build` tokenises them, `data show` shows rows, `data diff` compares two of them."""

from __future__ import annotations

import json
from pathlib import Path

from truetune.cli.words import configure, open_terminal, show, take, take_count, take_flag
from truetune.findings import FAILED, OK, WRONG_OPTIONS, Both, Problem, problem, status_of, worst_first


def run_build(words: list[str], chinese: bool) -> int:
    """Tokenise the data sets, or find them tokenised."""
    config, findings = configure(words, "data")
    from truetune.look.show import build

    terminal = open_terminal(chinese)
    show(worst_first([*findings, *build(config, terminal)]), terminal)
    return OK


def run_show(words: list[str], chinese: bool) -> int:
    """Show the first rows as they are trained on: in words, as JSON or as a page. What cannot be is told as a finding,
    so that the JSON has one shape."""
    ids, as_json = take_flag(words, "--ids"), take_flag(words, "--json")
    count, place, html = take_count(words, "-n"), take(words, "--row"), take(words, "--html")
    terminal = open_terminal(chinese, stderr=as_json)
    shown, findings, exit_status = {}, [], OK
    try:
        config, findings = configure(words, "data")
        from truetune.look.show import look, print_view

        view, found = look(config, count or 3, place, terminal.say)
        findings = worst_first([*findings, *found])
        exit_status = FAILED if status_of(findings) == "error" else OK
        shown = view.as_dict()
        if html:
            from truetune.look.page import write_page

            write_page(view, Path(html), chinese)
        if not as_json and not html:
            print_view(view, terminal, ids)
    except Problem as error:
        findings, exit_status = worst_first([*findings, *error.findings]), error.status
    if as_json:
        told = [finding.as_dict() for finding in findings]
        print(json.dumps({"status": status_of(findings), "findings": told, **shown}, ensure_ascii=False))
    else:
        show(findings, terminal if exit_status == OK else open_terminal(chinese, stderr=True))
        if html and shown:
            terminal.say(Both(f"written to {html}", f"已写入 {html}"))
    return exit_status


def run_diff(words: list[str], chinese: bool) -> int:
    """Tell what differs between A and B."""
    if len(words) < 2 or any(word.startswith("-") or "=" in word for word in words[:2]):
        raise problem("two-needed", Both("two things to compare are needed.", "需要两个比较对象。"), option="data diff",
                      status=WRONG_OPTIONS,
                      fix=Both("truetune data diff A B, each a run.yaml, a run folder or a folder of token stores.",
                               "用法：truetune data diff A B，各为 run.yaml、运行文件夹或分词结果文件夹。"))
    from truetune.look.compare import diff

    return diff(words[0], words[1], words[2:], lambda given: configure(given, "data")[0], open_terminal(chinese))
