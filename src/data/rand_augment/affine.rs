//! Affine transforms of 8-bit RGB pictures, with Pillow's cubics.

/// By how much a place in the result is moved to find its place in the picture:
/// x = a x' + b y' + c, y = d x' + e y' + f.
pub type Matrix = [f64; 6];

/// Turns anticlockwise about the middle of a picture of this side.
pub fn rotation(degrees: f64, side: f64) -> Matrix {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let middle = side / 2.0;
    [
        cos,
        sin,
        middle - (cos + sin) * middle,
        -sin,
        cos,
        middle - (cos - sin) * middle,
    ]
}

/// Replaces a picture of `side` x `side` pixels by its transform. What would come
/// from outside is `fill`.
pub fn transform(picture: &mut [u8], side: usize, fill: [u8; 3], matrix: Matrix) {
    let old = picture.to_vec();
    let [a, b, c, d, e, f] = matrix;
    let inside = 0.0..side as f64;
    for (at, pixel) in picture.chunks_exact_mut(3).enumerate() {
        let [x, y] = [at % side, at / side].map(|x| x as f64 + 0.5);
        let (x, y) = (a * x + b * y + c, d * x + e * y + f);
        let new = match inside.contains(&x) && inside.contains(&y) {
            true => sample(&old, side, x - 0.5, y - 0.5),
            false => fill,
        };
        pixel.copy_from_slice(&new);
    }
}

/// The colour at a place between the middles of pixels; the border is repeated.
fn sample(picture: &[u8], side: usize, x: f64, y: f64) -> [u8; 3] {
    let taps = |at: f64| {
        [-1, 0, 1, 2].map(|offset| (at.floor() as i64 + offset).clamp(0, side as i64 - 1) as usize)
    };
    let (columns, rows) = (taps(x), taps(y));
    let (dx, dy) = (x - x.floor(), y - y.floor());
    std::array::from_fn(|channel| {
        let row = |y: usize| {
            let value = |x: usize| f64::from(picture[(y * side + x) * 3 + channel]);
            cubic(columns.map(value), dx)
        };
        // The cast clamps, and cuts off what is after the point.
        cubic(rows.map(row), dy) as u8
    })
}

/// Between the second and the third value, the slopes those of the neighbours.
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let (p2, p3, p4) = (v3 - v1, 2.0 * (v1 - v2) + v3 - v4, v2 - v1 - v3 + v4);
    v2 + d * (p2 + d * (p3 + d * p4))
}
