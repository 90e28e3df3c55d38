import pytest

from qpairs.data.columns import find_columns

KAGGLE = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (KAGGLE, ("question1", "question2", "is_duplicate")),
        (["question1", "question2", "label", "idx"], ("question1", "question2", "label")),
        (["sentence1", "sentence2", "label"], ("sentence1", "sentence2", "label")),
        (["text1", "text2", "label", "idx", "label_text"], ("text1", "text2", "label")),
        (["Sentence_A", " Sentence_B ", "Labels"], ("Sentence_A", " Sentence_B ", "Labels")),
        (["Question1", "QUESTION2", "Is_Duplicate"], ("Question1", "QUESTION2", "Is_Duplicate")),
        (["q1", "q2", "duplicate"], ("q1", "q2", "duplicate")),
        (["anchor", "positive"], ("anchor", "positive")),
        (["Anchor", "Positive", "Negative"], ("Anchor", "Positive", "", "Negative")),
        (["Query", "Positive", "Label"], ("Query", "Positive", "Label")),
        (["query", "positive", "negative", "label"], ("query", "positive", "", "negative")),
    ],
)
def test_columns_of_the_usual_releases(names, found):
    columns = find_columns(names, where="x")
    assert (columns.first, columns.second, columns.label, columns.negative) == (*found, "", "")[:4]
