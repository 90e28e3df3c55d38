"""Which web pages may send requests to a service: its own, and those of allowed origins.

A page of any site can send requests to a service on the reader's machine or network, and read the answers through a
host name that points there (DNS rebinding). The headers that a browser sends distinguish them: `Host`, `Origin` (RFC
6454) and `Sec-Fetch-Site` (W3C Fetch Metadata). Other programs send neither of the last two.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from qpairs.core.exceptions import UserError

_ORIGIN = re.compile(r"https?://[^/?#@\s*]+")


@dataclass(frozen=True)
class Origins:
    """Whose requests are answered.

    Attributes:
        allowed: origins whose pages may send requests, besides the service's own, such as `https://my.site`.
        loopback: whether a request must name a loopback host, such as localhost, or that of an allowed origin: for a
            service on a loopback address without a token.
    """

    allowed: tuple[str, ...] = ()
    loopback: bool = False

    def refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason why a request is refused; None if it is allowed.

        Args:
            method: in upper case.
            headers: of the request.

        >>> own = Headers({"host": "localhost:8000", "origin": "http://localhost:8000"})
        >>> Origins(loopback=True).refusal("GET", own)
        >>> foreign = Headers({"host": "localhost:8000", "origin": "https://other.site"})
        >>> Origins(loopback=True).refusal("GET", foreign)[1]
        "a page of 'https://other.site' may not send requests to this service; qpairs serve --allow-origin allows it"
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and not (_is_loopback(host) or host in map(_host_of, self.allowed)):
            return 403, f"this service answers only requests to localhost, not to {host!r}"
        if not self._may_ask(host, origin, headers.get("sec-fetch-site", "none")):
            what = f"a page of {origin!r}" if origin else "a page of another site"
            return 403, f"{what} may not send requests to this service; qpairs serve --allow-origin allows it"
        if method == "POST" and not _is_json(headers.get("content-type", "")):  # of forms; others have no routes
            return 415, "the body must be JSON, with the header content-type: application/json"
        return None

    def _may_ask(self, host: str, origin: str | None, site: str) -> bool:
        if origin in self.allowed or site == "same-origin":  # the latter stays true behind a proxy that changes Host
            return True
        return site == "none" if origin is None else host != "" and _host_of(origin) == host.lower()


OWN_PAGE = Origins()


def allowed_origins(names: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers send them: in lower case, without a path or the default port.

    Raises:
        UserError: not an origin.

    >>> allowed_origins(["https://My.site/", "http://localhost:3000"])
    ('https://my.site', 'http://localhost:3000')
    """
    found = []
    for name in names:
        origin = name.lower().removesuffix("/")
        if not (_ORIGIN.fullmatch(origin) and _host_of(origin)):
            raise UserError(f"allow-origin: {name!r} is not an origin; give scheme and host, such as https://my.site")
        default = {"http": ":80", "https": ":443"}[origin.partition(":")[0]]
        found.append(origin.removesuffix(default))
    return tuple(found)


def _host_of(origin: str) -> str:
    """Host and port of an origin; '' if it has none, or is not an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:  # a name, or no host at all
        return False


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
