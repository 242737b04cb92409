"""Runs on disk: draws stored while sampling, read after a crash, finished by `resume`."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.assemble import assemble
from pymc_mte.bayes.gradient import Density, compile_density, compile_maps
from pymc_mte.bayes.prepare import Prepared, prepare
from pymc_mte.bayes.priors import Prior, prior_record
from pymc_mte.bayes.samplers import VECTOR, draw_vectors, with_values
from pymc_mte.data import resolve
from pymc_mte.errors import DataError, ModelError
from pymc_mte.results import load, model_of, provenance, save
from pymc_mte.status import Status, load_notes

Array = NDArray[np.float64]

REQUEST, RESULT, PIECES = "request.nc", "result.nc", "pieces.json"
"""What was asked for; the finished result; which folder holds which chains' draws, and when."""

SHORT_TUNE = 200
"""Warm-up draws of a chain that goes on from its last stored draw."""

NUMBER_KINDS = "biuf"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stored run.

    Attributes
    ----------
    path : Path
        Its folder.
    ready : Prepared
        Problem, starts and model, computed again from the stored request.
    options : mapping
        Options of the sampler and ``seed``.
    priors : mapping or None
        As given to `sample`.
    """

    path: Path
    ready: Prepared
    options: dict[str, Any]
    priors: Mapping[str, Prior] | None

    @property
    def draws(self) -> int:
        """Draws per chain that were asked for."""
        return int(self.options["draws"])

    def pieces(self) -> list[dict[str, Any]]:
        """Folders of draws in the order of time, with their chains and warm-up draws."""
        file = self.path / PIECES
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

    def stored(self) -> tuple[Array, xr.Dataset]:
        """Read vectors (chain, draw, size), missing ones not numbers, and the statistics of the draws."""
        parts = [_read_piece(self.path / piece["folder"], piece["chains"]) for piece in self.pieces()]
        chains = len(self.ready.starts)
        sizes = [drawn.shape[-1] for part in parts for drawn, _ in part.values()]
        vectors = np.full((chains, self.draws, max(sizes, default=1)), np.nan)
        stats: dict[str, Array] = {}
        for chain in range(chains):
            at = 0
            for part in parts:
                if chain not in part:
                    continue
                drawn, own = part[chain]
                taken = min(len(drawn), self.draws - at)
                vectors[chain, at : at + taken] = drawn[:taken]
                for name, value in own.items():
                    empty = np.full((chains, self.draws), np.nan)
                    stats.setdefault(name, empty)[chain, at : at + taken] = value[:taken]
                at += taken
        return vectors, xr.Dataset({n: (("chain", "draw"), v) for n, v in stats.items()})

    def sample(self, density: Density, progressbar: bool) -> None:
        """Draw what is lacking: chains not begun from their starts, the others from their last draws."""
        vectors = self.stored()[0]
        done = np.isfinite(vectors).all(axis=-1).sum(axis=1)
        fresh = np.flatnonzero(done == 0)
        begun = np.flatnonzero((done > 0) & (done < self.draws))
        if fresh.size:
            starts = [density.maps.unconstrain(self.ready.starts[c]) for c in fresh]
            self._draw(density, fresh, starts, self.draws, self.options["tune"], progressbar)
        if begun.size:
            last = [vectors[c, done[c] - 1] for c in begun]
            lacking = int(self.draws - done[begun].min())
            self._draw(density, begun, last, lacking, min(SHORT_TUNE, self.options["tune"]), progressbar)

    def _draw(
        self,
        density: Density,
        chains: NDArray[np.int64],
        vectors: list[Array],
        draws: int,
        tune: int,
        progressbar: bool,
    ) -> None:
        import nutpie

        pieces = self.pieces()
        number = len(pieces)
        piece = {"folder": f"draws-{number}", "chains": [int(c) for c in chains], "tune": tune}
        _write_text(self.path / PIECES, json.dumps([*pieces, piece]))
        place = nutpie.zarr_store.LocalStore(str(self.path / str(piece["folder"])), mkdir=True)
        options = self.options | {"draws": draws, "tune": tune, "progressbar": progressbar}
        draw_vectors(density, vectors, self.options["seed"] + 1_000 * number, options, place)

    def result(self, density: Density | None = None) -> xr.DataTree:
        """Assemble the draws so far; say so where they are not all that were asked for."""
        maps = compile_maps(self.ready.built, self.ready.starts[0]) if density is None else density.maps
        vectors, stats = self.stored()
        if not np.isfinite(vectors).any():
            raise DataError(f"{self.path}: no draw was stored yet; `pymc_mte.resume` starts sampling again")
        raw = with_values(maps, vectors, stats, self.draws)
        kept = raw["sample_stats"].to_dataset()
        raw["sample_stats"] = xr.DataTree(kept.assign(diverging=kept["diverging"].astype(bool)))
        seed, tune = self.options["seed"], self.options["tune"]
        tree = assemble(self.ready, raw, sampler="nutpie", seed=seed, tune=tune)
        tree.attrs["priors"] = json.dumps(prior_record(self.ready.model, self.priors))
        if later := self.pieces()[1:]:
            told = [f"chains {piece['chains']} after {piece['tune']} warm-up draws" for piece in later]
            tree.attrs["resumed"] = "; ".join(told)
        return tree


def new_folder(path: str | Path) -> Path:
    """Make the folder of a run, or say why it cannot be one.

    Raises
    ------
    ModelError
        If it is no path or an empty one, is a file or in use, or cannot be made.
    """
    if not isinstance(path, (str, Path)):
        raise ModelError(f"store: the path of a new folder is wanted, got {type(path).__name__}")
    if path == "":  # which would be the folder that Python runs in
        raise ModelError("store: the path of a new folder is wanted, got ''")
    folder = Path(path)
    if folder.is_file():
        raise ModelError(f"store={str(path)!r} is a file; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
    except OSError as err:
        raise ModelError(
            f"store={str(path)!r}: the folder cannot be made ({err.strerror}); name one where you may write"
        ) from None
    if not empty:
        raise ModelError(
            f"store={str(path)!r} is in use: finish that run with pymc_mte.resume, or name another folder"
        )
    return folder


def create_run(
    path: str | Path,
    ready: Prepared,
    options: Mapping[str, Any],
    *,
    priors: Mapping[str, Prior] | None,
    seed: int,
) -> Run:
    """Write the request of a run into a new folder, before anything is drawn.

    Raises
    ------
    ModelError
        If the folder is in use, or a prior is a function, which a file cannot hold.
    """
    folder = new_folder(path)
    try:
        plain = json.dumps(dict(priors or {}))
    except TypeError:
        raise ModelError(
            "store: priors must be numbers, lists or tables to be stored; a function cannot be read back"
        ) from None
    kept = {**options, "seed": seed, "chains": ready.chains}
    tree = xr.DataTree.from_dict({"observed_data": ready.table})
    if ready.start is not None:
        tree["estimate"] = xr.DataTree(ready.start["estimate"].to_dataset())
    tree.attrs = provenance(ready.model, options=json.dumps(kept), priors=plain)
    save(tree, folder / REQUEST)
    return Run(path=folder, ready=ready, options=kept, priors=priors)


def open_run(path: str | Path) -> Run:
    """Read a stored run's request and prepare it again: the same data and seed give the same starts."""
    folder = Path(path)
    if not (folder / REQUEST).is_file():
        raise DataError(f"{path}: no stored run here; sample(..., store={str(path)!r}) would start one")
    request = load(folder / REQUEST)
    options = json.loads(str(request.attrs["options"]))
    priors = json.loads(str(request.attrs["priors"])) or None
    model, table = resolve(model_of(request), request["observed_data"].to_dataset())
    start = request if "estimate" in request else None
    chains, seed = options["chains"], options["seed"]
    ready = prepare(model, table, start=start, priors=priors, chains=chains, seed=seed)
    return Run(path=folder, ready=ready, options=options, priors=priors)


