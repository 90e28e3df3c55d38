import ast
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.core.ranges import Range
from qpairs.objectives.expressions import defaults, parse, parse_call, parse_number


@dataclass(frozen=True)
class Recipe:
    parameters: dict[str, float] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)


RECIPES = {
    "soup": Recipe(
        {"salt": 0.5, "hours": 1.0, "bowls": 2}, {"hours": Range(above=0), "bowls": Range(at_least=0, at_most=9)}
    ),
    "toast": Recipe(),
}


def cook(expression):
    return parse(expression, "dish", "soup(salt=1)", lambda node: parse_call(node, "dish", RECIPES))


def node(text):
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("soup", ("soup", {})),
        (" toast() ", ("toast", {})),
        ("soup(salt=-1)", ("soup", {"salt": -1})),
        ("soup(bowls=3, salt=1e-3)", ("soup", {"bowls": 3, "salt": 0.001})),
        ("soup(bowls=0, hours=.5)", ("soup", {"bowls": 0, "hours": 0.5})),
    ],
)
def test_a_name_and_its_parameters(expression, expected):
    assert cook(expression) == expected


def test_a_parameter_is_a_whole_number_where_its_default_is():
    _, parameters = cook("soup(bowls=4.0, salt=4)")
    assert {name: type(value) for name, value in parameters.items()} == {"bowls": int, "salt": float}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sop", "unknown dish 'sop'; did you mean 'soup'? there are: soup, toast"),
        ("é" * 79, "unknown dish"),
        ("quiche", "unknown dish 'quiche'; there are: soup, toast"),
        ("sup(salt=1)", "did you mean 'soup'?"),
        ("soup(slat=1)", "soup has no parameter 'slat'; did you mean 'salt'? there are: salt, hours, bowls"),
        ("toast(salt=1)", "toast has no parameter 'salt'; there are none"),
        ("soup(salt='1')", "soup(salt=...) takes a number, not \"'1'\""),
        ("soup(salt=True)", "takes a number, not 'True'"),
        ("soup(salt=1e999)", "takes a number"),
        ("soup(salt=nan)", "takes a number"),
        ("soup(salt=2j)", "takes a number"),
        ("soup(salt=__import__('os').system('true'))", "takes a number"),
        ("soup(salt=[" + "1, " * 99 + "])", "takes a number"),
        ("soup(bowls=1.5)", "soup(bowls=...) takes a whole number of at least 0, not '1.5'"),
        ("soup(bowls=-1)", "soup(bowls=...) takes a whole number of at least 0, not '-1'"),
        ("soup(bowls=1e999)", "takes a whole number"),
        ("soup(hours=0)", "soup: hours: 0, must be > 0"),
        ("soup(hours=-2)", "soup: hours: -2, must be > 0"),
        ("soup(bowls=10)", "soup: bowls: 10, must be 0 <= bowls <= 9"),
        ("function kitchen.cook", "is a Python function; pass the function itself"),
        *(
            (garbage, "cannot read")
            for garbage in [
                *["", "+", "1", "soup toast", "soup + toast", "-soup", "soup; toast", "a = soup", "soup\0"],
                *["soup(1)", "soup(*[1])", "soup(**{'salt': 1})", "soup(salt=1, salt=2)", "soup()()", "lambda: soup"],
                *["__import__('os').system('true')", "RECIPES['soup']", "soup.parameters", "f'{soup}'", "1" * 5000],
                *["(" * 500 + "soup" + ")" * 500, "-" * 100_000 + "soup"],
            ]
        ),
    ],
    ids=lambda text: text[:40],
)
def test_everything_else_is_refused_in_one_line(expression, message):
    with pytest.raises(UserError) as refusal:
        cook(expression)
    text = str(refusal.value)
    assert message in text
    assert text.startswith("dish: ")
    assert "\n" not in text
    assert len(text) < 250


def test_what_cannot_be_read_is_shown_with_an_example():
    with pytest.raises(UserError, match=r"dish: cannot read 'soup!'; write it like 'soup\(salt=1\)'"):
        cook("soup!")


def test_the_builder_may_refuse_a_form_and_read_another():
    def product(node):
        match node:
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return parse_number(left), *parse_call(right, "dish", RECIPES)
        raise SyntaxError

    assert parse("3*soup(salt=1)", "dish", "2*soup", product) == (3, "soup", {"salt": 1})
    with pytest.raises(UserError, match="cannot read"):
        parse("soup", "dish", "2*soup", product)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_finite_number_is_read_as_python_reads_it(value):
    assert parse_number(node(repr(value))) == value


@pytest.mark.parametrize("text", ["x", "'1'", "None", "1 + 1", "1e999", "-1e999", "nan", "inf", "(1,)", "1j"])
def test_no_number(text):
    assert parse_number(node(text)) is None


def test_defaults_are_those_of_the_parameters_that_have_one():
    def function(sim, relation, margin: float = 0.5, choose: int = 0):
        return sim, relation, margin, choose

    assert defaults(function) == {"margin": 0.5, "choose": 0}
    assert isinstance(defaults(function)["choose"], int)
