"""Hooks of mkdocs: numbers of decisions (D13) in any page become links to their pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"\bD(\d{1,2})\b")
# Parts of a page that stay as they are: tags, and what lies in code, links and headings.
OPAQUE = re.compile(r"(<(code|pre|a|h1|script|style)\b.*?</\2>|<[^>]+>)", re.DOTALL)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Return the page's HTML with links; called by mkdocs for each page."""
    folder = Path(config["docs_dir"]) / "decisions"
    pages = {int(path.name[1:3]): path.stem for path in folder.glob("d[0-9][0-9]-*.md")}
    root = "../" * page.url.rstrip("/").count("/") + ("../" if page.url.strip("./") else "")

    def link(found: re.Match[str]) -> str:
        name = pages.get(int(found[1]))
        return f'<a href="{root}decisions/{name}/">{found[0]}</a>' if name else found[0]

    parts = OPAQUE.split(html)
    # OPAQUE has two groups: text, opaque part, tag name, text, ...
    parts[::3] = [NUMBER.sub(link, text) for text in parts[::3]]
    del parts[2::3]
    return "".join(parts)
