from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.reporting.page import Cell, Command, Figure, Grid, Key, Lines, Page, Section, Table, Text
from dlrm.reporting.page import render as rendered

# A parser reads a carriage return as a line's end; it also drops what no document may hold
words = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1)


class Reader(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.values: list[str | None] = []
        self.text = ""
        self.scripts = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.values += [value for _, value in attrs]
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text += data


@given(words)
@settings(deadline=None, max_examples=50)
def test_text_is_read_as_it_was_written_wherever_it_stands(text: str) -> None:
    parts = [
        Text(text),
        Lines(text, [text]),
        Command(text, text),
        Table([text], [[text], [Cell(text, text)]], caption=text),
        Grid([Figure(text, "", text), Figure(text, "<svg></svg>", text, [Key(text, "model")])]),
    ]
    page = Page(kind=text, title=text, about=text, verdict=text, notices=[text],
                sections=[Section(text, parts)])  # fmt: skip
    reader = Reader(rendered(page))
    assert reader.text.count(text) >= 19
    assert text in reader.values
    assert reader.scripts == 1
