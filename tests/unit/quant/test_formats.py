"""Names of weight formats."""

from __future__ import annotations

import pytest

from penstock.core.errors import UserError
from penstock.engine.quant.formats import INT4, INT8, NAMES, WeightFormat, parse_format


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert parse_format(name).name == name


def test_what_names_stand_for() -> None:
    assert parse_format("int8") == INT8 == WeightFormat(8, 32)
    assert parse_format("int4-g32") == INT4
    assert parse_format("int8-channel") == WeightFormat(8, None)
    assert parse_format("int4-g128-asym") == WeightFormat(4, 128, asymmetrical=True)


@pytest.mark.parametrize("name", ["int5", "int4-g100", "int4-asym-g128", "INT4", "int4-", ""])
def test_an_unknown_name_is_told_what_there_is(name: str) -> None:
    with pytest.raises(UserError, match="unknown weight format") as error:
        parse_format(name)
    assert "int8 or int4" in str(error.value.hint)


def test_a_near_miss_is_told_the_name() -> None:
    with pytest.raises(UserError) as error:
        parse_format("int4g128")
    assert "did you mean 'int4-g128'?" in str(error.value.hint)
