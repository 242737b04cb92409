"""Model files: TOML in and out, the gallery, and paths that stay inside a folder."""

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel

MAX_FILE_BYTES = 2_000_000
"""Largest model file that is read."""

ROLE_KEYS = (
    "treatment",
    "outcome",
    "treatment_proxies",
    "outcome_proxies",
    "covariates",
    "covariate_levels",
    "strata",
    "reference",
    "better",
    "practical",
)


def need_model(caller: str, thing: object) -> None:
    """Refuse anything but a model where one comes first.

    Raises
    ------
    ModelError
        If it is something else: the path of a model file, or the data.
    """
    if not isinstance(thing, CausalModel):
        raise ModelError(
            f"{caller}: a CausalModel is wanted first, got {type(thing).__name__}; read a model file or "
            '"gallery:NAME" with `load_model`, and pass data after the model'
        )


def load_model(source: str | Path) -> CausalModel:
    """Load a model file, or a model of the gallery.

    Parameters
    ----------
    source : str or Path
        A path to a TOML file, or ``"gallery:NAME"``.

    Returns
    -------
    CausalModel
        The checked model; its data file, if any, is looked for beside the model file.

    Raises
    ------
    ModelError
        If the file is missing, is not TOML, or describes no valid model. The message names the
        file, the key and the mend.

    Examples
    --------
    >>> load_model("gallery:level3").classes
    2
    """
    if not isinstance(source, (str, Path)):
        raise ModelError(f"the path of a model file or gallery:NAME is wanted, got {type(source).__name__}")
    text = str(source)
    if text.startswith("gallery:"):
        name = text.removeprefix("gallery:")
        if name not in gallery_names():
            raise ModelError(f"the gallery has no model {name!r}; it has {', '.join(gallery_names())}")
        path = gallery_folder() / f"{name}.toml"
    else:
        path = Path(source)
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; `pymc-mte models` lists the gallery")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a model file holds no data")
    try:
        model = parse_toml(path.read_text(encoding="utf-8"), default_name=path.stem)
        if model.name != path.stem:
            raise ModelError(f"name: must equal the file's name {path.stem!r}, got {model.name!r}")
    except ModelError as err:
        raise ModelError(f"{path}: {err}") from None
    except UnicodeDecodeError as err:
        raise ModelError(f"{path}: not a text file in UTF-8 ({err})") from None
    model._folder = path.resolve().parent
    return model


def parse_toml(text: str, *, default_name: str = "model") -> CausalModel:
    """Build a model from TOML text; nothing is imported or run by reading it."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ModelError(f"not valid TOML: {err}") from None
    roles = tree.pop("roles", {})
    if not isinstance(roles, dict):
        raise ModelError("roles: must be a table such as [roles]")
    if unknown := [key for key in roles if key not in ROLE_KEYS]:
        raise ModelError(f"roles.{unknown[0]}: unknown key; allowed are {', '.join(ROLE_KEYS)}")
    for key in ("classes", "variables"):
        if key not in tree and (key != "classes" or "interventions" not in tree):
            raise ModelError(f"{key}: missing; every model file needs it")
    misplaced = [key for key in ROLE_KEYS if key in tree]
    if misplaced:
        raise ModelError(f"{misplaced[0]}: belongs into the [roles] table")
    tree.setdefault("name", default_name)
    return CausalModel(**tree, **roles)


def format_toml(model: CausalModel) -> str:
    """Write a model as TOML text that `parse_toml` reads back as an equal model."""
    fields = model.model_dump(exclude_none=True, exclude_defaults=True)
    roles = {key: fields.pop(key) for key in ROLE_KEYS if key in fields}
    fields["name"] = model.name
    if model.interventions is not None:
        fields.setdefault("interventions", {})
        for var in fields["variables"].values():
            del var["latent"]  # the interventions say so
    if roles:
        fields["roles"] = roles
    return tomli_w.dumps(_plain(fields))


def _plain(value: Any) -> Any:
    """Turn tuples into lists and drop empty tables."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def resolve_beside(file: str, folder: Path | None) -> Path:
    """Resolve a data file named in a model file; refuse whatever leads out of its folder."""
    if folder is None:
        raise ModelError(
            f"data.file: {file!r} is relative to the model's file, and this model was not read from "
            "one; pass the data yourself"
        )
    reason = None
    if "://" in file:
        reason = "a web address"
    elif Path(file).is_absolute():
        reason = "an absolute path"
    elif ".." in Path(file).parts:
        reason = "a path that climbs with '..'"
    elif any(mark in file for mark in "*?["):
        reason = "a pattern for many files"
    else:
        path = (folder / file).resolve()
        if path.is_relative_to(folder):
            return path
        reason = "a link that leads out of the model's folder"
    raise ModelError(
        f"data.file: {file!r} is {reason}; a model file may only name a file in its own folder. "
        "Pass another file with --data (or as the data argument) instead"
    )


def gallery_folder() -> Path:
    """Folder of the gallery: inside the installed package, or the checkout's models folder."""
    inside = Path(__file__).parent / "gallery"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "models"


def gallery_names() -> list[str]:
    """Names of the gallery's models.

    Returns
    -------
    list of str
        Names to be used as ``load_model("gallery:NAME")``, sorted.
    """
    return sorted(path.stem for path in gallery_folder().glob("*.toml"))
