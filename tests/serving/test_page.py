"""The page of the server, in a browser."""

import json
import re
from urllib.parse import quote

import pytest
from browser import CHROMIUM, Page, browser
from served import serving

from dlrm.serving.columns import columns
from dlrm.training.predictor import Predictor

ROW = {"city_id": 3, "device": "phone", "price": 1.5}
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


def cells(page: Page, table: str) -> list[list[str]]:
    """Return the texts of a table's body."""
    rows = f"[...document.querySelectorAll('#{table} tr')]"
    texts = page.run(f"JSON.stringify({rows}.map(row => [...row.cells].map(x => x.textContent)))")
    return json.loads(texts)


def test_the_page_asks_for_nothing_from_elsewhere_and_for_no_token(folder):
    with serving(folder / "visits", token="secret") as served:
        status, body = served.call("GET", "/")
        for path in ("/status", "/v2/models/visits/columns", "/v2/models/visits/shadow"):
            assert served.call("GET", path)[0] == 401
    text = body.decode()
    assert status == 200
    assert "visits" not in text
    assert not re.search(r"https?://|src=|@import|innerHTML", text)


def test_columns_have_values_that_are_usual(folder):
    known = {
        column["name"]: column for column in columns(Predictor.open(folder / "visits").features)
    }
    assert list(known) == list(ROW)
    assert known["device"]["kind"] == "category"
    assert (known["device"]["distinct"], set(known["device"]["values"])) == (2, {"phone", "laptop"})
    assert known["price"]["kind"] == "number"
    assert known["price"]["values"] == sorted(known["price"]["values"])
    lists = {c["name"]: c for c in columns(Predictor.open(folder / "two").features)}
    assert lists["tags"]["kind"] == "list"
    assert set(lists["tags"]["values"]) == set("abcxy")
    # Values of a log of a known format are written as in its files.
    demo = columns(Predictor.open(folder / "demo").features)
    values = [
        value for column in demo if column["kind"] == "category" for value in column["values"]
    ]
    assert values
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in values)


def test_usual_values_are_values_that_the_model_knows(folder):
    for name in ("visits", "two", "demo"):
        predictor = Predictor.open(folder / name)
        features = predictor.features
        for column in columns(features):
            if column["kind"] != "category" or not column["values"]:
                continue
            values = column["values"]
            rows = {other: [None] * len(values) for other in features.needed}
            ids = predictor.encode({**rows, column["name"]: values}).ids
            known = [len(set(column_ids)) for column_ids in ids.T.tolist()]
            assert max(known) == len(values)


@in_browser
def test_a_row_is_scored_in_a_browser(folder, tmp_path):
    with serving(folder / "visits") as served, browser(tmp_path / "profile") as page:
        _, answer = served.json("POST", "/score", ROW)
        _, without = served.json("POST", "/score", {**ROW, "price": None})
        page.open(f"{served.server.url}/#{quote(json.dumps(ROW))}")
        page.wait("at('score').textContent !== ''")
        score = page.run("at('score').textContent")
        moved = cells(page, "moved tbody")
        page.wait("at('models').rows.length && at('models').rows[0].cells[2].textContent >= 3")
        (model,) = cells(page, "models")
    assert float(score.removeprefix("Score: ")) == pytest.approx(answer["score"], rel=1e-3)
    others = {name: (float(other), float(change)) for name, other, change, _ in moved}
    assert set(others) == set(ROW)
    change = answer["score"] - without["score"]
    assert others["price"] == pytest.approx((without["score"], change), rel=1e-2)
    changes = [abs(change) for _, change in others.values()]
    assert changes == sorted(changes, reverse=True)
    assert model[:2] == ["visits", "1"]
    assert model[9:] == ["eager, cpu", "–"]


@in_browser
def test_candidates_are_ranked_in_a_browser(folder, tmp_path):
    user = {"city_id": 3, "price": 1.5}
    with serving(folder / "visits") as served, browser(tmp_path / "profile") as page:
        page.open(f"{served.server.url}/#{quote(json.dumps(user))}")
        page.wait("at('score').textContent !== ''")
        # The category with most values is the one that varies, until another is marked.
        assert page.run("varying().map(column => column.name).join()") == "city_id"
        page.run("document.querySelectorAll('#vary input').forEach(box => box.click())")
        assert page.run("at('head').textContent") == "device  ⇥  price"
        page.run("at('candidates').value = 'phone\\t1\\nlaptop\\t1\\nphone\\t\\n\\nother\\t2.5'")
        page.run("at('rank').click()")
        page.wait("at('time').textContent !== ''")
        assert page.run("at('time').textContent").startswith("4 candidates scored in ")
        ranked = cells(page, "ranked tbody")
        page.run("at('candidates').value = ''; at('rank').click()")
        page.wait("at('time').textContent.startsWith('10')")
        assert len(page.run("at('candidates').value").splitlines()) > 1
        rows = [
            {**user, "device": device, "price": price or None}
            for device, price in (("phone", 1), ("laptop", 1), ("phone", 0), ("other", 2.5))
        ]
        _, answer = served.json("POST", "/score", rows)
    assert [int(row[0]) for row in ranked] == [1, 2, 3, 4]
    assert {row[1] for row in ranked} == {"phone", "laptop", "other"}
    scores = [float(row[3]) for row in ranked]
    assert scores == pytest.approx(sorted(answer["scores"], reverse=True), rel=1e-3)


@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_shadows_several_labels_and_a_narrow_window(folder, tmp_path, dark):
    runs = (folder / "two", f"other={folder / 'two'}")
    with serving(*runs, shadows=["two=other"]) as served, browser(tmp_path / "profile") as page:
        page.look(390, dark=dark)
        page.open(served.server.url)
        page.wait("columns.length > 0")
        page.run("at('usual').click()")
        page.wait("at('score').textContent !== ''")
        assert page.run("at('score').textContent").startswith("Score: clicked ")
        assert page.run("at('label').options.length") == 2
        page.run("at('rank').click()")
        page.wait("at('time').textContent !== ''")
        page.wait("at('shadows').rows.length && at('shadows').rows[0].cells[2].textContent >= 2")
        (pair,) = cells(page, "shadows")
        # Nothing but tables is wider than the window, and these scroll by themselves.
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        back = page.run("getComputedStyle(document.body).backgroundColor")
    assert pair[:2] == ["two 1", "other 1"]
    assert pair[6:8] == ["0", "0"]
    assert back == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@in_browser
def test_a_token_is_asked_for_where_there_is_one(folder, tmp_path):
    with serving(folder / "visits", token="s3cret") as served, browser(tmp_path / "p") as page:
        page.open(served.server.url)
        page.wait("!at('access').hidden")
        assert "TOKEN is missing" in page.run("at('problem').textContent")
        page.run("at('token').value = 's3cret'")
        page.wait("columns.length > 0")
        assert page.run("at('problem').textContent") == ""
        # What was refused before is in the browser's log, and nothing else.
        assert all("401" in problem for problem in page.problems)
        page.problems.clear()
