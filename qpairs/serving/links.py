"""Addresses of the questions of an index, on the site that they come from."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from qpairs.core.exceptions import UserError

ID = "{id}"


def check_url_template(template: str) -> str:
    """The template of the addresses of questions.

    Raises:
        UserError: it is not an http or https address, or has no {id} in its path, query or fragment.

    >>> check_url_template("https://forum.example/q/{id}")
    'https://forum.example/q/{id}'
    """
    given = f"url-template: {template!r}"
    try:
        parts = urlsplit(template)
        where = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{given} is not an address ({error})") from None
    if where[0] not in ("http", "https") or not where[1] or not template.isprintable() or " " in template:
        raise UserError(f"{given} is not an address; give one such as https://my.site/questions/{ID}")
    if ID not in template or ID in parts.netloc:
        raise UserError(f"{given}: {ID} must appear after the host, such as https://my.site/questions/{ID}")
    return template


def question_url(template: str, id: str) -> str:
    """The address of a question; its id is escaped, so that it stays within one part of the path or query.

    >>> question_url("https://forum.example/q/{id}", "7/8?")
    'https://forum.example/q/7%2F8%3F'
    """
    return template.replace(ID, quote(id, safe=""))
