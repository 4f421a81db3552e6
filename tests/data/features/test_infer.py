"""What practitioners expect of tables as they meet them."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from dlrm.data.features.infer import infer
from dlrm.data.sources.frame import FrameSource

from .tables import inferred

N = 4000
Table = tuple[pl.DataFrame, dict[str, str]]


def choice(rng: np.random.Generator, values: list, p: list[float] | None = None) -> list:
    return rng.choice(np.array(values, object), N, p=p).tolist()


def some(rng: np.random.Generator, values: list, share: float) -> list:
    return [None if gone else v for v, gone in zip(values, rng.random(N) < share, strict=True)]


def census(rng: np.random.Generator) -> Table:
    gains = np.where(rng.random(N) < 0.08, rng.integers(100, 100_000, N), 0)
    frame = pl.DataFrame(
        {
            "age": rng.integers(17, 90, N),
            "workclass": choice(rng, ["Private", "Self-emp-not-inc", "State-gov", "?"]),
            "fnlwgt": rng.lognormal(12, 0.5, N).astype(int),
            "education": choice(rng, ["Bachelors", "HS-grad", "11th", "Masters", "Some-college"]),
            "education-num": rng.integers(1, 17, N),
            "marital-status": choice(rng, ["Married-civ-spouse", "Never-married", "Divorced"]),
            "capital-gain": gains,
            "hours-per-week": np.clip(rng.normal(40, 12, N), 1, 99).astype(int),
            "native-country": choice(rng, ["United-States", "Mexico", "Viet-Nam", "?"]),
            "label": choice(rng, ["<=50K", ">50K"]),
        }
    )
    return frame, {
        "age": "piecewise",
        "workclass": "category",
        "fnlwgt": "piecewise",
        "education": "category",
        "education-num": "category",
        "marital-status": "category",
        "capital-gain": "piecewise",
        "hours-per-week": "piecewise",
        "native-country": "category",
    }


def titanic(rng: np.random.Generator) -> Table:
    surnames = [
        f"{a}{b}" for a in ("Bra", "Cum", "Hei", "Fut", "All") for b in ("und", "ings", "nen")
    ]
    tickets = [
        str(rng.integers(1000, 400_000)) if rng.random() < 0.7 else f"A/5 {rng.integers(999)}"
        for _ in range(N)
    ]
    cabins = [f"{'ABCDE'[k % 5]}{k % 130}" for k in rng.integers(0, 1000, N)]
    frame = pl.DataFrame(
        {
            "PassengerId": np.arange(1, N + 1),
            "Pclass": rng.integers(1, 4, N),
            "Name": [f"{s}, Mr. {k} Owen" for k, s in enumerate(choice(rng, surnames))],
            "Sex": choice(rng, ["male", "female"]),
            "Age": some(rng, rng.uniform(0.4, 80, N).round(1).tolist(), 0.2),
            "SibSp": rng.integers(0, 9, N),
            "Ticket": tickets,
            "Fare": rng.lognormal(2.9, 1.1, N).round(4),
            "Cabin": some(rng, cabins, 0.77),
            "Embarked": some(rng, choice(rng, ["S", "C", "Q"]), 0.01),
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "PassengerId": "ignore",
        "Pclass": "category",
        "Name": "ignore",
        "Sex": "category",
        "Age": "piecewise",
        "SibSp": "category",
        "Ticket": "category|ignore",
        "Fare": "piecewise",
        "Cabin": "category",
        "Embarked": "category",
    }


def movielens(rng: np.random.Generator) -> Table:
    genres = ["Action", "Comedy", "Drama", "Sci-Fi", "Children's", "Film-Noir", "War"]
    sets = [rng.choice(genres, rng.integers(1, 4), replace=False).tolist() for _ in range(N)]
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(1, 300, N),
            "movie_id": rng.integers(1, 500, N),
            "timestamp": rng.integers(874_000_000, 893_000_000, N),
            "gender": choice(rng, ["M", "F"]),
            "age": rng.integers(7, 74, N),
            "occupation": choice(rng, ["student", "other", "writer", "college/grad student"]),
            "zip_code": [f"{k:05}" for k in rng.integers(0, 300, N) * 331],
            "title": [f"Movie {k} ({1950 + k % 50})" for k in rng.integers(1, 500, N)],
            "genres": ["|".join(each) for each in sets],
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "user_id": "category",
        "movie_id": "category",
        "timestamp": "time",
        "gender": "category",
        "age": "piecewise",
        "occupation": "category",
        "zip_code": "category",
        "title": "category",
        "genres": "list",
    }


def bank(rng: np.random.Generator) -> Table:
    frame = pl.DataFrame(
        {
            "age": rng.integers(18, 95, N),
            "job": choice(rng, ["blue-collar", "management", "admin.", "unknown"]),
            "default": choice(rng, ["no", "yes"], [0.95, 0.05]),
            "balance": (rng.lognormal(6, 1.5, N) * rng.choice([1, 1, 1, -0.2], N)).astype(int),
            "day": rng.integers(1, 32, N),
            "month": choice(rng, ["jan", "feb", "may", "nov"]),
            "duration": rng.lognormal(5.2, 0.9, N).astype(int),
            "campaign": rng.geometric(0.35, N),
            "pdays": np.where(rng.random(N) < 0.8, -1, rng.integers(1, 800, N)),
            "emp.var.rate": choice(rng, [-1.8, 1.1, 1.4, -0.1]),
            "euribor3m": rng.uniform(0.6, 5, N).round(3),
            "label": choice(rng, ["no", "yes"]),
        }
    )
    return frame, {
        "age": "piecewise",
        "job": "category",
        "default": "category",
        "balance": "piecewise",
        "day": "piecewise|category",
        "month": "category",
        "duration": "piecewise",
        "campaign": "category|log",
        "pdays": "piecewise",
        "emp.var.rate": "piecewise|none",
        "euribor3m": "piecewise",
    }


def taxi(rng: np.random.Generator) -> Table:
    start = rng.integers(1_450_000_000, 1_460_000_000, N)
    pickup = pl.Series(start * 1000).cast(pl.Datetime("ms"))
    frame = pl.DataFrame(
        {
            "id": [f"id{k}" for k in rng.permutation(10**6)[:N]],
            "vendor_id": rng.integers(1, 3, N),
            "pickup_datetime": pickup.dt.strftime("%Y-%m-%d %H:%M:%S"),
            "dropoff_datetime": pickup,
            "passenger_count": rng.integers(1, 7, N),
            "pickup_longitude": rng.normal(-73.97, 0.04, N),
            "trip_distance": rng.lognormal(0.6, 0.9, N).round(2),
            "store_and_fwd_flag": choice(rng, ["N", "Y"]),
            "PULocationID": rng.integers(1, 264, N),
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "id": "ignore",
        "vendor_id": "category",
        "pickup_datetime": "time",
        "dropoff_datetime": "time",
        "passenger_count": "category",
        "pickup_longitude": "piecewise",
        "trip_distance": "piecewise",
        "store_and_fwd_flag": "category",
        "PULocationID": "category",
    }


def avazu(rng: np.random.Generator) -> Table:
    def hashes(many: int) -> list[str]:
        known = [f"{k:08x}" for k in rng.integers(0, 2**32, many)]
        return choice(rng, known)

    frame = pl.DataFrame(
        {
            "id": [str(k) for k in rng.integers(10**18, 9 * 10**18, N)],
            "hour": 14102100 + 100 * rng.integers(0, 10, N) + rng.integers(0, 24, N),
            "C1": choice(rng, [1005, 1002, 1010]),
            "banner_pos": rng.integers(0, 8, N),
            "site_id": hashes(200),
            "device_ip": hashes(900),
            "C14": choice(rng, [int(k) for k in rng.integers(375, 24_000, 200)]),
            "C20": choice(rng, [-1, *(int(k) for k in rng.integers(100_000, 100_250, 80))]),
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "id": "ignore",
        "hour": "time",
        "C1": "category",
        "banner_pos": "category",
        "site_id": "category",
        "device_ip": "category",
        "C14": "category",
        "C20": "category|standard|log",
    }


def credit(rng: np.random.Generator) -> Table:
    frame = pl.DataFrame(
        {
            "ID": np.arange(N),
            "LIMIT_BAL": rng.integers(1, 80, N) * 10_000,
            "SEX": rng.integers(1, 3, N),
            "AGE": rng.integers(21, 75, N),
            "PAY_0": rng.integers(-2, 9, N),
            "BILL_AMT1": (rng.normal(50_000, 70_000, N)).astype(int),
            "PAY_AMT1": rng.lognormal(7.5, 2, N).astype(int),
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "ID": "ignore",
        "LIMIT_BAL": "piecewise",
        "SEX": "category",
        "AGE": "piecewise",
        "PAY_0": "category",
        "BILL_AMT1": "piecewise",
        "PAY_AMT1": "piecewise",
    }


def churn(rng: np.random.Generator) -> Table:
    charges = some(rng, [f"{x:.2f}" for x in rng.uniform(18, 8000, N)], 0.01)
    frame = pl.DataFrame(
        {
            "customerID": [f"{k:04}-{k * 7919 % 10**5:05}" for k in range(N)],
            "SeniorCitizen": rng.integers(0, 2, N),
            "Partner": choice(rng, ["Yes", "No"]),
            "tenure": rng.integers(0, 73, N),
            "Contract": choice(rng, ["Month-to-month", "One year", "Two year"]),
            "PaymentMethod": choice(rng, ["Electronic check", "Mailed check", "Bank transfer"]),
            "TotalCharges": [" " if text is None else text for text in charges],
            "label": choice(rng, ["Yes", "No"]),
        }
    )
    return frame, {
        "customerID": "ignore",
        "SeniorCitizen": "category",
        "Partner": "category",
        "tenure": "piecewise",
        "Contract": "category",
        "PaymentMethod": "category",
        "TotalCharges": "piecewise",
    }


def shop(rng: np.random.Generator) -> Table:
    frame = pl.DataFrame(
        {
            "session": [f"{k:032x}" for k in rng.integers(0, 2**62, N)],
            "price": rng.lognormal(3, 1, N).round(2),
            "category_code": choice(rng, ["electronics.phone", "appliances.kitchen", "kids.toys"]),
            "brand": some(rng, choice(rng, ["samsung", "apple", "xiaomi", "lg"]), 0.15),
            "is_weekend": choice(rng, [True, False]),
            "cart": [rng.integers(0, 90, rng.integers(0, 6)).tolist() for _ in range(N)],
            "seen": [" ".join(rng.choice(list("abcdefgh"), 3)) for _ in range(N)],
            "embedding": rng.normal(size=(N, 4)).tolist(),
            "day": pl.Series(rng.integers(18_000, 18_300, N)).cast(pl.Int32).cast(pl.Date),
            "label": rng.integers(0, 2, N),
        }
    )
    return frame, {
        "session": "ignore",
        "price": "piecewise",
        "category_code": "category",
        "brand": "category",
        "is_weekend": "category",
        "cart": "list",
        "seen": "list",
        "embedding": "ignore",
        "day": "time",
    }


def sensors(rng: np.random.Generator) -> Table:
    frame = pl.DataFrame(
        {
            "": np.arange(N),
            "temperature": rng.normal(20, 5, N),
            "pressure": rng.normal(1013, 8, N).round(1),
            "machine": choice(rng, ["M1", "M2", "M3"]),
            "cycles": rng.integers(0, 5000, N),
            "error_count": rng.poisson(0.2, N),
            "firmware": choice(rng, ["1.0", "1.1", "2.0.1"]),
            "year": rng.integers(1990, 2024, N),
            "constant": [7] * N,
            "label": rng.integers(0, 2, N),
        }
    )
    return frame.rename({"": "index"}), {
        "index": "ignore",
        "temperature": "piecewise",
        "pressure": "piecewise",
        "machine": "category",
        "cycles": "piecewise",
        "error_count": "category",
        "firmware": "category",
        "year": "piecewise|category",
        "constant": "ignore",
    }


TABLES: list[Callable[[np.random.Generator], Table]] = [
    census,
    titanic,
    movielens,
    bank,
    taxi,
    avazu,
    credit,
    churn,
    shop,
    sensors,
]


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("seed", [0, 1])
def test_kinds(make, seed, tmp_path):
    frame, expected = make(np.random.default_rng(seed))
    found = inferred(frame, tmp_path / "raw")
    wrong = {k: found[k] for k, kinds in expected.items() if found[k] not in kinds.split("|")}
    assert not wrong
    assert found.keys() == expected.keys()


def test_each_guess_says_why(tmp_path):
    frame, _ = titanic(np.random.default_rng(0))
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    reasons = {column.name: column.why for column in schema.columns}
    assert all(reasons.values())
    assert reasons["PassengerId"] == "numbers the rows"
    assert reasons["Name"] == "nearly every row has a value of its own (4,000 in 4,000)"
    assert reasons["Pclass"] == "3 different whole numbers"
    assert reasons["Fare"].endswith("different numbers")
    assert not schema.column("Age").missing_flag
    assert "missing in 2" in reasons["Age"] or "missing in 1" in reasons["Age"]
    assert schema.column("Embarked").values.min_count == 2


def test_sorted_mixtures_are_no_change_of_type(tmp_path):
    values = sorted([*map(str, range(1000, 1100)), *(f"x{k}" for k in range(1000, 1100))])
    frame = pl.DataFrame({"code": values * 2, "label": [0, 1] * 200}).sort("code")
    assert inferred(frame, tmp_path / "raw") == {"code": "category"}
