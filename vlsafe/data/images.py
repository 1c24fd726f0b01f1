"""Opening pictures by reference: from a folder or straight out of a zip file, never from outside of it."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from vlsafe.conversation import ImageRef
from vlsafe.data.embedded import ArrowPictures, is_arrow
from vlsafe.errors import DataError

MAX_PIXELS = 89_478_485
"""Pictures with more pixels are refused before they are decoded (a quarter of a GiB as RGB)."""

MAX_BYTES = 256 * 2**20
"""Files larger than this, unpacked, are refused before they are read."""

MAX_NAME = 4096
"""Characters of the longest name of a picture."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are decoded. The list is closed because some of Pillow's others start outside programs."""


def open_image(ref: ImageRef) -> Image.Image:
    """Decode a picture as 8-bit RGB: turned upright as its EXIF says, transparency flattened on white.

    Of an animated picture the first frame is taken. Raises DataError (see :func:`image_bytes`), also when the
    picture is truncated, broken, too large or of a pixel type without a defined brightness.
    """
    data = image_bytes(ref)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(ref, f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return _as_rgb(ref, ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(ref, str(error)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and more
        reason = "not a picture in a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(
            f"broken picture {ref} ({len(data)} bytes): {reason}; fetch the file again or remove the records that "
            f"use it (formats read: {', '.join(FORMATS)})"
        ) from error


def check_image(ref: ImageRef) -> None:
    """Decode the picture and throw it away; raises DataError when :func:`open_image` would."""
    open_image(ref).close()


def image_bytes(ref: ImageRef) -> bytes:
    """The file as stored. Raises DataError when the name leaves the root, or the file is missing, broken or huge."""
    found = find_image(ref)
    try:
        if isinstance(found, Path):
            _check_size(ref, found.stat().st_size)
            return found.read_bytes()
        if isinstance(found, bytes):
            _check_size(ref, len(found))
            return found
        return _unpacked(ref, found)
    except DataError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, RuntimeError (password), NotImplementedError, zlib.error
        raise DataError(f"cannot read picture {ref}: {error}; fetch the file again") from error


def _unpacked(ref: ImageRef, entry: zipfile.ZipInfo) -> bytes:
    """An entry may unpack to far more than it claims: it is read up to its claim and one byte, which the archive then
    finds wrong. That bounds the memory for deflate only; other methods unpack a block at a time, however large."""
    _check_size(ref, entry.file_size)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"picture {ref} is compressed by a method other than deflate; zip the pictures again with deflate"
        )
    with _archive(ref.root, os.getpid()).open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise DataError(f"cannot read picture {ref}: its zip entry is cut short; fetch the file again")
    return data


def find_image(ref: ImageRef) -> Path | zipfile.ZipInfo | bytes:
    """Where the picture lies, without reading it: cheap enough for every record of a source. Of a picture that is
    embedded in an Arrow file, its bytes.

    Raises DataError when there is no such root or picture, or when the name leaves the root.
    """
    problem = name_problem(ref.name)
    if problem:
        raise DataError(f"picture name {ref.name!r} (root {ref.root}) {problem}; correct the record")
    try:
        if ref.root.is_dir():
            return _find_in_folder(ref)
        if ref.root.is_file():
            return _find_embedded(ref) if is_arrow(ref.root) else _find_in_zip(ref)
    except OSError as error:
        raise DataError(f"cannot read picture root {ref.root}: {error.strerror or error}; mend its rights") from error
    raise DataError(f"picture root {ref.root} does not exist; it must be a folder or a zip file")


def name_problem(name: str) -> str:
    """Why ``name`` cannot be a picture's name inside a root, or an empty string when it can."""
    if not name or "\0" in name:
        return "is empty or holds a null character"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME:,} characters"
    if "\\" in name or ":" in name.split("/")[0]:
        return "holds a backslash or a drive; names use forward slashes"
    if name.startswith("/") or ".." in name.split("/"):
        return "leaves the root"
    return ""


def _find_in_folder(ref: ImageRef) -> Path:
    path = ref.root / ref.name
    try:
        mode = path.stat().st_mode
        inside = PurePosixPath(ref.name)
        # only names with a link in them can lead out; resolving every name would double the time to open a source
        if any((ref.root / part).is_symlink() for part in (inside, *inside.parents[:-1])):
            _check_link(ref, path.resolve())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(ref) from error
    except (OSError, ValueError) as error:  # no permission, a loop of links, a name too long or in broken Unicode
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot look up picture {ref}: {reason}; correct the record or the folder") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"picture {ref} is not a file; correct the record")
    return path


def _check_link(ref: ImageRef, target: Path) -> None:
    if not target.is_relative_to(ref.root.resolve()):
        raise DataError(
            f"picture {ref} is a link that leaves the root (to {target}); copy it into the root, or make the folder "
            "that really holds the pictures the root"
        )


def _find_in_zip(ref: ImageRef) -> zipfile.ZipInfo:
    try:
        info = _archive(ref.root, os.getpid()).getinfo(ref.name)
    except KeyError as error:
        raise _missing(ref) from error
    except (ValueError, NotImplementedError, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"picture root {ref.root} is not a readable zip file: {error}; fetch it again") from error
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"picture {ref} is a folder or a link inside the zip file, not a file; correct the record")
    return info


def _find_embedded(ref: ImageRef) -> bytes:
    try:
        return _embedded(ref.root, os.getpid()).read(ref.name)
    except (KeyError, ValueError) as error:
        raise _missing(ref) from error


@lru_cache(maxsize=8)
def _embedded(path: Path, process: int) -> ArrowPictures:
    return ArrowPictures(path)


@lru_cache(maxsize=8)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """An open zip file per process: a handle inherited through a fork shares its read position with the parent,
    so ``process`` is part of the key and a forked data worker opens its own."""
    return zipfile.ZipFile(path)


def _as_rgb(ref: ImageRef, image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit greys to white instead of scaling them
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise DataError(
            f"picture {ref} holds {kind} of 32 bits, whose range of brightness is not defined; "
            "save it with 8 bits a channel"
        )
    return image.convert("RGB")


def _check_size(ref: ImageRef, size: int) -> None:
    if size > MAX_BYTES:
        raise _too_large(ref, f"{size:,} bytes, more than {MAX_BYTES:,}")


def _too_large(ref: ImageRef, reason: str) -> DataError:
    return DataError(f"picture {ref} is too large to be opened safely: {reason}; shrink it, or remove its records")


def _missing(ref: ImageRef) -> DataError:
    return DataError(f"missing picture {ref}; fetch the pictures, or point the source at the root that holds them")
