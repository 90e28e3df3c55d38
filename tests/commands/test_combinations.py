"""An option that would have no effect beside the others is refused, and none that has one."""

import re
from pathlib import Path

import pytest
import shown
from conftest import refused

import qpairs
from qpairs.commands import command_line
from qpairs.commands.combinations import RULES

ROOT = command_line()
COMMANDS = {**ROOT.commands, **ROOT.commands["label"].commands}


@pytest.mark.parametrize("name", RULES)
def test_the_rules_name_options_that_there_are(name: str) -> None:
    params = {one.name: one for one in COMMANDS[name].params}
    flags = {flag for one in params.values() for flag in (*one.opts, *one.secondary_opts)}
    for rule in RULES[name]:
        assert set(rule.options) <= params.keys()
        assert set(re.findall("--[a-z-]+", rule.without)) <= flags
        assert not any(params[option].required for option in rule.options)


WITHOUT_EFFECT = {
    "evaluate m --retrieval q --corpus c --perturb all": ("--perturb", "--data"),
    "evaluate m --retrieval q --corpus c --attack 5": ("--attack", "--data"),
    "evaluate m --retrieval q --corpus c --intents i.csv": ("--intents", "--data"),
    "evaluate m --retrieval q --corpus c --columns a,b,c": ("--columns", "--data"),
    "evaluate m --columns a,b,c": ("--columns", "--data"),
    "evaluate m --label-cut 3": ("--label-cut", "--data"),
    "evaluate m --skip-bad-rows": ("--skip-bad-rows", "--data or --retrieval"),
    "evaluate m --attack-vectors glove": ("--attack-vectors", "--attack"),
    "evaluate m --text-column t": ("--text-column", "--retrieval and --corpus"),
    "evaluate m --overwrite": ("--overwrite", "--json"),
    "predict m a b --output x.csv": ("--output", "a file of pairs"),
    "predict m a b --columns x,y": ("--columns", "a file of pairs"),
    "predict m a b --overwrite": ("--overwrite", "a file of pairs"),
    "calibrate m --output o --corpus q --columns a,b,c": ("--columns", "--data"),
    "calibrate m --output o --corpus q --label-values a=1": ("--label-values", "--data"),
    "calibrate m --output o --data q --text-column t": ("--text-column", "--corpus"),
    "calibrate m --output o --data q --labels l": ("--labels", "--corpus"),
    "calibrate m --output o --corpus q --trust ana": ("--trust", "--labels"),
    "combine a b --output o --labels a=1": ("--labels", "--data"),
    "errors m --columns a,b,c": ("--columns", "--data"),
    "report m --skip-bad-rows": ("--skip-bad-rows", "--data"),
    "data sample --raw": ("--raw", "--contradictions"),
    "data sample --overwrite": ("--overwrite", "--contradictions"),
    "export m --output o --columns a,b,c": ("--columns", "--data"),
    "export m --output o --label-cut 3": ("--label-cut", "--data"),
    "embed m q --output o --ray-address auto": ("--ray-address", "--engine ray"),
    "index i --kind exact": ("--kind", "--output"),
    "index i --add e --overwrite": ("--overwrite", "--output"),
    "index i --delete d --index milvus:x": ("--index", "--output"),
    "search i how? --text-column t": ("--text-column", "--file"),
    "search i how? --raw": ("--raw", "--file"),
    "search i how? --output o.csv": ("--output", "--file"),
    "dedupe m q.csv --dry-run --format tsv": ("--format", "--output"),
    "dedupe m q.csv --dry-run --raw": ("--raw", "--output"),
    "dedupe m q.csv --output o --engine ray": ("--engine", "a folder from qpairs embed"),
    "dedupe m q.csv --output o --ray-address auto": ("--ray-address", "--engine ray"),
    "dedupe m . --output o --id-column i": ("--id-column", "a file of questions"),
    "dedupe m . --dry-run": ("--dry-run", "a file of questions"),
    "serve m --text-column t": ("--text-column", "--questions"),
    "serve m --index i --id-column t": ("--id-column", "--questions"),
    "serve m --labels l": ("--labels", "--index or --questions"),
    "serve m --url-template https://x/{id}": ("--url-template", "--index or --questions"),
    "serve m --max-reads 5": ("--max-reads", "--index or --questions"),
    "serve m --index i --annotator ana": ("--annotator", "--labels or --questions"),
    "serve m --questions q --read-only --annotator ana": ("--annotator", "not --read-only"),
    "label agreement a --raw": ("--raw", "--disagreements"),
    "label agreement a --output x.csv --raw": ("--raw", "--disagreements"),
    "label agreement a --overwrite": ("--overwrite", "--disagreements or --output"),
    "train --group-size 8": ("--group-size", "the sampler groups"),
    "train --sampler groups --mined 2": ("--mined", "the sampler triplets"),
    "train --relative-margin 0.1": ("--relative-margin", "the sampler triplets"),
    "train --neighbours 3": ("--neighbours", "--teacher"),
    "train --distill probabilities": ("--distill", "--teacher"),
    "train --distill embeddings --teacher minilm --neighbours 3": ("--neighbours", "--distill probabilities"),
    "train --teacher itself --distill-weight 2": ("--distill-weight", "--distill embeddings"),
    "train --teacher itself --teacher-epochs 2": ("--teacher-epochs", "minilm, mpnet or tiny"),
    "train --teacher minilm --second-epochs 2": ("--second-epochs", "--teacher itself"),
    "train --reranker runs/x --reranker-epochs 2": ("--reranker-epochs", "minilm, mpnet or tiny"),
    "train --encoder static --dropout 0.2": ("--dropout", "static"),
    "train --validation v --validation-fraction 0.2": ("--validation-fraction", "cut from the data"),
    "train --test t --test-fraction 0.2": ("--test-fraction", "cut from the data"),
    "train --unlabelled --data q.csv --labels a=1": ("--labels", "--validation"),
    "train --unlabelled --data q.csv --patience 2": ("--patience", "--validation"),
    "train --resume --output o --dry-run": ("--resume", "--dry-run"),
    "train --show-config --dry-run": ("--dry-run", "--show-config"),
    "train --show-config --overwrite": ("--overwrite", "--show-config"),
    "audit --encoder static --dropout 0.2": ("--dropout", "static"),
    "audit --mined 2": ("--mined", "the sampler triplets"),
    "compare --encoders minilm,tiny --vectors glove": ("--vectors", "lstm, cnn or static"),
    "compare --encoders static --prompt none": ("--prompt", "a pretrained one"),
    "compare --encoders lstm,cnn --lora 4": ("--lora", "pretrained"),
    "compare --losses contrastive,0.5*contrastive(margin=0.3)+focal --score head": ("--score", "pair_softmax"),
    "compare --miners offline,groups --sampler triplets": ("--sampler", "--miners"),
    "compare --miners offline --group-size 8": ("--group-size", "the sampler groups"),
    "learning-curve --encoder tiny --vectors glove": ("--vectors", "lstm, cnn or static"),
    "learning-curve --mined 2": ("--mined", "the sampler triplets"),
}


