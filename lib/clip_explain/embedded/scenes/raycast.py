"""The ray-caster: from a `Scene` to pixels and exact visible masks, vectorised over rays in numpy.

Primary rays, supersampled; lamps with soft shadows on the ground and hard ones on objects; matte rubber (Lambert with a
weak gloss) and metal (tinted mirror, one bounce, with Phong highlights). Vectors are float32, their first axis x, y, z.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, UInt8
from PIL import Image, ImageFilter

from clip_explain.embedded.scenes.grounds import reflectance
from clip_explain.embedded.scenes.solids import DISTANCES, NORMALS, dot, ring_share
from clip_explain.embedded.scenes.world import COLORS, Camera, Object, Scene

GROUND = 0.30  # linear reflectance of the ground
LIGHT = np.array([0.62, 0.26, 0.30], np.float32)  # strength of key, fill and back lamp
AMBIENT = 0.16
SKY = 0.05  # the sky that metal reflects


@dataclass(frozen=True)
class Picture:
    """A rendered scene: `image` uint8 (height, width, 3), `ids` int8 (height, width) with -1 for the ground.

    `areas` (objects,) counts the pixels that each object would have without occlusion.
    """

    image: UInt8[np.ndarray, "height width 3"]
    ids: Int8[np.ndarray, "height width"]
    areas: Float[np.ndarray, " objects"]
    scene: Scene

    @property
    def masks(self) -> Bool[np.ndarray, "objects height width"]:
        """Visible mask of each object, boolean (objects, height, width)."""
        return self.ids[None] == np.arange(len(self.scene.objects))[:, None, None]

    @property
    def boxes(self) -> Int[np.ndarray, "objects 4"]:
        """Box [x0, y0, x1, y1] around each visible mask, in pixels (end excluded); zeros where nothing is visible."""
        return np.array([_box(mask) for mask in self.masks], int).reshape(-1, 4)


@dataclass(frozen=True)
class Hits:
    """The first hit of each ray: `depth` along it, `ids` (-1: the ground) and the surface's outward `normals`.

    `areas` counts the rays that would meet each object if nothing stood before it.
    """

    rays: Float[np.ndarray, "3 rows columns"]
    depth: Float[np.ndarray, "rows columns"]
    ids: Int8[np.ndarray, "rows columns"]
    normals: Float[np.ndarray, "3 rows columns"]
    areas: Float[np.ndarray, " objects"]


def render(scene: Scene, height: int = 224, width: int = 224, samples: int = 2) -> Picture:
    """Render a scene at `samples` x `samples` rays a pixel."""
    hits = first_hits(scene, height * samples, width * samples)
    ground = _to_srgb(_ground(scene, hits.rays[:, ::samples, ::samples]))
    color = np.repeat(np.repeat(ground, samples, 1), samples, 2)
    for i in range(len(scene.objects)):
        at = np.flatnonzero(hits.ids == i)
        for plane, values in zip(color, _to_srgb(_shade_object(scene, i, hits, at)), strict=True):
            plane.ravel()[at] = values
    ids = _majority(hits.ids, samples, len(scene.objects))
    return Picture(_downsample(color, samples), ids, hits.areas / samples**2, scene)


# -- rays and hits


def first_hits(scene: Scene, rows: int, columns: int) -> Hits:
    """Cast one ray through the middle of each cell of a grid of `rows` x `columns` laid over the picture."""
    origin, rays = _point(scene.camera.position), _rays(scene.camera, rows, columns)
    depth, normals = _to_ground(origin, rays), np.zeros_like(rays)
    ids = np.full((rows, columns), -1, np.int8)
    areas = np.zeros(len(scene.objects))
    normals[2] = 1
    windows = _windows(scene, _corners(scene), rows, columns)
    for i, (obj, window) in enumerate(zip(scene.objects, windows, strict=True)):
        near = rays[:, *window]
        t, normal = intersect(obj, origin, near.reshape(3, -1))
        areas[i] = np.isfinite(t).sum()
        t = t.reshape(near.shape[1:])
        closer = t < depth[window]
        np.copyto(depth[window], t, where=closer)
        np.copyto(ids[window], np.int8(i), where=closer)
        np.copyto(normals[:, *window], normal.reshape(near.shape), where=closer)
    return Hits(rays, depth, ids, normals, areas)


def intersect(
    obj: Object, origin: Float[np.ndarray, "3 #rays"], rays: Float[np.ndarray, "3 rays"]
) -> tuple[Float[np.ndarray, " rays"], Float[np.ndarray, "3 rays"]]:
    """Distance along unit rays to an object (inf: missed) and its outward unit normal there (zero: missed).

    World coordinates and units; origins lie outside the object.
    """
    start, along, turn = _local(obj, origin, rays)
    t = _distance(obj, start, along)
    hit = np.isfinite(t)
    normal = NORMALS[obj.shape](start + along * np.where(hit, t, 0), obj.radius)
    return t, turn.T @ np.where(hit, normal, 0)


def chord(
    obj: Object, origin: Float[np.ndarray, "3 #rays"], rays: Float[np.ndarray, "3 rays"]
) -> Float[np.ndarray, " rays"]:
    """Length of each unit ray inside an object, zero where it misses."""
    start, along, _ = _local(obj, origin, rays)
    beyond = np.sqrt(dot(start, start)) + 3 * obj.radius
    enter = _distance(obj, start, along)
    length = beyond - enter - _distance(obj, start + along * beyond, -along)
    hit = length > 0
    if obj.shape == "ring":
        start = np.broadcast_to(start, along.shape)[:, hit]
        length[hit] *= ring_share(start, along[:, hit], enter[hit], length[hit], obj.radius)
    return np.where(hit, length, 0)


def thickness(scene: Scene, rows: int, columns: int) -> Float[np.ndarray, "objects rows columns"]:
    """Length of each ray inside each object, in world units, regardless of occlusion, as for an X-ray."""
    origin, rays = _point(scene.camera.position), _rays(scene.camera, rows, columns)
    out = np.zeros((len(scene.objects), rows, columns), np.float32)
    windows = _windows(scene, _corners(scene), rows, columns)
    for lengths, obj, window in zip(out, scene.objects, windows, strict=True):
        near = rays[:, *window]
        lengths[window] = chord(obj, origin, near.reshape(3, -1)).reshape(near.shape[1:])
    return out


def _point(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector, np.float32)[:, None]


def _rays(camera: Camera, rows: int, columns: int) -> np.ndarray:
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * 2 - 1) * np.float32(camera.half_width)
    y = (1 - (np.arange(rows, dtype=np.float32) + 0.5) / rows * 2) * np.float32(camera.half_height)
    right, up, forward = camera.axes.astype(np.float32)
    rays = right[:, None, None] * x + (up[:, None] * y)[:, :, None] + forward[:, None, None]
    return rays / np.sqrt(1 + x**2 + (y**2)[:, None])


def _to_ground(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance along each ray to the ground (1000 where it never comes down)."""
    return np.where(rays[2] < -1e-4, -origin[2] / np.minimum(rays[2], np.float32(-1e-4)), np.float32(1e3))


