"""What decides the name of a compiled library. Building one is tested with tests/ops and data."""

from pathlib import Path

from dlrm.compiler import key


def test_the_key_depends_on_sources_flags_compiler_and_libraries(tmp_path: Path):
    source, other = tmp_path / "a.cpp", tmp_path / "b.cpp"
    source.write_text("int a;")
    other.write_text("int b;")
    keys = [
        key([source], ["-O3"], "gcc 12"),
        key([other], ["-O3"], "gcc 12"),
        key([source], ["-O2"], "gcc 12"),
        key([source], ["-O3"], "gcc 13"),
        key([source], ["-O3"], "gcc 12", ["-fopenmp"]),
    ]
    assert len(set(keys)) == len(keys)
    assert key([source], ["-O3"], "gcc 12", ["/x/libgomp.so"]) == key(
        [source], ["-O3"], "gcc 12", ["/y/libgomp.so"]
    )
