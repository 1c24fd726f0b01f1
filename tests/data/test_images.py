"""Pictures by reference: what is decoded, from where, and every refusal's words."""

from __future__ import annotations

import io
import multiprocessing
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlsafe.conversation import ImageRef
from vlsafe.data import images
from vlsafe.data.images import check_image, find_image, image_bytes, name_problem, open_image
from vlsafe.errors import DataError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored(folder: Path, data: bytes, name: str = "a.png") -> ImageRef:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return ImageRef(folder, name)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))


def test_folder_and_zip_give_equal_bytes_and_pixels(tmp_path: Path) -> None:
    data = encoded(noise())
    folder = tmp_path / "in"
    folder.mkdir()
    stored(folder / "deep", data)
    archive = zipped(tmp_path / "pictures", {"deep/a.png": data})  # a zip file is known by content, not by suffix
    refs = [ImageRef(folder, "deep/a.png"), ImageRef(archive, "deep/a.png")]
    assert [image_bytes(ref) for ref in refs] == [data, data]
    for ref in refs:
        assert np.array_equal(np.asarray(open_image(ref)), np.asarray(noise()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "pictures"], "nothing is unpacked"


def test_transparency_is_flattened_on_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (2, 1), (*RED, 255))
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((0, 0), (0, 0))
    keyed = Image.new("RGB", (2, 1), RED)
    keyed.putpixel((0, 0), (0, 0, 0))
    files = {
        "rgba": (encoded(rgba), RED),
        "palette": (encoded(palette, transparency=0), RED),
        "grey": (encoded(grey), (0, 0, 0)),
        "keyed": (encoded(keyed, transparency=(0, 0, 0)), RED),
        "gif": (encoded(palette, "GIF", transparency=0), RED),
    }
    for name, (data, second) in files.items():
        image = open_image(stored(tmp_path, data, name))
        assert (image.mode, image.size) == ("RGB", (2, 1)), name
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [WHITE, second], name


def test_exif_orientation_is_applied_and_one_pixel_is_enough(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored top row is the right column
    wide = Image.new("RGB", (40, 20), WHITE)
    wide.paste(RED, (0, 0, 40, 10))
    image = open_image(stored(tmp_path, encoded(wide, "JPEG", exif=exif), "turned.jpg"))
    assert image.size == (20, 40)
    left, right = np.asarray(image)[20, 2], np.asarray(image)[20, 17]
    assert left[1] > 200 and right[1] < 50
    one = open_image(stored(tmp_path, encoded(Image.new("L", (1, 1), 7)), "one.png"))
    assert (one.size, one.getpixel((0, 0))) == ((1, 1), (7, 7, 7))


def test_sixteen_bit_greys_are_scaled_and_unbounded_ones_refused(tmp_path: Path) -> None:
    greys = Image.fromarray(np.array([[0, 0x4000, 0xFFFF]], dtype=np.uint16))
    image = open_image(stored(tmp_path, encoded(greys)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 64, 255]
    with pytest.raises(DataError, match=r"a\.tif holds floats of 32 bits.*save it with 8 bits a channel"):
        open_image(stored(tmp_path, encoded(Image.new("F", (1, 1)), "TIFF"), "a.tif"))


def test_broken_pictures_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    data = encoded(noise())
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    for name, broken in {"cut": data[:500], "text": b"not a picture", "none": b"", "flipped": bytes(flipped)}.items():
        for ref in (
            stored(tmp_path / "in", broken, name),
            ImageRef(zipped(tmp_path / f"{name}.zip", {name: broken}), name),
        ):
            with pytest.raises(DataError, match=f"broken picture .*{name} .*fetch the file again or remove"):
                check_image(ref)


def test_formats_that_start_programs_are_not_decoded(tmp_path: Path) -> None:
    ref = stored(tmp_path, encoded(noise(), "EPS"), "a.png")
    with pytest.raises(DataError, match=r"not a picture in a known format.*formats read: PNG, JPEG"):
        open_image(ref)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    ref = stored(tmp_path, png_header(side, side))
    with pytest.raises(DataError, match=r"a\.png is too large to be opened safely.*pixels.*shrink it"):
        open_image(ref)


def test_huge_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    archive = zipped(tmp_path / "bomb.zip", {"a.png": bytes(1001)})
    assert archive.stat().st_size < 1000
    for ref in (stored(tmp_path / "in", bytes(1001)), ImageRef(archive, "a.png")):
        with pytest.raises(DataError, match=r"too large to be opened safely: 1,001 bytes, more than 1,000"):
            image_bytes(ref)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "in/../../a.png", "..", "C:/a.png", "a\\b.png", "", "a\0"])