def _corners(scene: Scene) -> np.ndarray:
    """The corners of an upright box around each object, (objects, 8, 3)."""
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
    half = np.array([[t.radius, t.radius, t.height] for t in scene.objects]).reshape(-1, 1, 3)
    return np.array([t.center for t in scene.objects]).reshape(-1, 1, 3) + half * signs


def _windows(scene: Scene, corners: np.ndarray, rows: int, columns: int) -> list[tuple[slice, slice]]:
    """The rows and columns that hold each box of corners (n, 8, 3) in the picture; all where it reaches behind us."""
    x, y, depth = scene.camera.project(corners.reshape(-1, 3)).T.reshape(3, -1, 8)
    whole = depth.min(1) < 0.1
    spans = []
    for at, size in ((y * rows, rows), (x * columns, columns)):
        low = np.where(whole, 0, np.floor(at.min(1)).clip(0, size)).astype(int)
        high = np.where(whole, size, np.ceil(at.max(1)).clip(0, size)).astype(int)
        spans.append([slice(a, b) for a, b in zip(low, high, strict=True)])
    return list(zip(*spans, strict=True))


def _local(obj: Object, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origins and directions in the object's coordinates, and the turn that takes world vectors there."""
    c, s = np.cos(obj.rotation), np.sin(obj.rotation)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
    return turn @ (origin - _point(obj.center)), turn @ rays, turn


def _distance(obj: Object, start: np.ndarray, along: np.ndarray) -> np.ndarray:
    t = DISTANCES[obj.shape](start, along, obj.radius)
    return np.where(t > 1e-3, t, np.float32(np.inf))


# -- light


def _lamp(scene: Scene, i: int, point: np.ndarray):
    """Direction from points (3, ...) to lamp i, and its strength there (falling with the distance, 1 at 8 units)."""
    to = scene.lamps[i].astype(np.float32).reshape(3, *[1] * (point.ndim - 1)) - point
    distance = np.sqrt(dot(to, to))
    near = 8 / distance
    return to / distance, LIGHT[i] * np.float32(scene.strengths[i]) * near * np.sqrt(near)


def _ground(scene: Scene, rays: np.ndarray) -> np.ndarray:
    """Linear colour (3, rows, columns) of the ground where each ray meets it, nothing before it."""
    light = _light_on_ground(scene, rays)
    if scene.ground is None:
        return (GROUND * light)[None].repeat(3, 0)
    away = _to_ground(_point(scene.camera.position), rays)
    x, y = (scene.camera.position[i].astype(np.float32) + rays[i] * away for i in (0, 1))
    return reflectance(scene.ground, x, y) * light


def _light_on_ground(scene: Scene, rays: np.ndarray) -> np.ndarray:
    """Light on the ground where each ray (3, rows, columns) meets it, nothing before it; shadows softened."""
    origin = scene.camera.position.astype(np.float32)[:, None, None]
    point = origin + rays * _to_ground(origin, rays)
    light = AMBIENT * _open_sky(scene, point)
    for i in range(len(scene.lamps)):
        to, strength = _lamp(scene, i, point)
        shadow = _soften(_shadows(scene, i, point, to), 0.004 + 0.008 * (i > 0))
        light += strength * np.maximum(to[2], 0) * (1 - 0.8 * shadow)
    return light


def _shadows(scene: Scene, i: int, point: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Whether an object stands between a point of the ground (3, rows, columns) and lamp i, in direction `to`."""
    corners, lamp = _corners(scene), scene.lamps[i]
    fall = (lamp - corners)[..., 2:]
    thrown = np.where(fall > 0.1, lamp + (corners - lamp) * lamp[2] / np.maximum(fall, 0.1), scene.camera.position)
    _, rows, columns = point.shape
    dark = np.zeros((rows, columns), bool)
    for obj, window in zip(scene.objects, _windows(scene, thrown, rows, columns), strict=True):
        near, toward = point[:, *window], to[:, *window]
        start, along, _ = _local(obj, near.reshape(3, -1), toward.reshape(3, -1))
        dark[window] |= np.isfinite(_distance(obj, start, along)).reshape(near.shape[1:])
    return dark


def _soften(dark: np.ndarray, radius: float) -> np.ndarray:
    blur = ImageFilter.GaussianBlur(radius * max(dark.shape))
    return np.asarray(Image.fromarray(dark.astype(np.uint8) * 255).filter(blur), np.float32) / 255


def _open_sky(scene: Scene, point: np.ndarray) -> np.ndarray:
    """Share of the ambient light that objects leave to the ground: a sphere hides (r / d)^2 times the cosine."""
    hidden = np.zeros(point.shape[1:], np.float32)
    for obj in scene.objects:
        square = (point[0] - obj.x) ** 2 + (point[1] - obj.y) ** 2 + (obj.height**2 + 1e-6)
        hidden += obj.radius**2 * obj.height / (square * np.sqrt(square))
    return 1 - np.minimum(hidden, 0.85)


def _shade_object(scene: Scene, i: int, hits: Hits, at: np.ndarray) -> np.ndarray:
    """Linear colour (3, rays) of object i where rays number `at` meet it."""
    rays, normal = hits.rays.reshape(3, -1).take(at, 1), hits.normals.reshape(3, -1).take(at, 1)
    point = _point(scene.camera.position) + rays * hits.depth.take(at)
    mirror = rays - 2 * dot(rays, normal) * normal
    tint, metal = _linear(COLORS[scene.objects[i].color])[:, None], scene.objects[i].material == "metal"
    light, shine = AMBIENT * (0.75 + 0.25 * normal[2]), 0
    for j in range(len(scene.lamps)):
        to, strength = _lamp(scene, j, point)
        if j == 0:
            strength = strength * ~_blocked(scene, i, scene.lamps[j], point, to)
        light = light + np.maximum(dot(normal, to), 0) * strength
        gleam = np.maximum(dot(mirror, to), np.float32(0.25))  # smaller values are invisible; their powers are slow
        shine = shine + strength * (1.4 * gleam**60 if metal else 0.06 * gleam**8)
    if metal:
        return 0.25 * light * tint + _mirrored(scene, i, point, mirror) * (0.08 + 1.6 * tint) + shine
    return light * tint + shine


def _meets(obj: Object, point: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Numbers of the rays that pass through the sphere around an object."""
    aside = _point(obj.center) - point
    along = dot(aside, rays)
    return np.flatnonzero((dot(aside, aside) - along**2 < obj.radius**2 + obj.height**2) & (along > 0))


def _may_shade(obj: Object, other: Object, lamp: np.ndarray) -> bool:
    """Whether the sphere around an object can cast a shadow of this lamp on the sphere around the other."""
    (to, reach), (away, span) = ((t.center - lamp, np.hypot(t.radius, t.height)) for t in (obj, other))
    near, far = np.sqrt(to @ to), np.sqrt(away @ away)
    apart = np.arccos(np.clip(to @ away / (near * far), -1, 1))
    return bool(near - reach < far + span and apart < np.arcsin(min(1, reach / near)) + np.arcsin(min(1, span / far)))


def _blocked(scene: Scene, i: int, lamp: np.ndarray, point: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Whether an object other than i stands between a point on it and the lamp in direction `to`."""
    dark = np.zeros(point.shape[1], bool)
    for j, obj in enumerate(scene.objects):
        if j != i and _may_shade(obj, scene.objects[i], lamp) and len(at := _meets(obj, point, to)):
            start, along, _ = _local(obj, point.take(at, 1), to.take(at, 1))
            dark[at] |= np.isfinite(_distance(obj, start, along))
    return dark


def _mirrored(scene: Scene, i: int, point: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The colour that metal object i reflects: ground, dark sky, or the flat colour of another object."""
    away = -point[2] / np.minimum(mirror[2], np.float32(-1e-3))
    ground = GROUND * 1.15 / (1 + 0.012 * away**2)
    tint = np.ones(3, np.float32) if scene.ground is None else scene.ground.mean / GROUND
    sky = SKY + 0.25 * np.maximum(mirror[2], 0) ** 3
    seen = np.where(mirror[2] < 0, tint[:, None] * ground, sky)
    nearest = np.full(point.shape[1], np.inf, np.float32)
    for j, obj in enumerate(scene.objects):
        if j != i and len(at := _meets(obj, point, mirror)):
            t, normal = intersect(obj, point.take(at, 1), mirror.take(at, 1))
            closer = t < nearest[at]
            nearest[at] = np.minimum(nearest[at], t)
            flat = _linear(COLORS[obj.color])[:, None] * (0.45 + 0.4 * normal[2])
            seen[:, at[closer]] = flat[:, closer]
    return seen


def _linear(rgb: tuple[int, int, int]) -> np.ndarray:
    return (np.array(rgb, np.float32) / 255) ** np.float32(2.2)


def _to_srgb(color: np.ndarray) -> np.ndarray:
    return np.clip(color, 0, 1) ** np.float32(1 / 2.2)


# -- from rays to pixels


def _downsample(color: np.ndarray, samples: int) -> np.ndarray:
    mean = sum(color[:, a::samples, b::samples] for a in range(samples) for b in range(samples)) / samples**2
    return np.ascontiguousarray((mean * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _majority(ids: np.ndarray, samples: int, objects: int) -> np.ndarray:
    """The object that covers at least half of a pixel's rays (the later of two that share them), else the ground."""
    out = np.full((ids.shape[0] // samples, ids.shape[1] // samples), -1, np.int8)
    for i in range(objects):
        own = (ids == i).view(np.uint8)
        count = sum(own[a::samples, b::samples] for a in range(samples) for b in range(samples))
        out[2 * count >= samples**2] = i
    return out


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0])
