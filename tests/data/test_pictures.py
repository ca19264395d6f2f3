"""Decoding single pictures: formats, bits, orientation, transparency, broken files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from data_made import broken_pictures, picture_bomb
from PIL import Image

from normbench.data.reading import pictures
from normbench.data.reading.pictures import (
    UnreadablePicture,
    centre_square,
    read_picture,
)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (40, 20), "red").save(tmp_path / "lying.jpg", exif=exif)
    assert read_picture(tmp_path / "lying.jpg").size == (20, 40)


def test_every_colour_mode_becomes_rgb(tmp_path: Path) -> None:
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]:
        path = tmp_path / f"grey.{'jpg' if mode == 'CMYK' else 'png'}"
        grey = 255 if mode == "1" else 128
        if mode == "I;16":
            Image.fromarray(np.full((9, 12), grey * 256, np.uint16)).save(path)
        else:
            Image.new("L", (12, 9), grey).convert(mode).save(path)
        square = centre_square(path, 8)
        assert square.shape == (3, 8, 8) and square.dtype == torch.uint8, mode
        assert (square.int() - grey).abs().max() <= 2, mode


def save_pgm(path: Path, white: int, plain: bool = False) -> None:
    """Save a black, a half-white and a white pixel."""
    values = [0, white // 2, white]
    if plain:
        path.write_text(f"P2 3 1 {white}\n{' '.join(map(str, values))}\n")
    else:
        content = b"".join(value.to_bytes(2, "big") for value in values)
        path.write_bytes(b"P5 3 1 %d\n" % white + content)


def save_tiff_of_12_bits(path: Path) -> None:
    """Save the same pixels with two values in three bytes."""
    content = bytes.fromhex("000800fff0") + b"\0"
    sizes = [(256, 3), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    sizes += [(278, 1), (279, 5)]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes)
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(sizes)) + tags + bytes(4))


def test_the_upper_eight_bits_of_12_and_16_bits_are_used(tmp_path: Path) -> None:
    save_pgm(tmp_path / "16 bits.pgm", 65535)
    save_pgm(tmp_path / "12 bits.pgm", 4095)
    save_pgm(tmp_path / "white is 1000.pgm", 1000)
    save_pgm(tmp_path / "plain.pgm", 4095, plain=True)
    save_tiff_of_12_bits(tmp_path / "12 bits.tif")
    values = np.array([[0, 32767, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"16 bits.{suffix}")
    for path in tmp_path.iterdir():
        black, half, white = np.asarray(read_picture(path))[0]
        assert black.tolist() == [0] * 3 and white.tolist() == [255] * 3, path
        assert set(half.tolist()) <= {127, 128}, path


def test_signed_and_32_bit_values_are_refused(tmp_path: Path) -> None:
    for kind in ["int16", "int32", "uint32", "float32"]:
        path = tmp_path / f"{kind}.tif"
        Image.fromarray(np.linspace(0, 1, 600).reshape(20, 30).astype(kind)).save(path)
        with pytest.raises(UnreadablePicture) as refused:
            read_picture(path)
        assert f"{path} has signed or 32-bit values" in str(refused.value)


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert (centre_square(tmp_path / "clear.png", 8) == 255).all()
    assert read_picture(tmp_path / "clear.png").mode == "RGBA"


def test_a_narrow_picture_is_not_scaled_to_gigabytes(tmp_path: Path) -> None:
    Image.new("L", (1, 100_000)).save(tmp_path / "line.png")
    with pytest.raises(UnreadablePicture, match=r"1x100000 .* become 64x6400000"):
        centre_square(tmp_path / "line.png", 64)


def test_a_broken_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    heads = {
        "ppm.png": b"P6 60000 60000 255\n",
        "bmp.png": b"BM"
        + bytes(8)
        + bytes([54, 0, 0, 0, 40, 0, 0, 0])
        + (60000).to_bytes(4, "little") * 2
        + b"\1\0\x18\0"
        + bytes(24),
        "gif.png": b"GIF89a" + b"\xff\xff\xff\xff" + b"\0\0\0",
    }
    for name, head in heads.items():  # headers that claim huge pictures
        (tmp_path / name).write_bytes(head + bytes(100))
    for path in [*broken_pictures(tmp_path), *(tmp_path / name for name in heads)]:
        with pytest.raises(UnreadablePicture) as refused:
            read_picture(path)
        assert str(refused.value).startswith(str(path))
        assert len(str(refused.value).splitlines()) == 1
    Image.new("RGB", (4, 4)).save(tmp_path / "fine.png")
    assert read_picture(tmp_path / "fine.png").size == (4, 4)


def test_the_message_has_the_largest_number_of_pixels(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    side = round(limit**0.5 * 1.2)  # Pillow itself allows up to twice the limit
    with pytest.raises(UnreadablePicture, match=f"has more than {limit} pixels"):
        read_picture(picture_bomb(tmp_path / "large.png", side))


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    square = centre_square(tmp_path / "a.gif", 8)
    assert square[:, 0, 0].tolist() == [255, 0, 0]


def test_no_picture_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow detects formats by content, and would start Ghostscript for an EPS."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    path = tmp_path / "e.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        b"%%EOF\n"
    )
    formats = ", ".join(pictures.decoders())
    assert "BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP" in formats and "EPS" not in formats
    with pytest.raises(UnreadablePicture, match=f"its format is none of {formats}"):
        read_picture(path)
    assert not (tmp_path / "started").exists()