@pytest.mark.parametrize("line", WITHOUT_EFFECT)
def test_an_option_without_an_effect_is_refused(run, tmp_path: Path, line: str) -> None:
    option, without = WITHOUT_EFFECT[line]
    words = line.split()
    command = " ".join(words[:2]) if words[0] == "label" else words[0]
    refused(run(*words), f"{command}: {option} has no effect without", without, "leave it out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "evaluate m --retrieval q --corpus c --data d --perturb all --attack 5 --attack-vectors glove --labels a=1",
        "evaluate m --retrieval q --corpus c --skip-bad-rows --text-column t --id-column i",
        "evaluate m --perturb all --intents i.csv --json x.json --overwrite",
        "predict m pairs.csv --columns x,y --output x.csv --overwrite",
        "calibrate m --output o --data d --label-values a=1 --corpus q --text-column t --labels l --trust ana",
        "calibrate m --output o --corpus q --skip-bad-rows",
        "combine a b --output o --data d --labels a=1 --columns a,b,c",
        "export m --output o --data d --skip-bad-rows",
        "index e --output i --kind exact --index milvus:x --overwrite",
        "search i --file f --output o.csv --raw --overwrite --text-column t",
        "dedupe m q.csv --output o --format tsv --raw --overwrite --against a --embeddings e --id-column i",
        "dedupe m . --output o --engine ray --ray-address auto --format tsv",
        "serve m --questions q --text-column t --id-column i --annotator ana --url-template https://x/{id}",
        "serve m --index i --labels l --annotator ana --max-reads 3",
        "serve m --token t --read-only",
        "label agreement a --disagreements d.csv --raw --overwrite",
        "train --sampler groups --group-size 8",
        "train --sampler triplets --mined 2 --relative-margin 0.1",
        "train --teacher minilm --teacher-epochs 2 --neighbours 2 --distill probabilities",
        "train --teacher itself --second-epochs 2 --neighbours 0",
        "train --teacher m --distill relations --distill-weight 2",
        "train --reranker tiny --reranker-epochs 2",
        "train --encoder static+lstm --dropout 0.2",
        "train --validation-fraction 0.2 --test-fraction 0.2",
        "train --test t --validation-fraction 0.2",
        "train --unlabelled --data q.csv --validation v --labels a=1 --patience 2",
        "train --overwrite --dry-run",
        "compare --encoders minilm,lstm --vectors glove --prompt none --lora 4",
        "compare --encoders letters --import mine.py --vectors glove",
        "learning-curve --loss 0.5*mine(margin=1)+contrastive --score head",
        "compare --miners offline,groups --mined 2 --group-size 8",
        "compare --losses contrastive,pair_softmax(margin=1,x=2) --score head --dry-run --overwrite",
        "compare --miners everything,offline --sampler groups --group-size 8",
        "learning-curve --encoder lstm --vectors glove --sampler triplets --mined 2",
    ],
)
def test_an_option_with_an_effect_is_taken(line: str) -> None:
    shown.parse(line.split())


def test_what_a_toml_file_says_counts_and_is_not_refused(run, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('sampler = "groups"\nneighbours = 1\nmined = 3\n')
    shown.parse(["train", "--config", str(tmp_path / "run.toml"), "--group-size", "8"])
    refused(run("train", "--config", "run.toml", "--mined", "2"), "--mined has no effect without the sampler triplets")
    (tmp_path / "broken.toml").write_text("epoch = 3\n")
    refused(run("train", "--config", "broken.toml", "--mined", "2"), "broken.toml", "'epochs'")


def test_a_default_is_not_taken_for_what_a_user_wrote(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QPAIRS_TOKEN", "secret")
    for words in (["predict", "m", "a", "b"], ["errors", "m"], ["serve", "m"]):
        refused(run(*words), "m: ")
    with pytest.raises(qpairs.UserError, match="--skip-bad-rows has no effect"):
        shown.parse(["errors", "m", "--skip-bad-rows"])


def test_an_audit_has_no_options_that_it_would_ignore(run) -> None:
    for option in ("--augment", "--positives", "--unlabelled", "--validation", "--test-fraction"):
        refused(run("audit", option, "1"), option)
