from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.reporting.markup import Html, element, join

# A parser reads a carriage return as a line's end; it also drops what no document may hold
words = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]))


@given(words, words)
@settings(deadline=None)
def test_text_and_attributes_are_read_as_they_were_written(text: str, value: str) -> None:
    seen: list[object] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

        def handle_data(self, data: str) -> None:
            seen.append(data)

    reader = Reader()
    reader.feed(element("p", text, title=value))
    reader.close()
    assert seen[0] == ("p", [("title", value)])
    assert "".join(map(str, seen[1:])) == text


def test_html_is_taken_as_it_is_and_nothing_else() -> None:
    inner = element("b", "a < b")
    assert element("p", inner, None, "&") == "<p><b>a &lt; b</b>&amp;</p>"
    assert join(Html("<i>"), "<i>") == "<i>&lt;i&gt;"


def test_attributes() -> None:
    made = element("td", class_="n", data_value=0, hidden=False, open=True, title=None)
    assert made == '<td class="n" data-value="0" open></td>'
    assert element("br") == "<br>"
