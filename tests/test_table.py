from __future__ import annotations

import pytest

from vlsafe.errors import ConfigError
from vlsafe.table import Table


def fruit() -> Table:
    return Table("fruit", apple=1, pear="collections:OrderedDict")


def test_a_part_is_imported_when_it_is_asked_for() -> None:
    from collections import OrderedDict

    table = Table("fruit", pear="collections:OrderedDict", broken="no.such.module:thing")
    assert table["pear"] is OrderedDict
    assert "broken" in table  # listing and asking for membership import nothing
    assert table.names() == ["broken", "pear"]
    with pytest.raises(ModuleNotFoundError):
        table["broken"]


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ConfigError) as caught:
        fruit()["aple"]
    assert str(caught.value) == "unknown fruit 'aple'. Did you mean 'apple'? Valid names: apple, pear"


def test_a_name_like_no_other_gets_the_list_only() -> None:
    with pytest.raises(ConfigError, match=r"^unknown fruit 'zzz'\. Valid names: apple, pear$"):
        fruit()["zzz"]


def test_names_are_exact_not_prefixes() -> None:
    assert "app" not in fruit()
    with pytest.raises(ConfigError):
        fruit()["Apple"]


def test_a_taken_name_is_refused_and_the_first_part_stays() -> None:
    table = fruit()
    with pytest.raises(ConfigError, match="'apple' is already registered"):
        table.add("apple", 2)
    assert table["apple"] == 1
    table.add("plum", 3)
    assert list(table) == ["apple", "pear", "plum"]


def test_many_problems_are_listed_once_and_cut() -> None:
    assert str(ConfigError(["one"])) == "one"
    assert str(ConfigError(["one", "two"])) == "2 problems:\n  - one\n  - two"
    assert str(ConfigError([str(number) for number in range(23)])).endswith("\n  - 19\n  ... and 3 more")
