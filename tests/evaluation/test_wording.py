import pytest

from qpairs.evaluation.wording import KINDS, Wording, edits, names_in, vocabulary

KNOWN = vocabulary(["how do i pay my account in may"] * 2)


def value(kind: str, one: str, other: str) -> str | None:
    return KINDS[kind].value(Wording((one, other), KNOWN))


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        ("length", "How?", " ".join("abcdefghi"), "9 to 15 words"),
        ("length", "?", "!", "no words"),
        ("length difference", "a b", "a b c d", "2 to 4 words"),
        ("word overlap", "a b c d", "A, b!", "40 to 60 %"),
        ("word overlap", "a b", "B a", "80 to 100 %"),
        ("word overlap", "?", "!", "0 to 20 %"),
        ("question word", "How do I?", "So how come?", "how in both"),
        ("question word", "How do I?", "What can I?", "different"),
        ("question word", "How do I?", "Can I?", "in one alone"),
        ("question word", "Should I?", "Can I?", "in neither"),
        ("negation", "Why don't I pay?", "Why do I pay?", "in one alone"),
        ("negation", "Why not?", "Never?", "in both"),
        ("negation", "Why?", "How?", None),
        ("numbers", "Is 1,000 more than 7?", "is 7 less than 1,000", "the same"),
        ("numbers", "iPhone 6", "iPhone 7", "different"),
        ("numbers", "one", "two", None),
        ("names", "Is Rome old?", "Is Paris old?", "different"),
        ("names", "Is rome old? Rome is.", "Why is Rome old?", "the same"),
        ("names", "Why? Because I'm here.", "How? I am.", None),
        ("names", "Why? Because I\N{RIGHT SINGLE QUOTATION MARK}m here.", "How? I am.", None),
        ("negation", "Why can\N{RIGHT SINGLE QUOTATION MARK}t I?", "Why can I?", "in one alone"),
        ("pronouns", "Do I pay?", "Do you pay?", "different"),
        ("pronouns", "Is it mine?", "Am I late?", "the same"),
        ("pronouns", "Is it?", "Why?", None),
        ("spelling", "my acount", "my account", "a likely slip"),
        ("spelling", "my accounts", "my account", None),
        ("spelling", "moy", "my", None),
        ("one word", "How to sort in C++?", "How to sort in C#?", "a name, a number or a sign"),
        ("one word", "Is Rome nice in May?", "Is Paris nice in May?", "a name, a number or a sign"),
        ("one word", "What does error 403 mean", "What does error 500 mean?", "a name, a number or a sign"),
        ("one word", "How do I pay by card?", "How do I pay by cheque?", None),
        ("one word", "How to sort in C++?", "How to order in C#?", None),
        ("one word", "How to sort in C++?", "How to sort in C++, please?", None),
        ("one word", "403?", "500?", None),
        ("one word", "\u5bc6\u78011\u600e\u4e48\u6539", "\u8ba2\u53552\u5728\u54ea", None),
        (
            "one word",
            "\u0928\u0940\u0932\u093e \u0930\u0902\u0917",
            "\u0915\u093e\u0932\u093e \u0930\u0902\u0917",
            None,
        ),
        ("word order", "do I pay you", "I do pay you", "the same words, another order"),
        ("word order", "do I pay you", "do I pay you?", None),
        ("known words", "how do I pay", "pay", "all"),
        ("known words", "how do I pay", "rent", "all but one"),
        ("known words", "pay bills", "pay rent", "several are new"),
    ],
)
def test_each_rule_says_what_its_sentence_promises(kind: str, one: str, other: str, expected: str | None) -> None:
    assert value(kind, one, other) == expected
    assert value(kind, other, one) == expected


def test_names_are_the_capitalised_words_within_a_sentence() -> None:
    assert names_in("What is New York? Boston is (Perhaps) big") == {"new", "york"}
    assert names_in("ALL CAPITALS HERE") == names_in("Every Word Is") == names_in("") == set()


def test_edits_are_all_words_at_one_edit_between_the_ends() -> None:
    assert {"acount", "accoount", "acocunt", "axcount"} <= edits("account")
    assert edits("account").isdisjoint({"accounts", "accoun", "bccount", "ccount"})


def test_a_word_of_one_question_alone_is_not_known() -> None:
    assert vocabulary(["Pay, pay!", "pay me", "me\N{RIGHT SINGLE QUOTATION MARK}s", "me's"]) == {"pay", "me's"}
