"""The steps of clip's graphs that abort where tensors do not fit, on shapes alone.

Only the widths of rows are followed: how many rows there are depends on the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ingest_service.formats.gguf.tensors import Described

_F32 = 0


class Misfit(Exception):
    """A tensor of which clip dies; `needed` says what it has to be."""

    def __init__(self, tensor: str, needed: str) -> None:
        self.tensor, self.needed = tensor, needed
        super().__init__(f"{tensor}: {needed}")


@dataclass(frozen=True, slots=True)
class Shapes:
    """The tensors of one projector, and the steps that need them. Each raises Misfit."""

    described: Mapping[str, Described]

    def has(self, name: str) -> bool:
        return name in self.described

    def needed(self, name: str) -> tuple[int, int, int, int]:
        """clip reads it without looking whether it is there."""
        if name not in self.described:
            raise Misfit(name, "it has to be there")
        return self.described[name].shape

    def unwanted(self, name: str) -> None:
        if self.has(name):
            raise Misfit(name, "a projector of this kind has none")

    def multiplied(self, name: str, width: int) -> int:
        """Rows of `width` through this matrix: their new width."""
        shape = self.needed(name)
        if shape[0] != width:
            raise Misfit(name, f"its rows have to be {width} long, not {shape[0]}")
        return shape[1]

    def added(self, name: str, width: int, rows: int | None = None) -> None:
        """Added to, or multiplied into, `rows` rows of `width`: it is repeated, so it has to divide them."""
        shape = self.needed(name)
        if not shape[0] or width % shape[0]:
            raise Misfit(name, f"it has to be {width} long, not {shape[0]}")
        if rows is not None and rows % shape[1]:
            raise Misfit(name, f"it has to have {rows} rows, not {shape[1]}")

    def added_if_there(self, *names: str, width: int) -> None:
        for name in names:
            if self.has(name):
                self.added(name, width)

    def norm_if_there(self, name: str, width: int) -> None:
        """The bias is looked at where there is a weight."""
        if self.has(f"{name}.weight"):
            self.added_if_there(f"{name}.weight", f"{name}.bias", width=width)

    def layer(self, name: str, width: int) -> int:
        """A matrix and its bias, which may be missing."""
        out = self.multiplied(f"{name}.weight", width)
        self.added_if_there(f"{name}.bias", width=out)
        return out

    def whole_layer(self, name: str, width: int) -> int:
        """A matrix and its bias, both of them needed."""
        out = self.multiplied(f"{name}.weight", width)
        self.added(f"{name}.bias", out)
        return out

    def joined(self, name: str, width: int) -> None:
        """One row more: of the same width and type as the others, which are f32."""
        shape = self.needed(name)
        if shape != (width, 1, 1, 1):
            raise Misfit(name, f"it has to be one row of {width}, not {list(shape)}")
        if self.described[name].type != _F32:
            raise Misfit(name, "its type has to be F32")

    def convolved(self, name: str, width: int, patch: int, image: int | None) -> None:
        """An image of three colours cut into patches, each of which becomes a row of `width`.

        Without a size of the image only a kernel within the patch can be judged.
        """
        across, down, colours, out = self.needed(name)
        if colours != 3:
            raise Misfit(name, f"it has to have three colours, not {colours}")
        if image is None:
            if across <= patch and down <= patch and out != width:
                raise Misfit(name, f"it has to make rows of {width}, not {out}")
            return
        columns, rows = ((image - size) // patch + 1 if size <= image else 0 for size in (across, down))
        if columns * rows * out != (image // patch) ** 2 * width or not columns * rows:
            message = f"it has to cut an image of {image} into {(image // patch) ** 2} patches of {width}"
            raise Misfit(name, f"{message}, and has the shape {[across, down, colours, out]}")
