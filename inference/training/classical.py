"""The `classical` model set: exact mathematics written as ONNX graphs, the peer of everything that is trained."""

# The annotations below are ONNX tensor types with named axes, which linters take for undefined names.
# ruff: noqa: F821
# mypy: ignore-errors

from pathlib import Path

import onnx
import onnx.inliner
from onnxscript import FLOAT, INT64, UINT16, script
from onnxscript import opset20 as op

from inference.registry import SLOTS, TENSORS, ModelCard, Part, write_card

NAME = "classical"
DESCRIPTION = (
    "Calibrated difference over sum for any three or more segments, with propagated photon noise; linear "
    "re-rendering; Neumann Poisson integration of forward differences by cosine transform."
)
PART = Part(command="eclips train classical", data="none: nothing is trained", seed=0, hours=0.0, figures={})
VERSION = "2"


@script()
def slopes(
    images: UINT16["S", "H", "W"],
    inversion: FLOAT[3, "S"],
    gain_counts_per_electron: FLOAT["S"],
    dark_counts: FLOAT["S"],
    flat_share: FLOAT,
    saturation_counts: FLOAT,
    frames_held: FLOAT["H", "W"],
):
    """Counts to slopes on the staggered grid, their standard deviations, and rejected pixels.

    Electrons have their own number, over the frames that a pixel is the mean of, as variance.
    With a = v_x / v_b and b = v_y / v_b of the inverted electrons v, the unit length of the normal gives n_z for any
    `flat_share`; the derivatives of p and q by a and b carry the photon noise through. Pixels of less than one
    electron have no signal; beyond 75 degrees (n_z below 0.2588) only clipped or noisy pixels lie, so they are cut.
    """
    counts = op.Cast(images, to=1)
    gain = op.Unsqueeze(gain_counts_per_electron, op.Constant(value_ints=[1, 2]))
    dark = op.Unsqueeze(dark_counts, op.Constant(value_ints=[1, 2]))
    electrons = (counts - dark) / gain
    size = op.Shape(images, start=1, end=3)
    flat = op.Reshape(electrons, op.Constant(value_ints=[0, -1]))
    variance = op.Max(flat, op.Constant(value_float=1.0)) / op.Reshape(frames_held, op.Constant(value_ints=[1, -1]))

    vx, vy, vb = op.Split(op.MatMul(inversion, flat), num_outputs=3, axis=0)
    dim = vb < 1.0
    saturated = op.ReduceMax(counts, op.Constant(value_ints=[0]), keepdims=0) >= saturation_counts
    safe_vb = op.Where(dim, op.Constant(value_float=1.0), vb)
    nothing = op.Constant(value_float=0.0)
    a = op.Where(dim, nothing, vx / safe_vb)
    b = op.Where(dim, nothing, vy / safe_vb)

    offset_share = 1.0 - flat_share
    r2 = a * a + b * b
    under_root = 1.0 + r2 * (flat_share * flat_share - offset_share * offset_share)
    root = op.Sqrt(op.Max(under_root, op.Constant(value_float=1.0e-6)))
    nz_any = (root - r2 * flat_share * offset_share) / (1.0 + r2 * flat_share * flat_share)
    nz = op.Max(nz_any, op.Constant(value_float=0.2588190451025207))
    unusable = op.Or(dim, op.Reshape(saturated, op.Constant(value_ints=[1, -1])))
    rejected_row = op.Or(unusable, nz_any < nz)
    base = flat_share * nz + offset_share
    k = base / nz
    p_centre = op.Reshape(0.0 - a * k, size)
    q_centre = op.Reshape(0.0 - b * k, size)

    px, py, pb = op.Split(inversion, num_outputs=3, axis=0)
    products = op.Concat(px * px, py * py, pb * pb, px * pb, py * pb, px * py, axis=0)
    cxx, cyy, cbb, cxb, cyb, cxy = op.Split(op.MatMul(products, variance), num_outputs=6, axis=0)
    vb2 = safe_vb * safe_vb
    var_a = (cxx - 2.0 * a * cxb + a * a * cbb) / vb2
    var_b = (cyy - 2.0 * b * cyb + b * b * cbb) / vb2
    cov_ab = (cxy - a * cyb - b * cxb + a * b * cbb) / vb2
    dk = offset_share * base * base / (2.0 * nz * nz * (r2 * flat_share * base + nz))
    pa = k + 2.0 * a * a * dk
    qb = k + 2.0 * b * b * dk
    cross = 2.0 * a * b * dk
    var_p = pa * pa * var_a + 2.0 * pa * cross * cov_ab + cross * cross * var_b
    var_q = qb * qb * var_b + 2.0 * qb * cross * cov_ab + cross * cross * var_a
    ceiling = op.Constant(value_float=100.0)
    var_p_all = op.Reshape(op.Where(rejected_row, ceiling, op.Clip(var_p, nothing, ceiling)), size)
    var_q_all = op.Reshape(op.Where(rejected_row, ceiling, op.Clip(var_q, nothing, ceiling)), size)

    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    before_last = op.Constant(value_ints=[-1])
    last = op.Constant(value_ints=[2147483647])
    rows = op.Constant(value_ints=[0])
    columns = op.Constant(value_ints=[1])
    p_left = op.Slice(p_centre, first, before_last, columns)
    p_right = op.Slice(p_centre, second, last, columns)
    q_above = op.Slice(q_centre, first, before_last, rows)
    q_below = op.Slice(q_centre, second, last, rows)
    p = 0.5 * (p_left + p_right)
    q = 0.5 * (q_above + q_below)
    var_left = op.Slice(var_p_all, first, before_last, columns)
    var_right = op.Slice(var_p_all, second, last, columns)
    var_above = op.Slice(var_q_all, first, before_last, rows)
    var_below = op.Slice(var_q_all, second, last, rows)
    sigma_p = 0.5 * op.Sqrt(var_left + var_right)
    sigma_q = 0.5 * op.Sqrt(var_above + var_below)
    rejected = op.Reshape(op.Cast(rejected_row, to=2), size)
    return p, q, sigma_p, sigma_q, rejected


