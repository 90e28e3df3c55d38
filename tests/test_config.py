import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpairs.config import CHOICES, HELP, Config, config_from, read_toml, to_dict, to_toml
from qpairs.core.exceptions import UserError, nearest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONFIGS = st.builds(
    Config,
    data=st.lists(TEXTS, min_size=1, max_size=3),
    validation=st.lists(TEXTS, max_size=2),
    columns=st.sampled_from([(), ("a", "b"), ("a b", "ü", '"')]),
    skip_bad_rows=st.booleans(),
    validation_fraction=st.floats(0.01, 0.49),
    test_fraction=st.floats(0.01, 0.49),
    encoder=TEXTS,
    loss=TEXTS,
    epochs=st.floats(1e-9, 1e30),
    batch_size=st.integers(2, 10**6),
    learning_rate=st.none() | st.floats(1e-12, 10),
    **{name: st.sampled_from(options) for name, options in CHOICES.items()},
    seed=st.integers(0, 2**32 - 1),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGS)
def test_toml_and_dict_give_the_same_config_back(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "run.toml"
    path.write_text(to_toml(config), encoding="utf-8", newline="")
    assert config_from(read_toml(path)) == config
    assert config_from(to_dict(config)) == config


def test_every_field_has_a_help_text_and_a_default():
    assert all(HELP[spec.name].endswith(".") for spec in dataclasses.fields(Config))
    assert config_from({}) == Config()
    assert "learning_rate" not in to_dict(Config())


def test_values_take_the_type_of_the_field():
    config = config_from({"data": "a.csv", "epochs": 3, "learning_rate": 1, "validation": ["b", "c"]})
    assert config.data == ("a.csv",)
    assert isinstance(config.epochs, float)
    assert isinstance(config.learning_rate, float)
    assert config.validation == ("b", "c")
    assert config_from({"columns": "q1, q2,same"}).columns == ("q1", "q2", "same")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", math.nan),
        ("epochs", math.inf),
        ("epochs", 10**400),
        ("epochs", "2"),
        ("epochs", True),
        ("batch_size", 1),
        ("batch_size", 64.0),
        ("batch_size", True),
        ("max_length", 3),
        ("max_length", 513),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("warmup", 1.0),
        ("clip", 0.0),
        ("evaluations", 0),
        ("patience", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", None),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.95),
        ("test_fraction", 1.0),
        ("columns", ["a"]),
        ("columns", ["a", "b", "c", "d"]),
        ("data", []),
        ("data", [1]),
        ("data", {"a": 1}),
        ("skip_bad_rows", 1),
        ("skip_bad_rows", "yes"),
        ("precision", "fp8"),
        ("report_to", "wandbb"),
        ("encoder", ["minilm"]),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_with_its_name(name, value):
    with pytest.raises(UserError) as caught:
        config_from({name: value})
    message = str(caught.value)
    assert "\n" not in message
    assert name in message or "validation_fraction" in name


def test_an_unknown_key_names_the_file_and_the_nearest_key():
    with pytest.raises(UserError, match=r"run.toml: unknown key 'bach_size'; did you mean 'batch_size'\?"):
        config_from({"bach_size": 3}, where="run.toml")
    with pytest.raises(UserError, match="did you mean 'wandb'"):
        Config(report_to="wandbb")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"epochs = ", "not a TOML file"), (b"a = '\xff'", "not a TOML file"), (b"a=1\na=2", "not a TOML file")],
)
def test_a_broken_config_file_is_one_line(tmp_path, content, words):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_toml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UserError, match="cannot read the config file"):
            read_toml(path)


def test_nearest_without_a_close_name_lists_all():
    assert nearest("zzz", ["one", "two"]) == "there are: one, two"
    assert nearest("tow", iter(["one", "two"])) == "did you mean 'two'? there are: one, two"
