"""Films: flow and what can be relied on, known sequences, cuts, frames of a folder, and painting shots."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import error_line, structured_picture
from npstyle import Settings, images, load_weights
from npstyle.film import flow as flows
from npstyle.film import judging, painting, sequences
from npstyle.film.cuts import color_change, find_shots
from npstyle.film.flow import FlowPair, reliability, warp
from npstyle.film.frames import histogram, list_frames, survey
from npstyle.film.painting import Film, FilmSettings, paint_shot, plan_shots
from npstyle.film.shots import Shot
from npstyle.weights import Weights

SHALLOW = Settings(
    content_layers=("conv1_2",), style_layers=("conv1_1",), iterations=2, min_size=0, padding="zero"
)
FIXED = Weights(dict(load_weights("random", deepest="conv2_2")), "fixed", preprocessing="caffe")
needs_opencv = pytest.mark.skipif(find_spec("cv2") is None, reason="no opencv-python-headless")
needs_skimage = pytest.mark.skipif(find_spec("skimage") is None, reason="no scikit-image")


def constant_flow(H: int, W: int, right: float, down: float) -> NDArray[np.float32]:
    return np.tile(np.array([right, down], np.float32), (H, W, 1))


def smooth_picture(H: int, W: int) -> NDArray[np.uint8]:
    """Waves of some pixels' length, of which flow can be told."""
    y, x = np.mgrid[0:H, 0:W]
    waves = [np.sin(x / 3 + y / 7 + n) + np.sin(y / 4 - x / 9 + 2 * n) for n in range(3)]
    return np.asarray(np.clip(128 + 60 * np.stack(waves, axis=-1), 0, 255), np.uint8)


# ------------------------------------------------------------------------------------------------
# Flow
# ------------------------------------------------------------------------------------------------


def test_warp_by_whole_pixels_moves_them() -> None:
    picture = structured_picture(12, 16).astype(np.float32)
    warped = warp(picture, constant_flow(12, 16, 3, -2))
    np.testing.assert_array_equal(warped[2:, :-3], picture[:-2, 3:])
    np.testing.assert_array_equal(warped[0], warped[2])  # the border is replicated


def test_warp_between_pixels_is_exact_for_slopes() -> None:
    y, x = np.mgrid[0:12, 0:16].astype(np.float64)
    ramp = np.stack([x, y, 2 * x - y], axis=-1)
    warped = warp(ramp, constant_flow(12, 16, 0.3, 0.6))[2:-3, 2:-3]
    np.testing.assert_allclose(warped, (ramp + np.array([0.3, 0.6, 0.0]))[2:-3, 2:-3], atol=1e-6)


def test_flow_that_leads_back_is_reliable() -> None:
    pair = FlowPair(constant_flow(20, 24, -2, 1), constant_flow(20, 24, 2, -1))
    mask = reliability(pair)
    assert mask[4:-4, 5:-4].min() == pytest.approx(1)
    assert mask[:, 0].max() < 0.5  # from outside of the earlier frame
    assert mask[-1].max() < 0.5


def test_flow_that_does_not_lead_back_is_an_occlusion() -> None:
    forward = constant_flow(20, 24, 0, 0)
    forward[:, 12:] = 5
    mask = reliability(FlowPair(constant_flow(20, 24, 0, 0), forward))
    assert mask[:, :8].min() == pytest.approx(1)
    assert mask[:, 16:].max() == pytest.approx(0)


def test_border_of_motion_is_not_reliable() -> None:
    backward = constant_flow(20, 24, 0, 0)
    backward[:, 12:, 1] = 0.4  # too little for an occlusion
    mask = reliability(FlowPair(backward, -backward))
    assert mask[10, 11] < 0.5
    assert mask[10, 4] == pytest.approx(1)


def test_long_term_masks_leave_out_what_nearer_frames_show() -> None:
    near, far = np.array([[1.0, 0.25, 0.0]]), np.array([[1.0, 1.0, 0.5]])
    masks = flows.long_term_masks([near, far, far])
    assert [mask.tolist() for mask in masks] == [[[1, 0.25, 0]], [[0, 0.75, 0.5]], [[0, 0, 0]]]