@script()
def rerender(
    images: UINT16["S", "H", "W"],
    p: FLOAT["H", "V"],
    q: FLOAT["U", "W"],
    response: FLOAT["S", 3],
    gain_counts_per_electron: FLOAT["S"],
    dark_counts: FLOAT["S"],
    flat_share: FLOAT,
    frames_held: FLOAT["H", "W"],
):
    """Slopes back to the counts that they explain, and how far the measured counts lie from them in units of noise.

    The brightness of each pixel is its likeliest one under Poisson noise: all electrons over all that a unit of
    brightness would give.
    """
    half = op.Constant(value_float=0.5)
    p_padded = op.Pad(p, op.Constant(value_ints=[0, 1, 0, 1]), mode="edge")
    q_padded = op.Pad(q, op.Constant(value_ints=[1, 0, 1, 0]), mode="edge")
    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    before_last = op.Constant(value_ints=[-1])
    last = op.Constant(value_ints=[2147483647])
    rows = op.Constant(value_ints=[0])
    columns = op.Constant(value_ints=[1])
    p_centre = half * (op.Slice(p_padded, first, before_last, columns) + op.Slice(p_padded, second, last, columns))
    q_centre = half * (op.Slice(q_padded, first, before_last, rows) + op.Slice(q_padded, second, last, rows))
    nz = 1.0 / op.Sqrt(1.0 + p_centre * p_centre + q_centre * q_centre)
    base = flat_share * nz + (1.0 - flat_share)
    nx = 0.0 - p_centre * nz
    ny = 0.0 - q_centre * nz
    row = op.Constant(value_ints=[1, -1])
    normals = op.Concat(op.Reshape(nx, row), op.Reshape(ny, row), op.Reshape(base, row), axis=0)
    shares = op.Reshape(op.MatMul(response, normals), op.Shape(images))
    gain = op.Unsqueeze(gain_counts_per_electron, op.Constant(value_ints=[1, 2]))
    dark = op.Unsqueeze(dark_counts, op.Constant(value_ints=[1, 2]))
    measured = (op.Cast(images, to=1) - dark) / gain
    over_segments = op.Constant(value_ints=[0])
    total_share = op.Max(op.ReduceSum(shares, over_segments, keepdims=1), op.Constant(value_float=1.0e-6))
    brightness = op.ReduceSum(measured, over_segments, keepdims=1) / total_share
    electrons = shares * op.Max(brightness, op.Constant(value_float=0.0))
    predicted = electrons * gain + dark
    off = measured - electrons
    chi2 = frames_held * off * off / op.Max(electrons, op.Constant(value_float=1.0))
    residual = op.Sqrt(op.ReduceMean(chi2, op.Constant(value_ints=[0]), keepdims=0))
    return predicted, residual


