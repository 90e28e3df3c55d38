import re

import numpy as np
import pytest

import qpairs
from qpairs.data.perturbations import PERTURBATIONS, Vocabulary, kinds_of, perturb, vocabulary_of

QUESTIONS = [
    "How do I open a bank account in India?",
    "Who rules in India?",
    "What is the oldest city in Japan?",
    "Why do trains run late in Japan?",
    "How do I take a trial?",
    "Where does the trail end in New York?",
    "Who drives in New York?",
]


def all_variants(kind: str, text: str, vocabulary: Vocabulary | None = None) -> set[str]:
    return set(PERTURBATIONS[kind].rule(text, vocabulary or vocabulary_of(QUESTIONS))) - {text}


FITTING = [
    ("punctuation", "What is it?", ["What is it", "What is it??", "What is it ?"]),
    ("punctuation", "Well, how", ["Well, how?", "Well, how.", "Well how"]),
    ("contractions", "What is the best way?", ["What's the best way?"]),
    ("contractions", "How do I pay if I can't log in?", ["How do I pay if I cannot log in?"]),
    ("contractions", "Why is it that I am poor?", ["Why is it that I'm poor?"]),
    ("symmetry", "How do I tell between a rat and a mouse?", ["How do I tell between a mouse and a rat?"]),
    ("symmetry", "Which is better, Java or Python?", ["Which is better, Python or Java?"]),
    ("word-order", "How do I fly from Paris to New York?", ["How do I fly from New York to Paris?"]),
    ("word-order", "How do I commute from home to work?", ["How do I commute from work to home?"]),
    ("word-order", "How can I convert a PDF to Word for free?", ["How can I convert Word to a PDF for free?"]),
    ("word-order", "Is the iPhone better than Android?", ["Is Android better than the iPhone?"]),
    ("word-order", "Are women more dependent than men?", ["Are men more dependent than women?"]),
    ("word-order", "Why do people use Python instead of Java?", ["Why do people use Java instead of Python?"]),
    ("word-order", "Did France attack Germany?", ["Did Germany attack France?"]),
    ("negation", "How do I sleep?", ["How do I not sleep?"]),
    ("negation", "How can I meet people who are rich?", [
        "How can I not meet people who are rich?",
        "How can I meet people who are not rich?",
    ]),
    ("negation", "Is it safe to swim after lunch?", ["Is it safe not to swim after lunch?"]),
    ("negation", "Why is India poor?", ["Why is India not poor?"]),
    ("negation", "Why can't I sleep?", ["Why can I sleep?"]),
    ("negation", "What should I not eat?", ["What should I eat?"]),
    ("numbers", "Is 1,000 enough?", ["Is 500 enough?", "Is 2,000 enough?", "Is 3,000 enough?"]),
    ("numbers", "Who won in 2014?", ["Who won in 2007?", "Who won in 2011?", "Who won in 2016?"]),
    ("numbers", "What is 2.5 times 10.5?", ["What is 3.5 times 10.5?", "What is 2.5 times 12.5?"]),
    ("numbers", "Can two people share?", ["Can three people share?", "Can ten people share?"]),
    ("before-after", "What should I eat before a run?", ["What should I eat after a run?"]),
    ("before-after", "After I quit, what happens?", ["Before I quit, what happens?"]),
    ("more-less", "How do I become more social?", ["How do I become less social?"]),
    ("more-less", "How do I get more followers?", ["How do I get fewer followers?"]),
    ("more-less", "Who earns the most money?", ["Who earns the least money?"]),
    ("opposites", "What is the best way to increase sales?", [
        "What is the worst way to increase sales?",
        "What is the best way to decrease sales?",
    ]),
    ("entities", "How do I find a job in India?", ["How do I find a job in Japan?"]),
    ("used-to", "Is Anna a doctor?", ["Did Anna use to be a doctor?"]),
    ("used-to", "Who is the king of Spain?", ["Who used to be the king of Spain?"]),
    ("used-to", "Why do people smoke?", ["Why did people use to smoke?"]),
    ("used-to", "Does Anna sing?", ["Did Anna use to sing?"]),
    ("used-to", "How do I help a friend who used to be rich?", ["How do I help a friend who is rich?"]),
    ("used-to", "Did Anna use to be a doctor?", ["Is Anna a doctor?"]),
]  # fmt: skip

