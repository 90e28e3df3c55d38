"""What the site does besides mkdocs: chapters of the navigation whose page is not there yet are left out."""

from pathlib import Path
from typing import Any

PLANNED = ("data.md", "languages.md", "robustness.md", "speed.md", "scale.md", "serving.md")


def on_config(config: Any) -> Any:
    """Leaves out the planned pages that are missing; any other page that is missing fails a strict build."""
    docs = Path(config.docs_dir)
    missing = {name for name in PLANNED if not (docs / name).exists()}
    config.nav = _without(config.nav, missing)
    return config


def _without(entries: list[dict[str, Any]], missing: set[str]) -> list[dict[str, Any]]:
    kept = []
    for entry in entries:
        ((title, page),) = entry.items()
        if isinstance(page, list):
            kept.append({title: _without(page, missing)})
        elif page not in missing:
            kept.append(entry)
    return kept