def test_names_that_leave_the_root_are_refused(tmp_path: Path, name: str) -> None:
    stored(tmp_path, encoded(noise()))
    (tmp_path / "in").mkdir()
    archive = zipped(tmp_path / "odd.zip", {name or "x": b"x"})
    for root in (tmp_path / "in", archive):
        with pytest.raises(DataError, match=r"picture name .*(leaves the root|backslash|holds a null)"):
            find_image(ImageRef(root, name))


def test_a_damaged_zip_entry_is_reported(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", encoded(noise()))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read picture .*a\.zip/a\.png: Bad CRC-32.*fetch the file again"):
        image_bytes(ImageRef(archive, "a.png"))


@given(st.text(max_size=12), st.sampled_from(["", "/", "..", "../", "./", "a/../../"]))
def test_no_name_ever_reaches_outside(name: str, prefix: str) -> None:
    root = Path("/pictures/root")
    if not name_problem(prefix + name):
        path = (root / (prefix + name)).as_posix()
        assert path.startswith("/pictures/root") and ".." not in Path(path).parts


def test_links_that_leave_the_root_are_refused_and_inner_ones_followed(tmp_path: Path) -> None:
    outside = stored(tmp_path, encoded(noise())).root / "a.png"
    root = stored(tmp_path / "in", encoded(noise()), "b.png").root
    (root / "out.png").symlink_to(outside)
    (root / "inner.png").symlink_to("b.png")
    (root / "loop.png").symlink_to("loop.png")
    (tmp_path / "linked").symlink_to(root)
    with pytest.raises(DataError, match=r"out\.png is a link that leaves the root \(to .*copy it into the root"):
        image_bytes(ImageRef(root, "out.png"))
    with pytest.raises(DataError, match=r"cannot look up picture .*loop\.png: Too many levels of symbolic links"):
        image_bytes(ImageRef(root, "loop.png"))
    assert open_image(ImageRef(tmp_path / "linked", "inner.png")).size == (48, 64)


def test_odd_zip_entries_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.mkdir("folder")
    for name in ("link.png", "folder/"):
        with pytest.raises(DataError, match="is a folder or a link inside the zip file"):
            image_bytes(ImageRef(tmp_path / "odd.zip", name))


def test_missing_pictures_and_roots_say_what_to_do(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.png": b"x"})
    (tmp_path / "not.zip").write_bytes(b"PK but not a zip file")
    for root in (tmp_path, archive):
        with pytest.raises(DataError, match=r"missing picture .*/b\.png; fetch the pictures, or point the source"):
            find_image(ImageRef(root, "b.png"))
    with pytest.raises(DataError, match=r"picture root .*nowhere does not exist; it must be a folder or a zip file"):
        find_image(ImageRef(tmp_path / "nowhere", "a.png"))
    with pytest.raises(DataError, match=r"not\.zip is not a readable zip file.*fetch it again"):
        find_image(ImageRef(tmp_path / "not.zip", "a.png"))
    with pytest.raises(DataError, match=r"cannot look up picture .*: File name too long; correct the record"):
        find_image(ImageRef(tmp_path, "a" * 300))
    with pytest.raises(DataError, match="is not a file"):
        find_image(ImageRef(tmp_path.parent, tmp_path.name))


def read_often(refs: list[ImageRef], wrong: multiprocessing.Queue) -> None:
    wrong.put(sum(image_bytes(ref) != ref.name.encode() * 5000 for _ in range(20) for ref in refs))


def test_zip_handles_are_safe_in_forked_workers(tmp_path: Path) -> None:
    names = [f"picture-{number}" for number in range(20)]
    archive = zipped(tmp_path / "a.zip", {name: name.encode() * 5000 for name in names})
    refs = [ImageRef(archive, name) for name in names]
    image_bytes(refs[0])  # the parent's handle is open before the fork
    fork = multiprocessing.get_context("fork")
    wrong = fork.Queue()
    workers = [fork.Process(target=read_often, args=(refs, wrong)) for _ in range(3)]
    for worker in workers:
        worker.start()
    read_often(refs, wrong)
    assert [wrong.get(timeout=30) for _ in range(4)] == [0, 0, 0, 0]
    for worker in workers:
        worker.join(timeout=30)
