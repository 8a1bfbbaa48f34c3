"""Colours, for light and for dark. Nothing is said by colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FONT: Final = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
MONO: Final = "ui-monospace, 'SFMono-Regular', Menlo, 'DejaVu Sans Mono', monospace"

MARKS: Final = {
    "succeeded": "✓",
    "failed": "✗",
    "running": "▶",
    "waiting": "◷",
    "skipped": "○",
    "compensated": "↶",
    "cancelled": "✗",
    "queued": "◷",
}
# State -> fill, line and text, each in light and in dark.
_STATES: Final = {
    "succeeded": (("#e7f6ec", "#2f9e5b", "#17683a"), ("#12301f", "#3fb56f", "#8fe0af")),
    "failed": (("#fdeaea", "#d64545", "#a32626"), ("#3a1616", "#ee6b6b", "#ffb3b3")),
    "running": (("#e8f0fe", "#3b73d9", "#1f4fa8"), ("#14233f", "#6b9bf2", "#b5cffb")),
    "waiting": (("#fff5dd", "#c98a12", "#85590a"), ("#34270c", "#e0ab45", "#f3d08b")),
    "compensated": (("#f3ecfb", "#8a5cc7", "#613a97"), ("#2a1c3d", "#b18be6", "#d8c2f5")),
    "skipped": (("#f6f7f8", "#a5adb6", "#69727c"), ("#191d22", "#5c6670", "#98a2ad")),
}
# What is there -> its declaration, in light and in dark.
_COLOURS: Final = {
    ".ground": ("fill:#ffffff", "fill:#0f1318"),
    ".shape": ("fill:#f7f9fb;stroke:#5b6b7b", "fill:#1a2027;stroke:#8796a6"),
    ".shape.approval": ("fill:#fff8e8;stroke:#b07c14", "fill:#2b2415;stroke:#d3a345"),
    ".shape.pattern": ("fill:#eef3fd;stroke:#4a6fb8", "fill:#172033;stroke:#7d9fe6"),
    ".shape.pause": ("fill:#f1f4f6;stroke:#6b7a88", "fill:#1d242b;stroke:#8b99a7"),
    ".shape.edgeof": ("fill:#ffffff;stroke:#5b6b7b", "fill:#0f1318;stroke:#8796a6"),
    ".inner": ("stroke:#4a6fb8", "stroke:#7d9fe6"),
    ".bar": ("stroke:#5b6b7b", "stroke:#8796a6"),
    ".title": ("fill:#17202a", "fill:#eef2f6"),
    ".kind,.line,.caption": ("fill:#556472", "fill:#a9b5c1"),
    ".way": ("stroke:#5b6b7b", "stroke:#93a2b1"),
    ".way.failed": ("stroke:#c23b3b", "stroke:#ee6b6b"),
    ".tip": ("fill:#5b6b7b", "fill:#93a2b1"),
    ".tip.failed": ("fill:#c23b3b", "fill:#ee6b6b"),
    ".plate": ("fill:#ffffff", "fill:#0f1318"),
    ".label": ("fill:#2b3a49", "fill:#d5dee7"),
    ".label.failed": ("fill:#a32626", "fill:#ffb3b3"),
    ".track": ("fill:#d5dbe1", "fill:#38424d"),
}
_LASTING: Final = f"""
text{{font-family:{FONT}}}
.heading{{font-size:17px;font-weight:600}}
.caption{{font-size:12.5px}}
.title{{font-size:14px;font-weight:600}}
.kind{{font-size:10.5px;letter-spacing:.04em}}
.line{{font-size:11.5px}}
.stand{{font-size:11.5px;font-weight:600}}
.label{{font-size:11px;font-family:{MONO}}}
.label.word{{font-family:{FONT};font-style:italic}}
.shape{{stroke-width:1.4}}
.inner,.bar{{fill:none;stroke-width:1}}
.way{{fill:none;stroke-width:1.4}}
.way.back{{stroke-dasharray:6 4}}
.way.failed{{stroke-dasharray:2 3}}
.dim{{opacity:.55}}
"""


def sheet() -> str:
    """The style sheet."""
    light, dark = (_rules(side) for side in (0, 1))
    return f"{_LASTING.strip()}\n{light}\n@media (prefers-color-scheme: dark){{\n{dark}\n}}"


def _rules(side: int) -> str:
    rules = [f"{selector}{{{both[side]}}}" for selector, both in _COLOURS.items()]
    for state, colours in _STATES.items():
        fill, line, text = colours[side]
        rules.append(f".shape.{state}{{fill:{fill};stroke:{line}}}")
        rules.append(f".inner.{state},.bar.{state}{{stroke:{line}}}")
        rules.append(f".stand.{state}{{fill:{text}}}.spent.{state}{{fill:{line}}}")
    return "\n".join(rules)


def mermaid_classes() -> Mapping[str, str]:
    """What Mermaid draws states with."""
    return {
        state: f"fill:{light[0]},stroke:{light[1]},color:{light[2]}"
        for state, (light, _) in _STATES.items()
    }