def test_joined_target_has_the_gradient_of_all() -> None:
    rng = np.random.default_rng(0)
    x, targets = rng.uniform(0, 255, (4, 5, 3)), rng.uniform(0, 255, (3, 4, 5, 3))
    masks = rng.uniform(0.1, 1, (3, 4, 5))
    target, mask = flows.joined_target(list(targets), list(masks))
    expected = sum(m[..., None] * (x - t) for m, t in zip(masks, targets, strict=True))
    np.testing.assert_allclose(mask[..., None] * (x - target), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "method",
    [pytest.param("dis", marks=needs_opencv), pytest.param("tvl1", marks=needs_skimage)],
)
def test_estimated_flow_finds_the_motion(method: str) -> None:
    picture = smooth_picture(48, 64)
    earlier, later = picture[4:-4, 4:-4], picture[4:-4, 6:-2]  # things move two pixels to the left
    pair = flows.flow_between(earlier, later, method)
    inner = np.median(pair.backward[8:-8, 8:-8], axis=(0, 1)), np.median(pair.forward, axis=(0, 1))
    np.testing.assert_allclose(inner[0], [2, 0], atol=0.25)
    np.testing.assert_allclose(inner[1], [-2, 0], atol=0.25)


@needs_opencv
def test_flow_does_not_depend_on_threads() -> None:
    import cv2

    picture, found = smooth_picture(128, 128), []
    for threads in (1, 3):
        cv2.setNumThreads(threads)
        found.append(flows.flow_between(picture[:-8], picture[8:], "dis").backward)
        assert cv2.getNumThreads() == threads
    np.testing.assert_array_equal(found[0], found[1])


def test_flow_files_are_read_and_resized(tmp_path: Path) -> None:
    for name, right in (("backward_2_1.flo", -3.0), ("forward_1_2.flo", 3.0)):
        flows.write_flo(tmp_path / name, constant_flow(20, 40, right, 1.0))
    frame = np.zeros((10, 20, 3), np.uint8)
    pair = flows.flow_between(frame, frame, str(tmp_path), (1, 2))
    assert pair.backward.shape == (10, 20, 2)
    np.testing.assert_allclose(pair.backward, constant_flow(10, 20, -1.5, 0.5))
    np.testing.assert_allclose(pair.forward, constant_flow(10, 20, 1.5, 0.5))


def test_damaged_flow_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "backward_2_1.flo"
    name = f"flow: {path}"
    assert error_line(lambda: flows.read_flo(path), name).startswith("found No such file")
    for data in (b"", b"PIEH", struct.pack("<fii", flows.FLO_MAGIC, 4, 3) + bytes(8 * 11), bytes(108)):
        path.write_bytes(data)
        assert "a damaged file" in error_line(lambda: flows.read_flo(path), name)
    flows.write_flo(path, constant_flow(3, 4, np.nan, 0))
    assert "NaN" in error_line(lambda: flows.read_flo(path), name)


def test_flow_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "find_spec", lambda name: None)
    line = error_line(lambda: FilmSettings(flow="dis"), "flow")
    assert line.startswith("found dis, but no cv2; expected the package opencv-python-headless; pip install")
    assert "--method difference" in line
    FilmSettings(method="difference")  # which needs none
    line = error_line(lambda: FilmSettings(flow="nowhere"), "flow")
    assert line.startswith("found 'nowhere'; expected dis, tvl1 or a folder of .flo files")


# ------------------------------------------------------------------------------------------------
# Sequences with known flow, and the judge
# ------------------------------------------------------------------------------------------------

