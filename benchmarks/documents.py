"""Pages and lines of text as a camera sees them, drawn with given fonts, texts and photographs."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Random = np.random.Generator


@dataclass(frozen=True)
class Material:
    """What images of one split are made of."""

    photos: list[Image.Image]
    faces: list[tuple[int, tuple[int, int, int]]]
    """Index of a photo, and (x, y, side) in it."""
    fonts: dict[str, list[bytes]]
    """TrueType or OpenType files by script."""
    texts: dict[str, list[str]]
    """Words by script, as they follow each other; a Chinese 'word' is one character or mark."""


@dataclass(frozen=True)
class Writer:
    """Text in one font: `words` is the split's text from a random place on."""

    data: bytes
    words: list[str]
    space: str
    at: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def of(cls, stuff: Material, random: Random, chinese: float) -> Writer:
        script = "chinese" if random.random() < chinese else "latin"
        fonts, text = stuff.fonts[script], stuff.texts[script]
        start = int(random.integers(len(text)))
        font = fonts[int(random.integers(len(fonts)))]
        return cls(font, text[start:] + text[:start], "" if script == "chinese" else " ")

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(io.BytesIO(self.data), size)

    def line(self, font: ImageFont.FreeTypeFont, width: float) -> str:
        """The next words that fit into `width` pixels, at least one."""
        text = self._next()
        while font.getlength(longer := text + self.space + self.words[self.at[0] % len(self.words)]) <= width:
            text = longer
            self._next()
        return text

    def _next(self) -> str:
        self.at[0] += 1
        return self.words[(self.at[0] - 1) % len(self.words)]


