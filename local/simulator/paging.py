"""ARM's pages: sorted rows, a link to the next with a token that says where the last one ended."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from local.simulator.errors import bad_request
from local.simulator.wire import Reply, rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local.simulator.wire import Request

TOKEN = "$skipToken"  # noqa: S105 - the name of a query parameter


def page[Row](request: Request, rows: Mapping[str, Row], size: int, render: Callable[[Row], bytes]) -> Reply:
    """One page of `rows` (by sort key), after the token of the request if it has one.

    The token is the key of the row before, so that rows which come or go between two pages repeat or hide no others.
    """
    keys = sorted(rows)
    begin = _begin(keys, request.query.get(TOKEN.lower()))
    chosen = keys[begin : begin + size]
    body = b'{"value":[' + b",".join(render(rows[key]) for key in chosen) + b"]"
    if begin + size < len(keys):
        body += b',"nextLink":' + rendered(_next_link(request, chosen[-1]))
    return Reply(200, body + b"}")


def _begin(keys: Sequence[str], token: str | None) -> int:
    if token is None:
        return 0
    try:
        last = base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise bad_request("The skip token is not valid.") from error
    return bisect_right(keys, last)


def _next_link(request: Request, last: str) -> str:
    token = base64.urlsafe_b64encode(last.encode()).decode()
    query = {name: value for name, value in request.query.items() if name != TOKEN.lower()} | {TOKEN: token}
    return f"https://{request.host}{request.path}?{urlencode(query, safe='$=')}"
