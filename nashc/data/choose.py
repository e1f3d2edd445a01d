"""Which preprocessing a model gets: what it stores, what the user says, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from nashc.data.preprocess import Preprocess

FIELDS = tuple(field.name for field in fields(Preprocess))


def chosen_preprocess(props: Mapping[str, str], given: Mapping[str, Any]) -> tuple[Preprocess, str]:
    """The preprocessing, and where it is from: "model", "flags", "model and flags" or "default".

    props: metadata_props of the model. given: fields of Preprocess that win over them; None and other names are
    ignored. Raises NashcError as Preprocess does.
    """
    stored = Preprocess.from_metadata(props)
    flags = {name: given[name] for name in FIELDS if given.get(name) is not None}
    origin = " and ".join(name for name, there in (("model", stored is not None), ("flags", bool(flags))) if there)
    return replace(stored or Preprocess(), **flags), origin or "default"