SEQUENCES = sequences.make_sequences([smooth_picture(80, 110), smooth_picture(80, 110)[::-1]], 64, 48, 6)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.name)
def test_known_flow_warps_one_frame_to_the_next(sequence: sequences.KnownSequence) -> None:
    """Up to what interpolation leaves: far less than the frames differ by, and less than by a wrong flow."""
    for later, earlier in ((1, 0), (5, 4), (2, 0)):
        flow, known = sequence.backward(later, earlier)
        a, b = sequence.frames[earlier], sequence.frames[later]
        assert known.mean() > 0.6
        error = judging.warping_error(a, b, flow, known)
        assert error < 10
        assert error < judging.warping_error(a, b, -flow, known) / 10
        assert error < judging.warping_error(a, b, 0 * flow, known) / 10


def test_nothing_is_known_across_the_cut() -> None:
    cut = next(sequence for sequence in SEQUENCES if sequence.name == "cut")
    assert not cut.backward(3, 2)[1].any()
    flows = [cut.backward(n + 1, n) for n in range(5)]
    assert np.isnan(judging.warping_error(cut.frames[2], cut.frames[3], *flows[2]))
    assert judging.mean_warping_error(cut.frames, flows) < 10  # the pair at the cut is left out


def test_what_the_disc_uncovers_is_not_known() -> None:
    disc = next(sequence for sequence in SEQUENCES if sequence.name == "disc")
    known = disc.backward(1, 0)[1]
    assert 0.02 < 1 - known.mean() < 0.3
    shape = disc.scenes[1].disc
    assert shape is not None
    x, y = (round(c) for c in shape.center)
    assert known[y, x]
    assert not known[y, round(x - shape.radius - 1)]  # behind it


# ------------------------------------------------------------------------------------------------
# Cuts and folders
# ------------------------------------------------------------------------------------------------


def test_cuts_are_found_and_motion_is_none() -> None:
    for sequence in sequences.make_sequences(
        [smooth_picture(80, 110), 255 - smooth_picture(80, 110) // 2], 64, 48, 6
    ):
        shots = find_shots([histogram(frame) for frame in sequence.frames])
        assert shots == ([range(3), range(3, 6)] if sequence.name == "cut" else [range(6)])


def test_color_change_is_a_part_of_the_pixels() -> None:
    black, half = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255
    assert color_change(histogram(black), histogram(half)) == pytest.approx(0.5)
    assert color_change(histogram(black), histogram(255 + black)) == pytest.approx(1)


def test_cut_changes_more_than_a_quarter_of_the_pixels() -> None:
    """As docs/video.md says: so a scene may become lighter by a fifth."""
    black = np.zeros((20, 8, 3), np.uint8)
    for rows, shots in ((5, [range(2)]), (6, [range(1), range(1, 2)])):
        changed = black.copy()
        changed[:rows] = 255
        assert find_shots([histogram(black), histogram(changed)]) == shots


def write_frames(folder: Path, frames: Sequence[NDArray[Any]], name: str = "frame_{}.png") -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / name.format(n) for n in range(1, len(frames) + 1)]
    for path, frame in zip(paths, frames, strict=True):
        images.write(path, frame, True)
    return paths


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = write_frames(tmp_path, [structured_picture(16, 16)] * 11)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    assert list_frames(tmp_path) == paths


def test_frames_that_are_none_are_refused(tmp_path: Path) -> None:
    name = f"film: {tmp_path}"
    assert "no pictures in it" in error_line(lambda: list_frames(tmp_path), name)
    (tmp_path / "a.png").touch()
    (tmp_path / "A.jpg").touch()
    assert "A.jpg and a.png" in error_line(lambda: list_frames(tmp_path), name)


def test_frames_of_other_sizes_and_broken_ones_are_refused(tmp_path: Path) -> None:
    paths = write_frames(tmp_path, [structured_picture(16, 20), structured_picture(16, 22)])
    line = error_line(lambda: survey(paths), f"frame: {paths[1]}")
    assert line == "found 22 x 16 pixels; expected 20 x 16, as frame_1.png; resize it, or remove it"
    paths[1].write_bytes(paths[0].read_bytes()[:60])
    assert "a damaged file" in error_line(lambda: survey(paths), f"picture: {paths[1]}")


# ------------------------------------------------------------------------------------------------
# Painting
# ------------------------------------------------------------------------------------------------