UNFIT = [
    ("typos", "How do I fix the PayPal app?"),  # no word of five letters
    ("contractions", "Do you know what it is?"),
    ("contractions", "Who's been here?"),
    ("contractions", "Why don't people vote?"),
    ("symmetry", "Which numbers between 1 and 9 are prime?"),
    ("symmetry", "Is there love between them and us?"),
    ("word-order", "How do I learn from failure to succeed?"),
    ("word-order", "Can I get help from time to time?"),
    ("word-order", "Is it cheaper than that?"),
    ("word-order", "Is Anna married to Ben?"),
    ("word-order", "Is Paris in France?"),
    ("word-order", "Is a tiger heavier than insects?"),  # "is insects" would be no English
    ("word-order", "How does Red compare to Blue?"),
    ("negation", "Is it legal?"),  # "Isn't it legal?" asks the same
    ("negation", "Is this true or not?"),
    ("negation", "How long does it take?"),
    ("negation", "What is it like to be rich?"),
    ("numbers", "Is 24/7 support included in the iPhone7, the B2B plan or for 1 month?"),
    ("numbers", "Which of the two is a one-two punch?"),
    ("numbers", "What is 2+2?"),
    ("before-after", "Have you been here before?"),
    ("before-after", "Who looks after the dog?"),
    ("before-after", "How do I run day after day?"),
    ("before-after", "How was it before and after the war?"),
    ("more-less", "Is it more or less done?"),
    ("more-less", "Where can I learn more about it?"),
    ("more-less", "What do most people eat?"),
    ("opposites", "Who is your best friend?"),
    ("opposites", "Is higher education free?"),
    ("entities", "How do I use the Bank of India app?"),
    ("entities", "How Do I Find A Job In India?"),
    ("used-to", "Is Anna coming?"),
    ("used-to", "How do I get used to noise?"),
    ("used-to", "Is there a way?"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), FITTING, ids=[f"{kind}: {text}" for kind, text, _ in FITTING])
def test_a_rule_changes_what_it_fits(kind: str, text: str, expected: list[str]) -> None:
    found = all_variants(kind, text)
    assert found >= set(expected)
    assert kind == "numbers" or found == set(expected)


@pytest.mark.parametrize(("kind", "text"), UNFIT, ids=[f"{kind}: {text}" for kind, text in UNFIT])
def test_a_rule_leaves_alone_what_it_does_not_fit(kind: str, text: str) -> None:
    assert all_variants(kind, text) == set()


def test_every_rule_has_an_example_and_a_docstring() -> None:
    assert {kind for kind, *_ in FITTING} | {"typos", "case"} == set(PERTURBATIONS)
    assert all(row.rule.__doc__ for row in PERTURBATIONS.values())


def test_a_typo_is_one_edit_inside_a_word_and_no_other_word() -> None:
    found = all_variants("typos", "Where does the trail end?")
    assert "Where does the taril end?" in found
    assert "Where does the tril end?" in found
    assert "Where does the trial end?" not in found  # a word of QUESTIONS
    for text in found:
        assert re.fullmatch(r"Where does the t\w{2,3}l end\?", text)


def test_case_changes_case_alone() -> None:
    text = "How do I don't use the iPhone?"
    found = all_variants("case", text)
    assert found == {text.lower(), text.upper(), "How Do I Don't Use The IPhone?"}


def test_names_are_swapped_for_those_of_the_same_place_and_shape() -> None:
    vocabulary = vocabulary_of(
        ["Is he in New York?", "Are you in New York?", "Is it in Rome?", "Was it in Rome?", "We like Rome"]
    )
    assert all_variants("entities", "Who lives in Paris?", vocabulary) == {"Who lives in Rome?"}
    assert all_variants("entities", "Who lives in Los Angeles?", vocabulary) == {"Who lives in New York?"}
    assert all_variants("entities", "Who lives in US?", vocabulary) == set()


def test_background_is_not_taken_for_the_question() -> None:
    random, vocabulary = np.random.default_rng(0), vocabulary_of(QUESTIONS)
    assert perturb("Can I retire before 60?", "before-after", vocabulary, random) == "Can I retire after 60?"
    assert perturb("I asked before lunch. What now?", "before-after", vocabulary, random) is None
    assert perturb("word " * 30 + "before noon?", "before-after", vocabulary, random) is None
    assert perturb("I asked before lunch. What now?", "punctuation", vocabulary, random) is not None


def test_kinds_are_read_from_a_list() -> None:
    assert kinds_of("all") == list(PERTURBATIONS)
    assert kinds_of("typos, case,typos") == ["typos", "case"]
    assert kinds_of("typos,all") == list(PERTURBATIONS)
    with pytest.raises(qpairs.UserError, match="did you mean 'typos'"):
        kinds_of("typo")
