"""Addresses of questions: only those of http and https, and no id can leave its place in them."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.serving.links import check_url_template, question_url


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_an_id_stays_in_its_part_of_the_address(name: str) -> None:
    in_path = urlsplit(question_url(check_url_template("https://my.site/q/{id}/view"), name))
    assert (in_path.scheme, in_path.netloc, in_path.query, in_path.fragment) == ("https", "my.site", "", "")
    assert in_path.path.count("/") == 3
    in_query = urlsplit(question_url(check_url_template("http://my.site:8080/q?a=1&id={id}"), name))
    assert parse_qs(in_query.query, keep_blank_values=True) == {"a": ["1"], "id": [name]}


@pytest.mark.parametrize(
    "wrong",
    [
        "javascript:alert('{id}')",
        "data:text/html,{id}",
        "ftp://my.site/{id}",
        "//my.site/{id}",
        "my.site/{id}",
        "https://my.site/q",
        "https://{id}/",
        "https://{id}.my.site/q/{id}",
        "https:///{id}",
        "https://my.site:port/{id}",
        "https://my.site/ {id}",
        "https://my.site/\n{id}",
        "",
    ],
)
def test_another_template_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="url-template"):
        check_url_template(wrong)
