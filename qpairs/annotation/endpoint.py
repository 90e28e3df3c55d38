"""The address of a language model, and its key."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit, urlunsplit

from qpairs.core.exceptions import UserError

log = logging.getLogger(__name__)

PATH = "/chat/completions"
OWN_KEY, OPENAI_KEY, OPENAI_HOST = "QPAIRS_LLM_KEY", "OPENAI_API_KEY", "api.openai.com"


@dataclass(frozen=True)
class Endpoint:
    """An address that speaks the chat completions of OpenAI's API, as vLLM, Ollama and llama.cpp do.

    Attributes:
        url: full address, such as `http://localhost:8000/v1/chat/completions`.
        model: name of the language model there.
        key: bearer token, sent only to this address; '' for none. It is left out of the representation.
        timeout: seconds until a request counts as failed.
        attempts: of a request that fails temporarily.
        backoff: seconds before the second attempt; each further wait is twice as long, up to a minute.
        max_tokens: most tokens of an answer; models that reason before they answer take thousands.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    attempts: int = 6
    backoff: float = 1.0
    max_tokens: int = 1024

    @property
    def parts(self) -> SplitResult:
        """The parts of the address."""
        return urlsplit(self.url)


def open_endpoint(url: str, model: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint at an address, with its key from the environment. Nothing is sent.

    The key is `QPAIRS_LLM_KEY`. `OPENAI_API_KEY` is used only for `https://api.openai.com`, so that it is sent to no
    other host.

    Args:
        url: the address of the service, with or without `/v1` and `/chat/completions`.
        model: name of the language model there.
        environment: variables by name.

    Raises:
        UserError: the address or the key is invalid.

    >>> open_endpoint("http://localhost:11434", "llama3", {}).url
    'http://localhost:11434/v1/chat/completions'
    """
    if not model.strip():
        raise UserError("--model: give the name of the language model at its service")
    parts = _parts(url)
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path = (path or "/v1") + PATH
    openai = parts.scheme == "https" and parts.hostname == OPENAI_HOST and parts.port in (None, 443)
    name = OWN_KEY if environment.get(OWN_KEY) or not openai else OPENAI_KEY
    key = environment.get(name, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{name}: has characters that are not allowed in a key; set it again")
    if key and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        log.warning("the key is sent to %s without encryption; use https if possible", parts.hostname)
    return Endpoint(urlunsplit(parts._replace(path=path)), model.strip(), key)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parts(url: str) -> SplitResult:
    """The parts of an address that can be asked."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not (url.isascii() and url.isprintable()) or " " in url:
        raise UserError(f"--llm: {url[:200]!r} is not an address such as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise UserError(f"--llm: the address contains a name or a password; give the key in {OWN_KEY} instead")
    return parts._replace(fragment="")
