"""The five solids in their own coordinates, centre at the origin: where a ray enters each, and the normal there.

Origins `start` and unit directions `along` are (3, rays), `r` is the radius; the result is inf where a ray misses.
"""

import numpy as np

RING = (0.64, 0.36)  # from the axis to the middle of the tube, and the radius of the tube, in radii


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product over the first axis; written out, since numpy's sum over a short first axis is slow."""
    return a[0] * b[0] + a[1] * b[1] + (a[2] * b[2] if len(a) == 3 else 0)


def _safe(x: np.ndarray) -> np.ndarray:
    """x, moved away from zero so that it can divide."""
    return np.where(np.abs(x) < 1e-7, np.float32(1e-7), x)


def _roots(a, b, c):
    """Both roots of a t^2 + 2 b t + c = 0, in order for a > 0; inf, -inf where there are none."""
    disc = b * b - a * c
    root = np.sqrt(np.maximum(disc, 0))
    return np.where(disc > 0, (-b - root) / _safe(a), np.inf), np.where(disc > 0, (-b + root) / _safe(a), -np.inf)


def _slab(start, along, half):
    """Where a ray enters and leaves |x| < half, for each row of `start`."""
    inverse = 1 / _safe(along)
    middle, reach = -start * inverse, np.abs(half * inverse)
    return middle - reach, middle + reach


def _sphere(start, along, r):
    return _roots(np.ones(1, np.float32), dot(start, along), dot(start, start) - r * r)[0]


def _cube(start, along, r):
    near, far = _slab(start, along, r * 0.5**0.5)
    near = near.max(0)
    return np.where(near < far.min(0), near, np.inf)


def _cylinder(start, along, r):
    """x^2 + y^2 < r^2 between two lids at height r and -r."""
    flat, ray = start[:2], along[:2]
    slope = np.maximum(dot(ray, ray), np.float32(1e-9))  # a ray along the axis still enters and leaves, far away
    side_in, side_out = _roots(slope, dot(flat, ray), dot(flat, flat) - r * r)
    lid_in, lid_out = _slab(start[2], along[2], r)
    t = np.maximum(side_in, lid_in)
    return np.where(t < np.minimum(side_out, lid_out), t, np.inf)


def _cone(start, along, r):
    """Apex at height r, base of radius r at height -r: x^2 + y^2 < ((r - z) / 2)^2."""
    fall = r - start[2]
    a = along[0] ** 2 + along[1] ** 2 - along[2] ** 2 / 4
    b = start[0] * along[0] + start[1] * along[1] + fall * along[2] / 4
    c = start[0] ** 2 + start[1] ** 2 - fall**2 / 4
    best = np.full_like(a, np.inf)
    for t in _roots(a, b, c):
        with np.errstate(invalid="ignore"):  # a level ray that misses: 0 times inf
            best = np.minimum(best, np.where((np.abs(start[2] + along[2] * t) < r) & (t > 1e-3), t, np.inf))
    base = (-r - start[2]) / _safe(along[2])
    under = (start[0] + along[0] * base) ** 2 + (start[1] + along[1] * base) ** 2 < r * r
    return np.minimum(best, np.where(under & (base > 1e-3), base, np.inf))


def _ring(start, along, r):
    """A torus lying flat, found by sphere tracing between the planes that hold it."""
    major, minor = RING[0] * r, RING[1] * r
    middle = -dot(start, along)
    start = start + along * middle  # the point nearest to the centre; t counts from here
    enter, leave = _slab(start[2], along[2], minor)
    reach = np.sqrt(np.maximum(r * r - dot(start, start), 0))
    t, leave = np.maximum(np.maximum(enter, -reach), -middle), np.minimum(leave, reach)
    live = np.flatnonzero(t < leave)
    found = np.full_like(t, np.inf)
    found[live] = _trace_ring(start.take(live, 1), along.take(live, 1), t[live], leave[live], major, minor)
    return found + middle


def ring_share(start, along, enter, length, r):
    """Share of each stretch of a ray that lies in the tube of a ring and not in its hole."""
    inside = 0
    for k in range(12):
        point = start + along * (enter + length * (k + 0.5) / 12)
        flat = np.sqrt(point[0] ** 2 + point[1] ** 2) - RING[0] * r
        inside = inside + (flat**2 + point[2] ** 2 < (RING[1] * r) ** 2)
    return inside / np.float32(12)


def _trace_ring(start, along, t, leave, major, minor):
    """Step by the distance to the tube until it is met or `leave` is passed.

    The few rays that graze it need many steps; the longer they go, the farther off counts as met (0.1 to 0.8 %).
    """
    going = np.arange(len(t))
    for near in (0.001, 0.002, 0.004, 0.008, 0.008, 0.008):
        p, d, here = start[:, going], along[:, going], t[going]
        a, b, c = dot(d[:2], d[:2]), 2 * dot(p[:2], d[:2]), dot(p[:2], p[:2])
        for _ in range(8):
            flat = np.sqrt(np.maximum(c + here * (b + here * a), 0)) - major
            gap = np.sqrt(flat**2 + (p[2] + d[2] * here) ** 2) - minor
            here = np.minimum(here + gap, leave[going])
        t[going] = np.where(here < leave[going], here, np.inf)
        going = going[(gap > near * major) & (here < leave[going])]
        if not len(going):
            break
    t[going] = np.inf
    return t


def _cube_normal(point, r):
    side = np.abs(point).argmax(0)
    return np.where(side == np.arange(3)[:, None], np.sign(point), np.float32(0))


def _cylinder_normal(point, r):
    lid = np.abs(point[2]) > np.sqrt(point[0] ** 2 + point[1] ** 2)
    return np.where(lid, np.sign(point) * np.float32([[0], [0], [1]]), point * np.float32([[1 / r], [1 / r], [0]]))


def _cone_normal(point, r):
    normal = np.stack([point[0], point[1], (r - point[2]) / 4])
    base = point[2] < -0.9999 * r
    return np.where(base, np.float32([[0], [0], [-1]]), normal / np.sqrt(dot(normal, normal) + 1e-12))


def _ring_normal(point, r):
    flat = np.sqrt(point[0] ** 2 + point[1] ** 2) + 1e-9
    normal = np.stack([point[0] * (1 - RING[0] * r / flat), point[1] * (1 - RING[0] * r / flat), point[2]])
    return normal / np.sqrt(dot(normal, normal) + 1e-12)


DISTANCES = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder, "cone": _cone, "ring": _ring}
NORMALS = {
    "sphere": lambda point, r: point / r,
    "cube": _cube_normal,
    "cylinder": _cylinder_normal,
    "cone": _cone_normal,
    "ring": _ring_normal,
}
