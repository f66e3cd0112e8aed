"""Several data sets made one: the same mixtures as `datasets.interleave_datasets` makes, as row numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truetune.data.mix import hold_out, mix_indices, mix_streams, sample_indices
from truetune.findings import Problem

STOPS: dict[str, Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]] = {
    "interleave_under": "first_exhausted", "interleave_over": "all_exhausted",
    "interleave_once": "all_exhausted_without_replacement",
}
Pairs = list[tuple[int, int]]


def mixed(sizes: Sequence[int], strategy: str, probs: Sequence[float] = (), seed: int = 0) -> Pairs:
    picks = mix_indices(sizes, strategy, probs, seed)
    assert picks.shape == (len(picks), 2) and picks.dtype == np.int64
    return [(int(source), int(row)) for source, row in picks]


def streamed(sizes: Sequence[int], strategy: str, probs: Sequence[float] = (), seed: int = 0) -> Pairs:
    streams = [partial(lambda source, size: iter([(source, row) for row in range(size)]), source, size)
               for source, size in enumerate(sizes)]
    return list(mix_streams(streams, strategy, probs, seed))


def of_datasets(sizes: Sequence[int], strategy: str, probs: Sequence[float] = (), seed: int = 0) -> Pairs:
    """What the library itself makes."""
    from datasets import Dataset, interleave_datasets

    sets = [Dataset.from_dict({"source": [source] * size, "row": range(size)}) for source, size in enumerate(sizes)]
    whole = interleave_datasets(sets, probabilities=list(probs) or None, seed=seed, stopping_strategy=STOPS[strategy])
    return list(zip(whole["source"], whole["row"], strict=True))


@pytest.mark.parametrize("make", [mixed, streamed])
def test_by_hand(make: Callable[..., Pairs]) -> None:
    """Sets of two rows and of three: each strategy as its words say."""
    turns = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert make([2, 3], "concat") == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert make([2, 3], "interleave_under") == turns
    assert make([2, 3], "interleave_over") == [*turns, (0, 0), (1, 2)]
    assert make([2, 3], "interleave_once") == [*turns, (1, 2)]


@pytest.mark.parametrize("strategy", STOPS)
@pytest.mark.parametrize("sizes", [[2, 3], [3, 2], [1, 1, 1], [5, 1, 3], [4], [7, 20, 2]], ids=str)
def test_in_turn_as_datasets_does(strategy: str, sizes: list[int]) -> None:
    """Without probabilities: the same rows in the same order, from data sets and from streams."""
    assert mixed(sizes, strategy) == streamed(sizes, strategy) == of_datasets(sizes, strategy)


@pytest.mark.parametrize("strategy", STOPS)
@pytest.mark.parametrize(("sizes", "probs"), [([40, 15, 60], [0.5, 0.2, 0.3]), ([9, 2000], [0.25, 0.75])], ids=str)
def test_drawn_as_datasets_does(strategy: str, sizes: list[int], probs: list[float]) -> None:
    """With probabilities too, draw for draw: the same numpy generator, seeded alike."""
    for seed in (0, 1, 42):
        pairs = mixed(sizes, strategy, probs, seed)
        assert pairs == streamed(sizes, strategy, probs, seed) == of_datasets(sizes, strategy, probs, seed)


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=st.integers(0, 99), data=st.data())
def test_every_row_that_should_come(sizes: list[int], seed: int, data: st.DataObject) -> None:
    """once: every row exactly once. over: every row at least once. under: none twice, and one set whole."""
    probs = data.draw(st.just([]) | st.lists(st.floats(0.1, 3), min_size=len(sizes), max_size=len(sizes)))
    every = {(source, row) for source, size in enumerate(sizes) for row in range(size)}
    for make in (mixed, streamed):
        assert sorted(make(sizes, "interleave_once", probs, seed)) == sorted(every)
        assert set(make(sizes, "interleave_over", probs, seed)) == every
        under = make(sizes, "interleave_under", probs, seed)
        assert len(under) == len(set(under)) and set(under) <= every
        assert any(set((source, row) for row in range(size)) <= set(under) for source, size in enumerate(sizes))
        assert make(sizes, "concat", probs, seed) == sorted(every)


def test_what_is_never_drawn() -> None:
    """A set of probability 0 gives no row and is not waited for."""
    for make in (mixed, streamed):
        for strategy in STOPS:
            assert {source for source, _ in make([3, 4, 2], strategy, [1, 0, 1])} == {0, 2}


def test_seed_and_scale() -> None:
    """The same seed draws the same, another one otherwise; 1 and 3 mean 0.25 and 0.75."""
    one = mixed([50, 50], "interleave_under", [1, 3], 1)
    assert one == mixed([50, 50], "interleave_under", [0.25, 0.75], 1)
    assert one != mixed([50, 50], "interleave_under", [1, 3], 2)
    assert streamed([50, 50], "interleave_under", [1, 3], 1) == streamed([50, 50], "interleave_under", [1, 3], 1)


def test_endless_streams() -> None:
    """Nothing is read but what is asked for, and one row ahead."""
    read: list[int] = []

    def numbers(source: int) -> Iterator[int]:
        while True:
            read.append(source)
            yield source

    streams = [partial(numbers, 0), partial(numbers, 1)]
    first = list(islice(mix_streams(streams, "interleave_over", [0.9, 0.1], 0), 2000))
    assert 1700 < first.count(0) < 1900
    assert len(read) <= 2002


def test_a_million_rows_quickly() -> None:
    """Two seconds are plenty (0.1 to 0.4 where this was written)."""
    for strategy in ("concat", *STOPS):
        for probs in ([], [0.6, 0.3, 0.1]):
            began = time.process_time()
            assert len(mix_indices([400_000, 350_000, 250_000], strategy, probs, 0)) > 400_000
            assert time.process_time() - began < 4


def test_samples() -> None:
    """num_samples draws by seed, each row once before any comes again; max_samples keeps the first."""
    assert sample_indices(10, None, None, 0).tolist() == list(range(10))
    assert sample_indices(10, None, 3, 0).tolist() == [0, 1, 2]
    four = sample_indices(10, 4, None, 1)
    assert len(set(four.tolist())) == 4 and four.tolist() == sample_indices(10, 4, None, 1).tolist()
    assert four.tolist() != sample_indices(10, 4, None, 2).tolist()
    more = sample_indices(10, 25, None, 0).tolist()
    assert len(more) == 25 and set(more[:10]) == set(range(10)) and set(more) == set(range(10))
    assert sample_indices(10, 25, 2, 0).tolist() == more[:2]
    assert sample_indices(0, 5, None, 0).tolist() == []


def test_hold_out() -> None:
    """A share or a number; drawn by seed; every row on exactly one side, in order. What leaves a side empty is
    refused."""
    for val_size, count in ((0.25, 5), (3, 3), (1, 1), (0.05, 1), (19, 19)):
        train, held_out = hold_out(20, val_size, 0)
        assert (len(train), len(held_out)) == (20 - count, count)
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(20))
        assert all(side.tolist() == sorted(side.tolist()) for side in (train, held_out))
    assert hold_out(20, 5, 1)[1].tolist() == hold_out(20, 5, 1)[1].tolist() != hold_out(20, 5, 2)[1].tolist()
    for val_size in (20, 50, 0.01, 0.99, 2.5):  # 0.01 of 20 rows is none; 0.99 is all
        with pytest.raises(Problem) as caught:
            hold_out(20, val_size, 0)
        (finding,) = caught.value.findings
        assert finding.option == "val_size" and f"{val_size:g} of 20 rows" in str(finding.message)
