"""The page of the app as routes: static files, with headers that allow them only what they need.

The page asks `model` and `predict` of the server it comes from and nobody else. It has no inline
script or style, so the policy forbids those; and as the browser lets it make no element from
markup, the name of a column is never more than text.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for each time whether it is still the same: a server may be updated.
    "Cache-Control": "no-cache",
}
_FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def page_routes() -> list[Route]:
    """Makes the routes `/` and `/page/<file>`; the files are read now and kept.

    They hold nothing secret and must answer without a token: it is the page that asks for one.
    """
    return [_route(file) for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES]


def _route(file: Path) -> Route:
    content = file.read_bytes()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "Content-Type": _TYPES[file.suffix], "ETag": tag}

    async def answer(request: Request) -> Response:
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    path = "/" if file.name == "index.html" else f"/page/{file.name}"
    return Route(path, answer, name=f"page {file.name}", include_in_schema=False)