@script()
def _cosines(modes: INT64["K"], n: INT64) -> FLOAT["K", "M"]:
    """Those rows of the orthonormal DCT-II matrix [k, i], on the first half of the places, which the second mirrors.
    Angles are reduced in integers, so float32 holds them at any size."""
    one = op.Constant(value_int=1)
    i = op.Unsqueeze(op.Range(op.Constant(value_int=0), (n + one) / 2, one), op.Constant(value_ints=[0]))
    k = op.Unsqueeze(modes, op.Constant(value_ints=[1]))
    turns = op.Mod((2 * i + 1) * k, 4 * n)
    size = op.Cast(n, to=1)
    angles = op.Cast(turns, to=1) * (1.5707963267948966 / size)
    scale = op.Where(op.Equal(k, op.Constant(value_int=0)), op.Sqrt(1.0 / size), op.Sqrt(2.0 / size))
    return op.Cos(angles) * scale


@script()
def _even_modes(n: INT64) -> INT64["K"]:
    return op.Range(op.Constant(value_int=0), n, op.Constant(value_int=2))


@script()
def _odd_modes(n: INT64) -> INT64["K"]:
    return op.Range(op.Constant(value_int=1), n, op.Constant(value_int=2))


@script()
def _eigenvalues(n: INT64) -> FLOAT["N"]:
    """Of the negative second difference with Neumann ends, even modes first: 2 - 2 cos(pi k / n), in the form that
    keeps small ones."""
    k = op.Concat(_even_modes(n), _odd_modes(n), axis=0)
    half = op.Sin(op.Cast(k, to=1) * (1.5707963267948966 / op.Cast(n, to=1)))
    return 4.0 * half * half


@script()
def _to_modes(maps: FLOAT["N", "M"], n: INT64) -> FLOAT["N", "M"]:
    """The cosine transform along the rows' axis, even modes first: both kinds are products of half the size, with
    the sum and the difference of both halves. The middle of an odd count has no mirror image."""
    one = op.Constant(value_int=1)
    rows = op.Constant(value_ints=[0])
    half = op.Unsqueeze((n + one) / 2, rows)
    first = op.Slice(maps, op.Constant(value_ints=[0]), half, rows)
    mirrored = op.Slice(
        maps, op.Constant(value_ints=[-1]), op.Constant(value_ints=[-1]) - half, rows, op.Constant(value_ints=[-1])
    )
    places = op.Range(op.Constant(value_int=0), (n + one) / 2, one)
    is_middle = op.Equal(2 * places + 1, n)
    once = op.Where(is_middle, op.Constant(value_float=0.5), op.Constant(value_float=1.0))
    even = op.MatMul(_cosines(_even_modes(n), n), op.Unsqueeze(once, op.Constant(value_ints=[1])) * (first + mirrored))
    odd = op.MatMul(_cosines(_odd_modes(n), n), first - mirrored)
    return op.Concat(even, odd, axis=0)


@script()
def _from_modes(modes: FLOAT["N", "M"], n: INT64) -> FLOAT["N", "M"]:
    """What `_to_modes` came from."""
    rows = op.Constant(value_ints=[0])
    half = op.Unsqueeze((n + op.Constant(value_int=1)) / 2, rows)
    all_even = op.Slice(modes, op.Constant(value_ints=[0]), half, rows)
    all_odd = op.Slice(modes, half, op.Constant(value_ints=[2147483647]), rows)
    even = op.MatMul(op.Transpose(_cosines(_even_modes(n), n), perm=[1, 0]), all_even)
    odd = op.MatMul(op.Transpose(_cosines(_odd_modes(n), n), perm=[1, 0]), all_odd)
    last = op.Unsqueeze(n / 2, rows) - op.Constant(value_ints=[1])
    back = op.Slice(even - odd, last, op.Constant(value_ints=[-2147483648]), rows, op.Constant(value_ints=[-1]))
    return op.Concat(even + odd, back, axis=0)


