"""`dlrm plan`: what it says is what then happens, and what it cannot do it says."""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.machines import machine
from dlrm.bench import speed
from dlrm.bench.arch import ARCHS
from dlrm.cli import main
from dlrm.commands import plan
from dlrm.commands.plan_result import amount, bar, ranges, short
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.store import MANIFEST_FILE
from dlrm.json_file import SEAL, write_sealed
from dlrm.planning.network import Link, Network
from dlrm.planning.times import Rates

LARGE = ["criteo-kaggle", "--loader.batch-size", "512", "--max-steps", "12"]
EIGHT = ["plan", "--arch", "criteo-terabyte", "--procs", "8", "--no-measure", "--json"]


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def alone(*words: str, folder: Path) -> tuple[dict[str, Any], int]:
    """Run a command in a process of its own; its JSON, and the peak of its memory."""
    out = folder / "out.txt"
    with out.open("wb") as stream:
        # Through a small process: the peak of a fresh one begins with that of its parent.
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, sys.executable, "-m", "dlrm", *words, "--json"]
        subprocess.run(command, stdout=stream, stderr=subprocess.DEVNULL, cwd=folder, check=True)
    *_, result, peak = out.read_text().splitlines()
    return json.loads(result), int(peak) * 1024


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared log whose tables are made to have two million rows, 390 MB of them with Adam."""
    folder = tmp_path_factory.mktemp("large")
    config = PrepareConfig(split="chronological")
    data = prepare(ClicksSource(8000), folder / "data", config).dataset.path
    manifest = json.loads((data / MANIFEST_FILE).read_text())
    for table in manifest["schema"]["tables"]:
        table["num_embeddings"] = max(table["num_embeddings"], 2_000_000 // 26)
    manifest.pop(SEAL)
    write_sealed(data / MANIFEST_FILE, manifest)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss counts otherwise")
def test_memory_and_disk_are_what_was_planned(large):
    words = [*LARGE, "--data", "data", "--optim.name", "adam", "--optim.lr", "0.001"]
    planned, _ = alone("plan", *words, "--no-measure", folder=large)
    _, peak_bytes = alone("train", *words, "--run", "run", folder=large)
    assert planned["fits"]
    assert planned["tables_bytes"] > 300e6
    assert peak_bytes == pytest.approx(planned["resident_bytes"], rel=0.2)
    for checkpoint in (large / "run" / "checkpoints").iterdir():
        found = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
        assert found == pytest.approx(planned["checkpoint_bytes"], rel=0.02)
    files = [path for path in (large / "data").rglob("*") if path.is_file()]
    assert planned["dataset_bytes"] == sum(path.stat().st_size for path in files)


def test_a_dataset_that_is_not_prepared_yet_is_counted_too(clicks, capsys):
    words = ["plan", "criteo-kaggle", "--no-measure", "--json"]
    assert main([*words, "--data", str(clicks.path)]) == 0
    there = said(capsys)
    arrays = sum(
        record["bytes"]
        for split in clicks.manifest["splits"].values()
        for name, record in split["arrays"].items()
        # Only generated logs know the truth.
        if name != "truth"
    )
    rows = ",".join(map(str, clicks.schema.num_embeddings))
    assert main([*words, "--rows", rows, "--samples", "3000"]) == 0
    described = said(capsys)
    assert described["dataset_bytes"] == arrays
    assert there["dataset_bytes"] > arrays
    for key in ("parameters", "tables_bytes", "checkpoint_bytes", "flops_per_sample"):
        assert described[key] == there[key]


def test_the_documented_example_needs_no_data(workdir, capsys):
    assert main([*EIGHT, "--device-memory", "80GB"]) == 0
    found = said(capsys)
    assert found["fits"]
    assert found["reason"] is None
    assert found["parameters"] > 24e9
    assert found["device_memory_bytes"] == 80_000_000_000
    assert len(found["devices"]) == 8
    assert len(found["placement"]) == len(ARCHS["criteo-terabyte"].num_embeddings)
    assert max(d["process_bytes"] for d in found["devices"]) == found["process_bytes"]
    assert sum(d["lookups"] for d in found["devices"]) == pytest.approx(26)
    assert found["memory_imbalance"] < 1.2
    assert found["alternatives"] == []
    assert main(["plan", "--no-measure", "--json"]) == 0
    assert said(capsys)["parameters"] == found["parameters"]
    assert list(workdir.iterdir()) == []


def test_a_recipe_whose_data_are_elsewhere_has_their_tables(workdir, capsys):
    assert main(["plan", "criteo-kaggle", "--no-measure", "--json"]) == 0
    assert said(capsys)["tables"] == 26
    assert main(["plan", "frappe", "--no-measure"]) == 1
    assert "there is no such file or folder" in capsys.readouterr().err


def test_what_does_not_fit_says_what_would(capsys):
    assert main([*EIGHT, "--device-memory", "10GB"]) == 0
    found = said(capsys)
    assert not found["fits"]
    assert "tables need 96.1 GB with optimizer state, 8 of 10.0 GB have" in found["reason"]
    assert found["samples_per_s"] is None
    by_flag = {each["flag"]: each for each in found["alternatives"]}
    assert by_flag["--model.dim 64"]["fits"]
    assert by_flag["--model.tables.storage bf16"]["fits"]
    assert by_flag["--model.tables.compression qr"]["fits"]
    assert "--model.tables.storage split" not in by_flag
    # What is proposed does fit.
    for flag, each in by_flag.items():
        words = [*EIGHT, "--device-memory", "10GB"]
        for word in flag.split()[:1]:
            words = [w for at, w in enumerate(words) if word not in (w, words[at - 1])]
        assert main([*words, *flag.split()]) == 0
        again = said(capsys)
        assert again["fits"] == each["fits"]
        # This process has grown in between.
        assert again["process_bytes"] == pytest.approx(each["process_bytes"], rel=0.02)


def test_a_described_device(capsys):
    words = [*EIGHT, "--flops", "60TFLOP", "--memory-bandwidth", "2TB/s"]
    times = []
    for more in ([], ["--bandwidth", "25GB/s"], ["--parallel.exchange-dtype", "bf16"]):
        assert main([*words, "--device-memory", "80GB", *more]) == 0
        times.append(said(capsys))
    first, faster, narrow = times
    assert first["basis"] == "described"
    assert first["samples_per_s"] == pytest.approx(first["batch_size"] / first["step_s"])
    # The latency of messages stays.
    assert first["exchange_s"] / 2 < faster["exchange_s"] < 0.7 * first["exchange_s"]
    assert narrow["exchange_bytes_per_sample"] < 0.6 * first["exchange_bytes_per_sample"]
    assert first["train_s"] == pytest.approx(4_195_197_692 / first["samples_per_s"], rel=1e-3)


def test_measured_here(clicks, monkeypatch, capsys, workdir):
    for name in ("TRAIN_S", "EVAL_S", "WARM_S"):
        monkeypatch.setattr(speed, name, 0.01)
    monkeypatch.setattr(speed, "LIMIT_BYTES", 100_000)
    words = ["plan", "--data", str(clicks.path), "--model", "deepfm", "--loader.batch-size", "64"]
    assert main([*words, "--json"]) == 0
    found = said(capsys)
    assert found["basis"] == "measured"
    assert found["model"] == "deepfm"
    parts = (found["train_s"], found["evaluation_s"], found["saving_s"])
    assert all(part > 0 for part in parts)
    assert found["epoch_s"] == pytest.approx(sum(parts))
    assert list(workdir.iterdir()) == []
    monkeypatch.setattr(plan, "known", machine)
    assert main([*words, "--procs", "2"]) == 0
    assert "tables cut" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("network", [(), ("--link", "1GB/s")])
def test_what_is_measured_here_is_what_is_simulated(clicks, monkeypatch, workdir, network):
    """With a network, devices are machines like this; without, processes of one thread here."""
    rates = Rates(0.01, 1e-6, 1e-6, 1e-3, 1e-9, capped=False, ids="zipf")
    monkeypatch.setattr(speed, "measure", lambda *_, **__: rates)
    monkeypatch.setattr(plan, "known", machine)
    links = Network(Link(1e9, 1e-5))
    monkeypatch.setattr(plan.processes, "measure", lambda procs: links)
    words = ["--data", str(clicks.path), "--loader.batch-size", "64", *network]
    for procs in ("1", "2"):
        simulated = planning(*words, "--procs", procs, "--simulate")
        (same,) = [each for each in simulated["simulated"] if each["devices"] == int(procs)]
        assert simulated["step_s"] == same["step_s"]
        assert simulated["basis"] == "measured"
        if network:
            alone = planning(*words, "--procs", procs)
            assert alone["step_s"] == pytest.approx(simulated["step_s"])
    # What one process takes is what was measured.
    alone = planning(*words, "--simulate")
    assert alone["step_s"] == pytest.approx(0.01)


@pytest.mark.parametrize("procs", ["1", "2"])
def test_what_does_not_fit_is_measured_all_the_same(monkeypatch, workdir, procs):
    """As it would be with room: how long an epoch is says whether room is worth it."""
    rates = Rates(0.01, 1e-6, 1e-6, 1e-3, 1e-9, capped=True, ids="zipf")
    monkeypatch.setattr(speed, "measure", lambda *_, **__: rates)
    monkeypatch.setattr(plan, "known", machine)
    words = ["--arch", "criteo-terabyte", "--procs", procs]
    small, large = (planning(*words, "--device-memory", size) for size in ("2GB", "200GB"))
    assert (small["fits"], large["fits"]) == (False, True)
    for name in ("step_s", "exchange_s", "epoch_s", "evaluation_s"):
        assert small[name] == pytest.approx(large[name], rel=0.2), name
    assert small["step_s"] >= 0.01
    assert small["basis"] == "measured"


def test_evaluations_are_as_many_as_training_has(clicks, monkeypatch, workdir):
    rates = Rates(0.01, 1e-3, 0.0, 1e-3, 0.0, capped=False, ids="data")
    monkeypatch.setattr(speed, "measure", lambda *_, **__: rates)
    words = ["--data", str(clicks.path), "--loader.batch-size", "64"]
    often = planning(*words)
    seldom = planning(*words, "--eval.per-epoch", "2")
    spread = planning(*words, "--eval.min-steps", "1000000")
    assert seldom["saving_s"] == pytest.approx(2e-3)
    assert seldom["evaluation_s"] < often["evaluation_s"] / 2
    assert spread["saving_s"] < 1e-3


def test_what_has_no_meaning_is_said(capsys):
    for words, message in (
        (["--arch", "criteo-exabyte"], "choose one of: criteo-kaggle, criteo-terabyte"),
        (["--flops", "1TFLOP"], "needs --memory-bandwidth too"),
        (["--memory-bandwidth", "1TB/s"], "needs --flops too"),
        (["--device-memory", "much"], 'device-memory is "much", expected a positive amount'),
        (["--rows", "10,none"], 'rows is "10,none": "none" is no whole number'),
        (["--procs", "0"], "procs is 0"),
    ):
        assert main(["plan", "--no-measure", *words]) == 1
        assert message in capsys.readouterr().err


def test_the_page(workdir, capsys):
    words = [word for word in EIGHT if word != "--json"]
    assert main([*words, "--device-memory", "80GB", "--html", "plan.html"]) == 0
    assert "Page: plan.html" in capsys.readouterr().out
    page = Path("plan.html").read_text()
    assert page.count("<svg") >= 2
    assert "embeddings/C20" in page
    assert main([*words, "--device-memory", "1GB", "--html", "plan.html"]) == 0
    assert "It does not fit" in Path("plan.html").read_text()


def test_words_for_numbers():
    assert ranges([0, 1, 2, 5]) == "0-2, 5"
    assert ranges([3]) == "3"
    assert ranges([0, 2, 4, 6, 8]) == "5 devices"
    assert amount(2_850_000, "FLOP") == "2.85 MFLOP"
    assert short(0.0017) == "1.7 ms"
    assert short(9.5e-7) == "0.95 µs"
    assert bar(0.5).plain == "█████·····"
    assert bar(2.0).plain == "██████████"


DEVICE = ("--flops", "60TFLOP", "--memory-bandwidth", "2TB/s")


@pytest.mark.parametrize("network", [(), ("--link", "25GB/s", "--devices-per-host", "2")])
@settings(max_examples=3, deadline=None)
@given(
    procs=st.sampled_from([1, 2, 4, 8, 64]),
    batch=st.sampled_from([2048, 65536]),
    sharding=st.sampled_from(["auto", "table", "row"]),
)
def test_a_plan_and_its_simulation_say_the_same(network, procs, batch, sharding):
    words = ["--rows", "1M,20k,300", "--sharding", sharding, "--loader.batch-size", str(batch)]
    words += ["--procs", str(procs), "--device-memory", "80GB", *DEVICE, *network]
    plain, simulated = (planning(*words, *more) for more in ((), ("--simulate",)))
    for name in ("process_tables_bytes", "step_s", "samples_per_s", "exchange_s", "epoch_s"):
        assert plain[name] == simulated[name]
    (same,) = [step for step in simulated["simulated"] if step["devices"] == procs]
    assert same["step_s"] == pytest.approx(plain["step_s"], rel=1e-12)
    assert same["samples_per_s"] == pytest.approx(plain["samples_per_s"], rel=1e-12)


def planning(*words: str) -> dict[str, Any]:
    with redirect_stdout(StringIO()) as stream:
        assert main(["plan", *words, "--json"]) == 0
    return json.loads(stream.getvalue().splitlines()[-1])
