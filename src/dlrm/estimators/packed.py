"""A finished run as bytes: what its model needs to be used again, wherever it is written."""

from pathlib import Path

from dlrm.run import Run
from dlrm.training import checkpoint

Files = dict[str, bytes]
"""Path within the run directory -> content."""
_LEFT_OUT = ("checkpoints", "members", "baseline", "tensorboard")
_OPTIMIZER = "optimizer.safetensors"


def pack(run: Run) -> Files:
    """Return the files of a run, of its checkpoints the best alone, without the optimizer's state.

    Members of an ensemble are packed likewise.
    """
    files = {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and path.relative_to(run.path).parts[0] not in _LEFT_OUT
    }
    checkpoints = run.path / "checkpoints"
    if checkpoint.steps(checkpoints):
        folder = checkpoints / f"step-{checkpoint.best_step(run):09d}"
        files |= {
            str(path.relative_to(run.path)): path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.name != _OPTIMIZER
        }
    for member in sorted((run.path / "members").glob("*")):
        name = str(member.relative_to(run.path))
        files |= {f"{name}/{path}": content for path, content in pack(Run(member)).items()}
    return files


def unpack(files: Files, folder: Path) -> None:
    """Write what `pack` returned into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
