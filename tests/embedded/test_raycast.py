"""The ray-caster: hits worked out by hand, masks against a slow march through each solid, a picture's accounts."""

import numpy as np
import pytest

from clip_explain.embedded.scenes.raycast import _light_on_ground, _shadows, chord, first_hits, intersect, render
from clip_explain.embedded.scenes.world import CAMERA, LAMPS, SHAPES, Object, Scene, look_at, sample_scene

LARGE = 0.7


def obj(shape="sphere", x=0.0, y=0.0, rotation=0.0, size="large", color="red", material="rubber"):
    return Object(shape, color, material, size, x, y, rotation)


def scene(*objects, zoom=2.45, aspect=1.0):
    return Scene(objects, look_at(CAMERA, np.array([0, 0, 0.35]), zoom, aspect), LAMPS)


def cast(item, origin, direction):
    t, normal = intersect(item, np.float32(origin)[:, None], np.float32(direction)[:, None])
    return float(t[0]), normal[:, 0]


HALF = LARGE / 2**0.5  # half the side of a large cube
TUBE = 0.36 * LARGE


@pytest.mark.parametrize(
    "shape, origin, direction, distance, normal",
    [
        ("sphere", (5, 0, LARGE), (-1, 0, 0), 5 - LARGE, (1, 0, 0)),
        ("sphere", (0, 0, 5), (0, 0, -1), 5 - 2 * LARGE, (0, 0, 1)),
        ("cube", (5, 0, HALF), (-1, 0, 0), 5 - HALF, (1, 0, 0)),
        ("cube", (0.2, 0.1, 5), (0, 0, -1), 5 - 2 * HALF, (0, 0, 1)),
        ("cylinder", (0, -5, 0.3), (0, 1, 0), 5 - LARGE, (0, -1, 0)),
        ("cylinder", (0.5, 0, 5), (0, 0, -1), 5 - 2 * LARGE, (0, 0, 1)),
        ("cylinder", (0.5, 0, -5), (0, 0, 1), 5, (0, 0, -1)),
        ("cone", (5, 0, LARGE), (-1, 0, 0), 5 - LARGE / 2, (2 / 5**0.5, 0, 1 / 5**0.5)),
        ("cone", (LARGE / 2, 0, 5), (0, 0, -1), 5 - LARGE, (2 / 5**0.5, 0, 1 / 5**0.5)),
        ("cone", (0.3, 0, -5), (0, 0, 1), 5, (0, 0, -1)),
        ("ring", (5, 0, TUBE), (-1, 0, 0), 5 - LARGE, (1, 0, 0)),
        ("ring", (0, 0.64 * LARGE, 5), (0, 0, -1), 5 - 2 * TUBE, (0, 0, 1)),
        ("ring", (0, 0.1, TUBE), (0, 1, 0), 0.28 * LARGE - 0.1, (0, -1, 0)),  # from inside the hole
    ],
)
def test_a_straight_ray_meets_a_shape_where_worked_out_by_hand(shape, origin, direction, distance, normal):
    t, n = cast(obj(shape), origin, direction)
    assert t == pytest.approx(distance, abs=2e-3)
    assert n == pytest.approx(normal, abs=1e-2)