@script()
def integrate(
    p: FLOAT["H", "V"],
    q: FLOAT["U", "W"],
    sigma_p: FLOAT["H", "V"],
    sigma_q: FLOAT["U", "W"],
    residual: FLOAT["H", "W"],
    pixel_size_m: FLOAT,
    pixel_size_y_m: FLOAT,
):
    """The height of zero mean whose forward differences are nearest to the slopes, and the rms misfit in slopes.

    Least squares with natural (inhomogeneous Neumann) borders. Sigmas and residual are the slot's, unused here.
    """
    columns_n = op.Squeeze(op.Shape(q, start=1, end=2))
    rows_n = op.Squeeze(op.Shape(p, start=0, end=1))
    aspect = pixel_size_m / pixel_size_y_m
    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    before_last = op.Constant(value_ints=[-1])
    last = op.Constant(value_ints=[2147483647])
    rows = op.Constant(value_ints=[0])
    columns = op.Constant(value_ints=[1])
    p_padded = op.Pad(p, op.Constant(value_ints=[0, 1, 0, 1]))
    q_padded = op.Pad(q, op.Constant(value_ints=[1, 0, 1, 0]))
    from_x = op.Slice(p_padded, first, before_last, columns) - op.Slice(p_padded, second, last, columns)
    from_y = op.Slice(q_padded, first, before_last, rows) - op.Slice(q_padded, second, last, rows)
    source = from_x + aspect * from_y
    spectrum = _to_modes(op.Transpose(_to_modes(source, rows_n), perm=[1, 0]), columns_n)
    over_x = op.Unsqueeze(_eigenvalues(columns_n), op.Constant(value_ints=[1]))
    over_y = op.Unsqueeze(_eigenvalues(rows_n), op.Constant(value_ints=[0]))
    eigen = over_x + aspect * aspect * over_y
    is_mean = eigen <= 0.0
    solved = op.Where(
        is_mean, op.Constant(value_float=0.0), spectrum / op.Where(is_mean, op.Constant(value_float=1.0), eigen)
    )
    in_pixels = _from_modes(op.Transpose(_from_modes(solved, columns_n), perm=[1, 0]), rows_n)
    along_x = op.Slice(in_pixels, second, last, columns) - op.Slice(in_pixels, first, before_last, columns)
    along_y = op.Slice(in_pixels, second, last, rows) - op.Slice(in_pixels, first, before_last, rows)
    off_x = along_x - p
    off_y = aspect * along_y - q
    misfit = op.Sqrt(0.5 * (op.ReduceMean(off_x * off_x, keepdims=0) + op.ReduceMean(off_y * off_y, keepdims=0)))
    height = in_pixels * pixel_size_m
    return height, misfit


def export_classical(folder: Path) -> list[Path]:
    """Write the three graphs and the card of the set to `folder`; returns the files. The same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"slopes": slopes, "rerender": rerender, "integrate": integrate}
    paths = []
    for slot, graph in graphs.items():
        model = onnx.inliner.inline_local_functions(graph.to_model_proto())
        model.ir_version = 10
        del model.graph.value_info[:]
        names = tuple(value.name for value in model.graph.output)
        if names != SLOTS[slot].outputs:
            raise RuntimeError(f"{slot}: outputs are {names}, the slot has {SLOTS[slot].outputs}")
        del model.graph.output[:]
        model.graph.output.extend(_typed(name) for name in names)
        onnx.checker.check_model(model)
        path = folder / f"{slot}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        paths.append(path)
    parts = dict.fromkeys(SLOTS, PART)
    card = ModelCard(name=NAME, version=VERSION, description=DESCRIPTION, parts=parts, folder=folder)
    return [*paths, write_card(card)]


def _typed(output: str) -> onnx.ValueInfoProto:
    """An output with the type and axes of its slot, which the script leaves open."""
    kind, axes = TENSORS[output]
    return onnx.helper.make_tensor_value_info(output, _ELEMENTS[kind], axes)


_ELEMENTS = {"float": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8, "uint16": onnx.TensorProto.UINT16}
