"""Conversion of every encoding: padding, byte order, odd sizes, truncation and confusion of encodings."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from image_encodings import ENCODINGS, error, image
from rosbags.image import message_to_cvimage

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.images.validation import OTHER_NAMES, PIXEL_BYTES

CONVERTER = make_converter()
RGB = image(36, 50)
RAW = [encoding for encoding in ENCODINGS if not encoding.compressed]
COMPRESSED = [encoding for encoding in ENCODINGS if encoding.compressed]
MOSAICS = [encoding for encoding in COMPRESSED if "bayer" in encoding.name]


def test_list_has_every_supported_encoding():
    assert {encoding.name for encoding in RAW} == set(PIXEL_BYTES)
    assert {other: encoding.name for encoding in RAW for other in encoding.other_names} == OTHER_NAMES


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_image_is_converted_within_the_allowed_error(encoding):
    seen = CONVERTER.convert(encoding.message(RGB))
    assert seen.shape == RGB.shape
    assert error(seen, encoding.seen(RGB)) <= encoding.largest_error


@pytest.mark.parametrize("encoding", COMPRESSED, ids=str)
def test_other_names_of_compressed_encodings_convert_to_the_same_image(encoding):
    message = encoding.message(RGB)
    plain = CONVERTER.convert(message)
    for message.format in encoding.other_names:
        assert (CONVERTER.convert(message) == plain).all()


@pytest.mark.parametrize("encoding", MOSAICS, ids=str)
def test_allowed_errors_distinguish_compressed_mosaics(encoding):
    message = encoding.message(RGB)
    pattern = encoding.name[: len("bayer_rggb")]
    for message.format in ("png", *(other.name for other in MOSAICS)):
        if not message.format.startswith(pattern):
            assert error(CONVERTER.convert(message), encoding.seen(RGB)) > encoding.largest_error


@pytest.mark.parametrize("encoding", MOSAICS, ids=str)
def test_interpolated_image_in_a_mosaic_format_is_not_interpolated_again(encoding):
    # given a colour image, and a grey image whose format says that it is not a mosaic
    colours, grey = (next(other for other in ENCODINGS if other.name == name) for name in ("png", "mono8"))
    message = colours.message(RGB)
    for message.format in (encoding.name, f"{encoding.name} bgr8"):
        assert (CONVERTER.convert(message) == RGB).all()
    message = colours.message(grey.seen(RGB))
    message.format = f"{encoding.name} mono8"
    assert (CONVERTER.convert(message) == grey.seen(RGB)).all()


@pytest.mark.parametrize("padding", [0, 1, 14])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", RAW, ids=str)
def test_padding_and_byte_order_do_not_change_the_image(encoding, big_endian, padding):
    plain = CONVERTER.convert(encoding.message(RGB))
    message = encoding.message(RGB, padding=padding, big_endian=big_endian)
    for message.encoding in (encoding.name, *encoding.other_names):
        assert (CONVERTER.convert(message) == plain).all()


@pytest.mark.parametrize("encoding", RAW, ids=str)
def test_last_row_may_lack_its_padding_but_no_pixel(encoding):
    plain = CONVERTER.convert(encoding.message(RGB))
    message = encoding.message(RGB, padding=14)
    message.data = message.data[: -encoding.last_padding(RGB, 14)]
    assert (CONVERTER.convert(message) == plain).all()
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match=f"{len(message.data)} bytes"):
        CONVERTER.convert(message)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(36, 51), (35, 50), (35, 51)])
def test_odd_sizes_are_converted_or_rejected(encoding, height, width):
    rgb = image(height, width)
    odd = width % 2, height % 2
    if not any(odd[: encoding.even_sides]):
        assert error(CONVERTER.convert(encoding.message(rgb)), encoding.seen(rgb)) <= encoding.largest_error
        return
    # given an even image whose message declares one pixel less
    message = encoding.message(image(36, 52))
    message.height, message.width = height, width
    with pytest.raises(ImageError, match="width" if odd[0] else "height"):
        CONVERTER.convert(message)


@pytest.mark.parametrize("encoding", RAW, ids=str)
def test_allowed_errors_distinguish_encodings(encoding):
    message = encoding.message(RGB)
    row_bytes, data_bytes = message.step, len(message.data)
    alike = []
    for other in RAW:
        imitation = other.message(RGB)
        if other != encoding and (imitation.step, len(imitation.data)) == (row_bytes, data_bytes):
            message.encoding = other.name
            if error(CONVERTER.convert(message), encoding.seen(RGB)) <= encoding.largest_error:
                alike.append(other.name)
    # a grey image stays grey when it is decoded as a mosaic
    assert all(encoding.grey and name.startswith("bayer") for name in alike)


@pytest.mark.parametrize("encoding", RAW, ids=str)
def test_backend_receives_a_dense_image_in_host_byte_order(encoding):
    # given a library that supports only the first names, no padding and no byte order
    def strict(message):
        assert message.encoding in PIXEL_BYTES
        assert not message.encoding.startswith("nv")
        assert message.step == message.width * PIXEL_BYTES[message.encoding]
        assert len(message.data) == message.height * message.step
        assert not message.is_bigendian
        return message_to_cvimage(message, "rgb8")

    message = encoding.message(RGB, padding=1, big_endian=True)
    for message.encoding in (encoding.name, *encoding.other_names):
        seen = ImageConverter("strict", strict).convert(message)
        assert error(seen, encoding.seen(RGB)) <= encoding.largest_error