def finish(run: Run, density: Density, progressbar: bool) -> xr.DataTree:
    """Draw what is lacking, assemble, and store the result if it is complete."""
    run.sample(density, progressbar)
    tree = run.result(density)
    complete = all(note.status is not Status.INTERRUPTED for note in load_notes(str(tree.attrs["notes"])))
    if complete:
        save(tree, run.path / RESULT)
    return tree


def sample_stored(
    path: str | Path, ready: Prepared, options: Mapping[str, Any], *, priors: Any, seed: int
) -> xr.DataTree:
    """Sample with every chunk of draws stored at once; see `pymc_mte.sample`."""
    run = create_run(path, ready, options, priors=priors, seed=seed)
    density = compile_density(ready.built, ready.starts[0])
    return finish(run, density, bool(options["progressbar"]))


def resume(path: str | Path, *, progressbar: bool = True) -> xr.DataTree:
    """Finish a stored run that was interrupted or killed.

    Chains go on from their last stored draw, after a short warm-up (the sampler's step sizes are not
    stored); chains that had no draw yet start again. A finished run is returned as it is.

    Parameters
    ----------
    path : str or Path
        The folder given as ``store`` to `sample`.
    progressbar : bool
        Whether the sampler shows its progress.

    Returns
    -------
    xarray.DataTree
        As from `sample`; ``attrs["resumed"]`` says which chains went on, after how much warm-up. It is
        stored in the folder too, where `load` finds it.

    Raises
    ------
    DataError
        If it is no path, or the folder holds no run.

    Examples
    --------
    >>> import tempfile, pymc_mte as mte
    >>> level3 = mte.load_model("gallery:level3")
    >>> folder = tempfile.mkdtemp() + "/run.zarr"
    >>> rows, few = mte.simulate(level3, 500), {"draws": 20, "tune": 100, "chains": 2, "progressbar": False}
    >>> posterior = mte.sample(level3, rows, store=folder, **few)
    >>> bool((mte.resume(folder)["posterior"]["ate"] == posterior["posterior"]["ate"]).all())
    True
    """
    if not isinstance(path, (str, Path)):
        raise DataError(f"resume: the folder of a stored run is wanted, got {type(path).__name__}")
    if (Path(path) / RESULT).is_file():
        return load(Path(path) / RESULT)
    run = open_run(path)
    return finish(run, compile_density(run.ready.built, run.ready.starts[0]), progressbar)