def test_a_turned_cube_shows_its_edge():
    t, _ = cast(obj("cube", rotation=np.pi / 4), (5, 0, HALF), (-1, 0, 0))
    assert t == pytest.approx(5 - LARGE, abs=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ray_that_points_away_or_passes_misses(shape):
    assert cast(obj(shape), (5, 0, 0.2), (1, 0, 0))[0] == np.inf
    t, normal = cast(obj(shape), (5, 1, 0.2), (-1, 0, 0))
    assert t == np.inf and not normal.any()


def test_the_hole_of_a_ring_lets_light_through():
    assert cast(obj("ring"), (0, 0.1, 5), (0, 0, -1))[0] == np.inf


@pytest.mark.parametrize(
    "shape, length", [("sphere", 2 * LARGE), ("cube", 2 * HALF), ("cylinder", 2 * LARGE), ("cone", LARGE)]
)
def test_chord_through_the_centre(shape, length):
    item = obj(shape)
    origin, ray = np.float32([[4], [0], [item.height]]), np.float32([[-1], [0], [0]])
    assert chord(item, origin, ray) == pytest.approx([length], abs=3e-3)
    assert chord(item, origin, -ray) == 0


def inside(item, points, grow):
    """Which world points (n, 3) lie inside an object grown by a factor? From the solids, not from their roots."""
    x, y, z = (points - item.center).T
    c, s = np.cos(item.rotation), np.sin(item.rotation)
    x, y, r = c * x + s * y, c * y - s * x, item.radius
    slack = (grow - 1) * r
    if item.shape == "sphere":
        return x * x + y * y + z * z < (r + slack) ** 2
    if item.shape == "cube":
        return np.abs([x, y, z]).max(0) < r / 2**0.5 + slack
    if item.shape == "cylinder":
        return (np.hypot(x, y) < r + slack) & (np.abs(z) < r + slack)
    if item.shape == "cone":
        return (-r - slack < z) & (np.hypot(x, y) < (r - z) / 2 + slack)
    return np.hypot(np.hypot(x, y) - 0.64 * r, z) < 0.36 * r + slack


def marched(item, camera, size, grow):
    """Visible mask of one object by stepping along each ray, pixel by pixel."""
    mask = np.zeros((size, size), bool)
    near = np.linalg.norm(item.center - camera.position)
    steps = np.arange(near - 1.6 * item.radius, near + 1.6 * item.radius, 0.005)[:, None]
    for row, column in np.ndindex(size, size):
        u, v = (2 * (column + 0.5) / size - 1) * camera.half_width, (1 - 2 * (row + 0.5) / size) * camera.half_height
        ray = np.array([u, v, 1]) @ camera.axes
        mask[row, column] = inside(item, camera.position + ray / np.linalg.norm(ray) * steps, grow).any()
    return mask


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_agree_with_a_slow_march_through_the_solid(shape):
    item = obj(shape, x=0.2, y=-0.3, rotation=0.7)
    world = scene(item, zoom=5.0)
    found = render(world, 24, 24, samples=1).masks[0]
    surely, possibly = marched(item, world.camera, 24, 0.985), marched(item, world.camera, 24, 1.015)
    assert surely.sum() > 50 and (possibly & ~surely).sum() < 40
    assert found[surely].all() and not found[~possibly].any()


def random_scenes(count):
    rng = np.random.default_rng(3)
    return [sample_scene(rng, count=n, framing=("framed", "close", "wide")[n % 3]) for n in range(1, count + 1)]


def test_windows_and_culling_lose_no_ray():
    for world in random_scenes(6):
        hits = first_hits(world, 48, 48)
        origin = world.camera.position.astype(np.float32)[:, None]
        depth = np.where(hits.rays[2] < 0, -origin[2] / hits.rays[2], 1e3).ravel()
        every = np.array([intersect(item, origin, hits.rays.reshape(3, -1))[0] for item in world.objects])
        assert (hits.areas == np.isfinite(every).sum(1)).all()
        first = np.where(every.min(0) < depth, every.argmin(0), -1)
        assert (hits.ids.ravel() == first).all()
        assert hits.depth.ravel() == pytest.approx(np.minimum(depth, every.min(0)), rel=1e-5)


def ground_and_lamp(world, i, size):
    """Points of the ground seen in a grid, and the unit directions from them to lamp i."""
    rays = first_hits(world, size, size).rays
    origin = world.camera.position.astype(np.float32)[:, None, None]
    point = origin - rays * origin[2] / rays[2]
    to = world.lamps[i].astype(np.float32)[:, None, None] - point
    return point, to / np.sqrt((to**2).sum(0))


def test_shadows_on_the_ground_equal_those_of_a_search_through_all_objects():
    for world in random_scenes(6):
        for i in range(3):
            point, to = ground_and_lamp(world, i, 40)
            every = [np.isfinite(intersect(item, point.reshape(3, -1), to.reshape(3, -1))[0]) for item in world.objects]
            assert (_shadows(world, i, point, to).ravel() == np.any(every, axis=0)).all()


@pytest.mark.parametrize("i", range(3))
def test_a_ball_throws_its_shadow_where_worked_out_by_hand(i):
    world, lamp = scene(obj("sphere"), zoom=1.0), LAMPS[i]
    dark = _shadows(world, i, *ground_and_lamp(world, i, 64))
    spot = np.append(lamp[:2] * -LARGE / (lamp[2] - LARGE), 0)  # where the line from the lamp through the middle ends
    for factor, expected in ((1, True), (3.2, False), (-2, False)):
        x, y, _ = world.camera.project(spot * factor)[0] * 64
        assert dark[int(y), int(x)] == expected


def test_shadows_darken_the_ground_and_never_light_it():
    world = sample_scene(np.random.default_rng(4), count=5)
    rays = first_hits(world, 32, 32).rays
    bare, shaded = (_light_on_ground(Scene(t, world.camera, world.lamps), rays) for t in ((), world.objects))
    assert (shaded <= bare + 1e-6).all() and (bare - shaded).max() > 0.3


def test_normals_are_unit_and_face_the_camera():
    for world in random_scenes(5):
        hits = first_hits(world, 48, 48)
        assert np.sqrt((hits.normals**2).sum(0)) == pytest.approx(np.ones((48, 48)), abs=1e-3)
        assert ((hits.normals * hits.rays).sum(0) < 0.02).all()
        assert {a.dtype for a in (hits.rays, hits.depth, hits.normals)} == {np.dtype(np.float32)}


def test_the_nearer_of_two_objects_hides_the_other():
    toward = CAMERA[:2] / np.linalg.norm(CAMERA[:2])
    near, far = obj("cube", *toward * 0.6, size="small"), obj("sphere", *-toward * 0.5, color="blue")
    both, alone = render(scene(far, near), 48, 48), render(scene(far), 48, 48)
    assert both.areas[0] == alone.areas[0]
    assert both.masks[0].sum() < alone.masks[0].sum()
    hidden = alone.masks[0] & ~both.masks[0]
    assert both.masks[1][hidden].mean() > 0.9


def test_accounts_of_a_picture_agree():
    world = sample_scene(np.random.default_rng(5), count=6)
    picture = render(world, 60, 60)
    assert picture.image.shape == (60, 60, 3) and picture.image.dtype == np.uint8
    assert (picture.masks.sum(0) == (picture.ids >= 0)).all()
    assert (picture.masks.sum((1, 2)) <= picture.areas * 1.1 + 4).all()
    for mask, (x0, y0, x1, y1) in zip(picture.masks, picture.boxes, strict=True):
        outside = mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
    projected = world.camera.project(np.array([item.center for item in world.objects]))[:, :2] * 60
    for (x, y), (x0, y0, x1, y1) in zip(projected, picture.boxes, strict=True):
        assert x0 - 2 < x < x1 + 2 and y0 - 2 < y < y1 + 2


def test_rendering_is_deterministic_and_does_not_depend_on_the_order_of_objects():
    world = sample_scene(np.random.default_rng(8), count=4)
    picture, again = render(world, 40, 40), render(world, 40, 40)
    assert (picture.image == again.image).all() and (picture.ids == again.ids).all()
    turned = render(Scene(world.objects[::-1], world.camera, world.lamps), 40, 40)
    assert np.abs(turned.image.astype(int) - picture.image).mean() < 0.05


def test_colours_are_those_named():
    for color, channel in (("red", 0), ("green", 1), ("blue", 2)):
        picture = render(scene(obj(color=color)), 40, 40)
        mean = picture.image[picture.masks[0]].mean(0)
        assert mean.argmax() == channel and mean.max() > 1.5 * np.median(mean)


def test_metal_mirrors_what_stands_beside_it():
    ball = obj(material="metal", color="gray")
    alone = render(scene(ball), 64, 64)
    beside = render(scene(ball, obj("cube", 1.0, 0.9, color="red")), 64, 64)
    change = beside.image[beside.masks[0]].astype(int) - alone.image[beside.masks[0]]
    redder = change[:, 0] - change[:, 2] > 15
    assert 0.02 < redder.mean() < 0.5


def test_an_empty_scene_is_bare_ground():
    picture = render(scene(), 20, 30)
    assert picture.image.shape == (20, 30, 3) and (picture.ids == -1).all()
    assert picture.masks.shape == (0, 20, 30) and picture.boxes.shape == (0, 4) and picture.areas.shape == (0,)
    assert (np.ptp(picture.image, axis=2) == 0).all() and picture.image.min() > 40


def test_pictures_need_not_be_square():
    world = sample_scene(np.random.default_rng(2), count=3, aspect=1.5)
    picture = render(world, 32, 48)
    assert picture.image.shape == (32, 48, 3)
    x0, y0, x1, y1 = render(scene(obj("sphere"), aspect=1.5), 40, 60).boxes[0]
    assert abs((x1 - x0) - (y1 - y0)) <= 2


def test_a_object_beside_the_camera_leaves_no_trace():
    behind = obj("cone", *(CAMERA[:2] * 1.5))
    picture = render(scene(behind), 24, 24)
    assert picture.areas.tolist() == [0] and (picture.ids == -1).all() and picture.boxes.tolist() == [[0, 0, 0, 0]]