FRAMES = [smooth_picture(40, 60)[4:36, 2 * n : 2 * n + 32] for n in range(4)]
DIFFERENCE = FilmSettings(method="difference", iterations=2)


def film(temporal: FilmSettings = DIFFERENCE, **changes: Any) -> Film:
    style = structured_picture(32, 32, 1)
    return replace(Film((style,), SHALLOW, temporal, 32, 32), **changes)


def shots_of(
    folder: Path, a_film: Film, frames: Sequence[NDArray[Any]] = FRAMES, out: str = "out"
) -> list[Shot]:
    paths = write_frames(folder / "in", frames)
    (folder / out).mkdir(exist_ok=True)
    outputs = [folder / out / path.name for path in paths]
    return plan_shots(survey(paths).frames, outputs, a_film, FIXED)


def painted(folder: Path, a_film: Film, out: str = "out", **options: Any) -> list[bytes]:
    shots = shots_of(folder, a_film, out=out)
    for shot in shots:
        paint_shot(a_film, shot, FIXED, threads=1, **options)
    return [frame.output.read_bytes() for shot in shots for frame in shot.frames]


FLO = "flo"  # stands for a folder of .flo files
METHODS = [
    DIFFERENCE,
    pytest.param(FilmSettings(method="none"), id="none"),
    pytest.param(FLO, id="flo"),
]