def read_run(path: str | Path) -> xr.DataTree:
    """Read the result of a stored run, or what was drawn so far."""
    finished = Path(path) / RESULT
    return load(finished) if finished.is_file() else open_run(path).result()


def _read_piece(folder: Path, chains: list[int]) -> dict[int, tuple[Array, dict[str, Array]]]:
    """Complete draws and their statistics, by chain; none where nothing was written."""
    try:
        with xr.open_datatree(folder, engine="zarr", consolidated=False) as tree:
            vectors = tree["posterior"].to_dataset()[VECTOR].values
            kept = tree["sample_stats"].to_dataset()
            names = [str(n) for n in kept.data_vars if kept[n].dims == ("chain", "draw")]
            stats = {n: kept[n].values for n in names if kept[n].dtype.kind in NUMBER_KINDS}
    except (OSError, KeyError, ValueError):  # killed before the folder was laid out
        return {}
    out = {}
    for row, chain in enumerate(chains):
        complete = np.isfinite(vectors[row]).all(axis=-1)
        done = len(complete) if complete.all() else int(complete.argmin())
        out[chain] = vectors[row, :done], {n: v[row, :done].astype(float) for n, v in stats.items()}
    return out


def _write_text(file: Path, text: str) -> None:
    """Replace a small file, complete or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
