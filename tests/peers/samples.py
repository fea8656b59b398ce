"""Writes samples for the real models of `bench quantise`, the same each time.

samples.py MODEL ROOT DATA OUT: MODEL is magika, silero-vad, basic-pitch or rapidocr-cls; ROOT is a folder with files of
many kinds, DATA one with MNIST. OUT gets calibrate/samples.npy and evaluate/samples.npy.
"""

import pathlib
import sys

import numpy

CALIBRATE, EVALUATE = 48, 48
ENDINGS = {".rs", ".py", ".toml", ".md", ".lock", ".json", ".onnx", ".safetensors", ".pem", ".service", ".css"}


def magika(root: pathlib.Path, _data: pathlib.Path, count: int) -> numpy.ndarray:
    """The first and the last 1024 bytes of files, 256 where there are none, as the model's own package reads them."""
    files = sorted(path for path in root.rglob("*") if path.suffix in ENDINGS and path.is_file())
    rows = []
    for path in files[:: max(1, len(files) // count)][:count]:
        content = path.read_bytes()
        head, tail = content[:1024].lstrip(), content[-1024:].rstrip()
        row = numpy.full(2048, 256, dtype=numpy.int32)
        row[: len(head)] = list(head)
        row[2048 - len(tail) :] = list(tail)
        rows.append(row)
    return numpy.stack(rows)


def sound(length: int, rate: int, count: int) -> numpy.ndarray:
    """Harmonic tones that begin and fade, over a little noise."""
    random = numpy.random.default_rng(7)
    time = numpy.arange(length) / rate
    rows = []
    for _ in range(count):
        wave = random.normal(0, 0.003, length)
        for _ in range(random.integers(1, 4)):
            tone = random.uniform(80, 900)
            start, fade = random.uniform(-0.5, 0.8) * length / rate, random.uniform(0.1, 1.0)
            level = numpy.where(time >= start, numpy.exp(-numpy.maximum(time - start, 0) / fade), 0)
            harmonics = sum(numpy.sin(2 * numpy.pi * tone * n * time) / n for n in range(1, 6))
            wave += random.uniform(0.02, 0.3) * level * harmonics
        rows.append(wave)
    return numpy.stack(rows).astype(numpy.float32)


def strips(_root: pathlib.Path, data: pathlib.Path, count: int) -> numpy.ndarray:
    """Lines of handwritten digits, some of them upside down."""
    random = numpy.random.default_rng(7)
    images = numpy.frombuffer((data / "mnist/t10k-images-idx3-ubyte").read_bytes(), numpy.uint8)[16:]
    images = images.reshape(-1, 28, 28)
    rows = []
    for index in range(count):
        strip = numpy.zeros((48, 192), numpy.float32)
        for place in range(random.integers(3, 7)):
            strip[10:38, 4 + 28 * place : 32 + 28 * place] = images[random.integers(len(images))]
        strip = strip[::-1, ::-1] if index % 2 else strip
        rows.append(numpy.repeat((strip / 255 * 2 - 1)[None], 3, axis=0))
    return numpy.stack(rows).astype(numpy.float32)


MAKERS = {
    "magika": magika,
    "silero-vad": lambda _root, _data, count: sound(576, 16000, count),
    "basic-pitch": lambda _root, _data, count: sound(43844, 22050, count)[:, :, None],
    "rapidocr-cls": strips,
}

name, root, data, out = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
count = 16 if name == "basic-pitch" else CALIBRATE
samples = MAKERS[name](root, data, count * 2)
if len(samples) < count * 2:
    sys.exit(f"{len(samples)} samples of {name}, {count * 2} are needed")
# In turn, so that both hold all kinds.
for part, rows in [("calibrate", samples[::2]), ("evaluate", samples[1::2])]:
    (out / part).mkdir(parents=True)
    numpy.save(out / part / "samples.npy", rows)
print(len(samples) // 2)
