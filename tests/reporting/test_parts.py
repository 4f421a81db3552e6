from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import DictLoader, Environment

from dlrm.reporting.charts.drawing import Figure, Key
from dlrm.reporting.page import TEMPLATES

# A parser reads a carriage return as a line's end; it also drops what no document may hold
words = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1)

PAGE = """
{% from "parts.html" import frame, grid, lines, row %}
{{ grid(figures) }}{{ lines(text, [text]) }}
{% call frame([text, text], text, text, left=[text]) %}
{{ row(text, text, left=[text]) }}
{% endcall %}
"""


class Reader(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.values: list[str | None] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.values += [value for _, value in attrs]
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        self.text += data


@given(words)
@settings(deadline=None, max_examples=50)
def test_text_is_read_as_it_was_written_wherever_it_stands(text: str) -> None:
    parts = (TEMPLATES / "parts.html").read_text(encoding="utf-8")
    environment = Environment(loader=DictLoader({"parts.html": parts}), autoescape=True)
    figures = [Figure(text, text), Figure(text, text, [Key(text, "model")], "<svg></svg>")]
    html = environment.from_string(PAGE).render(text=text, figures=figures)
    reader = Reader(html)
    assert reader.text.count(text) >= 14
    assert text in reader.values