def page(stuff: Material, random: Random) -> Image.Image:
    """An upright photograph of a page: title, paragraphs in columns, lists, tables, a picture; on a desk, badly lit."""
    width = int(random.integers(480, 680))
    height = int(width * random.uniform(1.2, 1.45) if random.random() < 0.8 else width * random.uniform(0.65, 0.8))
    shade = random.integers(205, 256) - np.array([0, random.integers(0, 8), random.integers(0, 22)])
    sheet = Image.new("RGB", (width, height), tuple(int(value) for value in shade))
    draw, writer = ImageDraw.Draw(sheet), Writer.of(stuff, random, 0.5)
    ink = tuple(int(value) for value in random.integers(0, 70, 3))
    size = int(random.choice([12, 14, 16, 18, 22, 28]))
    margin, leading = int(width * random.uniform(0.05, 0.12)), random.uniform(1.25, 1.7)
    columns = int(random.choice([1, 1, 2])) if size < 20 else 1
    y = float(margin)
    if random.random() < 0.6:
        font = writer.font(int(size * random.uniform(1.6, 2.6)))
        text = writer.line(font, (width - 2 * margin) * random.uniform(0.4, 1))
        draw.text((margin + (width - 2 * margin - font.getlength(text)) / 2, y), text, ink, font)
        y += font.size * 2
    gap = size * 1.5
    wide = (width - 2 * margin - gap * (columns - 1)) / columns
    bottom = height - margin if random.random() < 0.75 else height * random.uniform(0.25, 0.9)
    for index in range(columns):
        column = Column(sheet, writer, stuff, random, margin + index * (wide + gap), wide, bottom, size, leading, ink)
        column.fill(y)
    if random.random() < 0.5:
        number, font = str(random.integers(2, 400)), writer.font(size)
        draw.text((width / 2 - font.getlength(number) / 2, height - margin * 0.8), number, ink, font)
    return shot(sheet, stuff, random)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a page; each block is drawn from `top` on, and gives the top of what is below it. In pixels."""

    sheet: Image.Image
    writer: Writer
    stuff: Material
    random: Random
    left: float
    width: float
    bottom: float
    size: int
    leading: float
    ink: tuple[int, ...]

    def fill(self, top: float) -> None:
        blocks = (self.paragraph, self.paragraph, self.paragraph, self.table, self.photo, self.heading)
        while top < self.bottom - 2 * self.size:
            top = blocks[int(self.random.integers(len(blocks)))](top)

    def paragraph(self, top: float) -> float:
        font, draw = self.writer.font(self.size), ImageDraw.Draw(self.sheet)
        lines = int(self.random.integers(2, 12))
        for index in range(lines):
            if top + self.size > self.bottom:
                return self.bottom
            indent = self.size * 2 if index == 0 else 0
            share = self.random.uniform(0.2, 0.9) if index == lines - 1 else 1
            text = self.writer.line(font, (self.width - indent) * share)
            draw.text((self.left + indent, top), text, self.ink, font)
            top += self.size * self.leading
        return top + self.size * self.random.uniform(0.2, 1)

    def heading(self, top: float) -> float:
        font = self.writer.font(int(self.size * 1.4))
        text = self.writer.line(font, self.width * 0.6)
        ImageDraw.Draw(self.sheet).text((self.left, top), text, self.ink, font)
        return top + self.size * 1.4 * self.leading * 1.2

    def table(self, top: float) -> float:
        font, draw, random = self.writer.font(int(self.size * 0.9)), ImageDraw.Draw(self.sheet), self.random
        row_step, columns = self.size * self.leading * 1.2, int(random.integers(2, 5))
        step = self.width / columns
        rows = min(int(random.integers(3, 9)), int((self.bottom - top) / row_step))
        for row in range(rows):
            y = top + row * row_step
            draw.line((self.left, y, self.left + self.width, y), self.ink)
            for column in range(columns):
                number = f"{random.uniform(1, 5000):,.{random.integers(0, 3)}f}"
                wordy = row == 0 or column == 0 or random.random() < 0.3
                text = self.writer.line(font, step - self.size) if wordy else number
                draw.text((self.left + column * step + 4, y + 0.15 * self.size), text, self.ink, font)
        end = top + rows * row_step
        draw.line((self.left, end, self.left + self.width, end), self.ink)
        return end + self.size if rows else self.bottom

    def photo(self, top: float) -> float:
        image = self.stuff.photos[int(self.random.integers(len(self.stuff.photos)))]
        wide = int(self.width * self.random.uniform(0.4, 1))
        high = int(wide * image.height / image.width)
        if high > self.bottom - top or self.random.random() < 0.5:
            return self.paragraph(top)
        self.sheet.paste(image.resize((wide, high)), (int(self.left), int(top)))
        return top + high + self.size


def shot(sheet: Image.Image, stuff: Material, random: Random) -> Image.Image:
    """The page as a camera or a scanner sees it."""
    width, height = sheet.size
    flat = random.random() < 0.3
    border, tilt = (0.0, 0.004) if flat else (random.uniform(0.01, 0.25), random.uniform(0, 0.07))
    size = (int(width * (1 + 2 * border)), int(height * (1 + 2 * border)))
    desk = Image.new("RGB", size, tuple(int(value) for value in random.integers(40, 200, 3)))
    if random.random() < 0.5:
        desk = crop(stuff.photos[int(random.integers(len(stuff.photos)))], random, size).filter(ImageFilter.BoxBlur(8))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [width, height] + [width * border, height * border]
    corners = corners + random.uniform(-tilt, tilt, (4, 2)) * width
    coefficients = perspective(corners, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    mask = Image.new("L", sheet.size, 255).transform(size, Image.Transform.PERSPECTIVE, coefficients)
    turned = sheet.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    return worn(Image.composite(turned, desk, mask), random, blur=2.5, noise=20, dark=0.35)


def perspective(to: np.ndarray, origin: np.ndarray) -> list[float]:
    """The 8 numbers with which Pillow takes corners `to` of the result from corners `origin` of the image."""
    rows = []
    for (x, y), (u, v) in zip(to, origin, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return [float(value) for value in np.linalg.solve(np.array(rows), origin.astype(float).ravel())]


def worn(image: Image.Image, random: Random, *, blur: float, noise: float, dark: float) -> Image.Image:
    """Blurred, unevenly lit, with the noise of a sensor."""
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, blur)))
    pixels = np.asarray(image, np.float32)
    down, across = np.linspace(-1, 1, image.height)[:, None], np.linspace(-1, 1, image.width)[None, :]
    light = random.uniform(dark, 1.05) + random.uniform(-0.15, 0.15) * down + random.uniform(-0.15, 0.15) * across
    pixels = pixels * light[..., None] + random.normal(0, random.uniform(0, noise), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def line(stuff: Material, random: Random, *, turned: bool) -> Image.Image:
    """A line of text cut out of a picture, as the text classifier takes it: 192x48, padded with gray on the right."""
    writer = Writer.of(stuff, random, 0.5)
    size = int(random.integers(24, 44))
    font = writer.font(size)
    text = writer.line(font, size * random.uniform(2, 7))
    if random.random() < 0.15:
        text = f"{random.integers(1, 9999)}.{random.integers(10, 99)} {text}"
    left, top, right, bottom = font.getbbox(text)
    pad = random.uniform(0.02, 0.25, 4) * size
    width, height = int(right - left + pad[0] + pad[1]), int(bottom - top + pad[2] + pad[3])
    light, dark = random.integers(150, 256, 3), random.integers(0, 90, 3)
    paper, ink = (light, dark) if random.random() < 0.75 else (dark, light)
    image = Image.new("RGB", (width, height), tuple(int(value) for value in paper))
    if random.random() < 0.2:
        back = crop(stuff.photos[int(random.integers(len(stuff.photos)))], random, (width, height), least=0.2)
        image = Image.blend(image, back, random.uniform(0.2, 0.5))
    ImageDraw.Draw(image).text((pad[0] - left, pad[2] - top), text, tuple(int(value) for value in ink), font)
    image = image.rotate(random.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=tuple(int(v) for v in paper))
    image = worn(image, random, blur=1.2, noise=12, dark=0.75)
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_180)
    canvas = Image.new("RGB", (192, 48), (128, 128, 128))
    canvas.paste(image.resize((min(192, math.ceil(48 * width / height)), 48), Image.Resampling.BILINEAR), (0, 0))
    return canvas


def crop(photo: Image.Image, random: Random, size: tuple[int, int], least: float = 0.35) -> Image.Image:
    """A random part of the aspect of `size`, its side at least `least` of the largest; half of the time mirrored."""
    fit = min(photo.width / size[0], photo.height / size[1])
    scale = fit * random.uniform(least, 1)
    width, height = size[0] * scale, size[1] * scale
    x, y = random.uniform(0, photo.width - width), random.uniform(0, photo.height - height)
    part = photo.resize(size, Image.Resampling.BICUBIC, (x, y, x + width, y + height), 3)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else part
