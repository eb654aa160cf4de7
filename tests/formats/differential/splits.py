"""Split models: the shards of a small model, with odd keys, names and tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.formats.build import I32, U16, U32, Gguf, number
from tests.formats.differential.bases import Base
from tests.formats.differential.cases import any_value


@dataclass(frozen=True, slots=True)
class Split:
    """File names and files, in the order of their numbers."""

    what: str
    parts: tuple[tuple[str, Gguf], ...]


def split(base: Base, count: int) -> list[Gguf]:
    """The model in `count` shards, as llama.cpp splits it: the metadata in the first."""
    parts = []
    for index in range(count):
        pairs = dict(base.pairs) if index == 0 else {}
        pairs |= {
            "split.no": number(U16, index),
            "split.count": number(U16, count),
            "split.tensors.count": number(I32, len(base.tensors)),
        }
        parts.append(Gguf(pairs=pairs, tensors=base.tensors[index::count]))
    return parts


def cases(seed: int, count: int, base: Base) -> Iterator[Split]:
    """One thing changed in most of them, two in some."""
    for index in range(count):
        rng = random.Random(f"split {seed} {index}")
        shards = rng.choice((1, 2, 2, 3))
        parts = split(base, shards)
        names = [f"m-{place + 1:05}-of-{shards:05}.gguf" for place in range(shards)]
        said = [_change(rng, parts, names) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        yield Split(", ".join(said) or "nothing", tuple(zip(names, parts, strict=True)))


def _change(rng: random.Random, parts: list[Gguf], names: list[str]) -> str:
    place = rng.randrange(len(parts))
    part = parts[place]
    what = rng.choice(
        ("key", "key", "missing", "twice", "gone", "moved", "name", "order", "whole", "empty", "same")
    )
    if what == "key":
        key = rng.choice(("split.no", "split.count", "split.tensors.count"))
        right = {"split.no": U16, "split.count": U16, "split.tensors.count": I32}[key]
        value = number(
            rng.choice((right, right, right, U32)), rng.choice((0, 1, 2, 3, len(part.tensors), 1000))
        )
        parts[place] = part.but({key: any_value(rng) if rng.random() < 0.2 else value})
    elif what == "missing":
        parts[place] = part.but({rng.choice(("split.no", "split.count", "split.tensors.count")): None})
    elif what == "twice":
        other = rng.choice(parts)
        parts[place] = part.but(tensors=(*part.tensors, *other.tensors[:1]))
    elif what == "gone":
        parts[place] = part.but(tensors=part.tensors[1:])
    elif what == "moved" and len(parts) > 1:
        target = (place + 1) % len(parts)
        parts[target] = parts[target].but(tensors=(*parts[target].tensors, *part.tensors[:1]))
        parts[place] = part.but(tensors=part.tensors[1:])
    elif what == "name":
        names[place] = rng.choice(("m.gguf", "n-00001-of-00002.gguf", names[place].upper(), "m-1-of-2.gguf"))
    elif what == "order":
        parts.reverse()
    elif what == "whole":
        parts[place] = part.but(dict.fromkeys(("split.no", "split.count", "split.tensors.count")))
    elif what == "empty":
        parts[place] = part.but(tensors=())
    elif what == "same":
        # The same tensors in two shards; the counts stay right.
        other = parts[(place + 1) % len(parts)]
        parts[place] = part.but(tensors=other.tensors)
        total = sum(len(one.tensors) for one in parts)
        for index, one in enumerate(parts):
            parts[index] = one.but({"split.tensors.count": number(I32, total)})
    return what
