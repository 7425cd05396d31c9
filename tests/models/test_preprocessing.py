"""What encoded bytes become must be the same in numpy and in the exported TensorFlow graph."""

import io

import numpy as np
import pytest
from PIL import Image

from models.manifest import InputSpec
from models.preprocessing import REFUSED, ImageError, decode_image, preprocess, resize_bilinear
from tests.stand_ins.pictures import encode, picture

SPEC = InputSpec(height=32, width=24, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def graph():
    import tensorflow as tf

    from models.artifacts.savedmodel import preprocess as in_graph

    return tf.function(lambda images: in_graph(images, SPEC), input_signature=[tf.TensorSpec([None], tf.string)])


def both(graph, *images):
    here = np.stack([preprocess(image, SPEC) for image in images])
    return here, graph(np.array(images, dtype=object)).numpy()


def rotated_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(33, 47), "JPEG", exif=exif)


def sixteen_bit(channels):
    import tensorflow as tf

    values = np.random.default_rng(1).integers(0, 1 << 16, (33, 47, channels)).astype(np.uint16)
    return tf.io.encode_png(values).numpy()


def palette(**options):
    return encode(Image.fromarray(picture(33, 47)).quantize(64), "PNG", **options)


ALIKE = {
    "png": lambda: encode(picture(33, 47), "PNG"),
    "png of the target size": lambda: encode(picture(32, 24), "PNG"),
    "png of one pixel": lambda: encode(picture(1, 1), "PNG"),
    "png, large": lambda: encode(picture(225, 301), "PNG"),
    "png, grey": lambda: encode(picture(33, 47)[:, :, 0], "PNG"),
    "png, one bit": lambda: encode(Image.fromarray(picture(33, 47)[:, :, 0]).convert("1"), "PNG"),
    "png, alpha": lambda: encode(picture(33, 47, 4), "PNG"),
    "png, grey with alpha": lambda: encode(Image.fromarray(picture(33, 47, 4)).convert("LA"), "PNG"),
    "png, one colour transparent": lambda: encode(picture(33, 47), "PNG", transparency=(3, 4, 5)),
    "png, palette": palette,
    "png, palette with one transparent colour": lambda: palette(transparency=3),
    "png, palette with alphas": lambda: palette(transparency=bytes(range(64))),
    "png, 16-bit grey": lambda: sixteen_bit(1),
    "png, 16-bit grey with alpha": lambda: sixteen_bit(2),
    "png, 16-bit": lambda: sixteen_bit(3),
    "png, 16-bit with alpha": lambda: sixteen_bit(4),
    "png, animated": lambda: encode(
        picture(33, 47), "PNG", save_all=True, append_images=[Image.fromarray(picture(33, 47, seed=1))]
    ),
    "jpeg, grey": lambda: encode(picture(33, 47)[:, :, 0], "JPEG"),
    "jpeg, CMYK": lambda: encode(Image.fromarray(picture(33, 47)).convert("CMYK"), "JPEG"),
    "jpeg, rotated by EXIF": rotated_by_exif,
    "jpeg followed by other bytes": lambda: encode(picture(33, 47), "JPEG") + b"trailing",
    **{
        f"jpeg {height}x{width}, subsampling {subsampling}, progressive {progressive}": (
            lambda h=height, w=width, s=subsampling, p=progressive: encode(
                picture(h, w), "JPEG", quality=80, subsampling=s, progressive=p
            )
        )
        for height, width in ((32, 24), (33, 47), (1, 1), (17, 8), (225, 301))
        for subsampling in (0, 1, 2)
        for progressive in (False, True)
    },
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ALIKE)
def test_both_sides_see_the_same_pixels(graph, kind):
    here, there = both(graph, ALIKE[kind]())
    assert here.shape == (1, 32, 24, 3)
    np.testing.assert_allclose(here, there, rtol=0, atol=2e-6)


def test_the_graph_decodes_as_precisely_as_libjpeg_can(graph):
    """TensorFlow's default, the fast DCT, must differ here, or the test above proves nothing."""
    import tensorflow as tf

    image = encode(picture(33, 47), "JPEG")
    fast = tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_FAST").numpy()
    assert (fast != decode_image(image)).any()


def test_a_batch_may_mix_formats_and_sizes(graph):
    here, there = both(
        graph, encode(picture(33, 47), "JPEG"), encode(picture(8, 9), "PNG"), encode(picture(32, 24), "PNG")
    )
    np.testing.assert_allclose(here, there, rtol=0, atol=2e-6)


PNG = encode(picture(33, 47), "PNG")
JPEG = encode(picture(133, 147), "JPEG")
REFUSED_BY_BOTH = {
    "nothing": b"",
    "text": b"not an image",
    "json": b'{"instances": []}',
    "gif": encode(Image.fromarray(picture(33, 47)).quantize(64), "GIF"),
    "animated gif": encode(
        Image.fromarray(picture(33, 47)).quantize(64),
        "GIF",
        save_all=True,
        append_images=[Image.fromarray(picture(33, 47, seed=1)).quantize(64)],
    ),
    "bmp": encode(picture(33, 47), "BMP"),
    "webp": encode(picture(33, 47), "WEBP"),
    "tiff": encode(picture(33, 47), "TIFF"),
    "half a png": PNG[: len(PNG) // 2],
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "the magic of a png alone": b"\x89PNG\r\n\x1a\n",
    "the magic of a jpeg alone": b"\xff\xd8\xff",
}


@pytest.mark.parametrize("kind", REFUSED_BY_BOTH)
def test_both_sides_refuse_with_a_sentence(graph, kind):
    import tensorflow as tf

    data = REFUSED_BY_BOTH[kind]
    with pytest.raises(ImageError, match=r"^the .*\.$") as refusal:
        decode_image(data)
    assert "\n" not in str(refusal.value)
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(np.array([PNG, data], dtype=object))


def test_the_graph_says_what_it_takes(graph):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED):
        graph(np.array([b"GIF89a"], dtype=object))


def test_an_image_that_unfolds_to_too_many_pixels_is_refused_before_it_is_decoded():
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 20_000
    with pytest.raises(ImageError, match="9000x9000 pixels"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize(("height", "width"), [(7, 5), (32, 32), (64, 100), (1, 1), (224, 224), (33, 46)])
def test_resizing_is_tensorflows_half_pixel_rule(height, width):
    import tensorflow as tf

    image = picture(33, 47)
    theirs = tf.image.resize(image, (height, width), method="bilinear", antialias=False).numpy()
    np.testing.assert_allclose(resize_bilinear(image, height, width), theirs, rtol=0, atol=1e-4)


def test_normalisation_is_what_the_input_spec_says():
    pixels = picture(32, 24)
    expected = (pixels / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    np.testing.assert_allclose(preprocess(encode(pixels, "PNG"), SPEC), expected, rtol=0, atol=2e-6)