def temporal_of(method: Any, folder: Path) -> FilmSettings:
    """The settings; of FLO, with the flows of FRAMES written to a folder."""
    if method != FLO:
        assert isinstance(method, FilmSettings)
        return method
    flo = folder / "flo"
    flo.mkdir(exist_ok=True)
    for later in range(2, 5):
        for step in (1, 2):
            backward, forward = flows.flow_names(later - step, later)
            flows.write_flo(flo / backward, constant_flow(32, 32, 2 * step, 0))
            flows.write_flo(flo / forward, constant_flow(32, 32, -2 * step, 0))
    return FilmSettings(flow=str(flo), iterations=2, long_term=(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_shot_is_painted_and_continued_to_the_same_bits(method: Any, tmp_path: Path) -> None:
    a_film = film(temporal_of(method, tmp_path))
    whole = painted(tmp_path, a_film)
    assert len(set(whole)) == 4
    [shot, *others] = shots_of(tmp_path, a_film)
    assert len(others) == (3 if method != FLO and method.method == "none" else 0)
    for frame in (whole_frames := [f for s in (shot, *others) for f in s.frames])[2:]:
        frame.output.unlink()
    first = whole_frames[0].output.stat().st_mtime_ns
    assert painted(tmp_path, a_film) == whole
    assert whole_frames[0].output.stat().st_mtime_ns == first  # was not painted again


@pytest.mark.parametrize("color", ["style", "match", "luminance"])
def test_frames_follow_the_one_before(color: Any, tmp_path: Path) -> None:
    """With a heavy weight a frame is the one before, plus what changed in the film."""
    heavy = film(
        replace(DIFFERENCE, temporal_weight=1e6), settings=replace(SHALLOW, color=color, style_weight=1.0)
    )
    painted(tmp_path, heavy)
    a, b = (images.read(tmp_path / f"out/frame_{n}.png").astype(float) for n in (1, 2))
    target = np.clip(a + FRAMES[1].astype(float) - FRAMES[0], 0, 255)
    if color == "luminance":  # colors are the film's own
        a, b, target = (pixels @ np.array([0.299, 0.587, 0.114]) for pixels in (a, b, target))
    assert np.abs(b - target).mean() < 4 < np.abs(b - a).mean()


def test_frames_follow_the_flow(tmp_path: Path) -> None:
    heavy = film(replace(temporal_of(FLO, tmp_path), temporal_weight=1e6))
    painted(tmp_path, heavy)
    a, b = (images.read(tmp_path / f"out/frame_{n}.png").astype(float) for n in (1, 2))
    inner = slice(4, -4)
    followed = np.abs(b[inner, 2:-6] - a[inner, 4:-4]).mean()
    assert followed < np.abs(b[inner, 2:-6] - a[inner, 2:-6]).mean() / 4


def test_shots_are_independent(tmp_path: Path) -> None:
    """Each has the same bits alone, after a pickle, in any order."""
    frames = [*FRAMES[:2], *(255 - frame // 2 for frame in FRAMES[:2])]
    a_film = film()
    shots = shots_of(tmp_path, a_film, frames)
    assert [len(shot.frames) for shot in shots] == [2, 2]
    for shot in shots:
        paint_shot(a_film, shot, FIXED, threads=1)
    backwards = shots_of(tmp_path, a_film, frames, out="other")[::-1]
    for job in pickle.loads(pickle.dumps([(a_film, shot, FIXED) for shot in backwards])):
        paint_shot(*job, threads=1)
    pairs = zip(shots, backwards[::-1], strict=True)
    for one, other in ((a, b) for s, t in pairs for a, b in zip(s.frames, t.frames, strict=True)):
        assert one.output.read_bytes() == other.output.read_bytes()


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    a_film = film()
    [shot] = shots_of(tmp_path, a_film)
    stranger = shot.frames[2].output
    images.write(stranger, FRAMES[0])
    before = stranger.read_bytes()
    line = error_line(lambda: paint_shot(a_film, shot, FIXED, threads=1), f"frame: {stranger}")
    assert "not of this film" in line
    assert stranger.read_bytes() == before
    assert not shot.frames[0].output.exists()  # said before anything was painted
    paint_shot(a_film, shot, FIXED, threads=1, overwrite=True)
    assert stranger.read_bytes() != before


@pytest.mark.parametrize(
    "change",
    [
        {"temporal": replace(DIFFERENCE, feature_weight=2.0)},
        {"settings": replace(SHALLOW, style_weight=2.0)},
        {"styles": (structured_picture(32, 32, 2),)},
        {"seed": 1},
    ],
)
def test_key_changes_with_all_that_a_frame_depends_on(change: dict[str, Any]) -> None:
    assert painting.film_key(film(**change), FIXED) != painting.film_key(film(), FIXED)


def test_key_changes_with_earlier_frames_of_the_shot_only(tmp_path: Path) -> None:
    def keys(frames: Sequence[NDArray[Any]]) -> list[str]:
        return [frame.key for shot in shots_of(tmp_path, film(), frames) for frame in shot.frames]

    changed = FRAMES[2].copy()
    changed[0, 0] = 0
    before, after = keys(FRAMES), keys([*FRAMES[:2], changed, FRAMES[3]])
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize("method", METHODS)
def test_frames_that_are_added_change_no_key(method: Any, tmp_path: Path) -> None:
    a_film = film(temporal_of(method, tmp_path))
    few, all_of_them = (
        [frame.key for shot in shots_of(tmp_path, a_film, FRAMES[:count]) for frame in shot.frames]
        for count in (3, 4)
    )
    assert few == all_of_them[:3]
    assert len(set(all_of_them)) == 4


def test_missing_flow_is_named_before_painting(tmp_path: Path) -> None:
    temporal = temporal_of(FLO, tmp_path)
    path = Path(temporal.flow) / "forward_2_3.flo"
    path.unlink()
    assert "No such file" in error_line(lambda: shots_of(tmp_path, film(temporal)), f"flow: {path}")


@pytest.mark.parametrize(
    ("call", "name", "found"),
    [
        (lambda: FilmSettings(method="magic"), "method", "'magic'"),  # type: ignore[arg-type]
        (lambda: FilmSettings(method="none", temporal_weight=-1), "temporal_weight", "-1"),
        (lambda: FilmSettings(method="none", iterations=-1), "frame_iterations", "-1"),
        (lambda: FilmSettings(method="none", long_term=(2,)), "long_term", "(2,)"),
        (lambda: film(settings=replace(SHALLOW, color="luma")), "color", "luma"),
    ],
)
def test_settings_that_can_not_be_are_refused(call: Any, name: str, found: str) -> None:
    assert error_line(call, name).startswith(f"found {found}; expected ")
