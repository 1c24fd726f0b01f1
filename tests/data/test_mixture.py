"""The order of samples: exact shares, whole passes, nothing that depends on who asks or when."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlsafe.data.mixture import Mixture, Part
from vlsafe.errors import ConfigError


def shared(weights: list[int], samples: int = 1000, size: int = 7, seed: int = 0) -> Mixture:
    """Parts p0, p1, ... whose shares are ``weights`` in thousandths."""
    parts = {f"p{i}": Part("alpaca:x", share=weight / 1000) for i, weight in enumerate(weights)}
    return Mixture(parts, dict.fromkeys(parts, size), samples, seed)


def counted(count: int, size: int, seed: int = 0, name: str = "a") -> Mixture:
    return Mixture({name: Part("alpaca:x", count=count)}, {name: size}, None, seed)


def records(mixture: Mixture, part: str, steps: range) -> list[int]:
    return [record for name, record in map(mixture.at, steps) if name == part]


@st.composite
def thousandths(draw: st.DrawFn) -> list[int]:
    """1 to 6 weights that sum to 1000; zeros among them."""
    cuts = sorted(draw(st.lists(st.integers(0, 1000), max_size=5)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, 1000], strict=True)]


# --- shares


@settings(deadline=None, max_examples=25)
@given(weights=thousandths(), seed=st.integers(0, 2**31))
def test_after_any_number_of_samples_each_part_is_within_one_of_its_share(weights: list[int], seed: int) -> None:
    mixture = shared(weights, seed=seed)
    counts = dict.fromkeys(mixture.names, 0)
    for n in range(1, 1051):
        counts[mixture.at(n - 1)[0]] += 1
        for name, weight in zip(mixture.names, weights, strict=True):
            assert abs(counts[name] - Fraction(weight * n, 1000)) < 1
        if n % 350 == 0:
            assert mixture.counts(n) == counts


def test_the_worked_example() -> None:
    mixture = shared([500, 250, 250], samples=8)
    order = "".join(mixture.at(step)[0][1] for step in range(8))
    assert order == "01200120"
    assert mixture.counts() == {"p0": 4, "p1": 2, "p2": 2}


def test_one_part_has_everything_and_a_share_of_zero_has_nothing() -> None:
    assert {shared([1000]).at(k)[0] for k in range(20)} == {"p0"}
    assert {shared([0, 1000]).at(k)[0] for k in range(20)} == {"p1"}


def test_a_share_of_many_digits_needs_no_table_of_its_whole_period() -> None:
    parts = {"a": Part("alpaca:x", share=0.333333333), "b": Part("alpaca:x", share=0.666666667)}
    mixture = Mixture(parts, {"a": 5, "b": 5}, 300, 0)
    assert mixture.counts() == {"a": 100, "b": 200}


def test_thirds_that_python_divided_are_thirds() -> None:
    parts = {name: Part("alpaca:x", share=1 / 3) for name in "abc"}
    assert Mixture(parts, dict.fromkeys("abc", 5), 9, 0).counts() == {"a": 3, "b": 3, "c": 3}


# --- records


def test_each_pass_over_a_part_is_another_permutation_of_it() -> None:
    mixture = shared([600, 400], size=5)
    seen = records(mixture, "p0", range(50))
    passes = [seen[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_a_count_is_one_subset_without_replacement_and_the_same_in_every_pass() -> None:
    mixture = counted(6, 100)
    first, second = (sorted(records(mixture, "a", range(k, k + 6))) for k in (0, 6))
    assert first == second
    assert len(set(first)) == 6
    assert first != sorted(records(counted(6, 100, seed=1), "a", range(6)))


def test_a_count_of_everything_is_everything() -> None:
    assert sorted(records(counted(9, 9), "a", range(9))) == list(range(9))


def test_repeat_is_whole_passes_and_counts_decide_the_length() -> None:
    parts = {"a": Part("alpaca:x", repeat=3), "b": Part("alpaca:x", count=4)}
    mixture = Mixture(parts, {"a": 5, "b": 10}, None, 0)
    assert len(mixture) == 19
    seen = records(mixture, "a", range(19))
    assert [seen.count(i) for i in range(5)] == [3] * 5
    assert len(set(records(mixture, "b", range(19)))) == 4


def test_a_share_beside_counts_adds_to_them() -> None:
    parts = {"safety": Part("alpaca:x", share=0.25), "a": Part("alpaca:x", count=60), "b": Part("alpaca:x", repeat=1)}
    mixture = Mixture(parts, {"safety": 3, "a": 100, "b": 30}, None, 0)
    assert mixture.counts() == {"safety": 30, "a": 60, "b": 30}


def test_a_count_of_zero_is_the_mixture_without_the_part() -> None:
    parts = {"safety": Part("alpaca:x", count=0), "helpful": Part("alpaca:x", count=6)}
    with_zero = Mixture(parts, {"safety": 5, "helpful": 10}, None, 0)
    assert with_zero.counts() == {"safety": 0, "helpful": 6}
    without = Mixture({"helpful": parts["helpful"]}, {"helpful": 10}, None, 0)
    assert [with_zero.at(k) for k in range(20)] == [without.at(k) for k in range(20)]


def test_a_planned_mixture_draws_from_its_pools_as_the_first_one_did() -> None:
    parts = {"a": Part("alpaca:x", count=5), "b": Part("alpaca:x", share=0.4)}
    mixture = Mixture(parts, {"a": 30, "b": 7}, None, 3)
    pools = {name: len(pool) for name, pool in mixture.pools.items()}
    again = Mixture.planned(mixture.weights, pools, mixture.samples, 3)
    for step in range(60):
        name, record = mixture.at(step)
        assert again.at(step)[0] == name and mixture.pools[name][again.at(step)[1]] == record


# --- shares of tokens


@settings(deadline=None, max_examples=25)
@given(
    weights=thousandths(),
    means=st.lists(st.fractions(min_value=1, max_value=300, max_denominator=50), min_size=6, max_size=6),
)
def test_tokens_come_in_their_shares(weights: list[int], means: list[Fraction]) -> None:
    parts = {f"p{i}": Part("alpaca:x", share=weight / 1000) for i, weight in enumerate(weights)}
    mean = dict(zip(parts, means, strict=False))
    mixture = Mixture(parts, dict.fromkeys(parts, 7), 5000, 0, mean)
    tokens = {name: count * mean[name] for name, count in mixture.counts().items()}
    for name, weight in zip(parts, weights, strict=True):  # within a sample of the part and of the others
        assert abs(tokens[name] - Fraction(weight, 1000) * sum(tokens.values())) <= 2 * max(mean.values()) * len(parts)


def test_a_share_of_tokens_beside_a_count() -> None:
    parts = {"short": Part("alpaca:x", share=0.5), "long": Part("alpaca:x", count=10)}
    mixture = Mixture(parts, {"short": 100, "long": 10}, None, 0, {"short": Fraction(5), "long": Fraction(20)})
    assert mixture.counts() == {"short": 40, "long": 10}  # 200 tokens each


# --- a pure function


def test_any_order_of_asking_and_any_neighbour_give_the_same_samples() -> None:
    alone = [shared([300, 700], seed=1).at(k) for k in range(200)]
    one, other = shared([300, 700], seed=1), shared([300, 700], seed=2)
    interleaved = [(one.at(k), other.at(k))[0] for k in range(200)]
    backwards = [shared([300, 700], seed=1).at(k) for k in reversed(range(200))][::-1]
    assert interleaved == backwards == alone
    assert [other.at(k) for k in range(200)] != alone


# --- errors


@pytest.mark.parametrize(
    ("parts", "samples", "words"),
    [
        ({}, 10, "data.parts is empty: name at least one part"),
        (
            {"a": Part("x:y", share=0.5), "b": Part("x:y", share=0.4)},
            10,
            "the shares sum to 0.9, not 1: a 0.5 + b 0.4",
        ),
        (
            {"a": Part("x:y", share=1)},
            None,
            "all parts have a share, so data.samples must say how many samples to draw",
        ),
        ({"a": Part("x:y")}, None, "part 'a': give exactly one of share, count, repeat (given: none)"),
        (
            {"a": Part("x:y", share=0.5, count=3)},
            None,
            "part 'a': give exactly one of share, count, repeat (given: ['share', 'count'])",
        ),
        ({"a": Part("x:y", share=1.5)}, 10, "part 'a': share 1.5 is not between 0 and 1"),
        ({"a": Part("x:y", share=float("nan"))}, 10, "part 'a': share nan is not between 0 and 1"),
        (
            {"a": Part("x:y", count=-1)},
            None,
            "part 'a': count must be at least 0, repeat at least 1",
        ),
        (
            {"a": Part("x:y", count=0), "b": Part("x:y", share=0.5)},
            None,
            "every counted part has count 0, which leaves nothing to draw",
        ),
        ({"a": Part("x:y", share=1)}, 0, "data.samples is 0, must be at least 1"),
        (
            {"a": Part("x:y", share=1.0), "b": Part("x:y", count=1)},
            None,
            "the shares already sum to 1.0; nothing is left for the counted parts",
        ),
        (
            {"a": Part("x:y", count=1)},
            10,
            "data.samples cannot be given beside count or repeat: the counts already decide it",
        ),
        ({"a": Part("x:y", count=8)}, None, "part 'a': count 8 is more than the 7 records of its source"),
    ],
)
def test_what_is_wrong_with_the_amounts(parts: dict[str, Part], samples: int | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mixture(parts, dict.fromkeys(parts, 7), samples, 0)
    assert str(caught.value) == words


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="part 'a': its source holds no records"):
        Mixture({"a": Part("x:y", share=1)}, {"a": 0}, 10, 0)


def test_several_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Mixture({"a": Part("x:y"), "b": Part("x:y", share=2)}, {"a": 1, "b": 1}, None, 0)
    assert str(caught.value).startswith("2 problems:\n  - part 'a'")
