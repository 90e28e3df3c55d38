from qpairs.data.words import word_pattern, words


def test_words_have_no_punctuation_and_one_case() -> None:
    assert words("  What's a JPEG, e.g. 3.5 MB?") == ("what's", "a", "jpeg", "e", "g", "3", "5", "mb")
    assert words("well-known 'quoted' snake_case") == ("well", "known", "quoted", "snake_case")
    assert words("Où est l\u2019école?") == words("où est l'école") == ("où", "est", "l'école")
    assert words("?! ...") == words("") == ()


def test_pieces_of_a_text_around_its_words_give_it_back() -> None:
    text = "Don\u2019t I know -- you?"
    found = [match[0] for match in word_pattern().finditer(text)]
    assert found == ["Don\u2019t", "I", "know", "you"]
    assert [word.replace("\u2019", "'").lower() for word in found] == list(words(text))
