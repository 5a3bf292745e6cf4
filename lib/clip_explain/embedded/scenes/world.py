"""Random scenes of the embedded world, as data: CLEVR's colours, materials, sizes and camera.

Nothing here makes pixels; `raycast.py` renders a `Scene`.
"""

from dataclasses import dataclass

import numpy as np

from clip_explain.embedded.scenes.grounds import Ground

COLORS = {  # CLEVR's eight, sRGB
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
SHAPES = ("cube", "sphere", "cylinder", "cone", "ring")
MATERIALS = ("rubber", "metal")
SIZES = {"large": 0.7, "small": 0.35}  # radius in world units
ATTRIBUTES = {"size": tuple(SIZES), "color": tuple(COLORS), "material": MATERIALS, "shape": SHAPES}

CAMERA = np.array([7.48, -6.51, 5.34])  # Blender's default camera, which CLEVR keeps
LAMPS = np.array([[6.5, -2.9, 5.3], [-4.7, -4.0, 4.0], [-1.1, 3.6, 5.9]])  # key, fill, back
HALF_WIDTH = 16 / 35  # tangent of half the horizontal field of view: 35 mm lens, 32 mm sensor
ZOOM = {"framed": 2.45, "wide": 1.0, "close": 4.0}


@dataclass(frozen=True)
class Object:
    """One object standing on the ground; x and y in world units, rotation in radians about the vertical."""

    shape: str
    color: str
    material: str
    size: str
    x: float
    y: float
    rotation: float

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def height(self) -> float:
        """Height of the centre above the ground."""
        return self.radius * {"cube": 0.5**0.5, "ring": 0.36}.get(self.shape, 1.0)

    @property
    def center(self) -> np.ndarray:
        return np.array([self.x, self.y, self.height])


@dataclass(frozen=True)
class Camera:
    """A pinhole at `position` with the rows of `axes` right, up, forward; the half sizes are tangents."""

    position: np.ndarray
    axes: np.ndarray
    half_width: float
    half_height: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) to picture coordinates (n, 3): x and y in [0, 1] from the top left, and the depth."""
        right, up, depth = self.axes @ (np.atleast_2d(points) - self.position).T
        return np.stack([0.5 + right / depth / self.half_width / 2, 0.5 - up / depth / self.half_height / 2, depth], 1)

    def ground(self, x: float, y: float) -> np.ndarray:
        """The point of the ground seen at picture coordinates x, y in [0, 1]."""
        ray = np.array([(2 * x - 1) * self.half_width, (1 - 2 * y) * self.half_height, 1.0]) @ self.axes
        return self.position - ray * self.position[2] / ray[2]


@dataclass(frozen=True)
class Scene:
    """Objects on a ground, grey where none is given, seen by one camera under three lamps."""

    objects: tuple[Object, ...]
    camera: Camera
    lamps: np.ndarray  # (3, 3) positions
    ground: Ground | None = None
    strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the lamps, relative to the plain scene

    @property
    def along(self) -> np.ndarray:
        """Place of each object (objects, 2), to the right and in depth, in world units: by the camera's own directions
        laid on the ground, as CLEVR tells left, right, front and behind."""
        flat = self.camera.axes[[0, 2], :2]
        directions = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return np.array([[obj.x, obj.y] for obj in self.objects]).reshape(-1, 2) @ directions.T


def look_at(position: np.ndarray, target: np.ndarray, zoom: float, aspect: float = 1.0) -> Camera:
    """A camera at `position` looking at `target`; `aspect` is width over height."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    half_width = HALF_WIDTH / zoom
    return Camera(position, np.stack([right, np.cross(right, forward), forward]), half_width, half_width / aspect)


def sample_scene(
    rng: np.random.Generator,
    count: int = 4,
    framing: str = "framed",
    aspect: float = 1.0,
    zoom: float | None = None,
    fixed: tuple[dict[str, str], ...] = (),
) -> Scene:
    """Draw a scene of `count` objects (1 to 10), each wholly in the picture and none hidden by more than about half.

    `framing`: "framed" (a large object is a third of the picture wide, less where many must fit), "wide" (CLEVR's own
    distance) or "close" (about two thirds). `fixed` gives attributes of the first objects, by name; the rest are drawn.
    An object that finds no place in 300 tries is left out, so a crowded picture can hold fewer.
    """
    zoom = zoom or ZOOM[framing] * (1 if framing != "framed" else min(1, (5 / count) ** 0.5))
    camera = look_at(CAMERA + rng.uniform(-0.5, 0.5, 3), np.array([0, 0, 0.35]), zoom, aspect)
    objects: list[Object] = []
    for i in range(count):
        given = fixed[i] if i < len(fixed) else {}
        names = {key: given.get(key) or str(rng.choice(values)) for key, values in ATTRIBUTES.items()}
        for _ in range(300):
            spot = camera.ground(*rng.uniform(0.04, 0.96, 2))
            obj = Object(**names, x=spot[0], y=spot[1], rotation=rng.uniform(0, 2 * np.pi))
            if _fits(obj, objects, camera):
                objects.append(obj)
                break
    return Scene(tuple(objects), camera, LAMPS + rng.uniform(-1, 1, (3, 3)))


def _disc(obj: Object, camera: Camera) -> tuple[np.ndarray, float]:
    """Centre (x, y, depth) and radius, in picture widths, of an object's outline."""
    at = camera.project(obj.center)[0]
    return at, obj.radius / at[2] / camera.half_width / 2


def _fits(obj: Object, others: list[Object], camera: Camera) -> bool:
    at, radius = _disc(obj, camera)
    tall = radius * camera.half_width / camera.half_height
    away = at[2] / np.linalg.norm(camera.position)
    if not (0.7 < away < 1.3 and radius < at[0] < 1 - radius and tall < at[1] < 1 - tall):
        return False
    for other in others:
        if np.hypot(obj.x - other.x, obj.y - other.y) < obj.radius + other.radius + 0.15:
            return False
        spot, reach = _disc(other, camera)
        gap = np.hypot(at[0] - spot[0], (at[1] - spot[1]) * camera.half_height / camera.half_width)
        if gap < max(radius, reach) * 1.05 + 0.25 * min(radius, reach):
            return False
    return True
