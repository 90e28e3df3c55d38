import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpairs.config import GROUPS, HELP, OPTIONS, TYPES, Config, allowed_values, config_from, read_toml, to_dict, to_toml
from qpairs.core.exceptions import UserError, nearest

RANGES = {name: spec.metadata["range"] for name, spec in OPTIONS.items() if spec.metadata["range"]}
CHOICES = {name: spec.metadata["choices"] for name, spec in OPTIONS.items() if spec.metadata["choices"]}
FIXTURES = Path(__file__).parent / "fixtures" / "commit_48e0593"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONFIGS = st.builds(
    Config,
    data=st.lists(TEXTS, min_size=1, max_size=3),
    validation=st.lists(TEXTS, max_size=2),
    columns=st.sampled_from([(), ("a", "b"), ("a b", "ü", '"')]),
    labels=st.sampled_from([(), ("yes=1", "-1=0"), {"ja": 1}]),
    negative=TEXTS,
    positives=st.booleans(),
    skip_bad_rows=st.booleans(),
    validation_fraction=st.floats(0.01, 0.49),
    test_fraction=st.floats(0.01, 0.49),
    encoder=TEXTS,
    loss=TEXTS,
    epochs=st.floats(1e-9, 1e30),
    batch_size=st.integers(2, 10**6),
    learning_rate=st.none() | st.floats(1e-12, 10),
    **{name: st.sampled_from(options) for name, options in CHOICES.items() if name not in ("model", "distill")},
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


@pytest.mark.parametrize("given", ["96, 384,192", [192, 96, 384, 96], (384, 192, 96)])
def test_lengths_of_vectors_are_sorted_and_kept_once(given):
    assert config_from({"dims": given}).dims == (384, 192, 96)
    assert config_from({"dims": 96}).dims == (96,)
    assert config_from(to_dict(config_from({"dims": given}))).dims == (384, 192, 96)
    assert config_from({}).dims == config_from({"dims": ""}).dims == ()


def test_every_field_is_in_one_group():
    names = [spec.name for group in GROUPS.values() for spec in dataclasses.fields(group)]
    assert names == list(OPTIONS)
    assert all(isinstance(Config(), group) for group in GROUPS.values())


def test_every_number_has_a_range():
    numbers = {name for name, kind in TYPES.items() if kind in (int, float, float | None)}
    assert numbers == set(RANGES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropout", 1.5, "dropout: 1.5, must be 0 <= dropout < 1"),
        ("dropout", 1, "dropout: 1.0, must be 0 <= dropout < 1"),
        ("word_dropout", -0.1, "word_dropout: -0.1, must be 0 <= word_dropout < 1"),
        ("augment", 1.1, "augment: 1.1, must be 0 <= augment <= 1"),
        ("epochs", 0, "epochs: 0.0, must be epochs > 0"),
        ("epochs", math.nan, "epochs: nan, must be a finite number"),
        ("epochs", math.inf, "epochs: inf, must be a finite number"),
        ("epochs", 10**400, f"epochs: {10**400}, must be a finite number"),
        ("epochs", "2", "epochs: '2', must be a finite number"),
        ("epochs", True, "epochs: True, must be a finite number"),
        ("reranker_epochs", 0, "reranker_epochs: 0.0, must be reranker_epochs > 0"),
        ("model", "cross", "model: unknown 'cross'; did you mean 'cross-encoder'?"),
        ("teacher_epochs", 0, "teacher_epochs: 0.0, must be teacher_epochs > 0"),
        ("second_epochs", -1, "second_epochs: -1.0, must be second_epochs > 0"),
        ("neighbours", -1, "neighbours: -1, must be neighbours >= 0"),
        ("budget_minutes", -1, "budget_minutes: -1.0, must be budget_minutes >= 0"),
        ("group_size", 1, "group_size: 1, must be group_size >= 2"),
        ("mined", 0, "mined: 0, must be mined >= 1"),
        ("relative_margin", 1, "relative_margin: 1.0, must be -1 <= relative_margin < 1"),
        ("relative_margin", -1.5, "relative_margin: -1.5, must be -1 <= relative_margin < 1"),
        ("batch_size", 1, "batch_size: 1, must be batch_size >= 2"),
        ("batch_size", 64.0, "batch_size: 64.0, must be a whole number"),
        ("batch_size", True, "batch_size: True, must be a whole number"),
        ("gradient_cache", -1, "gradient_cache: -1, must be gradient_cache >= 0"),
        ("max_length", 3, "max_length: 3, must be 4 <= max_length <= 512"),
        ("max_length", 513, "max_length: 513, must be 4 <= max_length <= 512"),
        ("learning_rate", 0.0, "learning_rate: 0.0, must be learning_rate > 0"),
        ("weight_decay", -0.1, "weight_decay: -0.1, must be weight_decay >= 0"),
        ("warmup", 1.0, "warmup: 1.0, must be 0 <= warmup < 1"),
        ("clip", 0.0, "clip: 0.0, must be clip > 0"),
        ("evaluations", 0, "evaluations: 0.0, must be evaluations > 0"),
        ("patience", -1, "patience: -1, must be patience >= 0"),
        ("seed", -1, "seed: -1, must be 0 <= seed < 4294967296"),
        ("seed", 2**32, "seed: 4294967296, must be 0 <= seed < 4294967296"),
        ("seed", None, "seed: None, must be a whole number"),
        ("validation_fraction", 0.0, "validation_fraction: 0.0, must be 0 < validation_fraction < 1"),
        ("validation_fraction", 0.95, "test_fraction: its sum with validation_fraction must be below 1"),
        ("test_fraction", 1.0, "test_fraction: 1.0, must be 0 < test_fraction < 1"),
        ("columns", ["a"], "columns: name two or three"),
        ("dims", [96, 0], "dims: each length must be at least 1"),
        ("dims", "384,x", "dims: '384,x', must be a list of whole numbers"),
        ("dims", "-5", "dims: '-5', must be a list of whole numbers"),
        ("dims", [96.0], "dims: [96.0], must be a list of whole numbers"),
        ("dims", True, "dims: True, must be a list of whole numbers"),
        ("columns", ["a", "b", "c", "d"], "columns: name two or three"),
        ("data", [], "data: name at least one source"),
        ("data", [1], "data: [1], must be a list of texts"),
        ("data", {"a": 1}, "data: {'a': 1}, must be a list of texts"),
        ("skip_bad_rows", 1, "skip_bad_rows: 1, must be true or false"),
        ("skip_bad_rows", "yes", "skip_bad_rows: 'yes', must be true or false"),
        ("precision", "fp8", "precision: unknown 'fp8'; did you mean 'fp32'? there are: auto, fp32, bf16"),
        ("report_to", "wandbb", "report_to: unknown 'wandbb'; did you mean 'wandb'?"),
        ("encoder", ["minilm"], "encoder: ['minilm'], must be a text"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_that_says_what_is_allowed(name, value, message):
    with pytest.raises(UserError) as caught:
        config_from({name: value})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_are_allowed_or_refused_as_it_says(name):
    allowed = RANGES[name]
    kind = int if TYPES[name] is int else float
    others = {"validation_fraction": {"test_fraction": 1e-9}, "test_fraction": {"validation_fraction": 1e-9}}
    ends = {
        allowed.at_least: True,
        allowed.at_most: True,
        allowed.above: False,
        allowed.below: False,
    }
    for end, fits in ends.items():
        values = {**others.get(name, {}), name: end and kind(end)}
        if end is not None and fits:
            assert getattr(config_from(values), name) == end
        elif end is not None:
            with pytest.raises(UserError, match=f"must be .*{name}"):
                config_from(values)
    assert allowed_values(name) == allowed.text("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "tiny", "sampler": "groups"}, "teacher: scores pairs, and the sampler groups draws none"),
        ({"symmetric": False, "sampler": "groups"}, "sampler: groups ignore on which side a question stands"),
        ({"symmetric": False, "augment": 0.1}, "augment: pairs a question with its changed copy"),
        ({"symmetric": False, "reranker": "tiny"}, "reranker: reads a pair in both orders"),
        ({"model": "cross-encoder", "loss": "cosent"}, "loss: a cross-encoder learns each pair by itself"),
        ({"model": "cross-encoder", "symmetric": False}, "symmetric: a cross-encoder reads a pair in both orders"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "test_fraction: its sum with validation_fraction"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options, message):
    with pytest.raises(UserError) as caught:
        Config(**options)
    assert str(caught.value).startswith(message)
    for name in options:  # each alone is allowed
        Config(**{name: options[name]})


def test_a_teacher_that_is_the_reranker_is_trained_once():
    both = {"teacher": "tiny", "reranker": "tiny"}
    assert Config(**both, teacher_epochs=2.0, reranker_epochs=2.0).reranker == "tiny"
    with pytest.raises(UserError, match="reranker_epochs: the reranker is also the teacher, and is trained once"):
        Config(**both, teacher_epochs=2.0, reranker_epochs=1.0)
    Config(**both, teacher_epochs=2.0)
    Config(teacher="minilm", reranker="tiny", teacher_epochs=2.0)


@pytest.mark.parametrize("folder", ["one", "two"])
def test_the_config_of_an_old_checkpoint_loads_as_it_was_stored(folder):
    stored = json.loads((FIXTURES / folder / "qpairs.json").read_text())["config"]
    newer = {"dims", "imports", "lora", "prompt", "model", "reranker", "reranker_epochs", "unlabelled"}
    newer |= {
        "labels",
        "label_cut",
        "label_range",
        "queue",
        "negative",
        "positives",
        "project",
        "distill",
        "distill_weight",
        "text_column",
    }
    assert set(stored) >= set(OPTIONS) - {"learning_rate"} - newer
    assert to_dict(config_from(stored)) == {**to_dict(Config()), **stored}


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
    assert nearest("nope", ["info_nce", "mrl"]) == "there are: info_nce, mrl"
    assert nearest("zzz", ["one", "two"]) == "there are: one, two"
    assert nearest("tow", iter(["one", "two"])) == "did you mean 'two'? there are: one, two"


def test_toml_takes_flat_keys_and_tables_of_groups(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 7\n[schedule]\nepochs = 3\n[data]\ndata = ["a.csv"]\n[encoder]\nencoder = "lstm"\n')
    config = config_from(read_toml(path))
    assert (config.seed, config.epochs, config.data, config.encoder) == (7, 3.0, ("a.csv",), "lstm")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[schedule]\nepoch = 3\n", r"run.toml: unknown key 'epoch' in \[schedule\]; did you mean 'epochs'\?"),
        ("[schedule]\nseed = 3\n", r"run.toml: unknown key 'seed' in \[schedule\]"),
        ("epochs = 2\n[schedule]\nepochs = 3\n", r"run.toml: epochs is given twice$"),
        ("[schedules]\nepochs = 3\n", "unknown key 'schedules'"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        config_from(read_toml(path), where=str(path))


def test_a_toml_file_names_itself_and_takes_hyphens(tmp_path):
    path = tmp_path / "run.toml"
    for text, words in (
        ("epochs = -1", "epochs: -1.0, must be epochs > 0"),
        ("[batches]\nbatch-size = 1", "batch_size: 1, must be batch_size >= 2"),
        ('seed = "x"', "seed: 'x', must be a whole number"),
        ('[run]\nprecision = "fp8"', "precision: unknown 'fp8'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            read_toml(path)
        assert str(caught.value).startswith(f"{path}: {words}")
    path.write_text("batch-size = 32\n[schedule]\nlearning-rate = 0.1\nbudget_minutes = 2\n")
    assert read_toml(path) == {"batch_size": 32, "learning_rate": 0.1, "budget_minutes": 2}
    path.write_text("batch-size = 32\nbatch_size = 32\n")
    with pytest.raises(UserError, match="batch_size is given twice"):
        read_toml(path)
    path.write_text("batch-sise = 32\n")
    with pytest.raises(UserError, match="unknown key 'batch-sise'; did you mean 'batch_size'"):
        read_toml(path)
