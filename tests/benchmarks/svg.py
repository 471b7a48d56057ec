"""A minimal SVG writer for charts: text stays text, colors follow light and dark schemes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .quiet { fill: #59636e }
  .title { font-weight: 600; font-size: 15px }
  .axis { stroke: #d1d9e0 } .ours { fill: #0969da } .peer { fill: #9aa4af }
  .line { fill: none; stroke-width: 2 }
  .line.axis { stroke-width: 1 }
  .s0 { stroke: #0969da } .s1 { stroke: #bc4c00 } .s2 { stroke: #1a7f37 }
  .s3 { stroke: #8250df } .s4 { stroke: #9a6700 }
  .linear { stroke: #59636e; stroke-dasharray: 5 4; stroke-width: 1.5 }
  .real { fill: none; stroke: #0969da; stroke-width: 2 }
  .back { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .axis { stroke: #3d444d }
    .ours { fill: #4493f8 } .peer { fill: #656c76 }
    .s0, .real { stroke: #4493f8 } .s1 { stroke: #f0883e } .s2 { stroke: #3fb950 }
    .s3 { stroke: #ab7df8 } .s4 { stroke: #d29922 }
    .linear { stroke: #9198a1 } .back { fill: #0d1117 }
  }
"""


class Picture:
    """A picture that is drawn piece by piece; `text()` is the file."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width, self._height, self._title = width, height, title
        self._pieces: list[str] = []

    def text_at(
        self, x: float, y: float, text: str, style: str = "", anchor: str = "start"
    ) -> None:
        position = f'x="{x:.1f}" y="{y:.1f}"'
        self._pieces.append(
            f'<text {position} class="{style}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._pieces.append(f'<polyline points="{path}" class="line {style}"/>')

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(1, width):.1f}" height="{height:.1f}"'
        self._pieces.append(f'<rect {shape} rx="2" class="{style}"/>')

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        self._pieces.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{style}"/>')

    def text(self) -> str:
        size = f'width="{self._width}" height="{self._height}"'
        view = f'viewBox="0 0 {self._width} {self._height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img">'
        head += f"<title>{escape(self._title)}</title>"
        back = f'<rect {size} rx="6" class="back"/>'
        return "\n".join([head, f"<style>{STYLE}</style>", back, *self._pieces, "</svg>", ""])
