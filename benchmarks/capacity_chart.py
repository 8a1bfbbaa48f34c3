"""The picture of docs/capacity.md: what was measured, as points, and the line through them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Points = Mapping[str, Sequence[Mapping[str, float]]]

_WIDTH, _HEIGHT = 300, 210  # of a panel
_LEFT, _TOP, _RIGHT, _BOTTOM = 48, 44, 14, 34  # around its plot
_COLUMNS = 3
_COLOURS = ("a", "b")
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="ui-sans-serif, system-ui, -apple-system, 'Segoe UI', sans-serif" font-size="12">
  <title>How cost grows: {titles}</title>
  <style>
    .paper {{ fill: #ffffff }} .ink {{ fill: #1d2733 }} .soft {{ fill: #5b6b7c }} .axis {{ stroke: #c3ccd6 }}
    .a {{ stroke: #0b6bcb }} .b {{ stroke: #a3560b }} .fa {{ fill: #0b6bcb }} .fb {{ fill: #a3560b }}
    .head {{ font-weight: 600 }} .fit {{ stroke-width: 1.4; stroke-opacity: 0.45 }}
    @media (prefers-color-scheme: dark) {{
      .paper {{ fill: #0d1117 }} .ink {{ fill: #e6edf3 }} .soft {{ fill: #9aa7b4 }} .axis {{ stroke: #343e4a }}
      .a {{ stroke: #58a6ff }} .b {{ stroke: #e3a15c }} .fa {{ fill: #58a6ff }} .fb {{ fill: #e3a15c }}
    }}
  </style>
  <rect class="paper" width="{width}" height="{height}" rx="10"/>"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: of a sweep, and of what is read at its points by each name."""

    title: str
    sweep: str
    unit: str
    series: Mapping[str, str]
    logarithmic: bool = False


PANELS = (
    Panel("instances", "instances", "MB", {"registry_mb": "registry replica"}),
    Panel("agents, a contract each", "agents", "MB", {"registry_mb": "registry replica"}),
    Panel("processes with a lease", "hosts", "cores", {"registry_cpu": "registry replica"}),
    Panel("watchers of everything", "watchers", "ms of CPU a change", {"change_ms": "registry"}),
    Panel(
        "ADS clients of 1,000 agents", "clients", "ms of CPU a change", {"change_ms": "registry"}
    ),
    Panel("open streams", "streams_sse", "MB", {"gateway_mb": "gateway", "agent_mb": "agent"}),
    Panel(
        "other agents: a call by REST",
        "calls",
        "µs of CPU",
        {"rest_gateway_us": "gateway", "rest_agent_us": "agent"},
    ),
    Panel("messages that wait", "waiting", "MB", {"redis_mb": "Redis", "broker_mb": "broker"}),
    Panel(
        "queues of 10,000 messages",
        "queues",
        "µs of CPU a message",
        {"broker_us": "broker", "redis_us": "Redis"},
        logarithmic=True,
    ),
)


def chart(points: Points) -> str:
    """The picture, as SVG."""
    rows = -(-len(PANELS) // _COLUMNS)
    width, height = _WIDTH * _COLUMNS + 10, _HEIGHT * rows + 10
    titles = "; ".join(panel.title for panel in PANELS)
    lines = [_HEAD.format(width=width, height=height, titles=titles)]
    for number, panel in enumerate(PANELS):
        x, y = number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT
        lines.append(f'  <g transform="translate({x} {y})">')
        lines += [f"    {line}" for line in _panel(panel, points[panel.sweep])]
        lines.append("  </g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, read: Sequence[Mapping[str, float]]) -> Iterator[str]:
    xs = [point["n"] for point in read]
    highest = max(point[name] for point in read for name in panel.series)
    top = _round_up(highest)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        share = xs.index(x) / (len(xs) - 1) if panel.logarithmic else x / xs[-1]
        return (
            round(_LEFT + share * (right - _LEFT), 1),
            round(bottom - y / top * (bottom - _TOP), 1),
        )

    yield f'<text class="ink head" x="{_LEFT}" y="20">{panel.title}</text>'
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none"/>'
    for share in (0.0, 0.5, 1.0):
        _, y = at(xs[0], top * share)
        yield f'<text class="soft" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{top * share:,g}</text>'
    for x in xs if panel.logarithmic else (xs[0], xs[-1]):
        left, _ = at(x, 0)
        anchor = "end" if x == xs[-1] else "start" if x == xs[0] else "middle"
        yield f'<text class="soft" x="{left}" y="{bottom + 16}" text-anchor="{anchor}">{x:,g}</text>'
    yield f'<text class="soft" x="{_LEFT}" y="{_TOP - 8}">{panel.unit}</text>'
    highest_last = max(panel.series, key=lambda name: read[-1][name])
    for colour, (name, label) in zip(_COLOURS, panel.series.items(), strict=False):
        ys = [point[name] for point in read]
        places = [at(x, y) for x, y in zip(xs, ys, strict=True)]
        if panel.logarithmic:
            ends = " ".join(f"{x},{y}" for x, y in places)
            yield f'<polyline class="{colour} fit" points="{ends}" fill="none"/>'
        else:
            slope, base = statistics.linear_regression(xs, ys)
            (x1, y1), (x2, y2) = (at(x, max(0.0, base + slope * x)) for x in (xs[0], xs[-1]))
            yield f'<line class="{colour} fit" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
        for x, y in places:
            yield f'<circle class="f{colour}" cx="{x}" cy="{y}" r="3"/>'
        above = -8 if name == highest_last else 16
        yield (
            f'<text class="f{colour}" x="{right}" y="{places[-1][1] + above}" text-anchor="end">{label}</text>'
        )


def _round_up(value: float) -> float:
    """The next value of 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 0.001
    while True:
        for step in (1, 2, 5):
            if value <= step * power:
                return step * power
        power *= 10
